"""Fixtures that more than one room uses. What they start, they stop."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from interview_peer.state import migrate
from interview_peer.state.database import Database
from tests.support.postgres import Postgres, programs, running_postgres
from tests.support.server import ServerProcess, running_server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server process in simulation, stopped by SIGTERM; a bad exit code fails the test."""
    async with running_server(tmp_path) as process:
        yield process


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL of the test run's own, with an empty set of databases."""
    place = programs()
    if place is None:
        reason = "PostgreSQL is not installed; on Debian: apt-get install postgresql"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with running_postgres(place) as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """An empty database of the test's own."""
    url = postgres.create()
    yield url
    postgres.drop(url)


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """What DATABASE_URL would hold: nothing for SQLite, else an empty PostgreSQL database."""
    if request.param == "sqlite":
        return None
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
async def database(database_url: str | None, tmp_path: Path) -> AsyncIterator[Database]:
    """A database with all tables; every test that asks for it runs on both engines."""
    opened = await Database.open(database_url, tmp_path / "state")
    try:
        await migrate.upgrade(opened)
        yield opened
    finally:
        await opened.close()
