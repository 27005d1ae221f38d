"""What became of recordings reaches the database: once, after the end, and after a restart too."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from interview_peer.session.announcer import Announcer
from interview_peer.state.chronicle import Chronicle
from interview_peer.state.database import Database
from interview_peer.state.happenings import Erased, Happening, RecordingLost
from interview_peer.state.schema import notices
from interview_peer.storage.eraser import BY_AGE
from interview_peer.storage.keeper import Keeper
from interview_peer.storage.shelf import Shelf
from interview_peer.types import SessionId
from tests.recording.folders import finished as finished_folder
from tests.state.telling import (
    TOLD,
    body,
    interview,
    life,
    recording_made,
    records,
    said,
    told,
)
from tests.support.waiting import eventually

ONE = SessionId("one")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished folder to copy from; making one takes seconds."""
    return finished_folder(tmp_path_factory.mktemp("finished"), "one").path


@contextlib.asynccontextmanager
async def announcing(
    database: Database, data_dir: Path
) -> AsyncIterator[tuple[Announcer, Chronicle, asyncio.Event]]:
    chronicle = Chronicle(database, records())
    chronicle.start()
    announcer = Announcer(database, data_dir, chronicle.tell)
    recovered = asyncio.Event()
    announcer.start(after=recovered)
    yield announcer, chronicle, recovered
    await announcer.close()
    await chronicle.close()


async def write_life(database: Database, count: int) -> None:
    for happening in life("one")[:count]:
        work = functools.partial(records().write, happening=happening)
        await database.run(work)


async def types_of(database: Database, name: str) -> list[str]:
    """As ``told``, with the gaps that an erasure leaves."""
    async with database.begin() as tx:
        found = await tx.execute(
            select(notices.c.type)
            .where(notices.c.interview_id == name)
            .order_by(notices.c.sequence)
        )
        return [*found.scalars()]


ENDED = len(life("one")) - 1


async def test_a_manifest_that_nobody_told_of_is_told_after_a_start_and_once(
    database: Database, model_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(model_folder, tmp_path / "interviews" / "one")
    await write_life(database, ENDED)
    for _ in range(2):
        async with announcing(database, tmp_path) as (_, chronicle, recovered):
            assert await told(database, "one") in (TOLD[:-1], TOLD)
            recovered.set()
            await eventually(
                lambda: told(database, "one"),
                within=10,
                what="the recording",
                good=lambda types: types == TOLD,
            )
            await chronicle.drained()
    assert await told(database, "one") == TOLD
    files = (await body(database, "one", "recording.ready"))["files"]
    assert {"mixed.webm", "candidate.ogg"} <= {one["name"] for one in files}


async def test_a_tombstone_that_the_database_does_not_know_of_is_written_after_a_start(
    database: Database, model_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(model_folder, tmp_path / "interviews" / "one")
    await write_life(database, ENDED + 1)
    await Keeper(Shelf(tmp_path, None)).erase(ONE, BY_AGE)
    async with announcing(database, tmp_path) as (_, _, recovered):
        recovered.set()
        await eventually(
            lambda: types_of(database, "one"),
            within=10,
            what="the erasure",
            good=lambda types: types[-1] == "interview.deleted",
        )
    assert (await body(database, "one", "interview.deleted"))["reason"] == "retention"
    assert await said(database, "one") == []
    assert (await interview(database, "one")).deleted_at is not None


async def test_a_recording_is_told_of_no_interview_that_goes_on_or_was_erased(
    database: Database,
) -> None:
    async def write(happening: Happening) -> bool:
        return await database.run(lambda tx: records().write(tx, happening))

    await write_life(database, 3)
    assert not await write(recording_made("one"))
    assert not await write(recording_made("nobody"))
    assert await interview(database, "nobody") is None
    await write_life(database, ENDED)
    assert await write(Erased(interview_id=ONE, reason="request"))
    assert not await write(Erased(interview_id=ONE, reason="request"))
    assert not await write(recording_made("one"))
    types = await types_of(database, "one")
    assert types[-1] == "interview.deleted" and "recording.ready" not in types


async def test_a_recording_that_cannot_be_finished_is_told_once_and_may_still_come(
    database: Database, tmp_path: Path
) -> None:
    await write_life(database, ENDED)
    async with announcing(database, tmp_path) as (_, chronicle, recovered):
        recovered.set()
        for _ in range(2):
            chronicle.tell(RecordingLost(interview_id=ONE, reason="stalled"))
        await chronicle.drained()
        chronicle.tell(recording_made("one"))
        await chronicle.drained()
    assert await told(database, "one") == [*TOLD[:-1], "recording.failed", "recording.ready"]
