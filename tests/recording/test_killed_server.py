"""A server that is killed, twenty times at random moments: what is missing, what is recovered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path

import pytest

from interview_peer.finishing import manifest
from interview_peer.finishing.verify import verify
from interview_peer.types import Speaker
from tests.storage.sound import decode
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


async def one_round(folder: Path, seconds: float) -> tuple[str, float]:
    """Hold an interview and kill its server after so many seconds; the id, and when (Unix)."""
    async with doomed(folder) as (url, process), calling(url) as caller:
        await caller.open()
        await caller.connect()
        caller.speak()
        await asyncio.sleep(seconds)
        killed_at = time.time()
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        return caller.session_id, killed_at


def missing(path: Path, killed_at: float) -> float:
    """Seconds between the end of the shorter file and the kill."""
    first = json.loads((path / "events.jsonl").read_bytes().split(b"\n")[0])
    lasted = killed_at - datetime.fromisoformat(first["at"]).timestamp()
    return lasted - min(seconds(path / f"{one.value}.ogg") for one in Speaker)


def seconds(path: Path) -> float:
    try:
        return len(decode(path)) / 48_000
    except EOFError:
        # Killed between the making of the file and its first page.
        return 0.0


async def test_twenty_kills_cost_less_than_a_second_each_and_all_is_recovered(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(20)
    interviews = tmp_path / "data" / "interviews"
    lost: list[float] = []
    recorded: list[str] = []
    for _ in range(ROUNDS):
        # Whole pages are on the disk within a second, so a kill before that is a round too.
        session_id, killed_at = await one_round(tmp_path, chance.uniform(0.3, LONGEST))
        path = interviews / session_id
        if await asyncio.to_thread((path / "candidate.ogg").exists):
            lost.append(await asyncio.to_thread(missing, path, killed_at))
            recorded.append(session_id)
    logger.info("missing after %d kills: %s", len(lost), [round(one, 2) for one in lost])
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
