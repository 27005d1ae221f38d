"""What operators did, in the database: written once, listed, kept for its days."""

from __future__ import annotations

import dataclasses
import functools
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from interview_peer.core.acts import SERVER, Act, Actor, Entry, Outcome
from interview_peer.notices.types import new_id
from interview_peer.state import acts
from interview_peer.state.acts import Wanted
from interview_peer.state.database import Database
from interview_peer.state.happenings import Acted, Erased
from interview_peer.state.pruning import Pruner, Retention
from interview_peer.state.schema import interviews
from interview_peer.types import SessionId
from tests.state.telling import life, records

SOMEBODY = Actor("0123456789abcdef", "tracker")
DAY = 86_400_000_000


def entry(at: int = 1, **fields: Any) -> Entry:
    whole = {"act": Act.RECORDING_READ, "actor": SOMEBODY, "address": "192.0.2.1", **fields}
    return Entry(new_id("act"), at, **whole)


async def write(database: Database, *entries: Entry) -> None:
    for one in entries:
        await database.run(functools.partial(acts.write, entry=one))


async def listed(database: Database, **wanted: Any) -> list[Entry]:
    return await database.run(lambda tx: acts.page(tx, Wanted(**wanted)))


async def test_an_act_is_kept_as_it_was_begun_until_its_outcome_is_known(
    database: Database,
) -> None:
    begun = entry(act=Act.INTERVIEW_MADE)
    made = dataclasses.replace(begun, interview_id="one", outcome=Outcome.DONE)
    await write(database, begun)
    assert await listed(database) == [begun]
    # Repeated, as when nobody knows what became of a commit; and late, behind its outcome.
    await write(database, begun, made, made, begun)
    assert await listed(database) == [made]
    # Written when the caller had been told already that it could not be.
    refused = dataclasses.replace(made, outcome=Outcome.REFUSED, code="STATE_UNAVAILABLE")
    await write(database, refused, made, begun)
    assert await listed(database) == [refused]


async def test_what_was_never_begun_in_the_database_is_written_with_its_outcome(
    database: Database,
) -> None:
    refused = entry(outcome=Outcome.REFUSED, code="SESSION_NOT_FOUND", object_id="x")
    assert await database.run(lambda tx: records().write(tx, Acted(entry=refused)))
    assert await listed(database) == [refused]


async def test_acts_are_listed_newest_first_by_page_and_filter(database: Database) -> None:
    other = Actor("environment", "INTERVIEW_ADMIN_KEY")
    made = [
        entry(at, interview_id=f"i{at % 2}", actor=other if at > 3 else SOMEBODY, act=act)
        for at, act in enumerate([*[Act.TRANSCRIPT_READ] * 4, Act.INTERVIEW_ERASED], start=1)
    ]
    await write(database, *made)
    newest = made[::-1]
    assert await listed(database) == newest
    assert await listed(database, limit=2) == newest[:3]
    assert await listed(database, limit=2, before=newest[1].id) == newest[2:]
    assert await listed(database, interview_id="i1") == [newest[0], newest[2], newest[4]]
    assert await listed(database, key_id=other.id) == newest[:2]
    assert await listed(database, act=Act.INTERVIEW_ERASED) == newest[:1]
    assert await listed(database, since=2, until=4) == [made[2], made[1]]
    assert await listed(database, interview_id="i1", key_id=other.id, until=5) == []


@pytest.mark.parametrize("reason", ["retention", "request"])
async def test_what_the_server_erases_by_itself_is_an_act_in_the_same_transaction(
    database: Database, reason: str
) -> None:
    for happening in life("one"):
        await database.run(functools.partial(records().write, happening=happening))
    erased = Erased(interview_id=SessionId("one"), reason=reason)

    async def torn(tx: Any) -> None:
        assert await records().write(tx, erased)
        raise RuntimeError("torn")

    with pytest.raises(RuntimeError):
        await database.run(torn)
    assert await listed(database) == []
    for _ in range(2):
        await database.run(lambda tx: records().write(tx, erased))
    (told,) = await listed(database)
    assert (told.act, told.actor, told.interview_id, told.outcome) == (
        Act.INTERVIEW_ERASED,
        Actor(SERVER, reason),
        "one",
        Outcome.DONE,
    )
    async with database.begin() as tx:
        assert (await tx.execute(select(interviews.c.deleted_at))).scalar_one() is not None


async def test_acts_go_when_their_days_are_over_and_not_before(database: Database) -> None:
    begun = [entry(at * DAY) for at in (1, 2, 3)]
    await write(database, *begun)

    async def left(now: int) -> int:
        retention = Retention(acts=timedelta(days=10))
        pruner = Pruner(database, retention, now=lambda: now, at_once=1, pause_seconds=0.0)
        await pruner.look()
        return len(await listed(database))

    assert await left(11 * DAY) == 3
    assert await left(11 * DAY + 1) == 2
    assert await left(20 * DAY) == 0


async def test_an_act_of_a_newer_server_is_listed_by_the_name_it_has(database: Database) -> None:
    newer = entry(act="interview.paused")
    await write(database, newer)
    assert await listed(database) == [newer]
