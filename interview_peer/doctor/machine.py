"""Whether the data folder has room, and how fast its disk really writes."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..settings import Settings
from .report import Row, Status, aside

DISK: Final = "disk"

MEGABYTE: Final = 1_000_000
TRY_BYTES: Final = 8 * MEGABYTE
SYNCS: Final = 8
SLOW_MB: Final = 10.0
"""Megabytes a second below which a hundred interviews and their mixes get in each other's way."""
SLOW_SYNC_MS: Final = 100.0
"""The database waits for one of these with every commit."""
LITTLE_BYTES: Final = 2_000 * MEGABYTE
"""About fifty hours of interviews with all their files."""


@dataclass(frozen=True, slots=True)
class Disk:
    """What was measured."""

    free: int
    """Bytes."""
    speed: float | None
    """Megabytes a second; None where there was no room to try."""
    sync_ms: float | None
    """Milliseconds until a small piece was on the disk, the median."""


async def disk(settings: Settings) -> list[Row]:
    """Room and speed of the data folder; the file that is written for it is gone afterwards."""
    least = settings.min_free_mb * 2**20
    try:
        return [judged(await aside(lambda: measured(settings.data_dir, least)), least)]
    except OSError as error:
        finding = f"{settings.data_dir} cannot be written to: {error.strerror or error}."
        cure = "Give INTERVIEW_DATA_DIR to the server's user, or set it to another folder."
        return [Row(DISK, Status.FAIL, finding, cure)]


def measured(folder: Path, least: int) -> Disk:
    """Measure the disk of a folder, or of where it would be made; ``least`` bytes stay free."""
    # Not made here: whoever runs this may not be who serves.
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    room = free - least >= 2 * TRY_BYTES
    took: list[float] = []
    with tempfile.TemporaryFile(dir=folder) as file:
        number = file.fileno()
        for position in range(SYNCS):
            began = time.monotonic()
            os.pwrite(number, b"interview_peer", position * 4096)
            os.fdatasync(number)
            took.append(time.monotonic() - began)
        speed = None
        if room:
            piece = os.urandom(MEGABYTE)
            began = time.monotonic()
            for position in range(0, TRY_BYTES, MEGABYTE):
                os.pwrite(number, piece, position)
            os.fdatasync(number)
            speed = TRY_BYTES / MEGABYTE / max(time.monotonic() - began, 1e-6)
    return Disk(free, speed, sorted(took)[SYNCS // 2] * 1000)


def judged(found: Disk, least: int) -> Row:
    """The row of what was measured; with less than ``least`` bytes no interview begins."""
    gigabytes = f"{found.free / 1e9:.1f} GB are free"
    if found.free < least:
        cure = "Make room, move recordings to a store, or lower INTERVIEW_MIN_FREE_MB."
        return Row(DISK, Status.FAIL, f"Too little: {gigabytes}; no interview can begin.", cure)
    speed = "" if found.speed is None else f", {found.speed:.0f} MB/s"
    sync = "" if found.sync_ms is None else f", {found.sync_ms:.1f} ms until a commit is safe"
    finding = f"{gigabytes}{speed}{sync}."
    if found.free < least + LITTLE_BYTES:
        cure = "Make room before long, or move recordings to a store (INTERVIEW_RECORDINGS_URL)."
        return Row(DISK, Status.WARN, finding, cure)
    if (found.speed or SLOW_MB) < SLOW_MB or (found.sync_ms or 0.0) > SLOW_SYNC_MS:
        cure = "Put INTERVIEW_DATA_DIR on a faster disk, not on a network share."
        return Row(DISK, Status.WARN, f"Slow: {finding}", cure)
    return Row(DISK, Status.PASS, finding)
