"""The whole server is killed at any moment of interviews' lives: every notice arrives, in order."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from aiohttp import web
from sqlalchemy import select

from interview_peer.state.database import Database
from interview_peer.state.schema import deliveries, interviews, notices
from interview_peer.types import Json
from tests.support.caller import calling
from tests.support.operator import PATH, Operator
from tests.support.server import ServerProcess, running_server
from tests.support.waiting import eventually

from .office import SECRET
from .receiver import Got, Receiver, ok

ROUNDS = 5
AT_ONCE = 2
LONGEST = 5.0
"""Seconds from the moment a server is ready to its end; a life takes about as long."""
ONCE = ("interview.created", "interview.started", "interview.ended", "transcript.completed")
RECORDED = {"recording.ready", "recording.failed"}


class Slow:
    """A receiver that takes its time, and now and then refuses a notice once."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.taken: list[str] = []
        self._refused: set[str] = set()

    async def __call__(self, got: Got) -> web.StreamResponse:
        await asyncio.sleep(self.chance.random() / 20)
        if self.chance.random() < 0.1 and got.id not in self._refused:
            self._refused.add(got.id)
            return web.Response(status=500)
        self.taken.append(got.id)
        return await ok(got)


async def life(
    server: ServerProcess, key: str, made: dict[str, Json], talking: asyncio.Event
) -> None:
    """One interview from its making to its end, as far as the server lives."""
    async with calling(server.url) as caller, calling(server.url) as candidate:
        operator = Operator(caller, None)
        # With the same key as long as nobody knows whether it was made.
        made[key] = interview = await operator.make(idempotency_key=key)
        await candidate.open()
        await candidate.send({"type": "init", "token": interview["join_token"]})
        await candidate.connect()
        talking.set()
        await candidate.event("response.done")
        reply = await operator.ask("POST", f"{PATH}/{interview['id']}/end")
        assert reply.status == 200, reply


@pytest.mark.timeout(400)
async def test_a_server_killed_at_any_moment_loses_no_notice_and_breaks_no_order(
    tmp_path: Path, receiver: Receiver
) -> None:
    settings = {
        "INTERVIEW_WEBHOOK_URL": receiver.url,
        "INTERVIEW_WEBHOOK_SECRET": SECRET,
        "INTERVIEW_WEBHOOK_ALLOW": "127.0.0.0/8",
        "INTERVIEW_JOIN_SECRET": "a-join-secret-of-more-than-32-characters",
    }
    slow = receiver.answer = Slow(1)
    chance = random.Random(2)
    made: dict[str, Json] = {}
    keys: list[str] = []
    for number in range(ROUNDS):
        async with running_server(tmp_path, **settings) as server:
            lost = [key for key in keys if key not in made]
            new = [f"round-{number}-{one}" for one in range(AT_ONCE)]
            keys += new
            talking = asyncio.Event()
            lives = [asyncio.create_task(life(server, key, made, talking)) for key in [*lost, *new]]
            longest = LONGEST
            if number % 2:
                # Some kills meet interviews at work for certain, however fast the machine is.
                await asyncio.wait_for(talking.wait(), 30)
                longest = 0.3
            # Not a wait for anything: the moment of death is what chance decides.
            done, _ = await asyncio.wait(lives, timeout=chance.uniform(0.05, longest))
            for one in done:
                one.result()
            await server.kill()
            for one in lives:
                one.cancel()
            await asyncio.gather(*lives, return_exceptions=True)

    async with running_server(tmp_path, **settings) as server, calling(server.url) as caller:
        operator = Operator(caller, None)
        for key in keys:
            if key not in made:
                made[key] = await operator.make(idempotency_key=key)
        # One that nobody joined is over as well, so that all of them have an end.
        for interview in made.values():
            await operator.ask("POST", f"{PATH}/{interview['id']}/end")

        async def outstanding() -> list[str]:
            left = []
            for interview in made.values():
                shown = await operator.show(interview)
                reply = await operator.ask("GET", f"{PATH}/{interview['id']}/deliveries")
                types = {one["type"] for one in reply.json()["deliveries"]}
                recorded = shown["finishing"] is None or types & RECORDED
                if shown["phase"] not in ("ended", "failed") or not recorded:
                    left.append(f"{interview['id']} {shown['phase']} {shown['finishing']}")
            due = (await operator.ask("GET", "/api/webhooks/deliveries?state=due")).json()
            return left + [one["type"] for one in due["deliveries"]]

        await eventually(
            outstanding, within=120, what="nothing to be done", good=lambda left: not left
        )

    database = await Database.open(None, tmp_path / "data")
    async with database.begin() as tx:
        written = (await tx.execute(select(notices).order_by(notices.c.sequence))).all()
        sent = Counter((await tx.execute(select(deliveries.c.state))).scalars())
        found = await tx.execute(select(interviews.c.id, interviews.c.reason))
        ends = {row.id: row.reason for row in found}
    await database.close()

    # Each one that was promised, and none besides; the same bytes each time.
    assert set(ends) == {interview["id"] for interview in made.values()}
    assert set(receiver.ids) == set(slow.taken) == {row.id for row in written}
    assert sent == {"delivered": len(written)}
    bodies = defaultdict(set)
    for got in receiver.got:
        bodies[got.id].add(got.body)
    assert bodies == {row.id: {row.body.encode()} for row in written}

    of_interview = defaultdict(list)
    for row in written:
        of_interview[row.interview_id].append(row)
    for name, rows in of_interview.items():
        assert [row.sequence for row in rows] == list(range(1, len(rows) + 1))
        types = [row.type for row in rows]
        assert types[0] == "interview.created"
        assert types.count("interview.ended") == 1
        assert all(types.count(once) <= 1 for once in ONCE), types
        if "interview.started" in types:
            assert types.index("interview.started") < types.index("interview.ended")
            assert "transcript.completed" in types
        # When each was first taken: in the order they were written.
        ids = {row.id for row in rows}
        arrived = list(dict.fromkeys(one for one in slow.taken if one in ids))
        assert arrived == [row.id for row in rows], (name, types)
    # The kills met interviews at work, or this test would show nothing.
    assert "recovered" in ends.values()
