"""A backlog of notices for the server that is measured: due in its database before it starts.

The receiver takes its time for each answer, so the server works on them all the while.
"""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path
from typing import Final

from interview_peer.state import migrate
from interview_peer.state.database import Database

from . import notices

NOTICES: Final = 100_000
"""Far more than go out during a window."""

ANSWER_SECONDS: Final = 0.05
"""What the receiver takes for each: slow, yet not so slow that it would be asked less often."""


def fill(data_dir: Path) -> None:
    """Make the database of a server's data folder, with ``NOTICES`` due."""
    data_dir.mkdir(exist_ok=True)
    asyncio.run(_fill(data_dir))


async def _fill(data_dir: Path) -> None:
    database = await Database.open(None, data_dir)
    try:
        await migrate.upgrade(database)
        await notices.fill(database, NOTICES)
    finally:
        await database.close()


def received(url: str) -> int:
    """How many notices a receiver of ``notices.receive`` has had."""
    with urllib.request.urlopen(url, timeout=10) as response:
        return int(json.loads(response.read())["received"])
