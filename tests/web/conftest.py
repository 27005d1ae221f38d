"""A server in the test's own process, and a caller of it; a watcher that needs a minute."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from interview_peer.app import Server
from tests.support.caller import Caller, calling
from tests.support.inprocess import serving
from tests.support.server import ROOT, clean_environment

WATCHER = pytest.StashKey[subprocess.Popen[str]]()


def _watching() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.web.idle_socket"],
        cwd=ROOT,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start watching idle sockets now, so that the minute passes beside the other tests.

    Of several workers none knows whether the test will be its own; there the minute passes beside
    the tests of the others.
    """
    if session.config.option.collectonly or hasattr(session.config, "workerinput"):
        return
    if any(item.path.name == "test_idle_socket.py" for item in session.items):
        session.config.stash[WATCHER] = _watching()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Leave no watcher behind when its test was not reached."""
    watcher = session.config.stash.get(WATCHER, None)
    if watcher is not None:
        if watcher.poll() is None:
            watcher.kill()
        watcher.communicate()


@pytest.fixture
def watcher(pytestconfig: pytest.Config) -> subprocess.Popen[str]:
    """The program that watches idle sockets."""
    if WATCHER not in pytestconfig.stash:
        pytestconfig.stash[WATCHER] = _watching()
    return pytestconfig.stash[WATCHER]


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Server]:
    """A simulating server; its files are in ``tmp_path``."""
    async with serving(tmp_path) as server:
        yield server


@pytest.fixture
async def caller(local: Server) -> AsyncIterator[Caller]:
    """A caller of that server."""
    async with calling(local.url) as caller:
        yield caller
