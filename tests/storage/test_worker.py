"""The storage thread: rhythm, hanging disks, and leaving nothing behind."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from interview_peer.storage.folder import InterviewFolder
from interview_peer.storage.recorder import Recorder, RecordingSummary, audio_name
from interview_peer.storage.worker import SLOTS, StorageWorker
from interview_peer.types import SessionId, Speaker
from tests.storage.sound import decode
from tests.support.waiting import eventually

INTERVAL = 0.02


class FakeRecording:
    """Counts flushes, and waits in them when told to."""

    def __init__(self) -> None:
        self.failed: str | None = None
        self.fails_with: str | None = None
        self.flushes = 0
        self.closed_at: float | None = None
        self.threads: set[str] = set()
        self.disk_answers = threading.Event()
        self.disk_answers.set()
        self._flushed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def flush(self, now: float) -> None:
        self.threads.add(threading.current_thread().name)
        self.flushes += 1
        self._loop.call_soon_threadsafe(self._flushed.set)
        self.disk_answers.wait()
        self.failed = self.fails_with

    def close(self, now: float) -> RecordingSummary:
        self.disk_answers.wait()
        self.closed_at = now
        return RecordingSummary(now, {}, 0, 0, 0, self.failed)

    async def flushed(self, times: int) -> None:
        """Wait until ``times`` more flushes have begun."""
        goal = self.flushes + times
        while self.flushes < goal:
            self._flushed.clear()
            await self._flushed.wait()


@pytest.fixture
async def worker() -> AsyncIterator[StorageWorker]:
    worker = StorageWorker(INTERVAL)
    worker.start()
    yield worker
    await worker.close()


def storage_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("storage")]


async def test_every_recording_is_flushed_again_and_again_in_one_thread(
    worker: StorageWorker,
) -> None:
    recordings = [FakeRecording() for _ in range(3 * SLOTS)]
    for recording in recordings:
        worker.register(recording)
    await asyncio.gather(*(recording.flushed(3) for recording in recordings))
    assert set.union(*(recording.threads for recording in recordings)) == {"storage_0"}
    assert storage_threads() == ["storage_0"]


async def test_many_recordings_are_spread_over_the_interval() -> None:
    worker = StorageWorker(1.0)
    for _ in range(5 * SLOTS):
        worker.register(FakeRecording())
    assert [len(slot) for slot in worker._slots] == [5] * SLOTS


async def test_a_hanging_disk_holds_up_neither_the_loop_nor_memory(worker: StorageWorker) -> None:
    recording = FakeRecording()
    recording.disk_answers.clear()
    worker.register(recording)
    await recording.flushed(1)

    async def skipped() -> int:
        return worker.skipped

    await eventually(skipped, within=5, what="flushes skipped", good=lambda count: count >= 5)
    assert recording.flushes == 1
    recording.disk_answers.set()
    await recording.flushed(2)


async def test_finish_closes_in_the_thread_and_flushes_no_more(worker: StorageWorker) -> None:
    recording, other = FakeRecording(), FakeRecording()
    worker.register(recording)
    worker.register(other)
    await recording.flushed(1)
    summary = await worker.finish(recording, 12.5)
    assert (summary.duration_seconds, recording.closed_at) == (12.5, 12.5)
    flushes = recording.flushes
    await other.flushed(3)
    assert recording.flushes == flushes


async def test_a_caller_that_gives_up_does_not_stop_the_closing(worker: StorageWorker) -> None:
    recording = FakeRecording()
    recording.disk_answers.clear()
    worker.register(recording)
    await recording.flushed(1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await worker.finish(recording, 1.0)
    again = asyncio.create_task(worker.finish(recording, 2.0))
    recording.disk_answers.set()
    assert (await again).duration_seconds == 1.0


async def test_a_failed_recording_is_counted_once_and_harms_no_other(
    worker: StorageWorker,
) -> None:
    bad, good = FakeRecording(), FakeRecording()
    bad.fails_with = "ENOSPC"
    worker.register(bad)
    worker.register(good)
    await bad.flushed(3)
    await good.flushed(3)
    assert (await worker.finish(bad, 1.0)).failed == "ENOSPC"
    assert (await worker.finish(good, 1.0)).failed is None
    assert worker.failures == 1


async def test_close_finishes_what_is_left_and_leaves_no_thread_and_no_task() -> None:
    tasks = asyncio.all_tasks()
    worker = StorageWorker(INTERVAL, clock=lambda: 99.0)
    worker.start()
    worker.start()
    recordings = [FakeRecording() for _ in range(5)]
    for recording in recordings:
        worker.register(recording)
    await recordings[0].flushed(1)
    assert {task.get_name() for task in asyncio.all_tasks() - tasks} == {"storage-worker"}
    closing = asyncio.create_task(worker.finish(recordings[1], 7.0))
    await asyncio.sleep(0)
    await worker.close()
    await worker.close()
    assert [recording.closed_at for recording in recordings] == [99.0, 7.0, 99.0, 99.0, 99.0]
    await closing
    assert asyncio.all_tasks() == tasks
    assert storage_threads() == []


async def test_a_worker_that_does_not_run_says_so() -> None:
    with pytest.raises(RuntimeError, match="does not run"):
        await StorageWorker().finish(FakeRecording(), 1.0)


async def test_a_real_recording_in_real_time(tmp_path: Path, worker: StorageWorker) -> None:
    folder = InterviewFolder(tmp_path, SessionId("real"))
    folder.create()
    start = time.monotonic()
    recorder = Recorder(folder, start, datetime.now(UTC))
    worker.register(recorder)
    path = folder.path / audio_name(Speaker.CANDIDATE)
    number = 0
    # Until half a second of sound has reached the file.
    while not path.exists() or path.stat().st_size < 300:
        now = time.monotonic()
        while number * 0.02 < now - start:
            recorder.audio(Speaker.CANDIDATE, now, number, number * 960, b"\xf8\xff\xfe")
            number += 1
        await asyncio.sleep(0.01)
    summary = await worker.finish(recorder, time.monotonic())
    assert summary.failed is None
    assert summary.counters[Speaker.CANDIDATE].packets == number
    assert len(decode(path)) == round(summary.duration_seconds * 48_000)
