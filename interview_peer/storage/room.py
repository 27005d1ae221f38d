"""Whether there is room for another recording: looks at the data folder's disk now and then.

In a thread of its own, which a disk that hangs may hold up: it waits for nobody, and nobody waits
for it. What to do where there is no room is decided elsewhere.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from pathlib import Path
from typing import Final

from .folder import probe

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 10.0
PATIENCE_SECONDS: Final = 10.0
"""A look that takes longer than this is that of a disk that hangs."""
CLOSE_SECONDS: Final = 2.0
MEGABYTE: Final = 1_000_000


class Room:
    """The free space of one folder's disk, and whether the folder takes a file at all."""

    def __init__(self, folder: Path, least_bytes: int) -> None:
        """``least_bytes`` must be free for a recording to begin; 0 looks at nothing."""
        self._folder = folder
        self._least = least_bytes
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._began: float | None = None
        self._unusable = False
        self.free: int | None = None
        """Bytes free at the newest look; None before the first, and where that cannot be told."""

    @property
    def unusable(self) -> bool:
        """Whether the disk hangs, or refused a small file for another reason than space."""
        began = self._began
        hangs = began is not None and time.monotonic() - began > PATIENCE_SECONDS
        return hangs or self._unusable

    @property
    def full(self) -> bool:
        """Whether less is free than a recording needs to begin."""
        return self.free is not None and self.free < self._least

    def start(self) -> None:
        """Look once, then again and again."""
        if self._least and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="room on disk", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop looking; a disk that hangs is not waited for. Idempotent."""
        thread, self._thread = self._thread, None
        self._stop.set()
        if thread is not None:
            thread.join(CLOSE_SECONDS)

    def look(self) -> None:
        """Look now; waits for the disk."""
        self._began = time.monotonic()
        before = self.full, self._unusable
        try:
            self.free = shutil.disk_usage(self._folder).free
            if self.free >= self._least:
                # A disk that has turned read-only, or fails, still tells of free space.
                probe(self._folder)
            self._unusable = False
        except OSError:
            self._unusable = True
        finally:
            self._began = None
        now = self.full, self._unusable
        if now != before:
            level = logging.WARNING if any(now) else logging.INFO
            free = None if self.free is None else self.free // MEGABYTE
            log.log(
                level,
                "room on the disk",
                extra={"free_mb": free, "full": now[0], "unusable": now[1]},
            )

    def _run(self) -> None:
        while True:
            self.look()
            if self._stop.wait(LOOK_SECONDS):
                return
