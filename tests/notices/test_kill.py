"""Killed again and again while it delivers to a receiver that misbehaves."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import select

from interview_peer.core.backoff import HOLD
from interview_peer.state.database import Database
from interview_peer.state.schema import deliveries, notices

from .delivery_child import LEASE_SECONDS, FastClock
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
    failed: int | None = None
    """When the sender first gave up on an attempt: an answer can come too late for it."""
    done: int = 0
    """When the sender knew that it was taken."""


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
    database = await Database.open(database_url, tmp_path)
    async with database.begin() as tx:
        sent = (await tx.execute(select(deliveries))).all()
    await database.close()
    for row in sent:
        seen[row.notice_id].failed = row.first_failed_at
        seen[row.notice_id].done = row.delivered_at
    assert set(seen) == set(written)
    assert all(one.bodies == {written[name].encode()} for name, one in seen.items())
    assert all(one.taken is not None for one in seen.values())
    assert overtakings(seen) == []


def overtakings(seen: dict[str, Seen]) -> list[str]:
    """Notices that came before an earlier one was taken, without having waited.

    One that waited five minutes behind any earlier notice that failed need not wait for others.
    """
    interviews: dict[str, list[Seen]] = defaultdict(list)
    for one in seen.values():
        interviews[one.interview].append(one)
    wrong = []
    for of_one in interviews.values():
        for later in of_one:
            came = later.asked[0]
            earlier = [one for one in of_one if one.sequence < later.sequence]
            overtaken = [one for one in earlier if one.taken is None or came < one.taken]
            # It was claimed before it came, but no longer ago than a lease: an earlier one may
            # have been delivered since.
            waited = [
                (came - one.failed) / 1_000_000
                for one in earlier
                if one.failed is not None and came < one.done + LEASE_SECONDS * 1_000_000
            ]
            if overtaken and max(waited, default=0.0) < HOLD:
                wrong.append(f"{later.sequence} having waited {waited}")
    return wrong


def test_the_check_of_order_sees_an_overtaking() -> None:
    def seen(interview: str, sequence: int, came: int, failed: int | None, taken: int) -> Seen:
        return Seen(interview, sequence, set(), [came], taken, failed, taken + 1)

    first = seen("a", 1, 0, 10, 400_000_000)
    assert overtakings({"1": first, "2": seen("a", 2, 100, None, 200)}) != []
    assert overtakings({"1": first, "2": seen("a", 2, 300_000_010, None, 1)}) == []
    assert overtakings({"1": first, "2": seen("b", 2, 100, None, 200)}) == []
    second, third = seen("a", 2, 310_000_000, 1, 500_000_000), seen("a", 3, 311_000_000, None, 1)
    assert overtakings({"1": first, "2": second, "3": third}) == []
    # The first was delivered between the claim of the third, which was free, and its coming.
    delivered = seen("a", 1, 0, 10, 311_000_000)
    third = seen("a", 3, 312_000_000, None, 1)
    assert overtakings({"1": delivered, "2": second, "3": third}) == []
    long_after = seen("a", 3, 612_000_000, None, 1)
    second = seen("a", 2, 310_000_000, 600_000_000, 700_000_000)
    assert overtakings({"1": delivered, "2": second, "3": long_after}) != []
    untried = seen("a", 2, 500_000_000, None, 500_000_000)
    assert overtakings({"2": untried, "3": third}) != []
