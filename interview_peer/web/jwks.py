"""The public keys of an identity provider, fetched from its JWKS address and kept for a while.

Only keys for RS256 and ES256 are taken. An unknown key id leads to another fetch, but not more
often than once a minute: tokens cost nothing to invent.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Final

import aiohttp
import jwt

from ..errors import KeysUnavailable

log = logging.getLogger(__name__)

ALGORITHMS: Final = frozenset({"RS256", "ES256"})
FRESH_SECONDS: Final = 3600.0
PAUSE_SECONDS: Final = 60.0
"""Between two fetches for the sake of an unknown key id."""
AGAIN_SECONDS: Final = 5.0
"""Between two fetches when the last one failed."""
FETCH_SECONDS: Final = 5.0
MAX_BYTES: Final = 256 * 1024


class Jwks:
    """The keys at one address, by their ids."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched = -FRESH_SECONDS
        self._tried = -FRESH_SECONDS
        self._lock = asyncio.Lock()

    async def find(self, key_id: str | None, algorithm: str) -> jwt.PyJWK | None:
        """The key of that id, for that algorithm alone; nothing if there is none.

        A token without an id gets the only key, if there is but one.

        Raises:
            KeysUnavailable: no keys could be fetched yet.
        """
        key = self._known(key_id)
        if key is None or time.monotonic() - self._fetched > FRESH_SECONDS:
            async with self._lock:
                key = self._known(key_id)
                if self._due(key is not None, time.monotonic()):
                    await self._fetch()
                    key = self._known(key_id)
        if key is None and not self._keys:
            raise KeysUnavailable
        return key if key is not None and key.algorithm_name == algorithm else None

    def _known(self, key_id: str | None) -> jwt.PyJWK | None:
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    def _due(self, known: bool, now: float) -> bool:
        if now - self._tried < AGAIN_SECONDS:
            return False
        return now - self._fetched > (FRESH_SECONDS if known else PAUSE_SECONDS)

    async def _fetch(self) -> None:
        """Replace the keys; on any failure the ones we have stay in force."""
        self._tried = time.monotonic()
        try:
            self._keys = _usable(await self._download())
            self._fetched = time.monotonic()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, jwt.PyJWTError) as error:
            log.warning(
                "the keys of the identity provider cannot be fetched",
                extra={"error": type(error).__name__},
            )

    async def _download(self) -> object:
        timeout = aiohttp.ClientTimeout(total=FETCH_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as http,
            http.get(self._url, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise ValueError("not 200")
            body = await response.content.read(MAX_BYTES + 1)
            while len(body) <= MAX_BYTES and not response.content.at_eof():
                body += await response.content.read(MAX_BYTES + 1 - len(body))
        if len(body) > MAX_BYTES:
            raise ValueError("too large")
        return json.loads(body)


def _usable(document: object) -> dict[str | None, jwt.PyJWK]:
    if not isinstance(document, dict) or not isinstance(listed := document.get("keys"), list):
        raise ValueError("not a key set")
    keys: dict[str | None, jwt.PyJWK] = {}
    for one in listed:
        if not isinstance(one, dict) or one.get("use", "sig") != "sig":
            continue
        try:
            key = jwt.PyJWK(one)
        except (jwt.PyJWTError, ValueError, TypeError):
            # Kinds of keys that we do not know are none of ours.
            continue
        if key.algorithm_name in ALGORITHMS:
            keys[key.key_id] = key
    return keys
