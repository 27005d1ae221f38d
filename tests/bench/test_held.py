"""What is taken for in use in a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench.held import held_bytes, in_small_blocks
from bench.soak import PAGES_BYTES

MEGABYTE = 1_000_000


@pytest.mark.parametrize("make", ["[object() for _ in range(500_000)]", "bytearray(8_000_000)"])
def test_what_is_held_counts_and_what_was_let_go_does_not(make: str) -> None:
    # In a process of its own, in which nothing else takes or gives back memory.
    code = f"""
from bench.held import held_bytes
before = held_bytes()
kept = {make}
during = held_bytes()
del kept
print(during - before, held_bytes() - before)
"""
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    during, after = map(int, told.stdout.split())
    assert 7.9 * MEGABYTE < during < 14 * MEGABYTE
    assert abs(after) < 0.3 * MEGABYTE
    assert told.stderr == ""


def test_books_without_small_blocks_count_none() -> None:
    assert (
        in_small_blocks("# bytes in allocated blocks        =           12,345,678\n") == 12_345_678
    )
    assert in_small_blocks("Small block threshold = 512, in 32 size classes.\n") == 0


def test_stderr_is_left_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    assert held_bytes() > MEGABYTE
    sys.stderr.write("still here")
    assert capfd.readouterr().err == "still here"


def test_what_sqlite_keeps_of_the_database_is_counted_and_stays_within_its_bound() -> None:
    # In a process of its own: pages of other databases would be counted too.
    code = """
import asyncio, sys, tempfile
from pathlib import Path
from sqlalchemy import text
from bench.held import held_bytes, page_cache_bytes
from interview_peer.state.database import Database

async def main():
    with tempfile.TemporaryDirectory() as name:
        database = await Database.open(None, Path(name))
        await database.ping()
        told = [page_cache_bytes(), held_bytes()]
        async with database.begin() as tx:
            await tx.execute(text("CREATE TABLE filler (x BLOB)"))
            await tx.execute(text("INSERT INTO filler VALUES (zeroblob(8000000))"))
        told += [page_cache_bytes(), held_bytes()]
        await database.close()
        print(*told, page_cache_bytes())

asyncio.run(main())
"""
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    empty, held_before, full, held_after, closed = map(int, told.stdout.split())
    assert empty < 0.1 * MEGABYTE and closed == 0
    assert 0.8 * PAGES_BYTES < full <= PAGES_BYTES
    assert held_after - held_before > 0.9 * (full - empty)
