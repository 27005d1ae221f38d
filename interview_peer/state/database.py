"""The database: one SQLite file by default, PostgreSQL by URL; the same statements on both.

Responsible for connections, transactions, and what happens when the database is locked, slow or
gone: work is tried again for a bounded time, then ``StateUnavailable``. Which tables there are is
decided in ``schema``, their versions in ``migrate``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import asyncpg
from sqlalchemy import URL, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from ..errors import ConfigurationError, StateUnavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

Transaction = AsyncConnection
"""A connection within a transaction that somebody else commits."""

FILE: Final = "interview_peer.db"
PATIENCE_SECONDS: Final = 5.0
"""How long a request waits for a database that does not answer, before it is refused."""
COMMAND_SECONDS: Final = 30.0
"""How long PostgreSQL may take for one statement before its connection counts as lost."""
CONNECT_SECONDS: Final = 5.0
POOL_SIZE: Final = 10
PAGES_KIB: Final = 2000
"""How much of the SQLite file is kept in memory, in KiB: SQLite's own default, which a build of it
may change. It fills up within a thousand interviews and then stays."""

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 1.0

_SQLITE_PASSING: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PROTOCOL,
    }
)
# Connection lost; out of resources; shutting down or starting; serialisation, deadlock, lock.
_POSTGRES_PASSING: Final = ("08", "53", "57P", "58", "40001", "40P01", "55P03", "25006")

_SSL_MODES: Final = frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"})


class Database:
    """One database for the whole process.

    On SQLite there is exactly one connection, so transactions follow one another; its work happens
    in a thread of its own and never holds the event loop. On PostgreSQL there is a pool.
    """

    def __init__(self, engine: AsyncEngine, patience: float) -> None:
        self.engine = engine
        self.patience = patience
        self._left_running: set[asyncio.Task[Any]] = set()

    @classmethod
    async def open(
        cls, url: str | None, data_dir: Path, *, patience: float | None = None
    ) -> Database:
        """Open PostgreSQL at ``url``, or the SQLite file in ``data_dir``, which is made.

        Nothing is connected yet, and no table is made: ``migrate`` does that.

        Raises:
            ConfigurationError: the URL is not one of PostgreSQL.
            OSError: the file or its folder cannot be made.
        """
        patience = PATIENCE_SECONDS if patience is None else patience
        engine = _postgres(url) if url else await asyncio.to_thread(_sqlite, data_dir, patience)
        return cls(engine, patience)

    @property
    def is_sqlite(self) -> bool:
        """Whether this is the embedded default."""
        return self.engine.dialect.name == "sqlite"

    async def close(self) -> None:
        """Close every connection, after what still runs. Idempotent."""
        if self._left_running:
            await asyncio.wait(self._left_running, timeout=self.patience)
        await self.engine.dispose()

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncIterator[Transaction]:
        """A transaction: committed on leaving, rolled back when the body raises.

        Getting it is tried again within ``patience``; the body cannot be, so prefer ``run`` for
        anything that should survive a lost connection.

        Raises:
            StateUnavailable: the database cannot be had, or was lost on the way.
        """
        connection = await self._patiently(self._enter, self.patience, late=self._give_back)
        try:
            try:
                yield connection
            except BaseException:
                with contextlib.suppress(Exception):
                    await connection.rollback()
                raise
            await connection.commit()
        except Exception as error:
            if is_passing(error):
                raise StateUnavailable from error
            raise
        finally:
            await _put_back(connection)

    async def run(
        self, work: Callable[[Transaction], Awaitable[T]], *, patience: float | None = None
    ) -> T:
        """Do ``work`` in a transaction; again from the start when the database was locked or lost.

        ``work`` must be harmless to repeat: what it writes is rolled back before, except when a
        commit was lost on the way back, whose outcome nobody knows. Ids made outside of it, and
        unique columns, keep such a repeat from writing twice.

        Raises:
            StateUnavailable: the database did not answer within ``patience`` seconds.
        """

        limit = self.patience if patience is None else patience
        return await self._patiently(functools.partial(self._once, work), limit)

    async def once(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Do ``work`` in a transaction, a single time, however long that takes.

        For who must know that no earlier try is still under way. Raises what it meets;
        ``is_passing`` tells whether to try again.
        """
        return await self._within(self._once(work), None)

    async def _once(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        connection = await self._enter()
        try:
            try:
                result = await work(connection)
            except BaseException:
                with contextlib.suppress(Exception):
                    await connection.rollback()
                raise
            await connection.commit()
            return result
        finally:
            await _put_back(connection)

    async def scrub(self) -> None:
        """After an erasure: overwrite what SQLite's journal still holds of what was erased.

        Freed pages are overwritten at once (``secure_delete``). PostgreSQL gives old rows up by
        itself, when it vacuums. Does nothing while the database is away: the journal is folded
        in at its end, and at every thousandth page.
        """
        if not self.is_sqlite:
            return
        try:
            await self._within(self._checkpoint(), self.patience)
        except Exception as error:
            log.warning("the journal was not cleared", extra={"error": type(error).__name__})

    async def _checkpoint(self) -> None:
        # Beneath SQLAlchemy, which would begin a transaction, within which SQLite refuses this.
        connection = await self.engine.connect()
        try:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            await driver.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            await _put_back(connection)

    async def ping(self, patience: float | None = None) -> None:
        """Ask for an answer. Raises ``StateUnavailable``, as ``run`` does."""

        async def ask(tx: Transaction) -> None:
            await tx.execute(text("SELECT 1"))

        await self.run(ask, patience=patience)

    async def _enter(self) -> Transaction:
        connection = await self.engine.connect()
        try:
            await connection.begin()
        except BaseException:
            await _put_back(connection)
            raise
        return connection

    async def _patiently(
        self,
        once: Callable[[], Coroutine[Any, Any, T]],
        patience: float,
        late: Callable[[T], None] | None = None,
    ) -> T:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        pause = _FIRST_PAUSE
        while True:
            try:
                return await self._within(once(), deadline - loop.time(), late)
            except StateUnavailable:
                raise
            except Exception as error:
                if not is_passing(error):
                    raise
                log.debug("database not to be had", extra={"error": type(error).__name__})
                # Spread, so that what waited does not come back all at once.
                pause = min(pause * 2, _LONGEST_PAUSE) * random.uniform(0.7, 1.3)
                if loop.time() + pause >= deadline:
                    raise StateUnavailable from error
            await asyncio.sleep(pause)

    async def _within(
        self,
        work: Coroutine[Any, Any, T],
        seconds: float | None,
        late: Callable[[T], None] | None = None,
    ) -> T:
        """The work's result, if it comes in time.

        Work that is late, or whose caller was cancelled, goes on by itself to its end: a
        connection torn away from a thread that still uses it would be a second one on the file.
        ``late`` takes what such work brings.
        """
        task = self._start(work)
        taken = False
        try:
            done, _ = await asyncio.wait(
                {task}, timeout=None if seconds is None else max(seconds, 0.0)
            )
            taken = bool(done)
        finally:
            if not taken and late is not None:
                task.add_done_callback(functools.partial(_hand_over, late))
        if not taken:
            raise StateUnavailable
        return task.result()

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work, name="database")
        self._left_running.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._left_running.discard(task)
        if not task.cancelled():
            # Taken note of here too, for work that nobody waits for any more.
            task.exception()

    def _give_back(self, connection: AsyncConnection) -> None:
        self._start(_put_back(connection))


def _hand_over(late: Callable[[T], None], task: asyncio.Task[T]) -> None:
    if not task.cancelled() and task.exception() is None:
        late(task.result())


async def _put_back(connection: AsyncConnection) -> None:
    try:
        await connection.close()
    except Exception as error:
        log.debug("connection not given back", extra={"error": type(error).__name__})


def is_passing(error: BaseException) -> bool:
    """Whether the database may do the same gladly a little later: locked, lost, starting, full."""
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return True
        origin = error.orig
        code = getattr(origin, "sqlite_errorcode", None) or getattr(
            getattr(origin, "__cause__", None), "sqlite_errorcode", None
        )
        if code is not None:
            # The low byte is the kind; the rest says more exactly what.
            return code & 0xFF in _SQLITE_PASSING
        return sql_state(error).startswith(_POSTGRES_PASSING)
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate or "").startswith(_POSTGRES_PASSING)
    if isinstance(error, asyncpg.InterfaceError):
        return True
    # ``OSError`` covers refused and reset connections; a pool without a free one times out.
    return isinstance(error, OSError | TimeoutError | PoolTimeout | StateUnavailable)


def sql_state(error: DBAPIError) -> str:
    """PostgreSQL's five characters for what went wrong; empty for SQLite."""
    return str(getattr(error.orig, "sqlstate", None) or "")


def _sqlite(data_dir: Path, patience: float) -> AsyncEngine:
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = data_dir / FILE
    # SQLite would make it readable by all; its companions take over the mode.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    # One connection: SQLite up to 3.51.2 can damage a WAL file that two write at the same instant.
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=str(path)),
        pool_size=1,
        max_overflow=0,
        pool_timeout=patience,
        # An error's text may reach a log; what was said must not.
        hide_parameters=True,
    )

    def connected(connection: Any, record: object) -> None:
        # The driver would otherwise begin transactions by itself, and only when it writes.
        connection.isolation_level = None
        cursor = connection.cursor()
        # Short, because it is waited for in the connection's only thread; we try again ourselves.
        cursor.execute("PRAGMA busy_timeout=1000")
        cursor.execute("PRAGMA journal_mode=WAL")
        # NORMAL may lose the last commits with the power: a notice must not be lost.
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        # What was erased must not stand in free pages.
        cursor.execute("PRAGMA secure_delete=ON")
        # Below zero it counts KiB, not pages.
        cursor.execute(f"PRAGMA cache_size=-{PAGES_KIB}")
        cursor.close()

    def begun(connection: Any) -> None:
        # The write lock at once: a reader that turns writer midway cannot wait for it.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(engine.sync_engine, "connect", connected)
    event.listen(engine.sync_engine, "begin", begun)
    return engine


def _postgres(url: str) -> AsyncEngine:
    parsed = postgres_url(url)
    query = dict(parsed.query)
    arguments: dict[str, Any] = {
        "timeout": CONNECT_SECONDS,
        "command_timeout": COMMAND_SECONDS,
        "server_settings": {"application_name": "interview_peer"},
    }
    # Hosts hand out URLs with libpq's name for it.
    mode = query.pop("sslmode", None)
    if mode is not None:
        if mode not in _SSL_MODES:
            raise ConfigurationError("DATABASE_URL names an sslmode that PostgreSQL does not have.")
        arguments["ssl"] = False if mode == "disable" else mode
    query.pop("channel_binding", None)
    return create_async_engine(
        parsed.set(query=query),
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=PATIENCE_SECONDS,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args=arguments,
    )


def postgres_url(url: str) -> URL:
    """The URL with our driver in it. Raises ``ConfigurationError`` if it is not PostgreSQL's."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or parsed.drivername.split("+")[0] not in ("postgresql", "postgres"):
        # Not chained: the error would repeat the URL, which holds a password.
        raise ConfigurationError("DATABASE_URL must be a postgresql:// address.")
    return parsed.set(drivername="postgresql+asyncpg")
