"""A server in the test's own process, and a caller of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from interview_peer.app import Server
from tests.support.caller import Caller, calling
from tests.support.inprocess import serving


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
