"""One attempt: signs a notice, posts it, and says what came back.

Bounded in time and in what is read, follows no redirect, keeps no cookie, and reaches only what
the guard permits. What an outcome leads to is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver

from .. import __version__
from ..core.backoff import retry_after
from . import signing
from .guard import Guard
from .names import Names

TOTAL_SECONDS: Final = 15.0
CONNECT_SECONDS: Final = 5.0
MAX_ANSWER_BYTES: Final = 64 * 1024
"""Read of an answer so that its connection can be used again; a longer one is cut off."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one attempt went."""

    at: int
    """When it began, in microseconds."""
    milliseconds: int
    status: int | None = None
    """The answer's status; None if there was none."""
    error: str | None = None
    """Why there was none: one of a few fixed words, nothing that the other side chose."""
    asked: float | None = None
    """Seconds that the receiver wants to be left in peace."""


class Sender:
    """Holds the connections to receivers. ``open`` needs a running event loop."""

    def __init__(
        self,
        guard: Guard,
        *,
        total_seconds: float = TOTAL_SECONDS,
        connect_seconds: float = CONNECT_SECONDS,
        connections: int = 64,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self.guard = guard
        self.total_seconds = total_seconds
        self._timeout = aiohttp.ClientTimeout(
            total=total_seconds, connect=connect_seconds, sock_connect=connect_seconds
        )
        self._connections = connections
        self._resolver = resolver or Names()
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()
        await self._resolver.close()

    async def send(
        self, url: str, notice_id: str, body: bytes, secrets: Sequence[str], now: int
    ) -> Attempt:
        """Post one notice; never raises for anything the other side does.

        ``now`` (microseconds) is the attempt's time, as signed. A 2xx counts once its head has
        come, whatever becomes of its body.
        """
        began = time.monotonic()
        status: int | None = None
        error: str | None = None
        asked: float | None = None
        try:
            headers = signing.headers(notice_id, body, secrets, now // 1_000_000)
            async with self._session(url).post(
                url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                status = answer.status
                asked = retry_after(answer.headers.get("Retry-After"), now / 1e6)
                await _read_some(answer)
        except asyncio.CancelledError:
            raise
        except Exception as raised:
            if status is None:
                error = _word(raised)
        took = round((time.monotonic() - began) * 1000)
        return Attempt(now, took, status, error, asked)

    def _session(self, url: str) -> aiohttp.ClientSession:
        # Of whatever spelling: without TLS only allowed networks may be reached.
        secure = urlsplit(url).scheme != "http"
        if secure not in self._sessions:
            self._sessions[secure] = aiohttp.ClientSession(
                connector=self.guard.connector(
                    secure=secure, limit=self._connections, resolver=self._resolver
                ),
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                # Proxies of the environment would connect for us, unguarded.
                trust_env=False,
                # A small answer must not unfold into a large one.
                auto_decompress=False,
                headers={
                    "Content-Type": "application/json",
                    "User-Agent": f"interview_peer/{__version__}",
                    "Accept-Encoding": "identity",
                },
            )
        return self._sessions[secure]


async def _read_some(answer: aiohttp.ClientResponse) -> None:
    read = 0
    async for chunk in answer.content.iter_any():
        read += len(chunk)
        if read > MAX_ANSWER_BYTES:
            answer.close()
            return


def _word(error: Exception) -> str:
    """A fixed word for what went wrong before an answer came."""
    match error:
        case TimeoutError():
            return "timeout"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return "tls"
        case aiohttp.ClientConnectorDNSError():
            return "no_such_host"
        case aiohttp.ClientConnectorError(os_error=OSError(errno=errno.EACCES)):
            return "address_refused"
        case aiohttp.ClientConnectorError():
            return "cannot_connect"
        case aiohttp.InvalidURL():
            return "invalid_url"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | ConnectionError():
            return "connection_lost"
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError():
            return "invalid_answer"
        case signing.BadSecret():
            return "bad_secret"
        case _:
            return "failed"
