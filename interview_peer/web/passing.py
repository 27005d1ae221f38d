"""Passes requests on to another process of the service, and its answers back as they come.

Addresses are those that the processes themselves wrote to the database; nothing of a request names
one. A request's body is short and read whole; answers, events and WebSockets are streamed, each
with a time limit for what the other side does.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp
from aiohttp import ClientTimeout, WSMsgType, hdrs, web
from yarl import URL

from ..core.machines import PASSED_ON, Machine, Passed, handed_back, handed_on, sign
from ..errors import (
    AtCapacity,
    CallerError,
    InterviewElsewhere,
    InterviewPeerError,
    OriginNotAllowed,
    OwnerUnreachable,
    RateLimited,
    SessionNotFound,
    Unauthorized,
)
from ..tasks import Tasks
from ..types import Json
from .cutting import cut_off, say_closed, told
from .http import watch
from .limits import Limits, Pace
from .origins import is_socket

log = logging.getLogger(__name__)

CONNECT_SECONDS: Final = 2.0
"""Processes of one service are near each other."""
ANSWER_SECONDS: Final = 30.0
"""Longer than any answer waits, but for those of an end; and than events are silent."""
END_SECONDS: Final = 110.0
"""An end waits for a goodbye, an erasure for an end."""
SOCKET_SECONDS: Final = 5.0
"""For a WebSocket to be opened, and to be closed."""
PING_SECONDS: Final = 20.0

_REFUSALS: Final[dict[int, type[InterviewPeerError]]] = {
    400: CallerError,
    401: Unauthorized,
    403: OriginNotAllowed,
    404: SessionNotFound,
    409: InterviewElsewhere,
    429: RateLimited,
    503: AtCapacity,
}
"""What a holder means that refuses a WebSocket: no more than the status of its answer is had."""

COUNTED: Final = ("requests", "sockets", "unreachable", "broken")


class Passing:
    """Passes on for one process. Its connections live as long as the application."""

    def __init__(self, limits: Limits, proxy_header: str) -> None:
        self._limits = limits
        self._proxy_header = proxy_header
        self._client: aiohttp.ClientSession | None = None
        self._tasks = Tasks("passed on")
        self._open: dict[int, web.Request] = {}
        self._sockets: set[web.WebSocketResponse] = set()
        self.counters: Counter[str] = Counter()

    def statistics(self) -> Json:
        """Figures for operators: what was passed on, and what came of it, since the start."""
        return {**{name: self.counters[name] for name in COUNTED}, "open": len(self._open)}

    async def living(self, app: web.Application) -> AsyncIterator[None]:
        """Keep what is needed for as long as the application runs."""
        # A new connection each time: one that was kept may lead to a machine that is gone.
        connector = aiohttp.TCPConnector(limit=self._limits.connections, force_close=True)
        self._client = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=(hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING),
            timeout=ClientTimeout(total=None, connect=CONNECT_SECONDS),
        )
        yield
        client, self._client = self._client, None
        await self._tasks.drain(0)
        await client.close()

    async def close(self, app: web.Application) -> None:
        """End what is being passed on: whoever asked comes back, to another process."""
        # The interview runs elsewhere, and goes on: nobody is turned away as ``web.partings`` does.
        code = aiohttp.WSCloseCode.SERVICE_RESTART
        closing = [
            self._tasks.start(socket.close(code=code), "close a socket") for socket in self._sockets
        ]
        if closing:
            # At once: each may take that long to answer, and they share the time of a shutdown.
            await asyncio.wait(closing, timeout=SOCKET_SECONDS)
        for request in [*self._open.values()]:
            _break(request)

    async def pass_on(
        self, request: web.Request, interview_id: str, machine: Machine, hops: int
    ) -> web.StreamResponse:
        """The answer that ``machine`` gives to this request, which was passed on ``hops`` times.

        Raises:
            OwnerUnreachable: it cannot be asked, or does not answer in time; nothing was sent yet.
            Unauthorized, OriginNotAllowed, SessionNotFound, InterviewElsewhere: it refuses a
                WebSocket.
            TooLarge, CallerError: the request cannot be passed on to anybody.
            RateLimited: this address opens too many WebSockets, here or there.
            AtCapacity: there are too many of them, here or there.
        """
        assert machine.address is not None and machine.key is not None
        base, asked = URL(machine.address), request.rel_url
        target = URL.build(
            scheme=base.scheme,
            authority=base.raw_authority,
            path=asked.raw_path,
            query_string=asked.raw_query_string,
            encoded=True,
        )
        # From its own parts on both sides: nothing else of a request's line is looked at.
        passed = Passed(request.remote or "", hops + 1)
        signed = sign(passed, machine.key, request.method, asked.raw_path_qs)
        headers = handed_on(request.headers.items(), without=(self._proxy_header,))
        headers.append((PASSED_ON, signed))
        self._open[id(request)] = request
        try:
            if is_socket(request):
                return await self._socket(request, target, headers)
            return await self._http(request, target, headers)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if isinstance(error, aiohttp.WSServerHandshakeError) and error.status in _REFUSALS:
                # The holder answered, and would not answer otherwise if it were asked again here.
                raise _REFUSALS[error.status] from None
            self.counters["unreachable"] += 1
            log.info(
                "a request could not be passed on",
                extra={
                    "session": interview_id,
                    "node": machine.id,
                    "error": type(error).__name__,
                },
            )
            raise OwnerUnreachable from None
        finally:
            del self._open[id(request)]

    async def _http(
        self, request: web.Request, target: URL, headers: list[tuple[str, str]]
    ) -> web.StreamResponse:
        assert self._client is not None
        body = await request.read() if request.body_exists else None
        self.counters["requests"] += 1
        ends = request.method == "DELETE" or target.path.endswith("/end")
        limit = END_SECONDS if ends else ANSWER_SECONDS
        async with self._client.request(
            request.method,
            target,
            headers=headers,
            data=body,
            allow_redirects=False,
            timeout=ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_read=limit),
        ) as answer:
            response = web.StreamResponse(
                status=answer.status,
                reason=answer.reason,
                headers=handed_back(answer.headers.items()),
            )
            try:
                await response.prepare(request)
                async for piece in answer.content.iter_any():
                    await response.write(piece)
                await response.write_eof()
            except (aiohttp.ClientError, TimeoutError, OSError):
                # Half an answer must not look like a whole one.
                self.counters["broken"] += 1
                _break(request)
            return response

    async def _socket(
        self, request: web.Request, target: URL, headers: list[tuple[str, str]]
    ) -> web.StreamResponse:
        assert self._client is not None
        most = 2 * self._limits.message_bytes
        socket = web.WebSocketResponse(
            heartbeat=PING_SECONDS,
            # Pings are answered here, where they count like all that is sent.
            autoping=False,
            max_msg_size=most,
            compress=False,
            timeout=SOCKET_SECONDS,
        )
        if not socket.can_prepare(request).ok:
            raise CallerError("This address is a WebSocket: connect with one.")
        self._limits.socket(request.remote)
        self._limits.sockets.open()
        self.counters["sockets"] += 1
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._limits.sockets.closed)
            async with asyncio.timeout(SOCKET_SECONDS):
                there = await stack.enter_async_context(
                    self._client.ws_connect(
                        target,
                        headers=headers,
                        heartbeat=PING_SECONDS,
                        max_msg_size=most,
                        timeout=aiohttp.ClientWSTimeout(ws_close=SOCKET_SECONDS),
                    )
                )
            await socket.prepare(request)
            self._sockets.add(socket)
            try:
                pace = self._limits.messages()
                flooding: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                intake = self._limits.socket_intake(known=True)
                # There are frames that never become a message.
                watch(request, intake, functools.partial(flooding.set_result, None))
                paced = _pump(socket, there, pace)
                ways = [
                    self._tasks.start(paced, "socket to its holder"),
                    self._tasks.start(_pump(there, socket), "socket to its caller"),
                ]
                try:
                    await asyncio.wait([*ways, flooding], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.wait(ways)
                if flooding.done():
                    flooded: BaseException | None = pace.exceeded()
                else:
                    flooded = None if ways[0].cancelled() else ways[0].exception()
                if isinstance(flooded, RateLimited) and request.transport is not None:
                    telling = self._tasks.start(_tell(socket, flooded), "last word")
                    await cut_off(request.transport, telling)
                code = _close_code(there.close_code)
                with contextlib.suppress(ConnectionError, RuntimeError):
                    await socket.close(code=code)
            finally:
                self._sockets.discard(socket)
        return socket


async def _pump(source: Any, target: Any, pace: Pace | None = None) -> None:
    """Hand messages on until one side is closed; a slow reader slows the writer down.

    ``pace`` is for frames of every kind. Raises ``RateLimited`` where they come too fast.
    """
    with contextlib.suppress(ConnectionError, RuntimeError):
        async for message in source:
            if pace is not None:
                pace.take()
            if message.type is WSMsgType.TEXT:
                await target.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await target.send_bytes(message.data)
            elif message.type is WSMsgType.PING:
                await source.pong(message.data)
            elif message.type is not WSMsgType.PONG:
                return


async def _tell(socket: web.WebSocketResponse, error: InterviewPeerError) -> None:
    with contextlib.suppress(ConnectionError, RuntimeError):
        await socket.send_json(told(error))
        await say_closed(socket)


def _close_code(code: int | None) -> int:
    """Why the other side closed, or that it is gone."""
    if code is not None and (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code < 5000):
        return code
    return int(aiohttp.WSCloseCode.SERVICE_RESTART)


def _break(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
