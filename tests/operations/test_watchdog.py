"""A process whose event loop stands still ends, tells why, and leaves what the next can finish."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from interview_peer import watchdog
from interview_peer.finishing import manifest
from interview_peer.finishing.verify import verify
from tests.operations.stopping import ended, fill, stopped
from tests.support.caller import calling
from tests.support.server import clean_environment, running, running_server
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
CHILD = Path(__file__).with_name("held_child.py")
QUIET_CHILD = Path(__file__).with_name("quiet_child.py")


def watched(data: Path) -> dict[str, str]:
    """The environment of a server in simulation whose loop may stand still for a second."""
    return clean_environment(
        SIMULATION_MODE="true",
        PORT="0",
        INTERVIEW_UDP_HOST="127.0.0.1",
        INTERVIEW_UDP_PORT="0",
        INTERVIEW_DATA_DIR=str(data),
        INTERVIEW_WATCHDOG_SECONDS="1",
    )


@pytest.mark.timeout(120)
async def test_a_held_server_ends_with_its_stack_and_the_next_one_finishes_the_recording(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    async with (
        running([sys.executable, str(CHILD)], tmp_path, watched(data), data) as server,
        calling(server.url) as caller,
    ):
        await caller.open()
        await caller.connect()
        await caller.sound(5)
        folder = server.folder(caller.session_id)

        async def recorded() -> bool:
            return await asyncio.to_thread((folder / "events.jsonl").exists)

        await eventually(recorded, within=5, what="a folder")
        # A stopped process is nobody's fault: it goes on where it was.
        server.process.send_signal(signal.SIGSTOP)
        await asyncio.to_thread(stopped, server.process.pid)
        # Longer than its loop may stand still.
        await asyncio.sleep(1.5)
        server.process.send_signal(signal.SIGCONT)
        assert (await server.get("/health"))[0] == 200
        server.process.send_signal(signal.SIGUSR1)
        async with asyncio.timeout(20):
            code = await server.process.wait()
        server.killed = True
    assert code == watchdog.EXIT_CODE, server.tail()
    told = list(server.lines)
    assert "the event loop stood still" in told[-1] and "CRITICAL" in told[-1]
    assert any("in hold_the_loop" in line for line in told), server.tail()
    async with running_server(tmp_path) as again:

        async def finished() -> bool:
            return await asyncio.to_thread((folder / "manifest.json").exists)

        await eventually(finished, within=30, what="a manifest")
        assert again.folder(caller.session_id) == folder
    assert manifest.read(folder)["phase"] == "recovered"
    assert verify(folder) == []


async def test_a_loop_held_while_the_server_ends_ends_the_process_however_slow_its_start_was(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    command = [sys.executable, str(CHILD), "end"]
    # Its folder is not ready for longer than its loop may stand still; that keeps no loop.
    async with running(command, tmp_path, watched(data), data) as server:
        server.process.send_signal(signal.SIGUSR2)
        assert await ended(server, within=20) == watchdog.EXIT_CODE, server.tail()
    assert "the event loop stood still" in server.lines[-1]
    assert any("in hold_the_loop" in line for line in server.lines), server.tail()


async def test_a_loop_held_while_the_server_starts_ends_the_process(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(CHILD), "start"),
        cwd=tmp_path,
        env=watched(tmp_path / "data"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(30):
            out, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, out) == (watchdog.EXIT_CODE, b"")
    # The doors were open.
    assert b" listening " in said and b"in hold_the_loop" in said


@pytest.mark.parametrize("in_memory", [True, False])
async def test_a_full_pipe_for_an_error_output_does_not_keep_the_process(in_memory: bool) -> None:
    unread, full = os.pipe()
    fill(full)
    environment = clean_environment(PYTHONPATH=str(ROOT), IN_MEMORY="1" if in_memory else "")
    try:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, str(QUIET_CHILD)), env=environment, stderr=full
        )
        try:
            async with asyncio.timeout(20):
                assert await child.wait() == watchdog.EXIT_CODE
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
    finally:
        os.close(unread)
        os.close(full)


@pytest.fixture
def ends() -> list[int]:
    return []


async def test_a_loop_that_goes_round_is_left_alone(ends: list[int]) -> None:
    with watchdog.watching(0.2, ends.append):
        # There is nothing to wait for where nothing is to happen.
        await asyncio.sleep(0.5)
    assert ends == []
    assert "watchdog" not in [thread.name for thread in threading.enumerate()]


async def test_no_watchdog_without_seconds() -> None:
    before = threading.active_count()
    with watchdog.watching(0):
        assert threading.active_count() == before


async def test_a_log_that_nobody_takes_does_not_keep_the_process(
    monkeypatch: pytest.MonkeyPatch, ends: list[int]
) -> None:
    free, ended = threading.Event(), threading.Event()

    class Stuck(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            free.wait(30)

    def end(code: int) -> None:
        ends.append(code)
        ended.set()

    stuck = Stuck()
    monkeypatch.setattr(watchdog, "LAST_WORDS_SECONDS", 0.1)
    logging.getLogger("interview_peer.watchdog").addHandler(stuck)
    try:
        with watchdog.watching(0.2, end):
            # The loop's own thread waits here, as a defect would make it.
            assert ended.wait(10)
    finally:
        free.set()
        logging.getLogger("interview_peer.watchdog").removeHandler(stuck)
    assert ends == [watchdog.EXIT_CODE]
