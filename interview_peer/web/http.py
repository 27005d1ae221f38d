"""The HTTP server beneath the application: callers' faults that aiohttp would answer itself.

A request that cannot be parsed, or expects what we do not do, never reaches the application's
middlewares. Here it gets an error in our own form, and no traceback in the log: anybody can send
such a thing as often as they like. Connections are bounded here too: in their number, in the time
that they take to say what they want and to read what they are told, and in what they send.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from aiohttp import StreamReader, hdrs, web

from ..core.allowance import Bucket
from ..errors import CallerError, ExpectationFailed, RateLimited, RequestTooSlow
from . import forms
from .delivery import Delivery
from .limits import LIMITS, Limits
from .origins import bare

log = logging.getLogger(__name__)


LINGER_SECONDS: Final = 1.0
"""How long a client may take to read an answer that was given before its body had arrived; what it
still sends is dropped."""
READ_BYTES: Final = 4096
"""Read at once, for what is read is parsed at once: some hundred of the smallest chunks."""
WRITE_BYTES: Final = 16 * 1024
"""What waits to be sent before a writer has to wait."""
FRAMING_BYTES: Final = 1024
FRAMING_SHARE: Final = 4
"""So many bytes, and one in so many, may be what a body is framed in: the sizes of its chunks."""
LOOKS: Final = 4
"""Within the time in which something must be taken of what is sent, it is looked for so often."""
IDLE_SECONDS: Final = 130.0
"""How long a connection is kept for a further request: longer than proxies keep theirs, nginx for
one minute and Caddy for two, for one closed here in the moment that it is used costs a request."""


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
        return Connection(
            self,
            loop=asyncio.get_running_loop(),
            auto_decompress=False,
            keepalive_timeout=IDLE_SECONDS,
            # What arrives of a body behind its answer is not parsed: ``_linger``.
            lingering_time=0.0,
        )


class Connection(web.RequestHandler):
    """One connection, be it one of requests or one that has become a WebSocket."""

    __slots__ = (
        "_arriving",
        "_body_late",
        "_caller",
        "_crowded",
        "_flooded",
        "_framed",
        "_gone",
        "_had",
        "_head_late",
        "_intake",
        "_line",
        "_look",
        "_over",
        "_resting",
        "_server",
        "delivery",
    )

    def __init__(self, server: _Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server
        self._head_late: asyncio.TimerHandle | None = None
        self._body_late: asyncio.TimerHandle | None = None
        self._caller: str | None = None
        self._crowded = False
        self._over = False
        self._line: asyncio.Transport | None = None
        self._intake = server.limits.intake()
        self._flooded: Callable[[], None] | None = None
        self._resting: asyncio.TimerHandle | None = None
        self._arriving: StreamReader | None = None
        self._framed = self._had = 0
        self.delivery: Delivery | None = None
        self._look: asyncio.TimerHandle | None = None
        self._gone: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        self._line = transport
        transport.set_write_buffer_limits(WRITE_BYTES)
        # What asyncio's own transports read at once; others have their own way.
        if hasattr(transport, "max_size"):
            transport.max_size = READ_BYTES
        limits, count = self._server.limits, len(self._server.connections)
        name = transport.get_extra_info("peername")
        peer = name[0] if name else None
        self.delivery = Delivery(transport, self._loop.time(), proxied=limits.trusts(peer))
        self._look_later()
        try:
            if count > limits.connections:
                raise RateLimited
            self._caller = limits.enter(peer)
        except RateLimited:
            limits.refused["connections"] += 1
            self.force_close()
        else:
            # The last places are for one request each.
            self._crowded = count > limits.connections - limits.sockets.kept
            self._expect_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timers()
        for timer in (self._look, self._resting):
            if timer is not None:
                timer.cancel()
        self._look = self._resting = self._line = self._flooded = None
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)
        caller, self._caller = self._caller, None
        if caller is not None:
            self._server.limits.addresses.leave(caller)
        super().connection_lost(exc)

    def watch(self, intake: Bucket, flooded: Callable[[], None]) -> None:
        """From now on ``intake`` is what may be sent; beyond it nothing is read any more.

        ``flooded`` is told so, once: it has to end the connection.
        """
        self._intake, self._flooded = intake, flooded
        if self._resting is not None:
            self._resting.cancel()
            self._go_on()

    def data_received(self, data: bytes) -> None:
        early = self._intake.take(len(data), self._loop.time())
        if early and self._line is not None:
            if self._over:
                self._line.pause_reading()
            elif self._flooded is not None:
                self._over = True
                self._line.pause_reading()
                self._flooded()
            else:
                self._rest(early)
        if self._over:
            return
        super().data_received(data)
        self._measure(len(data))
        # aiohttp waits for the rest of a head for as long as a client likes to drip it.
        if not (self._request_in_progress or self._messages or self._force_close):
            self._expect_head()

    def _rest(self, seconds: float) -> None:
        """Read nothing for a while."""
        if self._resting is None:
            self._pause_transport_reading()
            self._resting = self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._resting = None
        if not (self._reading_paused or self._buffer_paused):
            self._resume_transport_reading()

    def _resume_transport_reading(self) -> None:
        if self._resting is None and not self._over:
            super()._resume_transport_reading()

    def _measure(self, count: int) -> None:
        """Give up a body that is framing for the most part; ``count`` more bytes were parsed.

        One byte is the smallest chunk. Each costs as much to parse as one of 64 kB.
        """
        newest = self._messages[-1][1] if self._messages else None
        if newest is not None and newest is not self._arriving:
            # What came of it together with its head is not looked at: it is one read.
            self._arriving, self._framed, self._had = newest, 0, newest.total_bytes
        elif self._arriving is None or self._arriving.is_eof():
            self._arriving = None
        else:
            self._framed += count
            framing = self._framed - (self._arriving.total_bytes - self._had)
            # While nobody reads it, some of it has not been parsed yet.
            too_much = framing > FRAMING_BYTES + self._framed // FRAMING_SHARE
            if too_much and not self._reading_paused:
                self._server.limits.refused["chunks"] += 1
                self._over = True
                self._arriving.set_exception(CallerError("The body came in too small chunks."))

    def _look_later(self) -> None:
        seconds = self._server.limits.request_seconds / LOOKS
        self._look = self._loop.call_later(seconds, self._look_whether_it_reads)

    def _look_whether_it_reads(self) -> None:
        """End a connection whose other end takes nothing: closing it would wait for that."""
        assert self.delivery is not None
        # That a WebSocket's client is there is seen by its answers to pings.
        stuck = self.delivery.stuck(self._loop.time(), kernel=not self._upgraded)
        if stuck < self.delivery.patience(self._server.limits.request_seconds):
            self._look_later()
        else:
            self._server.limits.refused["unread"] += 1
            self._look = None
            self.delivery.give_up()

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
            body.set_exception(RequestTooSlow())

    async def _linger(self) -> None:
        """Let the answer arrive: closing with bytes unread would take it back from the client."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        self._over = True
        if transport.can_write_eof():
            transport.write_eof()
        self._gone = self._loop.create_future()
        await asyncio.wait([self._gone], timeout=LINGER_SECONDS)

    def _stop_timers(self) -> None:
        for timer in (self._head_late, self._body_late):
            if timer is not None:
                timer.cancel()
        self._head_late = self._body_late = None

    async def _handle_request(
        self, request: web.BaseRequest, start_time: float | None, request_handler: forms.Answer
    ) -> tuple[web.StreamResponse, bool]:
        self._stop_timers()
        if self.delivery is not None:
            self.delivery.patient = False
        if request.headers.get(hdrs.EXPECT, "100-continue").lower() != "100-continue":
            request_handler = _refuse_expectation
        if not request.content.is_eof():
            self._expect_body(request.content)
        try:
            answered = await super()._handle_request(
                request, start_time, _closing_early(request_handler)
            )
            if not request.content.is_eof():
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


def _closing_early(handler: forms.Answer) -> forms.Answer:
    """Its answers, which say that the connection ends where the body has not arrived by then."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = await handler(request)
        if not request.content.is_eof():
            response.force_close()
        return response

    return answer


def watch(request: web.Request, intake: Bucket | None, flooded: Callable[[], None]) -> None:
    """Hold the connection of a request that has become a WebSocket to ``intake``, if there is one.

    ``flooded`` is told when more was sent; nothing is read then any more.
    """
    connection = request.protocol
    if intake is not None and isinstance(connection, Connection):
        connection.watch(intake, flooded)


async def _refuse_expectation(request: web.BaseRequest) -> web.StreamResponse:
    response = forms.error_response(request.path, ExpectationFailed())
    # The client may never send the body it announced.
    response.force_close()
    return bare(response)
