"""A server with an operator's key, on each of the two engines, and those who talk to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from interview_peer.app import Server
from tests.support.caller import Caller, calling
from tests.support.inprocess import serving
from tests.support.operator import KEY, Operator
from tests.support.postgres import Postgres

JOIN_SECRET = "a-join-secret-of-more-than-32-characters"


@pytest.fixture(params=["sqlite", "postgres"])
def migrated_url(request: pytest.FixtureRequest) -> str | None:
    """What DATABASE_URL would hold: nothing for SQLite, else a database with all tables."""
    if request.param == "sqlite":
        return None
    server: Postgres = request.getfixturevalue("postgres")
    url = server.create(request.getfixturevalue("postgres_template"))
    request.addfinalizer(lambda: server.drop(url))
    return url


@pytest.fixture
async def served(tmp_path: Path, migrated_url: str | None) -> AsyncIterator[Server]:
    """A simulating server, on both engines."""
    async with serving(
        tmp_path, database_url=migrated_url, admin_key=KEY, join_secret=JOIN_SECRET
    ) as server:
        yield server


@pytest.fixture
async def operator(served: Server) -> AsyncIterator[Operator]:
    """Who makes interviews on that server."""
    async with calling(served.url) as caller:
        yield Operator(caller)


@pytest.fixture
async def candidate(served: Server) -> AsyncIterator[Caller]:
    """Somebody who may join."""
    async with calling(served.url) as caller:
        yield caller


@pytest.fixture
async def plain(tmp_path: Path) -> AsyncIterator[Operator]:
    """An operator of a server on SQLite, for what never reaches the database."""
    async with (
        serving(tmp_path, admin_key=KEY, join_secret=JOIN_SECRET) as server,
        calling(server.url) as caller,
    ):
        yield Operator(caller)
