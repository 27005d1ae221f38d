"""Interviews of which only the database knows are erased by age, and no others."""

from __future__ import annotations

import dataclasses
import functools
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from interview_peer.errors import StoreUnavailable
from interview_peer.session.outdated import ELSEWHERE, Outdated, Sources
from interview_peer.state import migrate
from interview_peer.state.chronicle import Chronicle
from interview_peer.state.database import Database
from interview_peer.state.schema import interviews, notices, now_us, to_us
from interview_peer.storage.folder import InterviewFolder
from interview_peer.storage.shelf import Shelf
from interview_peer.types import SessionId
from tests.state.telling import BEGAN, PLACE, body, interview, life, records, said
from tests.support.caller import calling
from tests.support.server import ServerProcess, running_server
from tests.support.waiting import eventually

from .s3 import Network, out_of_order

MONTH = timedelta(days=30)
SOON = timedelta(hours=1)
KEY = "operator-0123456789"
OPERATOR = {"Authorization": f"Bearer {KEY}"}


async def look(database: Database, data_dir: Path, after: timedelta, **changes: Any) -> int:
    """Look once, so long after the interviews of these tests began; how many were erased."""
    chronicle = Chronicle(database, records())
    chronicle.start()
    sources = Sources(database, Shelf(data_dir, None), PLACE, chronicle.tell, chronicle.drained)
    outdated = Outdated(
        dataclasses.replace(sources, **changes),
        MONTH,
        now=lambda: to_us(BEGAN + after),
        at_once=2,
        pause_seconds=0.0,
    )
    try:
        await outdated.look()
    finally:
        await chronicle.close()
    return outdated.erased


async def held(database: Database, *names: str, count: int | None = None) -> None:
    """Interviews that were held; their place has nothing of them."""
    for name in names:
        for happening in life(name)[:count]:
            work = functools.partial(records().write, happening=happening)
            await database.run(work)
        # Ended at the time of these tests, not at that of their run.
        await set_to(database, name, created_at=to_us(BEGAN))
        if count is None:
            await set_to(database, name, ended_at=to_us(BEGAN + SOON))


async def set_to(database: Database, name: str, **values: Any) -> None:
    async with database.begin() as tx:
        await tx.execute(update(interviews).where(interviews.c.id == name).values(**values))


async def invited(database: Database, name: str, **values: Any) -> None:
    row = {
        "id": name,
        "origin": "api",
        "phase": "ended",
        "created_at": to_us(BEGAN),
        "ended_at": to_us(BEGAN + SOON),
        "plan": {"questions": ["why"]},
        "metadata": {"job": 1},
        "candidate_reference": "c-7",
    }
    async with database.begin() as tx:
        await tx.execute(insert(interviews).values({**row, **values}))


async def erased(database: Database) -> set[str]:
    async with database.begin() as tx:
        query = select(interviews.c.id).where(interviews.c.deleted_at.is_not(None))
        return {*(await tx.execute(query)).scalars()}


async def test_what_has_no_folder_is_erased_when_its_days_are_over_and_told_once(
    database: Database, tmp_path: Path
) -> None:
    await invited(database, "unused")
    await held(database, "one", "two", "three")
    assert await look(database, tmp_path, MONTH) == 0
    assert await erased(database) == set()
    assert await said(database, "one") == ["words 0", "words 1"]
    looks = [await look(database, tmp_path, MONTH + 2 * SOON) for _ in range(2)]
    assert await erased(database) == {"unused", "one", "two", "three"}
    assert looks == [4, 0]
    assert await said(database, "one") == []
    row = await interview(database, "unused")
    assert (row.plan, row.metadata, row.candidate_reference) == (None, None, None)
    assert (row.phase, row.created_at) == ("ended", to_us(BEGAN))
    assert (await body(database, "unused", "interview.deleted"))["reason"] == "retention"
    async with database.begin() as tx:
        told = select(notices.c.id).where(notices.c.type == "interview.deleted")
        assert len([*await tx.execute(told)]) == 4


async def test_what_runs_or_has_a_folder_stays_however_old_it_is(
    database: Database, tmp_path: Path
) -> None:
    await held(database, "live", count=2)
    await held(database, "busy", "folder", "gone")
    InterviewFolder(tmp_path, SessionId("folder")).create()
    await look(database, tmp_path, 1000 * MONTH, busy=lambda name: name == "busy")
    assert await erased(database) == {"gone"}


async def test_what_a_store_has_stays_and_so_does_all_while_it_is_away(
    database: Database, tmp_path: Path, bucket: Network
) -> None:
    await held(database, "kept", "gone")
    store = bucket.store()
    await store.put_bytes(b"OggS", "kept/candidate.ogg", "audio/ogg")
    late = functools.partial(look, database, tmp_path, 2 * MONTH, shelf=Shelf(tmp_path, store))
    bucket.act = out_of_order
    with pytest.raises(StoreUnavailable):
        await late()
    assert await erased(database) == set()
    bucket.act = None
    await late()
    assert await erased(database) == {"gone"}


async def test_another_data_folder_is_taken_for_gone_only_when_nothing_comes_from_it(
    database: Database, tmp_path: Path
) -> None:
    await held(database, "one", "young")
    for name in ("one", "young"):
        await set_to(database, name, place="another")
    await look(database, tmp_path, MONTH + ELSEWHERE)
    assert await erased(database) == set()
    now = MONTH + ELSEWHERE + 2 * SOON
    await set_to(database, "young", created_at=to_us(BEGAN + now - ELSEWHERE))
    await look(database, tmp_path, now)
    assert await erased(database) == set()
    await look(database, tmp_path, now + SOON)
    assert await erased(database) == {"one"}
    # What comes back with the folder is erased by whoever has it then.
    assert (await interview(database, "one")).place == "another"


@pytest.mark.parametrize("phase", ["created", "connecting", "live", "detached", "ending"])
async def test_no_phase_but_a_last_one_is_erased(
    database: Database, tmp_path: Path, phase: str
) -> None:
    await invited(database, "one", phase=phase, ended_at=None)
    await look(database, tmp_path, 100 * MONTH)
    assert await erased(database) == set()


async def test_a_server_erases_them_when_it_is_set_to_and_only_then(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    database = await Database.open(None, data_dir)
    await migrate.prepare(database)
    long_ago = now_us() - 3 * 86_400_000_000
    await invited(database, "old", created_at=long_ago, ended_at=long_ago)
    await invited(database, "new", created_at=now_us(), ended_at=now_us())
    await database.close()

    async def known(server: ServerProcess, name: str) -> int:
        async with calling(server.url) as caller:
            return (await caller.get(f"/api/interviews/{name}", headers=OPERATOR)).status

    async with running_server(tmp_path, INTERVIEW_ADMIN_KEY=KEY) as server:
        assert await known(server, "old") == 200
    settings = {"INTERVIEW_ADMIN_KEY": KEY, "INTERVIEW_RETENTION_DAYS": "2"}
    async with running_server(tmp_path, **settings) as server:
        await eventually(
            lambda: known(server, "old"),
            within=15,
            what="the old one erased",
            good=lambda status: status == 404,
        )
        assert await known(server, "new") == 200
