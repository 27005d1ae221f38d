"""The queue of finishing: one at a time, visible, and harmless when a job fails."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from pathlib import Path

import pytest

from interview_peer.core.lifecycle import Phase
from interview_peer.finishing import worker
from interview_peer.finishing.facts import Facts, from_journal
from interview_peer.finishing.verify import verify
from interview_peer.finishing.worker import Finisher
from interview_peer.storage.folder import InterviewFolder
from interview_peer.types import Json, SessionId
from tests.support.caller import calling
from tests.support.inprocess import nothing_left, serving, traces
from tests.support.waiting import eventually

from .finisher import finishing
from .folders import record

# Finishing goes behind everything else that the machine does.
pytestmark = pytest.mark.timeout(180)
WITHIN = 90.0


async def idle(finisher: Finisher) -> None:
    async def look() -> bool:
        return not finisher.busy

    await eventually(look, within=WITHIN, what="everything finished")


async def test_what_is_found_at_the_start_is_finished_one_after_the_other(tmp_path: Path) -> None:
    folders = [record(tmp_path, name, until=2.0, close=False) for name in ("a", "b", "c")]
    before = traces()
    async with finishing(tmp_path) as finisher:
        told: list[str] = []
        finisher.listen(lambda folder: told.append(folder.session_id))
        most = 0
        while finisher.busy:
            states = [finisher.state(folder.session_id) for folder in folders]
            most = max(most, sum(one is not None and one["state"] == "running" for one in states))
            await asyncio.sleep(0.01)
        assert most == 1
        assert sorted(told) == ["a", "b", "c"]
        assert (finisher.finished, finisher.failures) == (3, 0)
        assert all(finisher.state(folder.session_id) is None for folder in folders)
    assert [verify(folder.path) for folder in folders] == [[], [], []]
    await nothing_left(before)


async def test_a_job_that_fails_is_marked_and_logged_and_stops_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = record(tmp_path, "broken", until=1.0, close=False)
    (broken.path / "mixed.webm").mkdir()
    good = record(tmp_path, "good", until=1.0, close=False)
    with caplog.at_level(logging.ERROR):
        async with finishing(tmp_path) as finisher:

            def deaf(folder: InterviewFolder) -> None:
                raise RuntimeError("a listener's mistake")

            finisher.listen(deaf)
            await idle(finisher)
            state = finisher.state(SessionId("broken"))
    assert state is not None
    assert (state["state"], state["reason"]) == ("failed", "EISDIR")
    assert [one.getMessage() for one in caplog.records] == ["finishing failed", "a listener failed"]
    assert verify(good.path) == []
    (broken.path / "mixed.webm").rmdir()
    # The next start tries again.
    async with finishing(tmp_path) as finisher:
        await idle(finisher)
    assert verify(broken.path) == []


async def test_a_folder_held_elsewhere_is_taken_up_once_it_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "HELD_SECONDS", 0.05)
    folder = record(tmp_path, until=1.0, close=False)
    other = InterviewFolder(tmp_path, folder.session_id)
    claim = other.hold()
    assert claim is not None
    async with finishing(tmp_path) as finisher:
        assert finisher.state(folder.session_id) is None
        os.close(claim)

        async def look() -> bool:
            return await asyncio.to_thread((folder.path / "manifest.json").exists)

        await eventually(look, within=WITHIN, what="a manifest")


async def processes_of(
    data_dir: Path, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> list[int]:
    """The process that worked on each of these folders, in order, by when it was first met."""
    met: list[int] = []
    read = worker._read

    def listened(line: bytes) -> Json:
        (job,) = [one for one in finisher._jobs.values() if one.state == "running"]
        assert job.process is not None
        met[names.index(job.folder.session_id) :] = [job.process.pid]
        return read(line)

    monkeypatch.setattr(worker, "_read", listened)
    for number, name in enumerate(names):
        path = record(data_dir, name, until=1.0, close=False).path
        if name.startswith("broken"):
            (path / "mixed.webm").mkdir()
        os.utime(path, (number, number))
    async with finishing(data_dir) as finisher:
        await idle(finisher)
    return [met.index(pid) for pid in met]


async def test_what_waits_is_finished_by_one_process_and_what_follows_a_failure_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("a", "b", "broken", "c", "d")
    before = traces()
    assert await processes_of(tmp_path, names, monkeypatch) == [0, 0, 0, 3, 3]
    await nothing_left(before)
    good = [tmp_path / "interviews" / name for name in names if name != "broken"]
    assert [verify(path) for path in good] == [[], [], [], []]


async def test_a_process_is_followed_by_a_new_one_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "MOST_FOLDERS", 2)
    assert await processes_of(tmp_path, ("a", "b", "c"), monkeypatch) == [0, 0, 2]


async def test_shutdown_ends_a_job_and_the_next_start_does_it(tmp_path: Path) -> None:
    folder = record(tmp_path, until=8.0, close=False)
    before = traces()
    async with finishing(tmp_path) as finisher:

        async def running() -> bool:
            state = finisher.state(folder.session_id)
            return state is not None and state["state"] == "running"

        await eventually(running, within=WITHIN, what="the job runs")
    await nothing_left(before)
    assert not (folder.path / "manifest.json").exists()
    async with finishing(tmp_path) as finisher:
        await idle(finisher)
    assert verify(folder.path) == []


async def test_a_job_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "STALL_SECONDS", 0.001)
    folder = record(tmp_path, until=1.0, close=False)
    async with finishing(tmp_path) as finisher:
        await idle(finisher)
        state = finisher.state(folder.session_id)
    assert state == {"state": "failed", "progress": 0.0, "reason": "stalled"}


async def test_a_job_goes_behind_all_others_and_how_far_it_is_can_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tmp_path)
    shares: list[float] = []
    niceness: set[int] = set()
    read = worker._read

    def listened(line: bytes) -> Json:
        said = read(line)
        job = next(iter(finisher._jobs.values()))
        assert job.document() == {"state": "running", "progress": shares[-1] if shares else 0.0}
        if "progress" in said and job.process is not None:
            shares.append(said["progress"])
            # The last line may be read when the process is over.
            with contextlib.suppress(ProcessLookupError):
                niceness.add(os.getpriority(os.PRIO_PROCESS, job.process.pid))
        return said

    monkeypatch.setattr(worker, "_read", listened)
    async with finishing(tmp_path) as finisher:
        await idle(finisher)
    assert shares == sorted(shares) and 0 < shares[0] < 1
    assert niceness == {min(os.getpriority(os.PRIO_PROCESS, 0) + 10, 19)}


async def test_facts_that_cannot_be_written_do_not_keep_a_folder_from_being_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = record(tmp_path, until=1.0, close=False)

    def full(facts: Facts, folder: InterviewFolder) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Facts, "write", full)
    async with finishing(tmp_path / "elsewhere") as finisher:
        with pytest.raises(OSError, match="No space"):
            await finisher.take(folder, from_journal(folder))
        await idle(finisher)
    assert verify(folder.path) == []


async def test_an_interview_of_the_server_is_finished_after_its_end(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, calling(server.url) as caller:
        await caller.open()
        await caller.connect()
        await caller.sound(20)
        path = f"/api/interviews/{caller.session_id}"
        live = (await caller.get(path)).json()
        assert (live["phase"], live["finishing"]) == (Phase.LIVE.value, None)
        await caller.send({"type": "end_session"})
        await caller.message("session_ended")
        seen: list[str] = []

        async def look() -> bool:
            finishing = (await caller.get(path)).json()["finishing"]
            seen.append(finishing["state"])
            assert 0 <= finishing["progress"] <= 1
            return bool(finishing["state"] == "done")

        await eventually(look, within=WITHIN, what="finished")
        assert seen[0] in ("waiting", "running", "done")
        folder = tmp_path / "interviews" / caller.session_id
        assert await asyncio.to_thread(verify, folder) == []
