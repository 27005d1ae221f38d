"""Bringing a database to this program's version, on both engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, select, text

from interview_peer.core.scopes import EVERYTHING, written
from interview_peer.errors import ConfigurationError, StateUnavailable
from interview_peer.state import migrate
from interview_peer.state.database import FILE, Database
from interview_peer.state.schema import admin_keys, metadata
from tests.support.postgres import Postgres


@pytest.fixture
async def empty(database_url: str | None, tmp_path: Path) -> AsyncIterator[Database]:
    """A database without tables."""
    opened = await Database.open(database_url, tmp_path)
    yield opened
    await opened.close()


async def tables(database: Database) -> set[str]:
    async with database.begin() as tx:
        return set(await tx.run_sync(lambda connection: inspect(connection).get_table_names()))


async def set_version(database: Database, version: str) -> None:
    async with database.begin() as tx:
        await tx.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": version})


async def test_every_table_is_made_from_nothing_and_once(empty: Database) -> None:
    assert await migrate.current(empty) is None
    assert await migrate.upgrade(empty)
    assert await tables(empty) == {*metadata.tables, "alembic_version"}
    assert await migrate.current(empty) == migrate.NEWEST
    assert not await migrate.upgrade(empty)


async def test_migrated_tables_are_those_the_program_works_with(database: Database) -> None:
    def compare(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection)
        return list(compare_metadata(context, metadata))

    async with database.begin() as tx:
        assert await tx.run_sync(compare) == []


async def test_keys_of_before_scopes_open_everything(empty: Database) -> None:
    def before(connection: Connection) -> None:
        made = migrate.config()
        made.attributes["connection"] = connection
        command.upgrade(made, "0006")

    async with empty.begin() as tx:
        await tx.run_sync(before)
        await tx.execute(
            text("INSERT INTO admin_keys (hash, name, created_at) VALUES ('h', 'old', 1)")
        )
    assert await migrate.upgrade(empty)
    async with empty.begin() as tx:
        kept = (await tx.execute(select(admin_keys.c.name, admin_keys.c.scopes))).one()
    assert tuple(kept) == ("old", written(EVERYTHING))


async def test_migration_that_fails_leaves_the_database_as_it_was(
    empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = migrate._upgrade

    def broken(connection: Connection) -> None:
        real(connection)
        raise RuntimeError("torn")

    monkeypatch.setattr(migrate, "_upgrade", broken)
    with pytest.raises(RuntimeError):
        await migrate.upgrade(empty)
    assert await tables(empty) == set()


async def test_database_of_a_newer_program_is_refused_in_one_sentence(database: Database) -> None:
    await set_version(database, "9999")
    for work in (migrate.prepare, migrate.upgrade):
        with pytest.raises(ConfigurationError) as caught:
            await work(database)
        assert caught.value.message.startswith("The database (DATABASE_URL, or the")
        assert "9999" in caught.value.message
        assert "\n" not in caught.value.message


async def test_only_sqlite_is_migrated_by_serving(empty: Database) -> None:
    if empty.is_sqlite:
        await migrate.prepare(empty)
        assert await migrate.current(empty) == migrate.NEWEST
    else:
        with pytest.raises(ConfigurationError, match="run interview-peer migrate first"):
            await migrate.prepare(empty)
        assert await tables(empty) == set()


async def test_database_that_is_there_but_lets_nobody_in_is_told_apart(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = f"postgresql://interview@127.0.0.1:{postgres.port}/there_is_no_such"
    opened = await Database.open(url, tmp_path)
    with pytest.raises(ConfigurationError, match="^DATABASE_URL is refused"):
        await migrate.prepare(opened)
    await opened.close()


async def test_file_that_is_no_database_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"something else " * 1000)
    opened = await Database.open(None, tmp_path)
    with pytest.raises(ConfigurationError, match="damaged or no SQLite database"):
        await migrate.prepare(opened)
    await opened.close()


async def test_database_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    opened = await Database.open("postgresql://u:p@127.0.0.1:1/none", tmp_path, patience=0.2)
    with pytest.raises(StateUnavailable):
        await migrate.prepare(opened)
    await opened.close()


def test_newest_names_the_last_migration() -> None:
    scripts = ScriptDirectory.from_config(migrate.config())
    assert scripts.get_heads() == [migrate.NEWEST]


async def test_two_that_migrate_at_once_do_it_once(postgres_url: str, tmp_path: Path) -> None:
    first = await Database.open(postgres_url, tmp_path)
    second = await Database.open(postgres_url, tmp_path)
    async with first.begin() as tx:
        await tx.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": migrate._LOCK})
        await tx.run_sync(migrate._upgrade)
        waiting = asyncio.create_task(migrate.upgrade(second))
        while not (await tx.execute(WAITS)).scalar():  # noqa: ASYNC110 (locks set no event)
            await asyncio.sleep(0.01)
    await waiting
    assert await migrate.current(second) == migrate.NEWEST
    await first.close()
    await second.close()


WAITS = text("SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
