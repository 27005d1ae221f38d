"""A disk that is full, small or closed costs the recording at most, never the interview."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from interview_peer.app import Server
from interview_peer.finishing import manifest
from interview_peer.finishing.verify import verify
from interview_peer.storage import recorder
from interview_peer.storage.folder import INTERVIEWS, InterviewFolder
from tests.state.telling import told as told_types
from tests.support.caller import Caller, calling
from tests.support.inprocess import live, serving
from tests.support.machine import lacking
from tests.support.operator import KEY, Operator
from tests.support.server import running_server
from tests.support.waiting import eventually

from .peers import Browser, voice_service

pytestmark = pytest.mark.timeout(180)
WITHIN = 90.0


@contextlib.contextmanager
def mounted(path: Path) -> Iterator[Path]:
    """A file system of 400 kB that only root can make."""
    path.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(path)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        lacking("this machine does not let us mount a file system")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk for a whole data folder."""
    with mounted(tmp_path / "disk") as path:
        yield path


@pytest.fixture
def recordings_disk(tmp_path: Path) -> Iterator[Path]:
    """The same for the recordings in ``tmp_path`` alone."""
    with mounted(tmp_path / INTERVIEWS) as path:
        yield path


def test_a_machine_without_mounts_fails_where_every_test_must_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("CI", "true")
    outcomes = (pytest.fail.Exception, pytest.skip.Exception)
    with pytest.raises(outcomes, match="mount") as outcome, mounted(tmp_path / "disk"):
        raise AssertionError("it was mounted")
    assert outcome.type is pytest.fail.Exception


def remount(path: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(path)], check=True)


@contextlib.asynccontextmanager
async def talking(url: str) -> AsyncIterator[Caller]:
    """A caller whose interview is live, and still is at the end; then it is ended."""
    async with calling(url) as caller:
        await caller.open()
        await caller.connect()
        await caller.sound(3)
        yield caller
        await caller.sound(3)
        assert await caller.known_phase() == "live"
        await caller.send({"type": "end_session"})
        await caller.message("session_ended")


async def told_of_failure(server: Server, session_id: str) -> None:
    """Wait for the notice that a recording failed, of which there must be one."""

    async def heard() -> list[str]:
        return await told_types(server.state.database, session_id)

    await eventually(
        heard,
        within=10,
        what="the notice",
        good=lambda types: types.count("recording.failed") == 1,
    )


def told(caplog: pytest.LogCaptureFixture, message: str) -> list[str | None]:
    return [
        getattr(record, "reason", None)
        for record in caplog.records
        if record.getMessage() == message
    ]


async def test_a_full_disk_stops_the_recording_alone_and_space_mends_it(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filler = small_disk / "filler"
    with caplog.at_level(logging.INFO):
        async with serving(small_disk) as server:
            async with talking(server.url) as caller:
                folder = small_disk / "interviews" / caller.session_id

                async def begun() -> bool:
                    return (folder / "candidate.ogg").exists()

                await eventually(begun, within=5, what="files")
                space = os.statvfs(small_disk)
                await asyncio.to_thread(filler.write_bytes, bytes(space.f_bavail * space.f_bsize))

                async def failed() -> int:
                    return server.storage.failures

                await eventually(failed, within=20, what="the recording fails")
                # The interview goes on, and who waits for its recording knows already.
                listing = await server.archive.listing(caller.session_id)
                assert (listing["state"], listing["failure"]) == ("running", "ENOSPC")

            async def given_up() -> int:
                return server.finishing.failures

            await eventually(given_up, within=WITHIN, what="finishing gives up")
            state = (await server.interviews.finishing(caller.session_id)) or {}
            assert (state["state"], state["reason"]) == ("failed", "ENOSPC")
            # The next interview does not notice.
            async with talking(server.url):
                pass
    assert told(caplog, "recording failed, the interview goes on")[0] == "ENOSPC"
    filler.unlink()
    remount(small_disk, "size=4m")
    async with serving(small_disk) as server:

        async def done() -> bool:
            return (folder / "manifest.json").exists()

        await eventually(done, within=WITHIN, what="recovered")
    assert await asyncio.to_thread(verify, folder) == []


async def test_a_disk_that_can_no_longer_be_written_costs_the_recording_alone(
    recordings_disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path) as server:
        await asyncio.to_thread(remount, recordings_disk, "ro")
        async with talking(server.url) as caller:
            assert await server.interviews.finishing(caller.session_id) is None
            assert (await server.archive.listing(caller.session_id))["failure"] == "no_folder"
            # Told while the interview runs, and not again when it is over.
            await told_of_failure(server, caller.session_id)
        await server.state.chronicle.drained()
        notices = await told_types(server.state.database, caller.session_id)
        assert notices.index("recording.failed") < notices.index("interview.ended")
        assert notices.count("recording.failed") == 1
    assert told(caplog, "no folder for the recording") == [None]


async def test_a_folder_of_recordings_that_became_a_file_costs_the_recording_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path) as server:
        (tmp_path / INTERVIEWS).rmdir()
        (tmp_path / INTERVIEWS).write_text("not a folder")
        async with talking(server.url):
            pass
    assert told(caplog, "no folder for the recording") == [None]


async def test_a_file_that_may_not_grow_ends_the_recording_and_says_so_in_the_manifest(
    tmp_path: Path,
) -> None:
    async with running_server(tmp_path) as server:
        pid = server.process.pid
        async with talking(server.url) as caller:
            limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (6_000, limits[1]))

            async def failed() -> bool:
                return any("recording failed" in line for line in server.lines)

            await eventually(failed, within=20, what="the recording fails")
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
        folder = server.folder(caller.session_id)

        async def done() -> bool:
            return (folder / "manifest.json").exists()

        await eventually(done, within=WITHIN, what="finished")
        assert sum("recording failed" in line for line in server.lines) == 1
    document = await asyncio.to_thread(manifest.read, folder)
    assert (document["failure"], document["complete"]) == ("EFBIG", False)
    assert await asyncio.to_thread(verify, folder) == []


async def test_what_waits_for_a_hanging_disk_keeps_no_interview_from_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with voice_service() as service:
        settings = live(service.base_url.replace("127.0.0.1", "localhost"))
        async with serving(tmp_path, **settings) as server:
            loop, answers = asyncio.get_running_loop(), threading.Event()
            waiting = [loop.run_in_executor(None, answers.wait) for _ in range(64)]
            url = server.url.replace("localhost", "127.0.0.1")
            browser = Browser(url, server.browser_port.address)

            def exists(folder: InterviewFolder) -> bool:
                assert threading.current_thread() is not threading.main_thread()
                return True

            monkeypatch.setattr(InterviewFolder, "exists", exists)
            try:
                async with asyncio.timeout(15):
                    await browser.connect()
            finally:
                answers.set()
                await asyncio.gather(*waiting)
                await browser.close()


async def test_a_hanging_disk_holds_neither_the_invited_nor_a_named_session_nor_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, asked = threading.Event(), 0

    def exists(folder: InterviewFolder) -> bool:
        nonlocal asked
        assert threading.current_thread() is not threading.main_thread()
        asked += 1
        answers.wait()
        return True

    async with (
        serving(tmp_path, admin_key=KEY) as server,
        calling(server.url) as invited,
        calling(server.url) as named,
    ):
        made = await Operator(invited).make()
        monkeypatch.setattr(InterviewFolder, "exists", exists)
        try:
            await invited.open_bare(f"/ws/{made['id']}")
            await invited.send({"type": "init", "token": made["join_token"]})
            await invited.message("session", where=lambda one: one["sessionId"] == made["id"])
            await invited.connect()
            await named.open()
            await named.send({"type": "init", "sessionId": "a-name"})
            await named.message("session", where=lambda one: one["sessionId"] == "a-name")
        finally:
            answers.set()
        # Once it answers, there was one of each name.
        await named.send({"type": "init", "sessionId": "another-name"})
        assert await named.error() == "SESSION_ID_TAKEN"
        assert asked == 3
        assert server.interviews.running == 1


async def test_a_disk_that_fails_keeps_no_named_session_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exists(folder: InterviewFolder) -> bool:
        raise OSError(errno.EIO, "Input/output error")

    async with serving(tmp_path) as server, calling(server.url) as named:
        monkeypatch.setattr(InterviewFolder, "exists", exists)
        await named.open()
        await named.send({"type": "init", "sessionId": "a-name"})
        await named.message("session", where=lambda one: one["sessionId"] == "a-name")


async def test_an_interview_that_ends_before_its_folder_is_made_is_not_flushed_for_ever(
    tmp_path: Path,
) -> None:
    answers = threading.Event()
    async with serving(tmp_path) as server, calling(server.url) as caller:
        hang = asyncio.create_task(server.storage.run(answers.wait))
        try:
            await caller.open()
            await caller.connect()
            await caller.send({"type": "end_session"})

            async def closing() -> int:
                return int(server.storage.statistics()["closing"])

            await eventually(closing, within=15, what="the files are being closed")
        finally:
            answers.set()
        await hang
        # When this is told, all of the interview's own tasks are over.
        await server.interviews.find(caller.session_id).finished.wait()
        assert server.storage.statistics()["recorders"] == 0
        folder = tmp_path / INTERVIEWS / caller.session_id

        async def done() -> bool:
            return (folder / "manifest.json").exists()

        await eventually(done, within=WITHIN, what="finished")
    assert await asyncio.to_thread(verify, folder) == []


async def test_sound_that_a_hanging_disk_costs_is_told_at_once_and_the_files_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recorder, "WAITING_PACKETS", 40)
    answers = threading.Event()
    async with serving(tmp_path) as server:
        async with talking(server.url) as caller:
            hang = asyncio.create_task(server.storage.run(answers.wait))
            try:
                await caller.sound(60)
                # The disk hangs still.
                await told_of_failure(server, caller.session_id)
                listing = await server.archive.listing(caller.session_id)
                assert (listing["state"], listing["failure"]) == ("running", "overflow")
            finally:
                answers.set()
            await hang
        folder = tmp_path / INTERVIEWS / caller.session_id

        async def done() -> bool:
            return (folder / "manifest.json").exists()

        await eventually(done, within=WITHIN, what="finished")
        await server.state.chronicle.drained()
        notices = await told_types(server.state.database, caller.session_id)
        assert notices.count("recording.failed") == 1
    document = await asyncio.to_thread(manifest.read, folder)
    assert (document["failure"], document["complete"]) == (None, False)
    assert document["speakers"]["candidate"]["overflow"] > 0
    # What came when the disk answered again is there too.
    assert document["speakers"]["candidate"]["packets"] > 40
    assert await asyncio.to_thread(verify, folder) == []
    assert told(caplog, "recording loses sound, the disk does not answer") == ["overflow"]
