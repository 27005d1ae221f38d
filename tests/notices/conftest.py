"""Fixtures of the notices' tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from interview_peer.state import migrate
from interview_peer.state.database import Database

from .receiver import Receiver


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver that answers 204 until told otherwise."""
    started = await Receiver().start()
    yield started
    await started.close()


@pytest.fixture
async def open_database(tmp_path: Path) -> AsyncIterator[Callable[[str], Awaitable[Database]]]:
    """Opens further connections to a PostgreSQL database, as further processes would."""
    opened: list[Database] = []

    async def open_one(url: str) -> Database:
        database = await Database.open(url, tmp_path)
        opened.append(database)
        await migrate.upgrade(database)
        return database

    yield open_one
    for database in opened:
        await database.close()
