"""A server that is killed, twenty times at random moments: what is missing, what is recovered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from interview_peer.finishing import manifest
from interview_peer.finishing.pages import Page, pages
from interview_peer.finishing.verify import verify
from interview_peer.types import Speaker
from tests.support.caller import calling
from tests.support.server import COMMAND, READY, clean_environment, running_server
from tests.support.waiting import eventually

logger = logging.getLogger(__name__)

pytestmark = pytest.mark.timeout(300)

ROUNDS = 20
EARLIEST, LATEST = 0.3, 6.0
"""Seconds from the signalling connection to the kill: the first come before there is any sound."""

MISSING = 1.0
"""Seconds of speech that a kill may cost at most; so long after the leg was connected there are
files."""


@contextlib.asynccontextmanager
async def doomed(folder: Path) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """A server that is ready, and is dead afterwards; its address and its process."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *("serve", "--port", "0", "--simulation", "--data-dir", str(folder / "data")),
        cwd=folder,
        env=clean_environment(
            INTERVIEW_UDP_HOST="127.0.0.1", INTERVIEW_UDP_PORT="0", LOG_LEVEL="error"
        ),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
        ready = READY.match(line)
        assert ready is not None, line
        yield ready.group(1).rstrip("/"), process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@dataclass(frozen=True)
class Round:
    """One interview whose server was killed."""

    session_id: str
    killed_at: float
    """Unix time."""
    connected_at: float | None
    """When the leg was connected; None if it was not."""
    passed: dict[Speaker, dict[bytes, float]]
    """Every packet of speech that went through the server, and when."""


async def one_round(folder: Path, seconds: float) -> Round:
    """Begin an interview and kill its server after so many seconds, wherever it is then."""
    async with doomed(folder) as (url, process), calling(url) as caller:
        await caller.open()
        loop = asyncio.get_running_loop()
        kill_at = loop.time() + seconds
        # Said as soon as there is a leg; two sentences last beyond the latest kill.
        caller.speak(line=1)
        caller.speak(line=3)
        connecting = asyncio.create_task(caller.connect(), name="connect a caller")
        connected_at: float | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(kill_at):
                await caller.media_connected.wait()
                connected_at = time.time()
        await asyncio.sleep(kill_at - loop.time())
        killed_at = time.time()
        os.kill(process.pid, signal.SIGKILL)
        if not connecting.done():
            connecting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await connecting
        await process.wait()
        passed = {
            Speaker.CANDIDATE: dict(caller.said_at),
            Speaker.INTERVIEWER: dict(caller.heard_at),
        }
        return Round(caller.session_id, killed_at, connected_at, passed)


def missing(path: Path, one: Round) -> float:
    """Seconds between the kill and the oldest speech that passed and is not in the files."""
    oldest = one.killed_at
    for speaker, passed in one.passed.items():
        file = path / f"{speaker.value}.ogg"
        recorded = packets_of(file) if file.exists() else set()
        oldest = min([oldest, *(at for packet, at in passed.items() if packet not in recorded)])
    return one.killed_at - oldest


def packets_of(path: Path) -> set[bytes]:
    """Every packet on a whole page of a file. Pages hold whole packets alone."""
    with path.open("rb") as file:
        return {packet for page in pages(file) if isinstance(page, Page) for packet in page.packets}


async def test_twenty_kills_cost_less_than_a_second_each_and_all_is_recovered(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(20)
    interviews = tmp_path / "data" / "interviews"
    lost: list[float] = []
    recorded: list[str] = []
    packets = early = 0
    step = (LATEST - EARLIEST) / ROUNDS
    for number in range(ROUNDS):
        # One at a random moment of each part, so that none of them is left out by chance.
        one = await one_round(tmp_path, EARLIEST + step * (number + chance.random()))
        path = interviews / one.session_id
        lost.append(await asyncio.to_thread(missing, path, one))
        packets += sum(map(len, one.passed.values()))
        early += one.connected_at is None or one.killed_at - one.connected_at < MISSING
        if await asyncio.to_thread((path / "candidate.ogg").exists):
            recorded.append(one.session_id)
    logger.info("missing after each kill: %s", [round(one, 2) for one in lost])
    assert packets > ROUNDS * 50, "hardly anything was said"
    record_property("most missing s", round(max(lost), 3))
    assert early <= ROUNDS * 0.5, "the legs were connected too late to tell anything"
    assert len(recorded) >= ROUNDS - early, "files are opened too late"
    assert max(lost) <= MISSING, lost

    async with running_server(tmp_path):

        async def unfinished() -> list[str]:
            return [name for name in recorded if not (interviews / name / "manifest.json").exists()]

        await eventually(unfinished, within=120, what="all recovered", good=lambda one: not one)
    for name in recorded:
        folder = interviews / name
        assert await asyncio.to_thread(verify, folder) == []
        assert manifest.read(folder)["phase"] == "recovered"
