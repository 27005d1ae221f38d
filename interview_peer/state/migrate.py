"""Brings a database to the version of the tables this program knows, or says why it cannot.

SQLite is migrated by the server itself, PostgreSQL by ``interview-peer migrate`` alone: several
servers may share it, and an operator chooses the moment. Migrations only go up; the way back is a
copy made before.
"""

from __future__ import annotations

import logging
import sqlite3
from importlib import resources
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from ..core.acts import Entry
from ..errors import ConfigurationError
from . import acts
from .database import FILE, Database, Transaction, sql_state

NEWEST: Final = "0008"
"""The revision this program works with; the last one in ``migrations/versions``."""

_VERSION_TABLE: Final = "alembic_version"
_LOCK: Final = 0x1E7_9EE2
"""Any number of our own: PostgreSQL's advisory lock for whoever migrates."""

_NOT_ADMITTED: Final = ("28", "3D000")
"""PostgreSQL's states for a wrong user, password or database."""

DAMAGED: Final = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)

_NEWER: Final = (
    "The database (DATABASE_URL, or the file in INTERVIEW_DATA_DIR) was made by a newer "
    "interview_peer: its version is {found}, this program knows {newest}. Install "
    "the newer program again, or restore an older copy of the database."
)
_OLDER: Final = (
    "The database is not at the version of this program: run interview-peer migrate first."
)
BROKEN: Final = (
    f"The file {FILE} in the data folder is damaged or no SQLite database: move it away, or put a "
    "copy in its place."
)
_REFUSED: Final = (
    "DATABASE_URL is refused by the database: the user, the password or the database's name is "
    "wrong."
)


async def prepare(database: Database) -> None:
    """Make the database ready for serving.

    Raises:
        ConfigurationError: its version is not this program's, or it lets us not in.
        StateUnavailable: it does not answer.
    """
    if database.is_sqlite:
        await upgrade(database)
    elif await current(database) != NEWEST:
        await _refuse_newer(database)
        raise ConfigurationError(_OLDER)


async def upgrade(database: Database, noted: Entry | None = None) -> bool:
    """Bring the tables to this program's version; true if anything changed.

    One transaction: a failure leaves the database as it was. ``noted`` is the act that asked for
    it, and is written down with it. Raises as ``prepare`` does.
    """
    if await current(database) == NEWEST:
        return False
    await _refuse_newer(database)

    async def work(tx: Transaction) -> None:
        if not database.is_sqlite:
            await tx.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        await tx.run_sync(_upgrade)
        if noted is not None:
            await acts.write(tx, noted)

    # Big tables take their time.
    await database.run(work, patience=3600.0)
    return True


async def current(database: Database) -> str | None:
    """The database's version; None before the first migration. Raises as ``prepare`` does."""

    def look(connection: Connection) -> str | None:
        if not inspect(connection).has_table(_VERSION_TABLE):
            return None
        found = connection.scalar(text(f"SELECT version_num FROM {_VERSION_TABLE}"))
        return None if found is None else str(found)

    async def work(tx: Transaction) -> str | None:
        return await tx.run_sync(look)

    try:
        return await database.run(work)
    except DBAPIError as error:
        damaged = getattr(error.orig, "sqlite_errorcode", None) in DAMAGED
        if not damaged and not sql_state(error).startswith(_NOT_ADMITTED):
            raise
    # Outside the handler: the error may repeat the user's name and more.
    raise ConfigurationError(BROKEN if damaged else _REFUSED)


async def _refuse_newer(database: Database) -> None:
    refuse_newer(await current(database))


def refuse_newer(found: str | None) -> None:
    """Raise ``ConfigurationError`` if this program does not know the version ``found``."""
    known = {script.revision for script in _scripts().walk_revisions()}
    if found is not None and found not in known:
        raise ConfigurationError(_NEWER.format(found=found[:32], newest=NEWEST))


def config() -> Config:
    """What Alembic needs to find our migrations."""
    # Alembic tells every step at INFO; the operator is told the outcome by us.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    made = Config()
    folder = resources.files("interview_peer.state") / "migrations"
    made.set_main_option("script_location", str(folder).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    return made


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(config())


def _upgrade(connection: Connection) -> None:
    made = config()
    made.attributes["connection"] = connection
    command.upgrade(made, "head")
