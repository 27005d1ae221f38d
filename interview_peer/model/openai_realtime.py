"""Asks OpenAI (or the simulator) for a call, hangs it up, and asks for what is known of a model.

One HTTP request each; what is said and heard goes over the leg that the call's answer
connects. This is the only place that holds the API key, and nothing of an upstream body ever
leaves it: errors carry sentences of our own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import aiohttp

from ..core import sdp
from ..errors import (
    OutOfDescriptors,
    UpstreamAuthFailed,
    UpstreamError,
    UpstreamInvalidAnswer,
    UpstreamRateLimited,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from ..media.descriptors import ran_out
from ..types import Json

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES: Final = 256 * 1024
CREATE_SECONDS: Final = 15.0
HANG_UP_SECONDS: Final = 5.0
GIVE_UP_SECONDS: Final = 3.0
"""How long the reply to an abandoned create call is awaited, to hang it up."""

MODEL_SECONDS: Final = 10.0

_CALL_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")


@dataclass(frozen=True, slots=True)
class Call:
    """A call that the service accepted."""

    id: str | None
    """From ``Location``; without it the call can only end by its connection closing."""
    answer_sdp: str


class RealtimeConnector:
    """The service's HTTP side, for the whole process.

    Args:
        base_url: as in ``https://api.openai.com/v1``.
        api_key: standard key of the project.
        http: shared client session; the caller closes it.
    """

    def __init__(self, base_url: str, api_key: str, http: aiohttp.ClientSession) -> None:
        self._base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._http = http
        self._given_up: set[asyncio.Task[None]] = set()

    async def create_call(self, offer_sdp: str, session: Json) -> Call:
        """Offer a connection with its complete session configuration.

        If the caller gives up meanwhile, the service may still accept: its reply is awaited a
        little longer, and such a call is hung up at once, for it would cost money.

        Raises:
            UpstreamError: or one of its kinds, by what the service did.
            OutOfDescriptors: no connection can be opened.
        """
        asking = asyncio.create_task(self._create(offer_sdp, session), name="create call")
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            giving_up = asyncio.create_task(self._give_up(asking), name="give up call")
            self._given_up.add(giving_up)
            giving_up.add_done_callback(self._given_up.discard)
            raise

    async def _give_up(self, asking: asyncio.Task[Call]) -> None:
        done, _ = await asyncio.wait([asking], timeout=GIVE_UP_SECONDS)
        if not done:
            asking.cancel()
            await asyncio.wait([asking])
        if not asking.cancelled() and asking.exception() is None:
            call_id = asking.result().id
            if call_id is not None:
                await self.hang_up(call_id)

    async def close(self) -> None:
        """Wait until no abandoned call is left."""
        if self._given_up:
            await asyncio.wait(self._given_up)

    async def _create(self, offer_sdp: str, session: Json) -> Call:
        form = aiohttp.FormData(default_to_multipart=True)
        form.add_field("sdp", offer_sdp, content_type="application/sdp")
        form.add_field("session", json.dumps(session), content_type="application/json")
        call_id: str | None = None
        try:
            async with (
                asyncio.timeout(CREATE_SECONDS),
                self._http.post(
                    f"{self._base_url}/realtime/calls",
                    data=form,
                    headers={**self._headers, "Accept": "application/sdp"},
                    allow_redirects=False,
                ) as response,
            ):
                if 200 <= response.status < 300:
                    call_id = _call_id(response.headers.get("Location", ""))
                body = await _read(response)
                if not 200 <= response.status < 300:
                    raise _refusal(response, body)
            return Call(call_id, _answer(body))
        except BaseException as error:
            if call_id is not None:
                # Accepted, and of no use to us: it would cost money until it gives up itself.
                await self.hang_up(call_id)
            if isinstance(error, TimeoutError):
                raise UpstreamTimeout from None
            if ran_out(error):
                raise OutOfDescriptors from None
            if isinstance(error, aiohttp.ClientError | OSError):
                log.warning("voice service unreachable", extra={"error": type(error).__name__})
                raise UpstreamUnreachable from None
            raise

    async def model(self, name: str) -> Json | None:
        """What the service says of a model; None if it has none of that name.

        Raises ``UpstreamError`` or one of its kinds, by what the service did.
        """
        try:
            async with (
                asyncio.timeout(MODEL_SECONDS),
                self._http.get(
                    f"{self._base_url}/models/{quote(name, safe='')}",
                    headers=self._headers,
                    allow_redirects=False,
                ) as response,
            ):
                body = await _read(response)
        except TimeoutError:
            raise UpstreamTimeout from None
        except (aiohttp.ClientError, OSError):
            raise UpstreamUnreachable from None
        if response.status == 404:
            return None
        if response.status != 200:
            raise _kind(response.status)
        try:
            described = json.loads(body)
        except (ValueError, RecursionError):
            raise UpstreamInvalidAnswer from None
        if not isinstance(described, dict):
            raise UpstreamInvalidAnswer
        return described

    async def hang_up(self, call_id: str) -> None:
        """End a call; it may be over already. Never raises for what the service says."""
        try:
            async with (
                asyncio.timeout(HANG_UP_SECONDS),
                self._http.post(
                    f"{self._base_url}/realtime/calls/{call_id}/hangup",
                    headers=self._headers,
                    allow_redirects=False,
                ) as response,
            ):
                if response.status not in (200, 202, 204, 404):
                    log.warning("hang-up was refused", extra={"status": response.status})
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            # The closed connection ends the call as well, only less promptly.
            log.warning("hang-up did not get through", extra={"error": type(error).__name__})


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = b""
    async for chunk in response.content.iter_chunked(16 * 1024):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise UpstreamInvalidAnswer
    return body


def _answer(body: bytes) -> str:
    """The body as an answer that can be used; else ``UpstreamInvalidAnswer``."""
    text = body.decode("utf-8", "replace")
    sdp.check_answer(text)
    if not sdp.candidate_lines(text):
        # Nothing more can follow over HTTP: there is nowhere to connect to.
        raise UpstreamInvalidAnswer
    return text


def _refusal(response: aiohttp.ClientResponse, body: bytes) -> UpstreamError:
    """Name what went wrong by status; log the service's own code, never its words."""
    request_id = response.headers.get("x-request-id", "")
    log.warning(
        "voice service refused the call",
        extra={
            "status": response.status,
            "upstream_code": _error_code(body),
            "request": request_id if _REQUEST_ID.fullmatch(request_id) else None,
        },
    )
    return _kind(response.status)


def _kind(status: int) -> UpstreamError:
    if status in (401, 403):
        return UpstreamAuthFailed()
    if status == 429:
        return UpstreamRateLimited()
    if 300 <= status < 500:
        return UpstreamRefused()
    return UpstreamError()


def _error_code(body: bytes) -> str | None:
    """The ``error.code`` of the service's JSON, whatever its content type said."""
    try:
        code = json.loads(body)["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return None
    return code if isinstance(code, str) and re.fullmatch(r"[a-z_]{1,64}", code) else None


def _call_id(location: str) -> str | None:
    """The last path segment of ``Location``, a query left out."""
    segment = location.partition("?")[0].rstrip("/").rpartition("/")[2]
    return segment if _CALL_ID.fullmatch(segment) else None
