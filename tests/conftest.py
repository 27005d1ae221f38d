"""Fixtures that more than one room uses. What they start, they stop."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
from collections.abc import AsyncIterator, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from interview_peer import logs
from interview_peer.settings import Settings, env_name
from interview_peer.state import migrate
from interview_peer.state.database import Database
from tests.support.postgres import Postgres, programs, running_postgres
from tests.support.server import ServerProcess, running_server


def pytest_configure() -> None:
    """Servers that tests start are to mind SIGHUP, though the tests were started by ``nohup``: what
    is ignored stays so in whatever is started, what is handled does not."""
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda number, frame: None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than there are processors for ``-n auto``: most tests wait for something.

    Not more than six: each takes half a gigabyte, and many tests start a browser besides.
    """
    return min((os.cpu_count() or 1) + 1, 6)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several workers share the tests, begin with those that may take long.

    No worker is left with a long one at the end then. And those that listen to audio in real time
    run beside others that mostly wait, not beside those that compute. Those that bear no company
    come last, when there is hardly anyone to wait for.
    """
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: (_alone(item), -_seconds(item)))


def _seconds(item: pytest.Item) -> float:
    mark = item.get_closest_marker("timeout")
    return float(mark.args[0]) if mark else 0.0


def _alone(item: pytest.Item) -> bool:
    """A browser takes two processors for itself, and its jitter buffer stretches what it hears when
    it does not get them: speech is no longer known again, and an answer comes late."""
    return any(item.get_closest_marker(name) for name in ("alone", "browser"))


# Around everything else, so that waiting is not taken for the test's own time.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """No worker runs a test while another runs one that is to run alone."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    with open(__file__) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if _alone(item) else fcntl.LOCK_SH)
        try:
            return (yield)
        finally:
            # Closing alone would not do where a test has forked a process that lives on.
            fcntl.flock(lock, fcntl.LOCK_UN)


@pytest.fixture
def clean_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """For commands run within the tests: no setting in the environment; logging as before."""
    for field in Settings.model_fields:
        monkeypatch.delenv(env_name(field), raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logs, "_secrets", set())
    monkeypatch.setattr(logs, "_secret_pattern", None)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


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


@pytest.fixture(scope="session")
def second_postgres(postgres: Postgres) -> Iterator[Postgres]:
    """Another one, for ``restartable_postgres``."""
    place = programs()
    assert place is not None
    with running_postgres(place) as server:
        yield server


@pytest.fixture
def restartable_postgres(second_postgres: Postgres) -> Iterator[Postgres]:
    """A PostgreSQL that the test may stop without harm to others."""
    yield second_postgres
    if not second_postgres.runs:
        second_postgres.start()


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


@pytest.fixture(scope="session")
def postgres_template(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a PostgreSQL database with all tables, to be copied."""
    url = postgres.create()

    async def make() -> None:
        opened = await Database.open(url, tmp_path_factory.mktemp("template"))
        await migrate.upgrade(opened)
        await opened.close()

    # In a loop of its own: the fixture outlives the loop of any test.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(make())).result()
    return url.rsplit("/", 1)[1]


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """A database with all tables; every test that asks for it runs on both engines."""
    url: str | None = None
    if request.param == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        url = server.create(request.getfixturevalue("postgres_template"))
    opened = await Database.open(url, tmp_path / "state")
    try:
        await migrate.upgrade(opened)
        yield opened
    finally:
        await opened.close()
        if url is not None:
            server.drop(url)
