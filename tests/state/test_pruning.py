"""What is removed from the database when it is old, and what never is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import func, insert, select, update

from interview_peer.notices import outbox
from interview_peer.notices.types import Fact, RecordingFailed
from interview_peer.state.database import Database, Transaction
from interview_peer.state.pruning import Pruner, Retention
from interview_peer.state.schema import (
    attempts,
    deliveries,
    interviews,
    notices,
    resume_tokens,
)
from interview_peer.types import SessionId
from tests.notices.office import DAY, ManualClock, Office

RETENTION = Retention(notices=timedelta(days=30), keys=timedelta(days=7))


class House:
    """A database whose time is moved by hand."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = ManualClock()
        self.office = Office(database, self.clock)

    async def told(self, interview: SessionId, states: Sequence[str], fact: Any = None) -> str:
        """A notice of now with deliveries in these states, each with one attempt."""
        only: Fact | None = fact
        name = await self.office.tell(interview, only)
        now = self.clock()

        async def work(tx: Transaction) -> None:
            await tx.execute(deliveries.delete().where(deliveries.c.notice_id == name))
            for number, state in enumerate(states):
                await tx.execute(
                    insert(deliveries).values(
                        id=f"{name}-{number}",
                        notice_id=name,
                        interview_id=interview,
                        sequence=1,
                        destination=f"callback:{number}",
                        url="https://receiver.example.org/",
                        state=state,
                        attempts=1,
                        next_at=now,
                        created_at=now,
                        delivered_at=now if state == "delivered" else None,
                    )
                )
                await tx.execute(
                    insert(attempts).values(delivery_id=f"{name}-{number}", at=now, milliseconds=1)
                )

        await self.database.run(work)
        return name

    async def prune(self, retention: Retention = RETENTION, **options: Any) -> Pruner:
        pruner = Pruner(
            self.database, retention, now=self.clock, **{"pause_seconds": 0.0, **options}
        )
        await pruner.look()
        return pruner

    async def ids(self) -> set[str]:
        async with self.database.begin() as tx:
            return {*(await tx.execute(select(notices.c.id))).scalars()}

    async def count(self, table: Any) -> int:
        async with self.database.begin() as tx:
            return int((await tx.execute(select(func.count()).select_from(table))).scalar_one())


async def test_what_was_delivered_goes_with_all_that_belongs_to_it_when_its_days_are_over(
    database: Database,
) -> None:
    house = House(database)
    interview = await house.office.interview()
    await house.told(interview, ["delivered", "delivered"])
    nobodys = await house.told(interview, [])
    house.clock.now += 30 * DAY
    young = await house.told(interview, ["delivered"])
    assert (await house.prune()).removed["notices"] == 0
    assert nobodys in await house.ids()
    house.clock.now += 1
    assert (await house.prune()).removed["notices"] == 2
    assert await house.ids() == {young}
    assert (await house.count(deliveries), await house.count(attempts)) == (1, 1)


async def test_what_was_not_delivered_stays_however_old_it_is(database: Database) -> None:
    house = House(database)
    interview = await house.office.interview()
    kept = {await house.told(interview, [state, "delivered"]) for state in ("due", "paused")}
    dead = await house.told(interview, ["dead"])
    house.clock.now += 10_000 * DAY
    await house.prune()
    assert await house.ids() == {*kept, dead}
    # Of those only what was delivered went.
    assert (await house.count(deliveries), await house.count(attempts)) == (3, 3)
    await house.prune(Retention(dead=timedelta(days=9_999)))
    assert await house.ids() == kept


async def test_what_was_sent_again_lately_is_young_again(database: Database) -> None:
    house = House(database)
    name = await house.told(await house.office.interview(), ["delivered"])
    house.clock.now += 40 * DAY
    async with database.begin() as tx:
        await tx.execute(update(deliveries).values(delivered_at=house.clock() - DAY))
    await house.prune()
    assert await house.ids() == {name}


async def test_that_a_recording_was_lost_is_not_told_twice_after_it_was_delivered(
    database: Database,
) -> None:
    house = House(database)
    interview = await house.office.interview()
    name = await house.told(interview, ["delivered"], RecordingFailed("missing"))
    house.clock.now += 40 * DAY
    await house.prune()
    assert await house.ids() == {name}
    assert await house.count(deliveries) == 0


async def test_many_go_in_small_transactions(database: Database) -> None:
    house = House(database)
    interview = await house.office.interview()
    for _ in range(25):
        await house.told(interview, ["delivered"])
    stays = await house.told(interview, ["due"])
    house.clock.now += 40 * DAY
    transactions = 0
    real = database.run

    async def counted(*given: Any, **options: Any) -> Any:
        nonlocal transactions
        transactions += 1
        return await real(*given, **options)

    database.run = counted  # type: ignore[method-assign]
    pruner = await house.prune(at_once=5)
    assert transactions >= 6
    assert pruner.removed["notices"] == 25
    assert await house.ids() == {stays}


async def test_where_an_erased_interviews_notices_went_is_forgotten_with_the_last_of_them(
    database: Database,
) -> None:
    house = House(database)
    callback = {"url": "https://receiver.example.org/", "secret": None, "events": None}
    erased, other = [await house.office.interview(callback) for _ in range(2)]
    async with database.begin() as tx:
        await outbox.erase(tx, erased)
        await tx.execute(
            update(interviews).where(interviews.c.id == erased).values(deleted_at=house.clock())
        )
    for interview in (erased, other):
        await house.told(interview, ["delivered"])
    waits = await house.told(erased, ["due"])

    async def callbacks() -> dict[str, Any]:
        async with database.begin() as tx:
            rows = await tx.execute(select(interviews.c.id, interviews.c.callback))
            return {row.id: row.callback for row in rows}

    house.clock.now += 40 * DAY
    await house.prune()
    assert await callbacks() == {erased: callback, other: callback}
    async with database.begin() as tx:
        await tx.execute(
            update(deliveries)
            .where(deliveries.c.notice_id == waits)
            .values(state="delivered", delivered_at=1)
        )
    await house.prune()
    assert await callbacks() == {erased: None, other: callback}


async def test_idempotency_keys_and_tokens_go_and_interviews_stay(database: Database) -> None:
    house = House(database)
    old, young = [await house.office.interview() for _ in range(2)]
    async with database.begin() as tx:
        for name, age in ((old, 32 * DAY), (young, DAY)):
            at = house.clock() - age
            await tx.execute(
                update(interviews)
                .where(interviews.c.id == name)
                .values(idempotency_key=name, idempotency_hash="x", created_at=at)
            )
            await tx.execute(insert(resume_tokens).values(hash=name, interview_id=name, at=at))
    pruner = await house.prune()
    assert pruner.removed == {"keys": 1, "tokens": 1, "notices": 0}
    async with database.begin() as tx:
        keys = await tx.execute(select(interviews.c.idempotency_key, interviews.c.idempotency_hash))
        assert {*map(tuple, keys.all())} == {(None, None), (young, "x")}
        left = await tx.execute(select(resume_tokens.c.hash))
        assert [*left.scalars()] == [young]


async def test_two_processes_that_prune_at_once_do_not_hinder_each_other(
    database: Database,
) -> None:
    house = House(database)
    interview = await house.office.interview()
    for _ in range(40):
        await house.told(interview, ["delivered", "delivered"])
    house.clock.now += 40 * DAY
    both = await asyncio.gather(house.prune(at_once=3), house.prune(at_once=4))
    assert sum(one.removed["notices"] for one in both) == 40
    assert await house.count(notices) == 0
