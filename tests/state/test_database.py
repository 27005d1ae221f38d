"""The database beneath everything that is written to it."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from sqlalchemy import text

from interview_peer.state.database import FILE, Database, Transaction


async def test_what_was_erased_leaves_the_journal_without_a_word_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(tx: Transaction) -> None:
        await tx.execute(text("CREATE TABLE words (one TEXT)"))

    journal = tmp_path / f"{FILE}-wal"

    def length() -> int:
        return journal.stat().st_size

    database = await Database.open(None, tmp_path)
    try:
        await database.run(work)
        assert await asyncio.to_thread(length) > 0
        with caplog.at_level(logging.WARNING):
            await database.scrub()
        assert await asyncio.to_thread(length) == 0
    finally:
        await database.close()
    # SQLAlchemy tells an error with its traceback where a connection is not given back in order.
    assert [record.getMessage() for record in caplog.records] == []
