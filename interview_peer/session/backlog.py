"""Events of one interview that wait, in order, behind one too large for the event loop.

Empty nearly always: then events pass in the step in which they came. From the arrival of a large
one until the last that waits behind it has passed, one task takes them in turn.
"""

from __future__ import annotations

import asyncio
import collections
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from ..tasks import Tasks

MOST_CHARACTERS: Final = 32 * 1024 * 1024
"""Together, the one under way included: two of the largest that a model can send."""

MOST_EVENTS: Final = 4_000
"""Two minutes of fast talk, should reading take so long."""


class Backlog:
    """One direction's queue.

    Args:
        tasks: run the one task, while there is one.
        take: passes one event on: its time of arrival and its text. What it raises is logged.
    """

    def __init__(
        self,
        tasks: Tasks,
        take: Callable[[float, str], Awaitable[None]],
        log: logging.LoggerAdapter[logging.Logger],
    ) -> None:
        self._tasks = tasks
        self._take = take
        self._log = log
        self._events: collections.deque[tuple[float, str]] = collections.deque()
        self._characters = 0
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Events that wait, the one under way included."""
        return len(self._events)

    def put(self, at: float, text: str) -> bool:
        """Add an event that came at ``at``; false if there is no room for it."""
        size = self._characters + len(text)
        if size > MOST_CHARACTERS or len(self._events) >= MOST_EVENTS:
            return False
        self._characters = size
        self._events.append((at, text))
        if self._task is None:
            self._task = self._tasks.start(self._run(), "pass large events of")
        return True

    async def drained(self, seconds: float) -> int:
        """Wait until nothing waits, at most so long; returns how many events were given up."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=seconds)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        left = len(self._events)
        self._events.clear()
        self._characters = 0
        return left

    async def _run(self) -> None:
        try:
            while self._events:
                # It stays at the head while it is under way: what comes now waits behind it.
                at, text = self._events[0]
                try:
                    await self._take(at, text)
                except Exception:
                    self._log.exception("an event could not be passed on")
                self._events.popleft()
                self._characters -= len(text)
                # Hundreds may wait: packets go between them.
                await asyncio.sleep(0)
        finally:
            self._task = None
