"""A finisher of a test's own, on a data folder."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from interview_peer.finishing.worker import Finisher
from interview_peer.storage.worker import StorageWorker


@contextlib.asynccontextmanager
async def finishing(data_dir: Path) -> AsyncIterator[Finisher]:
    """A finisher that has begun."""
    storage = StorageWorker()
    storage.start()
    finisher = Finisher(data_dir, storage)
    await finisher.start()
    try:
        yield finisher
    finally:
        await finisher.close()
        await storage.close()
