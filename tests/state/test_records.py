"""What each happening leaves in the database, and that it comes with its notices or not at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from interview_peer.core.lifecycle import Reason
from interview_peer.notices.outbox import Outbox
from interview_peer.state.database import Database, Transaction
from interview_peer.state.happenings import (
    Happening,
    Opened,
    RecordingBroke,
    RecordingLost,
    Released,
    Started,
    Turns,
)
from interview_peer.state.schema import endpoints, interviews, now_us, turns
from interview_peer.types import SessionId
from tests.state.telling import TOLD, body, finished, interview, life, records, said, told, turn

Work = Callable[[Transaction], Coroutine[Any, Any, bool]]


def writing(happening: Happening) -> Work:
    async def work(tx: Transaction) -> bool:
        return await records().write(tx, happening)

    return work


async def write(database: Database, *happenings: Happening) -> list[bool]:
    return [await database.run(writing(one)) for one in happenings]


async def made_by_api(database: Database, name: str, **values: Any) -> None:
    async with database.begin() as tx:
        row = {"id": name, "origin": "api", "phase": "created", "created_at": now_us(), **values}
        await tx.execute(insert(interviews).values(row))


async def test_life_of_an_interview_is_written_with_its_notices(database: Database) -> None:
    assert all(await write(database, *life("one")))
    row = await interview(database, "one")
    assert (row.phase, row.reason, row.origin) == ("ended", "client_request", "open")
    assert (row.seconds, row.usage, row.persona) == (12.5, {"total_tokens": 7}, "default")
    assert row.created_at <= row.started_at <= row.ended_at
    assert await told(database, "one") == TOLD
    assert await said(database, "one") == ["words 0", "words 1"]
    ended = await body(database, "one", "interview.ended")
    assert (ended["reason"], ended["seconds"]) == ("client_request", 12.5)
    files = (await body(database, "one", "recording.ready"))["files"]
    assert [one["name"] for one in files] == ["candidate.ogg"]


async def test_interview_of_the_api_keeps_what_its_maker_said(database: Database) -> None:
    await made_by_api(database, "two", candidate_reference="c-7", metadata={"job": 1})
    await write(database, *life("two"))
    row = await interview(database, "two")
    assert (row.origin, row.candidate_reference) == ("api", "c-7")
    assert await told(database, "two") == TOLD[1:]
    started = await body(database, "two", "interview.started")
    assert (started["candidate_reference"], started["metadata"]) == ("c-7", {"job": 1})


async def test_numbers_of_the_service_that_no_column_holds_do_not_cost_the_end(
    database: Database,
) -> None:
    first, second = (
        dataclasses.replace(turn(number), heard_ms=heard)
        for number, heard in enumerate((10**30, -5))
    )
    end = finished("one", (first, second))
    assert await database.run(lambda tx: records().write(tx, end))
    assert await said(database, "one") == ["words 0", "words 1"]
    async with database.begin() as tx:
        heard = select(turns.c.heard_ms).order_by(turns.c.position)
        assert [*(await tx.execute(heard)).scalars()] == [2**31 - 1, 0]


async def test_an_offer_that_came_to_nothing_is_undone_until_somebody_is_connected(
    database: Database,
) -> None:
    opened, started, *_ = life("one")
    await made_by_api(database, "one", claim="mine")
    gone = Released(interview_id=SessionId("one"), claim="mine")
    others = Released(interview_id=SessionId("one"), claim="its")
    assert await write(database, opened, others) == [True, False]
    assert (await interview(database, "one")).phase == "connecting"
    assert await write(database, gone, gone) == [True, False]
    row = await interview(database, "one")
    assert (row.phase, row.node_id, row.claim, row.place) == ("created", None, None, None)
    assert await told(database, "one") == []
    await made_by_api(database, "two", claim="mine")
    opened, started, *_ = life("two")
    late = Released(interview_id=SessionId("two"), claim="mine")
    assert await write(database, opened, started, late) == [True, True, False]
    assert (await interview(database, "two")).phase == "live"


async def test_failure_is_told_as_failure(database: Database) -> None:
    opened, started, *_ = life("one")
    await write(database, opened, started, finished("one", (), Reason.MODEL_LOST))
    assert (await interview(database, "one")).phase == "failed"
    assert "interview.failed" in await told(database, "one")


async def test_recording_that_breaks_is_told_at_once_and_no_second_time(
    database: Database,
) -> None:
    opened, started, *_ = life("one")
    who = SessionId("one")
    broke = RecordingBroke(interview_id=who, reason="ENOSPC")
    await write(database, opened, started, broke)
    assert (await told(database, "one"))[-1] == "recording.failed"
    assert (await body(database, "one", "recording.failed"))["reason"] == "ENOSPC"
    assert (await interview(database, "one")).phase == "live"
    end = dataclasses.replace(finished("one", ()), recording_failed="ENOSPC")
    await write(database, end, RecordingLost(interview_id=who, reason="ENOSPC"))
    types = await told(database, "one")
    assert types.count("recording.failed") == 1
    assert "interview.ended" in types[types.index("recording.failed") :]


async def test_recording_that_breaks_as_the_interview_ends_is_told_with_the_end(
    database: Database,
) -> None:
    opened, *_ = life("one")
    end = dataclasses.replace(finished("one", ()), recording_failed="EIO")
    broke = RecordingBroke(interview_id=SessionId("one"), reason="EIO")
    assert await write(database, opened, end, broke) == [True, True, False]
    assert (await told(database, "one")).count("recording.failed") == 1


@pytest.mark.parametrize("again", range(8))
async def test_every_happening_may_be_written_twice(database: Database, again: int) -> None:
    happenings = life("one")
    happenings.insert(again, happenings[again])
    await write(database, *happenings)
    assert await told(database, "one") == TOLD
    assert await said(database, "one") == ["words 0", "words 1"]


async def test_nothing_changes_an_interview_that_is_over(database: Database) -> None:
    *_, end = happenings = life("one")
    await write(database, *happenings)
    late = [Started(interview_id=SessionId("one")), finished("one", (), Reason.MODEL_LOST)]
    assert await write(database, *late) == [False, False]
    assert (await interview(database, "one")).phase == "ended"
    assert await told(database, "one") == TOLD
    assert end.interview_id == "one"


@pytest.mark.parametrize("torn", range(6))
async def test_failing_between_state_and_notice_leaves_neither(
    database: Database, monkeypatch: pytest.MonkeyPatch, torn: int
) -> None:
    """The fault falls right before, and right after, each notice of a life is written."""
    happenings = life("one")
    real = Outbox.write
    written = 0

    async def faulty(self: Outbox, *args: Any, **rest: Any) -> list[str]:
        nonlocal written
        if written == torn:
            raise RuntimeError("torn before")
        ids = await real(self, *args, **rest)
        written += 1
        if written == torn:
            raise RuntimeError("torn after")
        return ids

    monkeypatch.setattr(Outbox, "write", faulty)
    fell = 0
    for happening in happenings:
        before = await interview(database, "one"), await told(database, "one")
        spoken = await said(database, "one")
        try:
            await write(database, happening)
        except RuntimeError:
            fell += 1
            assert (await interview(database, "one"), await told(database, "one")) == before
            assert await said(database, "one") == spoken
            monkeypatch.setattr(Outbox, "write", real)
            await write(database, happening)
    assert fell == 1
    assert await told(database, "one") == TOLD


async def test_late_turn_moves_those_after_it(database: Database) -> None:
    who = SessionId("one")
    a, b, c = turn(0, "a"), turn(1, "b"), turn(2, "c")
    await write(
        database,
        Opened(interview_id=who),
        Turns(interview_id=who, position=0, turns=(a, c), settled=()),
        Turns(interview_id=who, position=1, turns=(b, c), settled=()),
    )
    assert await said(database, "one") == ["a", "b", "c"]


async def test_turns_are_told_to_who_asks_for_them(database: Database) -> None:
    async with database.begin() as tx:
        await tx.execute(
            insert(endpoints).values(
                id="ep", url="https://x.example", secrets=[], events=["*"], created_at=now_us()
            )
        )
    await write(database, *life("one"))
    assert (await told(database, "one")).count("transcript.turn") == 2


async def test_erased_interview_gets_neither_words_nor_notices(database: Database) -> None:
    happenings = life("one")
    await write(database, *happenings[:2])
    async with database.begin() as tx:
        await tx.execute(update(interviews).values(deleted_at=now_us()))
    await write(database, *happenings[2:])
    assert (await interview(database, "one")).phase == "ended"
    assert await told(database, "one") == TOLD[:2]
    assert await said(database, "one") == []


async def test_every_character_can_be_kept(database: Database) -> None:
    who = SessionId("one")
    odd = turn(0, "zero \x00 and \U0001f4a1 and \ufffd")
    await write(
        database,
        Opened(interview_id=who),
        Turns(interview_id=who, position=0, turns=(odd,), settled=()),
        finished("one", (odd,)),
    )
    assert (await said(database, "one"))[0].startswith("zero ")
