"""The chronicle with databases that are locked, lost, slow and back again."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from interview_peer.core.acts import KEYLESS, Act, Entry, Outcome
from interview_peer.errors import StateUnavailable
from interview_peer.notices.types import new_id
from interview_peer.state import chronicle as chronicle_module
from interview_peer.state import migrate
from interview_peer.state.acts import Wanted, page
from interview_peer.state.chronicle import Chronicle
from interview_peer.state.database import FILE, Database, Transaction
from interview_peer.state.happenings import Acted, Happening, Started, Turns
from interview_peer.state.records import Records
from interview_peer.types import SessionId
from tests.state.telling import TOLD, interview, life, records, said, told, turn
from tests.support.postgres import Postgres
from tests.support.waiting import eventually


@contextlib.asynccontextmanager
async def writing(database: Database) -> AsyncIterator[Chronicle]:
    chronicle = Chronicle(database, records())
    chronicle.start()
    yield chronicle
    await chronicle.close()


def interleaved(names: list[str]) -> list[Happening]:
    lives = [life(name) for name in names]
    return [lives[which][step] for step in range(len(lives[0])) for which in range(len(lives))]


async def test_interviews_that_overlap_are_each_written_in_order(database: Database) -> None:
    names = [f"i{number}" for number in range(20)]
    woken = 0

    def wake() -> None:
        nonlocal woken
        woken += 1

    async with writing(database) as chronicle:
        chronicle.wake = wake
        for happening in interleaved(names):
            chronicle.tell(happening)
        await chronicle.drained()
    for name in names:
        assert await told(database, name) == TOLD
    assert woken == chronicle.written == 20 * len(life("x"))


async def test_what_is_told_before_the_start_is_written_first(database: Database) -> None:
    chronicle = Chronicle(database, records())
    for happening in life("one"):
        chronicle.tell(happening)
    chronicle.start()
    await chronicle.drained()
    await chronicle.close()
    assert await told(database, "one") == TOLD


async def test_locked_file_holds_up_the_writer_alone(tmp_path: Path) -> None:
    database = await Database.open(None, tmp_path, patience=0.3)
    await migrate.upgrade(database)
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    longest = 0.0
    async with writing(database) as chronicle:
        for happening in life("one"):
            chronicle.tell(happening)
        with pytest.raises(StateUnavailable):
            await database.ping()
        last = time.monotonic()
        while chronicle.statistics()["away_seconds"] == 0.0:
            await asyncio.sleep(0.001)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        other.execute("ROLLBACK")
        other.close()
        await chronicle.drained()
    assert await told(database, "one") == TOLD
    await database.close()
    # The wait for the lock takes a second at a time, in the connection's own thread.
    assert longest < 0.25


async def test_slow_database_never_holds_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await Database.open(None, tmp_path)
    await migrate.upgrade(database)

    def slowly(_: object) -> None:
        time.sleep(0.3)

    async def slow(tx: Transaction) -> None:
        raw = await tx.get_raw_connection()
        driver = raw.driver_connection
        assert driver is not None
        await driver.create_function("slowly", 1, slowly)
        await tx.exec_driver_sql("SELECT slowly(1)")

    work = asyncio.create_task(database.run(slow))
    longest, last = 0.0, time.monotonic()
    while not work.done():
        await asyncio.sleep(0.001)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    await work
    await database.close()
    assert longest < 0.15


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_happenings_outlive_a_restart_of_postgresql(
    restartable_postgres: Postgres, tmp_path: Path, mode: str
) -> None:
    database = await Database.open(restartable_postgres.create(), tmp_path, patience=0.3)
    await migrate.upgrade(database)
    names = ["one", "two"]
    happenings = interleaved(names)
    async with writing(database) as chronicle:
        for number, happening in enumerate(happenings):
            if number == 5:
                await asyncio.to_thread(restartable_postgres.stop, mode)
            chronicle.tell(happening)
        await eventually(
            lambda: asyncio.sleep(0, chronicle.statistics()["away_seconds"]),
            within=10,
            what="the loss noticed",
        )
        with pytest.raises(StateUnavailable):
            await database.ping()
        await asyncio.to_thread(restartable_postgres.start)
        await asyncio.wait_for(chronicle.drained(), 20)
    assert chronicle.statistics()["lost"] == 0
    for name in names:
        assert await told(database, name) == TOLD
        assert await said(database, name) == ["words 0", "words 1"]
    await database.close()


async def test_commit_whose_answer_was_lost_is_not_written_twice(
    restartable_postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await Database.open(restartable_postgres.create(), tmp_path)
    await migrate.upgrade(database)
    real = Database._once
    lost = 0

    async def losing(self: Database, work: Any) -> Any:
        nonlocal lost
        result: Any = await real(self, work)
        if lost < 3:
            lost += 1
            raise ConnectionResetError
        return result

    monkeypatch.setattr(Database, "_once", losing)
    async with writing(database) as chronicle:
        for happening in life("one"):
            chronicle.tell(happening)
        await asyncio.wait_for(chronicle.drained(), 20)
    assert lost == 3
    assert await told(database, "one") == TOLD
    await database.close()


async def test_happening_that_cannot_be_written_does_not_stop_the_others(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = Started(interview_id=SessionId("x" * 65), id="y" * 200)
    real = Records.write

    async def write(self: Records, tx: Transaction, happening: Happening) -> bool:
        if happening is bad:
            raise ValueError("refused for good")
        return await real(self, tx, happening)

    monkeypatch.setattr(Records, "write", write)
    async with writing(database) as chronicle:
        chronicle.tell(bad)
        for happening in life("one"):
            chronicle.tell(happening)
        await chronicle.drained()
    assert await told(database, "one") == TOLD
    assert chronicle.lost == 1


async def test_too_much_waiting_costs_turns_first_and_memory_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chronicle_module, "MOST_WAITING", 10)
    monkeypatch.setattr(chronicle_module, "TURNS_WAITING", 5)
    database = await Database.open(None, tmp_path)
    await migrate.upgrade(database)
    chronicle = Chronicle(database, records())
    happenings = life("one")
    who = SessionId("one")
    for _ in range(5):
        chronicle.tell(Started(interview_id=who))
    chronicle.tell(Turns(interview_id=who, position=0, turns=(turn(0),), settled=()))
    for happening in happenings[-2:-1] * 6:
        chronicle.tell(happening)
    assert (chronicle.left_out, chronicle.lost) == (1, 1)
    assert chronicle.statistics()["waiting"] == 10
    chronicle.start()
    await chronicle.drained()
    await chronicle.close()
    # The end has all the turns.
    assert await said(database, "one") == ["words 0", "words 1"]
    await database.close()


def act(outcome: Outcome) -> Acted:
    entry = Entry(new_id("act"), 1, Act.INTERVIEW_SAID, KEYLESS, None, outcome=outcome)
    return Acted(entry=entry)


async def test_acts_leave_room_for_what_happens_to_interviews(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key may ask as often as it likes, while the database is away too."""
    monkeypatch.setattr(chronicle_module, "MOST_WAITING", 30)
    monkeypatch.setattr(chronicle_module, "ACTS_WAITING", 6)
    monkeypatch.setattr(chronicle_module, "REFUSALS_WAITING", 3)
    chronicle = Chronicle(database, records())
    for _ in range(5):
        chronicle.tell(act(Outcome.REFUSED))
    assert (chronicle.statistics()["waiting"], chronicle.lost) == (3, 2)
    for _ in range(5):
        chronicle.tell(act(Outcome.DONE))
    assert (chronicle.statistics()["waiting"], chronicle.lost) == (6, 4)
    for happening in life("one"):
        chronicle.tell(happening)
    assert chronicle.lost == 4
    chronicle.start()
    await chronicle.drained()
    # What was written makes room.
    chronicle.tell(act(Outcome.REFUSED))
    await chronicle.drained()
    await chronicle.close()
    assert chronicle.lost == 4
    assert await told(database, "one") == TOLD
    outcomes = [one.outcome for one in await database.run(lambda tx: page(tx, Wanted()))]
    assert (outcomes.count(Outcome.REFUSED), outcomes.count(Outcome.DONE)) == (4, 3)


async def test_closing_does_not_wait_for_ever(tmp_path: Path) -> None:
    database = await Database.open("postgresql://u:p@127.0.0.1:1/none", tmp_path, patience=0.1)
    chronicle = Chronicle(database, records())
    chronicle.start()
    for happening in life("one"):
        chronicle.tell(happening)
    async with asyncio.timeout(5):
        await chronicle.close(0.2)
        await database.close()
    assert chronicle.statistics()["waiting"] == len(life("one"))


async def test_two_nodes_that_end_the_same_interview_end_it_once(postgres_url: str) -> None:
    databases = [await Database.open(postgres_url, Path()) for _ in range(2)]
    await migrate.upgrade(databases[0])
    first, *rest = life("one")
    async with writing(databases[0]) as one, writing(databases[1]) as two:
        one.tell(first)
        await one.drained()
        for _ in range(5):
            for happening in life("one")[-2:]:
                one.tell(happening)
                two.tell(happening)
        await one.drained()
        await two.drained()
    assert await told(databases[0], "one") == [
        "interview.created",
        "interview.ended",
        "transcript.completed",
        "recording.ready",
    ]
    assert len(rest) == 8
    assert (await interview(databases[1], "one")).phase == "ended"
    for database in databases:
        await database.close()
