"""Looks at the database from beside a server that may be running: changes nothing, makes nothing.

A SQLite file is opened for reading alone, so that the server keeps its one writer.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import select

from ..errors import ConfigurationError, StateUnavailable
from . import migrate
from .database import FILE, Database, Transaction
from .nodes import database_time
from .schema import endpoints

PATIENCE_SECONDS: Final = 4.0
_BUSY_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Receiver:
    """An endpoint that notices are sent to."""

    id: str
    url: str
    secrets: tuple[dict[str, Any], ...]
    """As ``notices.ledger.in_force`` reads them."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found."""

    version: str | None
    """None: there are no tables yet."""
    ahead: float | None = None
    """Seconds by which the database's clock is before this machine's; None where it has none."""
    receivers: tuple[Receiver, ...] = ()
    """Those that are switched on; none where the tables are not at this program's version."""

    @property
    def is_current(self) -> bool:
        """Whether this program can work with it as it is."""
        return self.version == migrate.NEWEST


async def look(url: str | None, data_dir: Path) -> Looked:
    """What is in PostgreSQL at ``url``, or in the SQLite file of ``data_dir``.

    Raises:
        ConfigurationError: it is damaged, newer than this program, or lets us not in.
        StateUnavailable: it does not answer.
    """
    found = await _postgres(url, data_dir) if url else _sqlite(data_dir / FILE)
    migrate.refuse_newer(found.version)
    return found


async def _postgres(url: str, data_dir: Path) -> Looked:
    database = await Database.open(url, data_dir, patience=PATIENCE_SECONDS)

    async def work(tx: Transaction) -> Looked:
        before = time.time()
        theirs = await database_time(tx) / 1e6
        ahead = theirs - (before + time.time()) / 2
        if version != migrate.NEWEST:
            return Looked(version, ahead)
        asked = select(endpoints.c.id, endpoints.c.url, endpoints.c.secrets)
        rows = await tx.execute(asked.where(endpoints.c.active))
        return Looked(version, ahead, _receivers([tuple(row) for row in rows]))

    try:
        version = await migrate.current(database)
        return await database.run(work)
    finally:
        await database.close()


def _sqlite(file: Path) -> Looked:
    if not file.exists():
        return Looked(None)
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(file))}?mode=ro", uri=True, timeout=_BUSY_SECONDS
        )
        with contextlib.closing(connection) as database:
            asked = "SELECT name FROM sqlite_master WHERE name = 'alembic_version'"
            if database.execute(asked).fetchone() is None:
                return Looked(None)
            row = database.execute("SELECT version_num FROM alembic_version").fetchone()
            version = None if row is None else str(row[0])
            if version != migrate.NEWEST:
                return Looked(version)
            asked = "SELECT id, url, secrets FROM endpoints WHERE active"
            rows = database.execute(asked).fetchall()
            told = [(one[0], one[1], json.loads(one[2])) for one in rows]
            return Looked(version, None, _receivers(told))
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) in migrate.DAMAGED:
            raise ConfigurationError(migrate.BROKEN) from None
        raise StateUnavailable from None


def _receivers(rows: Sequence[tuple[Any, ...]]) -> tuple[Receiver, ...]:
    return tuple(Receiver(str(row[0]), str(row[1]), tuple(row[2])) for row in rows)
