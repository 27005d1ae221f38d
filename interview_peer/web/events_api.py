"""``GET /api/interviews/{id}/events``: an interview as it happens, as server-sent events."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from ..core.lifecycle import WAITING, Phase
from ..errors import (
    InterviewElsewhere,
    InterviewPeerError,
    SessionNotFound,
    StateUnavailable,
    TooManyFollowers,
)
from ..session.feed import FeedEvent, Follower
from ..session.interview import Interview
from ..state.records import FINAL
from .acts import before_answer
from .interview_store import InterviewStore
from .interviews_api import PATH, interview_id

log = logging.getLogger(__name__)

BEAT_SECONDS: Final = 15.0
"""Proxies cut connections on which nothing passes for a minute, some for half of one."""

CHECK_SECONDS: Final = 15.0
"""How often it is asked whether the key that opened a stream is still good."""

STALL_SECONDS: Final = 10.0
"""A reader that takes nothing for so long is dropped."""

START_SECONDS: Final = 0.5
"""How often an interview that nobody has joined is looked for."""
ELSEWHERE_SECONDS: Final = 2.0
"""The same in the database, where another process may be joined."""

RETRY_MS: Final = 2_000
"""How long a client waits before it comes back."""


class EventsApi:
    """The route of live events. Nothing is streamed once the server goes, or the key is revoked."""

    def __init__(
        self, store: InterviewStore, authorise: Callable[[web.Request], Awaitable[None]]
    ) -> None:
        """``authorise`` raises for who may not follow; it was asked before the route is reached."""
        self._store = store
        self._authorise = authorise
        self._closing = asyncio.Event()

    def add_to(self, app: web.Application) -> None:
        """Register the route."""
        app.router.add_get(PATH + "/{interview_id}/events", self.stream)
        app.on_shutdown.append(self._close)

    async def _close(self, app: web.Application) -> None:
        self._closing.set()

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Events until the interview ends; those behind ``Last-Event-ID`` first.

        204 where nothing is left to be told, which ends an ``EventSource``'s returning.
        """
        name = interview_id(request)
        after = _number(request.headers.get("Last-Event-ID"))
        running = self._store.running(name)
        if running is None and await self._is_over(name):
            return web.Response(status=204)
        if running is not None and running.feed.is_over and after == running.feed.last:
            return web.Response(status=204)
        response = web.StreamResponse(headers=_HEADERS)
        follower = None if running is None else _follow(running, after, request)
        try:
            await before_answer(request)
            await response.prepare(request)
            await _send(response, f"retry: {RETRY_MS}\n\n")
            if follower is None:
                running = await self._joined(response, name)
                if running is None:
                    return response
                follower = _follow(running, after, request)
            assert running is not None
            await self._pass_on(request, response, running, follower)
        except TooManyFollowers:
            if not response.prepared:
                raise
        except (ConnectionError, TimeoutError):
            # It went away, or stopped reading; it may come back with the number it read last.
            if request.transport is not None:
                request.transport.abort()
        finally:
            if follower is not None:
                follower.close()
        return response

    async def _pass_on(
        self,
        request: web.Request,
        response: web.StreamResponse,
        running: Interview,
        follower: Follower,
    ) -> None:
        clock = asyncio.get_running_loop().time
        checked = clock()
        while not self._closing.is_set():
            event = await follower.take(BEAT_SECONDS)
            if clock() - checked >= CHECK_SECONDS:
                await self._check(request)
                checked = clock()
                # What happened meanwhile, its end perhaps, is told before the feed counts as over.
                event = event or await follower.take(0)
            if event is not None:
                await _send(response, _text(event))
            elif follower.is_dropped:
                raise ConnectionAbortedError
            elif running.feed.is_over:
                return
            else:
                await _send(response, ": still here\n\n")

    async def _check(self, request: web.Request) -> None:
        """Break the stream off if its key opens it no more; whoever comes back is told why."""
        try:
            await self._authorise(request)
        except StateUnavailable:
            # Nobody knows just now. It was good when the stream began.
            pass
        except InterviewPeerError as refused:
            log.info("a follower's key is good no more", extra={"code": refused.code})
            raise ConnectionAbortedError from None

    async def _joined(self, response: web.StreamResponse, name: str) -> Interview | None:
        """The interview once somebody joins it; None if it ends before, or the server does."""
        waited = unasked = 0.0
        while (running := self._store.running(name)) is None:
            try:
                async with asyncio.timeout(START_SECONDS):
                    await self._closing.wait()
                return None
            except TimeoutError:
                waited += START_SECONDS
                unasked += START_SECONDS
            if waited >= BEAT_SECONDS or (self._store.shared and unasked >= ELSEWHERE_SECONDS):
                unasked = 0.0
                # Held elsewhere: whoever comes back is led there.
                if await self._still_to_come(name) is False:
                    return None
            if waited >= BEAT_SECONDS:
                waited = 0.0
                await _send(response, ": not yet\n\n")
        return running

    async def _still_to_come(self, name: str) -> bool:
        try:
            return not await self._is_over(name)
        except (SessionNotFound, InterviewElsewhere):
            return False
        except StateUnavailable:
            return True

    async def _is_over(self, name: str) -> bool:
        """Whether an interview that this process does not hold is over.

        Raises:
            SessionNotFound: there is none.
            InterviewElsewhere: another process holds it.
        """
        row = await self._store.find(name)
        if row is None:
            # Older than the database, or greeted and no more.
            if await self._store.files(name) is None:
                raise SessionNotFound
            return True
        if row.deleted_at is not None:
            raise SessionNotFound
        if row.phase in FINAL:
            return True
        if Phase(row.phase) not in WAITING and self._store.running(name) is None:
            raise InterviewElsewhere
        return False


_HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    # Some proxies collect answers before they pass them on.
    "X-Accel-Buffering": "no",
}


def _follow(running: Interview, after: int | None, request: web.Request) -> Follower:
    def dropped() -> None:
        log.info("a follower was too slow", extra={"session": running.id})
        if request.transport is not None:
            # It may be in the middle of a write that waits for its reader.
            request.transport.abort()

    return running.feed.follow(after, dropped)


async def _send(response: web.StreamResponse, text: str) -> None:
    async with asyncio.timeout(STALL_SECONDS):
        await response.write(text.encode("utf-8", "replace"))


def _text(event: FeedEvent) -> str:
    data: Any = json.dumps(event.data, ensure_ascii=False)
    return f"id: {event.number}\nevent: {event.kind}\ndata: {data}\n\n"


def _number(header: str | None) -> int | None:
    if header is None or not header.isascii() or not header.isdecimal() or len(header) > 12:
        return None
    return int(header)
