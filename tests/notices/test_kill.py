"""Killed again and again while it delivers to a receiver that misbehaves."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import select

from interview_peer.core.backoff import HOLD
from interview_peer.state.database import Database
from interview_peer.state.schema import notices

from .delivery_child import FastClock
from .receiver import Got, Receiver, never, ok

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 20


@dataclass
class Seen:
    """What the receiver knows of one notice."""

    interview: str
    sequence: int
    bodies: set[bytes] = field(default_factory=set)
    asked: list[int] = field(default_factory=list)
    """When it came, in simulated microseconds."""
    taken: int | None = None
    """When it was first answered with success."""


class Moody:
    """Answers well, late, wrongly, or not at all."""

    def __init__(self, clock: FastClock, seed: int) -> None:
        self.clock = clock
        self.chance = random.Random(seed)
        self.seen: dict[str, Seen] = {}
        self.well = False

    async def __call__(self, got: Got) -> web.StreamResponse:
        seen = self.seen.setdefault(got.id, Seen(got.interview, got.sequence))
        seen.bodies.add(got.body)
        seen.asked.append(self.clock())
        mood = 0.0 if self.well else self.chance.random()
        if mood > 0.95:
            return await never(got)
        if mood > 0.85:
            return web.Response(status=self.chance.choice([302, 404, 500, 503]))
        if mood > 0.75:
            assert got.cut is not None
            got.cut()
        if mood > 0.5:
            await asyncio.sleep(mood / 10)
        if seen.taken is None:
            seen.taken = self.clock()
        return await ok(got)


async def child(**told: Any) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.notices.delivery_child", json.dumps(told)),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )


@pytest.mark.timeout(240)
async def test_twenty_kills_lose_no_notice_and_break_no_order(
    database_url: str | None, tmp_path: Path, receiver: Receiver
) -> None:
    clock = FastClock(time.time())
    moody = receiver.answer = Moody(clock, 1)
    chance = random.Random(2)
    promised: set[str] = set()
    told: dict[str, Any] = {
        "database": database_url,
        "folder": str(tmp_path),
        "receiver": receiver.url,
        "began": clock.began,
    }
    for number in range(ROUNDS):
        process = await child(**told, jumped=0, seed=number, writes=True)
        try:
            await receiver.has(len(receiver.got) + chance.randrange(1, 30), within=30)
        finally:
            process.kill()
        output, _ = await process.communicate()
        # A line that was torn by the kill has no end.
        promised |= {line.decode() for line in output.split(b"\n")[:-1]}

    database = await Database.open(database_url, tmp_path)
    async with database.begin() as tx:
        rows = (await tx.execute(select(notices.c.id, notices.c.body))).all()
    written = {str(row.id): str(row.body) for row in rows}
    await database.close()
    assert promised <= set(written)
    assert len(written) > ROUNDS

    # The receiver recovers, and a day goes by.
    moody.well = True
    moody.clock = FastClock(clock.began, 86_400)
    process = await child(**told, jumped=86_400, seed=0, writes=False, expected=len(written))
    assert await asyncio.wait_for(process.wait(), 90) == 0

    seen = moody.seen
    assert set(seen) == set(written)
    assert all(one.bodies == {written[name].encode()} for name, one in seen.items())
    assert all(one.taken is not None for one in seen.values())
    assert overtakings(seen) == []


def overtakings(seen: dict[str, Seen]) -> list[str]:
    """Notices that came before an earlier one was taken, without having waited for it."""
    interviews: dict[str, list[Seen]] = defaultdict(list)
    for one in seen.values():
        interviews[one.interview].append(one)
    wrong = []
    for of_one in interviews.values():
        for earlier, later in combinations(sorted(of_one, key=lambda one: one.sequence), 2):
            assert earlier.taken is not None
            waited = (later.asked[0] - earlier.asked[0]) / 1_000_000
            if later.asked[0] < earlier.taken and waited < HOLD:
                wrong.append(f"{later.sequence} before {earlier.sequence} after {waited:.0f} s")
    return wrong


def test_the_check_of_order_sees_an_overtaking() -> None:
    first = Seen("a", 1, asked=[0, 400_000_000], taken=400_000_000)
    assert overtakings({"1": first, "2": Seen("a", 2, asked=[100], taken=200)}) != []
    assert overtakings({"1": first, "2": Seen("a", 2, asked=[300_000_000], taken=1)}) == []
    assert overtakings({"1": first, "2": Seen("b", 2, asked=[100], taken=200)}) == []
