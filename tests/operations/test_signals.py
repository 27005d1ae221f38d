"""The first signal asks a server to end; any second one ends it on the spot, like a crash."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from interview_peer.finishing import manifest
from interview_peer.finishing.verify import verify
from tests.operations.stopping import ended, fill, stopped
from tests.support.caller import Caller, calling
from tests.support.machine import lacking, program
from tests.support.server import (
    COMMAND,
    ServerProcess,
    clean_environment,
    running,
    running_server,
    running_simulator,
)
from tests.support.waiting import eventually

CHILD = Path(__file__).with_name("signalled_child.py")
PAIRS = tuple(itertools.product((signal.SIGTERM, signal.SIGINT), repeat=2))
KEY = "sk-signals"
AT_ONCE = 4.0
"""Seconds within which a busy machine ends a process on the spot; an orderly end that hangs at the
voice service takes more."""
LAST = "Stopped at once."


async def begun(server: ServerProcess, caller: Caller) -> Path:
    """An interview that runs and is being recorded; its folder."""
    await caller.open()
    await caller.connect()
    await caller.sound(5)
    folder = server.folder(caller.session_id)
    await there(folder / "events.jsonl", within=5)
    return folder


async def there(path: Path, within: float = 40.0) -> None:
    async def look() -> bool:
        return await asyncio.to_thread(path.exists)

    await eventually(look, within=within, what=str(path))


async def logged(server: ServerProcess, words: str) -> None:
    async def look() -> bool:
        return any(words in line for line in server.lines)

    await eventually(look, within=10, what=words)


@pytest.mark.timeout(240)
async def test_any_second_signal_ends_at_once_and_the_next_start_finishes_the_recordings(
    tmp_path: Path,
) -> None:
    folders = {}
    async with running_simulator(tmp_path / "simulator", KEY) as simulator:
        live = {
            "SIMULATION_MODE": "false",
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": simulator.url,
            "INTERVIEW_DRAIN_SECONDS": "600",
        }
        for first, second in PAIRS:
            async with (
                running_server(tmp_path, **live) as server,
                calling(server.url) as caller,
            ):
                folder = folders[first, second] = await begun(server, caller)
                # Nobody takes a hang-up any more: an orderly end takes its time.
                simulator.process.send_signal(signal.SIGSTOP)
                try:
                    await asyncio.to_thread(stopped, simulator.process.pid)
                    server.process.send_signal(first)
                    orderly = "draining:" if first is signal.SIGTERM else "phase=ending"
                    await logged(server, orderly)
                    server.process.send_signal(second)
                    code = await ended(server, within=AT_ONCE)
                finally:
                    simulator.process.send_signal(signal.SIGCONT)
            assert (code, server.lines[-1]) == (128 + second, LAST), (first, second, server.tail())
            told = server.tail(1000)
            assert "Traceback" not in told and "not everything was written" not in told, told
            assert not (folder / "manifest.json").exists(), (first, second)
    async with running_server(tmp_path):
        for pair, folder in folders.items():
            await there(folder / "manifest.json")
            assert manifest.read(folder)["phase"] == "recovered", pair
            assert verify(folder) == [], pair


@pytest.mark.timeout(120)
async def test_a_mix_does_not_outlive_a_server_that_ends_at_once(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, calling(server.url) as caller:
        folder = await begun(server, caller)
        await caller.send({"type": "end_session"})

        async def mixing() -> list[int]:
            return children_of(server.process.pid, "interview_peer.finishing")

        (mix,) = await eventually(mixing, within=20, what="a process that mixes")
        try:
            # It takes as long as it must: an emptied server waits for it.
            os.kill(mix, signal.SIGSTOP)
            await asyncio.to_thread(stopped, mix)
            # A terminal sends its Ctrl-C to the server's whole group.
            assert os.getpgid(mix) == mix
            server.process.send_signal(signal.SIGTERM)
            await logged(server, "draining:")
            server.process.send_signal(signal.SIGTERM)
            assert await ended(server, within=AT_ONCE) == 128 + signal.SIGTERM
        finally:
            os.kill(mix, signal.SIGCONT)

        async def gone() -> bool:
            return "interview_peer.finishing" not in command_of(mix)

        await eventually(gone, within=20, what="the end of the mix")
    async with running_server(tmp_path):
        await there(folder / "manifest.json")
    assert verify(folder) == []


def command_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def children_of(process: int, command: str = "") -> list[int]:
    listed = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [child for child in map(int, listed.split()) if command in command_of(child)]


# -- as first process of a container


@pytest.mark.timeout(120)
async def test_the_first_process_of_a_container_ends_at_once_too(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = [program("unshare"), "--pid", "--fork", "--mount-proc", "--kill-child"]
    if os.geteuid() != 0:
        first += ["--user", "--map-root-user"]
    tried = await asyncio.create_subprocess_exec(*first, "true", stderr=asyncio.subprocess.DEVNULL)
    if await tried.wait() != 0:
        lacking("a process namespace cannot be made here")
    environment = clean_environment(
        SIMULATION_MODE="true",
        PORT="0",
        INTERVIEW_UDP_HOST="127.0.0.1",
        INTERVIEW_UDP_PORT="0",
        INTERVIEW_DATA_DIR=str(data),
        INTERVIEW_DRAIN_SECONDS="600",
    )
    async with (
        running([*first, *COMMAND, "serve"], tmp_path, environment, data) as server,
        calling(server.url) as caller,
    ):
        await begun(server, caller)
        (inner,) = children_of(server.process.pid)
        os.kill(inner, signal.SIGTERM)
        await logged(server, "draining:")
        os.kill(inner, signal.SIGTERM)
        # unshare ends as its child did.
        assert await ended(server, within=AT_ONCE) == 128 + signal.SIGTERM
    assert server.lines[-1] == LAST


# -- whatever the first one found


class Child:
    """A process that does not end when it is asked to."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def says(self, word: str) -> None:
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            assert await self.process.stdout.readline() == f"{word}\n".encode()

    async def end(self) -> tuple[int, str]:
        """Its exit code, and what stderr had to say if that is a pipe."""
        async with asyncio.timeout(AT_ONCE):
            code = await self.process.wait()
        stderr = self.process.stderr
        return code, "" if stderr is None else (await stderr.read()).decode()


@contextlib.asynccontextmanager
async def child(
    way: str,
    form: str = "text",
    stderr: int = asyncio.subprocess.PIPE,
    by: tuple[str, ...] = (),
) -> AsyncIterator[Child]:
    """``by`` is a command that runs another one."""
    process = await asyncio.create_subprocess_exec(
        *(*by, sys.executable, str(CHILD), way, form),
        env=clean_environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
    )
    try:
        one = Child(process)
        await one.says("ready")
        yield one
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_second_signal_ends_an_orderly_stop_that_hangs(number: signal.Signals) -> None:
    async with child("hangs") as one:
        one.process.send_signal(signal.SIGTERM)
        await one.says("asked")
        one.process.send_signal(number)
        assert await one.end() == (128 + number, f"{LAST}\n")


async def test_where_lines_are_json_so_is_the_last_one() -> None:
    async with child("hangs", "json") as one:
        one.process.send_signal(signal.SIGINT)
        await one.says("asked")
        one.process.send_signal(signal.SIGINT)
        code, said = await one.end()
    line = json.loads(said)
    assert (code, line.pop("time")[-1]) == (130, "Z")
    assert line == {"level": "critical", "logger": "interview_peer.logs", "event": LAST}


async def test_two_signals_end_a_process_whose_event_loop_is_held() -> None:
    async with child("holds") as one:
        one.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(taken, one.process.pid, signal.SIGTERM)
        one.process.send_signal(signal.SIGTERM)
        assert await one.end() == (143, f"{LAST}\n")


async def test_a_closed_terminal_does_not_end_what_was_started_to_outlive_it() -> None:
    async with child("hangs", by=("sh", "-c", 'trap "" HUP; exec "$@"', "nohup")) as one:
        process = one.process.pid
        assert among(process, "SigIgn", signal.SIGHUP)
        assert among(process, "SigCgt", signal.SIGTERM)
        one.process.send_signal(signal.SIGHUP)
        one.process.send_signal(signal.SIGTERM)
        await one.says("asked")
        one.process.send_signal(signal.SIGHUP)
        one.process.send_signal(signal.SIGTERM)
        assert await one.end() == (143, f"{LAST}\n")


def taken(process: int, number: int) -> None:
    """Wait until a signal no longer waits to be delivered: a second one would melt into it."""
    while among(process, "SigPnd", number) or among(process, "ShdPnd", number):
        time.sleep(0.01)


def among(process: int, which: str, number: int) -> bool:
    """Whether a signal is in one of the sets that Linux tells of a process."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    (mask,) = (int(line.split()[1], 16) for line in lines if line.startswith(f"{which}:"))
    return bool(mask >> (number - 1) & 1)


async def test_a_second_signal_ends_what_is_left_after_the_loop() -> None:
    async with child("late") as one:
        one.process.send_signal(signal.SIGTERM)
        await one.says("asked")
        await one.says("after")
        one.process.send_signal(signal.SIGTERM)
        assert await one.end() == (143, f"{LAST}\n")


async def test_the_end_of_its_supervisor_is_a_second_signal_too() -> None:
    async with child("hangs") as one:
        one.process.send_signal(signal.SIGTERM)
        await one.says("asked")
        assert one.process.stdin is not None
        one.process.stdin.close()
        assert await one.end() == (143, f"{LAST}\n")


async def test_a_full_pipe_for_the_last_line_does_not_keep_the_process() -> None:
    unread, full = os.pipe()
    fill(full)
    try:
        async with child("hangs", stderr=full) as one:
            one.process.send_signal(signal.SIGINT)
            await one.says("asked")
            one.process.send_signal(signal.SIGINT)
            assert await one.end() == (130, "")
    finally:
        os.close(unread)
        os.close(full)
