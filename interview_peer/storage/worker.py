"""The process's one thread for recordings, and the task that keeps it busy.

Every recorder is flushed twice a second. The recorders are spread over ten slots, so that many
interviews neither write at once nor wake the event loop more often than one would.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol, TypeVar

from interview_peer.storage.recorder import RecordingSummary
from interview_peer.tasks import stop
from interview_peer.types import Json

logger = logging.getLogger(__name__)

T = TypeVar("T")

FLUSH_SECONDS = 0.5
"""How often a recorder is flushed. With the time line's hold it keeps what a crash can take below
one second."""

SLOTS = 10
"""Groups that are flushed one after the other within ``FLUSH_SECONDS``."""


class Recording(Protocol):
    """What the worker needs of a recorder. Neither method raises."""

    failed: str | None

    def flush(self, now: float) -> None: ...

    def close(self, now: float) -> RecordingSummary: ...


class StorageWorker:
    """Flushes recorders in one thread. All methods belong to the event loop.

    A disk that hangs makes flushes be skipped, not pile up: a slot is not handed to the thread
    again before its last flush is over.
    """

    def __init__(
        self,
        interval: float = FLUSH_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval = interval
        self._clock = clock
        self._slots: list[list[Recording]] = [[] for _ in range(SLOTS)]
        self._outstanding: list[Future[None] | None] = [None] * SLOTS
        self._closing: dict[Recording, asyncio.Future[RecordingSummary]] = {}
        self._executor: ThreadPoolExecutor | None = None
        self._task: asyncio.Task[None] | None = None
        self.skipped = 0
        """Slots that were not flushed in their turn because the disk was still busy."""
        self.failures = 0
        """Recordings that failed."""
        self.bytes = 0
        """Of all recordings that were closed."""
        self._flushed_at = [0.0] * SLOTS

    def start(self) -> None:
        """Begin. Needs a running event loop; a second call changes nothing."""
        if self._task is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="storage")
            self._task = asyncio.create_task(self._run(), name="storage-worker")

    def register(self, recorder: Recording) -> None:
        """Flush this recorder from now on, until it is finished."""
        slot = min(range(SLOTS), key=lambda one: len(self._slots[one]))
        if not self._slots[slot]:
            self._flushed_at[slot] = self._clock()
        self._slots[slot].append(recorder)

    def statistics(self) -> Json:
        """Figures for operators. ``flush_age_seconds`` is how long the recording that waits longest
        has not been written: a disk that keeps up makes it half a second at most."""
        now = self._clock()
        taken = [slot for slot in range(SLOTS) if self._slots[slot]]
        age = max((now - self._flushed_at[slot] for slot in taken), default=0.0)
        return {
            "recorders": sum(map(len, self._slots)),
            "closing": len(self._closing),
            "flush_age_seconds": round(age, 3),
            "skipped": self.skipped,
            "failures": self.failures,
            "bytes": self.bytes,
        }

    async def run(self, work: Callable[[], T]) -> T:
        """Do a piece of file work in the thread, after what was asked for before.

        Raises what ``work`` raises, and ``RuntimeError`` when the worker does not run.
        """
        if self._executor is None:
            raise RuntimeError("the storage worker does not run")
        return await asyncio.shield(asyncio.wrap_future(self._executor.submit(work)))

    def later(self, work: Callable[[], object]) -> None:
        """Have a piece of file work done in the thread, for which nobody waits; ``work`` must not
        raise. Nothing is done when the worker does not run."""
        if self._executor is not None:
            self._executor.submit(work)

    async def finish(self, recorder: Recording, now: float) -> RecordingSummary:
        """Close the recorder in the thread and return what it came to.

        ``now`` is where the recording ends, in monotonic seconds. Cancelling the caller does not
        cancel the closing. Waits as long as the disk does. Raises ``RuntimeError`` when the worker
        does not run.
        """
        self._unregister(recorder)
        closing = self._closing.get(recorder)
        if closing is None:
            if self._executor is None:
                raise RuntimeError("the storage worker does not run")
            closing = asyncio.wrap_future(self._executor.submit(self._close, recorder, now))
            self._closing[recorder] = closing
            closing.add_done_callback(lambda _: self._closing.pop(recorder, None))
        return await asyncio.shield(closing)

    async def close(self) -> None:
        """Finish what is still registered, end the task and the thread. Idempotent."""
        task, self._task = self._task, None
        if task is None:
            return
        await stop(task)
        now = self._clock()
        left = [recorder for slot in self._slots for recorder in slot]
        await asyncio.gather(*(self.finish(recorder, now) for recorder in left))
        await asyncio.gather(*self._closing.values())
        executor, self._executor = self._executor, None
        if executor is not None:
            # The thread has nothing left to do, so this takes no time.
            executor.shutdown(wait=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        slot = 0
        while True:
            # After a stall of the loop the rhythm starts anew: no burst to catch up.
            due = max(due + self._interval / SLOTS, loop.time())
            await asyncio.sleep(due - loop.time())
            slot = (slot + 1) % SLOTS
            self._flush_slot(slot)

    def _flush_slot(self, slot: int) -> None:
        recorders = self._slots[slot]
        if not recorders or self._executor is None:
            return
        last = self._outstanding[slot]
        if last is not None and not last.done():
            self.skipped += 1
            return
        self._outstanding[slot] = self._executor.submit(self._flush, slot, tuple(recorders))

    def _unregister(self, recorder: Recording) -> None:
        for slot in self._slots:
            with suppress(ValueError):
                slot.remove(recorder)

    # In the thread

    def _flush(self, slot: int, recorders: tuple[Recording, ...]) -> None:
        for recorder in recorders:
            was_well = recorder.failed is None
            recorder.flush(self._clock())
            self._count(recorder, was_well)
        self._flushed_at[slot] = self._clock()

    def _close(self, recorder: Recording, now: float) -> RecordingSummary:
        was_well = recorder.failed is None
        summary = recorder.close(now)
        self.bytes += summary.bytes
        self._count(recorder, was_well)
        return summary

    def _count(self, recorder: Recording, was_well: bool) -> None:
        if was_well and recorder.failed is not None:
            self.failures += 1
