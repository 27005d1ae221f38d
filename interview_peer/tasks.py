"""Tasks with an owner: named, held, awaited at the end, and never silently broken."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


async def stop(task: asyncio.Task[Any] | None) -> None:
    """Cancel a task and wait for its end; None is none. Raises what the task broke by."""
    if task is None:
        return
    task.cancel()
    # Not ``await task``: the caller's own cancellation could not be told from the task's.
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


class Tasks:
    """The tasks of one owner. ``drain`` waits until none is left."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run ``work`` as a task; what it raises unasked for is logged."""
        task = asyncio.create_task(work, name=f"{name} {self._owner}")
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Whoever awaits the task sees the error too; nobody may await this one.
            log.debug("task ended by an error", extra={"task": task.get_name(), "error": error})

    async def drain(self, seconds: float) -> None:
        """Wait for what still runs, then cancel what is left. The calling task is not counted."""
        mine = asyncio.current_task()
        running = {task for task in self._running if task is not mine}
        if running:
            _, late = await asyncio.wait(running, timeout=seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
