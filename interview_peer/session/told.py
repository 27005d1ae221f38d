"""Takes the mark off each interview's folder once the database has its end.

What still has it at a start is told then (``recovery``): the process went down before the database
was back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from pathlib import Path
from typing import Final

from ..errors import InvalidSessionId
from ..logs import word_for
from ..state.happenings import Finished, Happening
from ..storage.folder import InterviewFolder
from ..tasks import stop
from ..types import SessionId

log = logging.getLogger(__name__)

MOST_WAITING: Final = 10_000
CLOSE_SECONDS: Final = 2.0


class Told:
    """Belongs to the event loop; the disk is waited for in a thread."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._waiting: deque[SessionId] = deque()
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self.left_out = 0
        """Marks that stay until the next start, because too many waited or the disk refused."""

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="take marks off")

    def written(self, happening: Happening) -> None:
        """The database has this. Returns at once."""
        if not isinstance(happening, Finished):
            return
        if len(self._waiting) >= MOST_WAITING:
            # A mark too many costs the next start one look.
            self.left_out += 1
            return
        self._waiting.append(happening.interview_id)
        self._idle.clear()
        self._news.set()

    async def close(self) -> None:
        """Take off what waits, if the disk answers in time, and stop. Idempotent."""
        task, self._task = self._task, None
        if task is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._idle.wait()
        await stop(task)

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                names = [self._waiting.popleft() for _ in range(len(self._waiting))]
                self.left_out += await asyncio.to_thread(_take_off, self._data_dir, names)
            self._idle.set()


def _take_off(data_dir: Path, names: list[SessionId]) -> int:
    """How many the disk refused."""
    refused = 0
    for name in names:
        try:
            InterviewFolder(data_dir, name).mark_told()
        except (OSError, InvalidSessionId) as error:
            refused += 1
            log.warning(
                "a mark stays on a folder",
                extra={"session": name, "error": word_for(error)},
            )
    return refused
