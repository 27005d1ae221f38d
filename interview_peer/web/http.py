"""The HTTP server beneath the application: callers' faults that aiohttp would answer itself.

A request that cannot be parsed, or expects what we do not do, never reaches the application's
middlewares. Here it gets an error in our own form, and no traceback in the log: anybody can send
such a thing as often as they like. Connections are bounded here too, in their number and in the
time that they take to say what they want.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from aiohttp import StreamReader, hdrs, web

from ..errors import CallerError, ExpectationFailed, RateLimited, RequestTooSlow
from . import forms
from .limits import LIMITS, Limits
from .origins import bare

log = logging.getLogger(__name__)


LINGER_SECONDS: Final = 1.0
"""How long a client that was too slow may take to read that; what it still sends is dropped."""
IDLE_SECONDS: Final = 75.0
"""How long a connection is kept for a further request; proxies keep theirs for a minute."""


class Runner(web.AppRunner):
    """Runs an application, which has ``LIMITS``, behind a server of this module."""

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        server = _Server(made.request_handler, request_factory=made.request_factory)
        server.limits = self.app[LIMITS]
        return server


class _Server(web.Server):
    limits: Limits

    def __call__(self) -> web.RequestHandler:
        # Compressed bodies are refused by the application, in its own form; decompressing them
        # before would let a small request become a large one.
        return _Connection(
            self,
            loop=asyncio.get_running_loop(),
            auto_decompress=False,
            keepalive_timeout=IDLE_SECONDS,
        )


class _Connection(web.RequestHandler):
    __slots__ = ("_body_late", "_caller", "_crowded", "_head_late", "_over", "_server")

    def __init__(self, server: _Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server
        self._head_late: asyncio.TimerHandle | None = None
        self._body_late: asyncio.TimerHandle | None = None
        self._caller: str | None = None
        self._crowded = False
        self._over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        limits, count = self._server.limits, len(self._server.connections)
        peer = transport.get_extra_info("peername")
        try:
            if count > limits.connections:
                raise RateLimited
            self._caller = limits.enter(peer[0] if peer else None)
        except RateLimited:
            limits.refused["connections"] += 1
            self.force_close()
        else:
            # The last places are for one request each.
            self._crowded = count > limits.connections - limits.sockets.kept
            self._expect_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timers()
        caller, self._caller = self._caller, None
        if caller is not None:
            self._server.limits.addresses.leave(caller)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        super().data_received(data)
        # aiohttp waits for the rest of a head for as long as a client likes to drip it.
        if not (self._request_in_progress or self._messages or self._force_close):
            self._expect_head()

    def _expect_head(self) -> None:
        if self._head_late is None:
            loop = asyncio.get_running_loop()
            self._head_late = loop.call_later(self._server.limits.request_seconds, self._drop)

    def _drop(self) -> None:
        self._server.limits.refused["slow"] += 1
        self.force_close()

    def _expect_body(self, body: StreamReader) -> None:
        loop = asyncio.get_running_loop()
        self._body_late = loop.call_later(self._server.limits.request_seconds, self._give_up, body)

    def _give_up(self, body: StreamReader) -> None:
        """Whoever reads the body hears why there is no more of it; the connection is over."""
        if not body.is_eof():
            self._server.limits.refused["slow"] += 1
            self._lingering_time = 0.0
            body.set_exception(RequestTooSlow())

    async def _linger(self) -> None:
        """Let the answer arrive: closing with bytes unread would take it back from the client."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        self._over = True
        if transport.can_write_eof():
            transport.write_eof()
        await asyncio.sleep(LINGER_SECONDS)

    def _stop_timers(self) -> None:
        for timer in (self._head_late, self._body_late):
            if timer is not None:
                timer.cancel()
        self._head_late = self._body_late = None

    async def _handle_request(
        self, request: web.BaseRequest, start_time: float | None, request_handler: forms.Answer
    ) -> tuple[web.StreamResponse, bool]:
        self._stop_timers()
        if request.headers.get(hdrs.EXPECT, "100-continue").lower() != "100-continue":
            request_handler = _refuse_expectation
        if not request.content.is_eof():
            self._expect_body(request.content)
        try:
            answered = await super()._handle_request(request, start_time, request_handler)
            if self._lingering_time == 0:
                await self._linger()
            return answered
        finally:
            self._stop_timers()
            if self._crowded:
                self.close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status != 400 or request.writer.output_size > 0:
            return bare(super().handle_error(request, status, exc, message))
        log.debug("a request could not be parsed", extra={"error": type(exc).__name__})
        response = forms.error_response(
            request.path,
            CallerError("The request is not HTTP that could be read; a header may be too long."),
        )
        response.force_close()
        return bare(response)


async def _refuse_expectation(request: web.BaseRequest) -> web.StreamResponse:
    response = forms.error_response(request.path, ExpectationFailed())
    # The client may never send the body it announced.
    response.force_close()
    return bare(response)
