"""The measurement of notices: it ends in time, and its receiver counts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench import backlog, notices
from bench.progress import Progress
from interview_peer.state import migrate
from interview_peer.state.database import Database
from interview_peer.types import Json


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(None, tmp_path)
    await migrate.upgrade(database)
    yield database
    await database.close()


async def test_writing_and_delivering_end_when_their_time_is_over(database: Database) -> None:
    began = time.monotonic()
    wrote = await notices.write(database, 1_000_000, 0.5)
    assert 0 < wrote["notices"] < 1_000_000
    delivered = await notices.deliver(database, 1_000_000, 0.5)
    assert 0 <= delivered["notices"] <= wrote["notices"]
    assert time.monotonic() - began < 30


async def test_what_was_written_is_delivered(database: Database) -> None:
    wrote = await notices.write(database, 20, 20.0)
    assert wrote["notices"] == 20
    delivered = await notices.deliver(database, 20, 20.0)
    assert (delivered["notices"], delivered["left"]) == (20, 0)


def test_backlog_waits_in_the_database_of_a_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "NOTICES", 50)
    backlog.fill(tmp_path / "data")

    async def due() -> int:
        database = await Database.open(None, tmp_path / "data")
        try:
            return await notices.count(database, "due")
        finally:
            await database.close()

    assert asyncio.run(due()) == 50


async def test_receiver_counts_what_came_and_not_who_asks(database: Database) -> None:
    await notices.write(database, 3, 20.0)
    async with notices.receiving(204) as url:
        worker = notices.worker_of(database, url)
        worker.start()
        async with asyncio.timeout(20):
            # Another process counts, so it has to be asked.
            while await asyncio.to_thread(backlog.received, url) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert await asyncio.to_thread(backlog.received, url) == 3
        await worker.close()


async def test_every_step_is_told_with_what_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once() -> Json:
        return {}

    monkeypatch.setattr(notices, "idle", at_once)
    progress = Progress(sum(notices.planned(0.5)))
    await notices.measure(None, tmp_path, 5, 40, 0.5, progress)
    printed = capsys.readouterr()
    assert [line.split("] ")[1] for line in printed.err.splitlines()] == [
        "sqlite: idle",
        "sqlite: written",
        "sqlite: delivered",
        "sqlite: a backlog with its receiver down",
        "sqlite: a backlog with its receiver up",
    ]
    assert len(printed.out.splitlines()) == 5
    assert progress.left == 0
