"""Fixtures that more than one room uses. What they start, they stop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.server import ServerProcess, running_server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server process in simulation, stopped by SIGTERM; a bad exit code fails the test."""
    async with running_server(tmp_path) as process:
        yield process
