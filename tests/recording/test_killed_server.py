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
LONGEST = 2.2
"""Seconds from the interview's beginning to the latest kill."""

MISSING = 1.0


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
    passed: dict[Speaker, dict[bytes, float]]
    """Every packet of speech that went through the server, and when."""


async def one_round(folder: Path, seconds: float) -> Round:
    """Hold an interview and kill its server after so many seconds."""
    async with doomed(folder) as (url, process), calling(url) as caller:
        await caller.open()
        await caller.connect()
        caller.speak()
        await asyncio.sleep(seconds)
        killed_at = time.time()
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        passed = {
            Speaker.CANDIDATE: dict(caller.said_at),
            Speaker.INTERVIEWER: dict(caller.heard_at),
        }
        return Round(caller.session_id, killed_at, passed)


def missing(path: Path, one: Round) -> float:
    """Seconds between the kill and the oldest speech that passed and is not in the files."""
    oldest = one.killed_at
    for speaker, passed in one.passed.items():
        recorded = packets_of(path / f"{speaker.value}.ogg")
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
    packets = 0
    for _ in range(ROUNDS):
        # Whole pages are on the disk within a second, so a kill before that is a round too.
        one = await one_round(tmp_path, chance.uniform(0.3, LONGEST))
        path = interviews / one.session_id
        if await asyncio.to_thread((path / "candidate.ogg").exists):
            lost.append(await asyncio.to_thread(missing, path, one))
            packets += sum(map(len, one.passed.values()))
            recorded.append(one.session_id)
    logger.info("missing after %d kills: %s", len(lost), [round(one, 2) for one in lost])
    assert packets > ROUNDS * 50, "hardly anything was said"
    record_property("most missing s", round(max(lost), 3))
    assert len(lost) >= ROUNDS * 0.8
    assert max(lost) <= MISSING, lost

    async with running_server(tmp_path):

        async def unfinished() -> list[str]:
            return [name for name in recorded if not (interviews / name / "manifest.json").exists()]

        await eventually(unfinished, within=120, what="all recovered", good=lambda one: not one)
    for name in recorded:
        folder = interviews / name
        assert await asyncio.to_thread(verify, folder) == []
        assert manifest.read(folder)["phase"] == "recovered"
