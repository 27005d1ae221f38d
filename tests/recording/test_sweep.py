"""What was lost sight of is finished without a restart, and what failed is tried again."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path

import pytest

from interview_peer.finishing import manifest, worker
from interview_peer.finishing.facts import Facts
from interview_peer.finishing.verify import verify
from interview_peer.finishing.worker import Finisher, unfinished
from interview_peer.session import recording
from interview_peer.storage.folder import InterviewFolder
from interview_peer.storage.worker import StorageWorker
from interview_peer.types import Json, SessionId
from tests.support.caller import calling
from tests.support.inprocess import recorded, serving
from tests.support.waiting import eventually

from .finisher import finishing
from .folders import finished, record

# Finishing goes behind everything else that the machine does.
pytestmark = pytest.mark.timeout(180)
WITHIN = 90.0
ONE = SessionId("one")


async def until_finished(folder: Path) -> None:
    async def look() -> bool:
        return await asyncio.to_thread((folder / "manifest.json").exists)

    await eventually(look, within=WITHIN, what="a manifest")


async def until_state(finisher: Finisher, wanted: str) -> None:
    async def look() -> str:
        return str((finisher.state(ONE) or {}).get("state"))

    await eventually(look, within=WITHIN, what=wanted, good=lambda state: state == wanted)


async def test_an_interview_that_a_hanging_disk_outlasts_is_finished_when_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "FILES_SECONDS", 0.3)
    answers = threading.Event()
    async with serving(tmp_path) as server, calling(server.url) as caller:
        await caller.open()
        await caller.connect()
        await caller.sound(20)
        hang = asyncio.create_task(server.storage.run(answers.wait))
        try:
            await caller.send({"type": "end_session"})
            await caller.message("session_ended")
            listing = (await caller.get(f"/api/interviews/{caller.session_id}/recording")).json()
            assert listing["state"] == "finishing"
            assert listing["finishing"] == {"state": "waiting", "progress": 0.0}
        finally:
            answers.set()
        await hang
        folder = tmp_path / "interviews" / caller.session_id
        await until_finished(folder)
        document = await asyncio.to_thread(manifest.read, folder)
    # As if the disk had never hung: by what the server saw, not pieced together.
    assert (document["phase"], document["reason"]) == ("ended", "client_request")
    assert document["speakers"]["candidate"]["packets"] > 0
    assert await asyncio.to_thread(verify, folder) == []


async def test_a_folder_is_claimed_until_all_that_its_finishing_needs_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: dict[str, bool] = {}
    write_json, write_facts = InterviewFolder.write_json, Facts.write

    def transcript(folder: InterviewFolder, name: str, value: Json) -> None:
        write_json(folder, name, value)
        held[name] = folder.held()

    def facts(known: Facts, folder: InterviewFolder) -> None:
        write_facts(known, folder)
        held["facts"] = folder.held()

    monkeypatch.setattr(InterviewFolder, "write_json", transcript)
    monkeypatch.setattr(Facts, "write", facts)
    async with serving(tmp_path) as server, calling(server.url) as caller:
        await caller.open()
        await caller.connect()
        await caller.sound(3)
        await caller.send({"type": "end_session"})
        await caller.message("session_ended")
        assert held == {"transcript.json": True, "facts": True}
        folder = tmp_path / "interviews" / caller.session_id
        # Let go, or nobody could finish it.
        await until_finished(folder)
    assert (await asyncio.to_thread(manifest.read, folder))["phase"] == "ended"


async def test_a_closing_that_is_called_off_lets_the_folder_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "FILES_SECONDS", 0.3)
    answers = threading.Event()
    async with serving(tmp_path) as server, calling(server.url) as caller:
        await caller.open()
        await caller.connect()
        await caller.sound(20)
        await recorded(server, caller)
        hang = asyncio.create_task(server.storage.run(answers.wait))
        try:
            await caller.send({"type": "end_session"})
            await caller.message("session_ended")
            await server.finishing.drop(SessionId(caller.session_id))
        finally:
            answers.set()
        await hang
        folder = InterviewFolder(tmp_path, SessionId(caller.session_id))

        async def free() -> bool:
            return not await asyncio.to_thread(folder.held)

        await eventually(free, within=10, what="the folder is let go")
        assert any(folder.path.glob("*.ogg"))


async def test_a_server_that_stops_does_not_wait_for_what_a_hanging_disk_keeps(
    tmp_path: Path,
) -> None:
    async with finishing(tmp_path) as finisher:
        folder = record(tmp_path, until=1.0)
        never = asyncio.Event()

        async def closing() -> object:
            return await never.wait()

        work = asyncio.create_task(closing(), name="close files")
        finisher.adopt(folder, work)
        assert finisher.busy
    assert work.cancelled()


async def test_a_folder_that_nobody_told_of_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "SWEEP_SECONDS", 0.05)
    async with finishing(tmp_path):
        folder = record(tmp_path, until=1.0)
        await until_finished(folder.path)
    assert await asyncio.to_thread(verify, folder.path) == []


async def test_what_failed_is_tried_again_and_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "SWEEP_SECONDS", 0.05)
    monkeypatch.setattr(worker, "RETRY_SECONDS", (0.05,))
    folder = record(tmp_path, until=1.0)
    (folder.path / "mixed.webm").mkdir()
    told: list[str] = []
    async with finishing(tmp_path) as finisher:
        finisher.listen_to_failures(lambda folder, reason: told.append(reason))

        async def failures() -> int:
            return finisher.failures

        await eventually(failures, within=WITHIN, what="it fails", good=lambda seen: seen >= 2)
        (folder.path / "mixed.webm").rmdir()
        await until_finished(folder.path)
        await eventually(failures, within=WITHIN, what="it fails", good=lambda seen: seen >= 2)
        assert told == ["EISDIR"]


async def test_what_runs_is_erased_or_was_tried_just_now_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "SWEEP_SECONDS", 0.05)
    sweeps = 0

    def counted(data_dir: Path, settled: set[str] | None = None) -> list[InterviewFolder]:
        nonlocal sweeps
        sweeps += 1
        return unfinished(data_dir, settled)

    async def swept() -> int:
        return sweeps

    async with finishing(tmp_path) as finisher:
        monkeypatch.setattr(worker, "unfinished", counted)
        finisher.spare(lambda session_id: session_id == ONE)
        await finisher.drop(SessionId("dropped"))
        folders = [record(tmp_path, name, until=1.0) for name in ("one", "dropped")]
        (record(tmp_path, "broken", until=1.0).path / "mixed.webm").mkdir()

        async def failed() -> int:
            return finisher.failures

        await eventually(failed, within=WITHIN, what="one fails")
        seen = sweeps
        await eventually(swept, within=10, what="sweeps", good=lambda now: now > seen + 3)
        assert finisher.failures == 1
        assert not any((folder.path / "manifest.json").exists() for folder in folders)
        finisher.spare(lambda _: False)
        await until_finished(folders[0].path)


def test_what_needs_nothing_more_is_not_looked_at_again(tmp_path: Path) -> None:
    finished(tmp_path, "whole", until=1.0)
    record(tmp_path, "left", until=1.0)
    settled: set[str] = set()
    assert [one.session_id for one in unfinished(tmp_path, settled)] == ["left"]
    assert settled == {"whole"}
    (tmp_path / "interviews" / "whole" / "manifest.json").unlink()
    assert [one.session_id for one in unfinished(tmp_path, settled)] == ["left"]


def test_names_of_folders_that_are_gone_are_not_kept(tmp_path: Path) -> None:
    for name in ("whole", "erased"):
        finished(tmp_path, name, until=1.0)
    settled: set[str] = set()
    unfinished(tmp_path, settled)
    assert settled == {"whole", "erased"}
    shutil.rmtree(tmp_path / "interviews" / "erased")
    unfinished(tmp_path, settled)
    assert settled == {"whole"}
    shutil.rmtree(tmp_path / "interviews")
    assert unfinished(tmp_path, settled) == []
    assert settled == set()


async def test_who_waits_for_all_folders_does_not_wait_for_one_that_is_dropped(
    tmp_path: Path,
) -> None:
    storage = StorageWorker()
    storage.start()
    finisher = Finisher(tmp_path, storage)
    try:
        record(tmp_path, "waits", until=1.0)
        await finisher.start(after=asyncio.Event())
        resting = asyncio.create_task(finisher.rested())
        # It waits for the folder, whose turn never comes.
        await asyncio.wait([resting], timeout=0)
        assert not resting.done()
        await finisher.drop(SessionId("waits"))
        async with asyncio.timeout(WITHIN):
            await resting
    finally:
        await finisher.close()
        await storage.close()
