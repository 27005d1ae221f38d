"""Writes down what happens to interviews, in order, without ever making them wait.

The media side tells; one task writes, each happening in one transaction with its notices. While
the database is locked or gone, happenings wait in memory and are written when it is back. How a
happening is written is decided in ``records``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from sqlalchemy.exc import IntegrityError

from ..core.acts import Outcome
from ..tasks import stop
from ..types import Json
from .database import Database, is_passing
from .happenings import Acted, Erased, Happening, Turns
from .records import Records

log = logging.getLogger(__name__)

MOST_WAITING: Final = 20_000
"""Happenings kept while the database is away: with a hundred interviews, about an hour of it."""
TURNS_WAITING: Final = MOST_WAITING // 2
"""Beyond this, turns are left out: the end of their interview has them all."""
ACTS_WAITING: Final = MOST_WAITING // 4
"""Acts of operators, beyond which further ones are lost. A key asks as often as it likes, and must
leave room for what happens to interviews, of which the database has no other trace."""
REFUSALS_WAITING: Final = 500
"""The same of acts that were refused, which cost a key nothing: all that waits behind them is later
by a second."""
CLOSE_SECONDS: Final = 5.0

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0


class Chronicle:
    """Takes happenings and writes them. All methods belong to the event loop.

    ``tell`` never blocks and never raises. ``wake`` is called after every commit, for whoever
    sends the notices.
    """

    def __init__(
        self, database: Database, records: Records, wake: Callable[[], None] = lambda: None
    ) -> None:
        self._database = database
        self._records = records
        self.wake = wake
        self._listeners: list[Callable[[Happening], None]] = []
        self._waiting: deque[Happening] = deque()
        self._acts = 0
        """Acts among them."""
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self.written = 0
        """Happenings that reached the database."""
        self.left_out = 0
        """Turns not written as they came, because too much waited."""
        self.lost = 0
        """Happenings that will never be written: beyond all bounds, or refused for good."""
        self.last_error: str | None = None
        """What kind of error kept a happening from being written last; never its text."""
        self._away_since: float | None = None

    def start(self) -> None:
        """Begin writing; what was told before is written first."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="chronicle")

    def listen(self, listener: Callable[[Happening], None]) -> None:
        """Tell ``listener`` of each happening that the database has; it must return at once."""
        self._listeners.append(listener)

    def tell(self, happening: Happening) -> None:
        """Write this down as soon as may be, after everything told before."""
        waiting = len(self._waiting)
        if waiting >= TURNS_WAITING and isinstance(happening, Turns):
            self.left_out += 1
            return
        if waiting >= MOST_WAITING or self._too_many_acts(happening):
            if self.lost == 0:
                log.error("too much waits for the database: happenings are lost")
            self.lost += 1
            return
        self._acts += isinstance(happening, Acted)
        self._waiting.append(happening)
        self._idle.clear()
        self._news.set()

    def _too_many_acts(self, happening: Happening) -> bool:
        if not isinstance(happening, Acted):
            return False
        refused = happening.entry.outcome is Outcome.REFUSED
        return self._acts >= (REFUSALS_WAITING if refused else ACTS_WAITING)

    async def drained(self) -> None:
        """Wait until everything told so far, and since, is written."""
        await self._idle.wait()

    def statistics(self) -> Json:
        """Figures for operators."""
        away = self._away_since
        return {
            "waiting": len(self._waiting),
            "written": self.written,
            "left_out": self.left_out,
            "lost": self.lost,
            "away_seconds": 0.0 if away is None else round(time.monotonic() - away, 1),
            "last_error": self.last_error,
        }

    async def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Write what waits, for at most so long, and stop. Idempotent."""
        task, self._task = self._task, None
        if task is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.drained()
        if self._waiting:
            # The next start finds these interviews unfinished and closes them from their files.
            log.error("not everything was written", extra={"waiting": len(self._waiting)})
        await stop(task)

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                # Kept in the queue until it is written: a cancelled task loses nothing counted.
                await self._write(self._waiting[0])
                self._acts -= isinstance(self._waiting.popleft(), Acted)
            self._idle.set()

    async def _write(self, happening: Happening) -> None:
        work = functools.partial(self._records.write, happening=happening)
        pause = _FIRST_PAUSE
        conflicts = 0
        while True:
            try:
                if await self._database.once(work):
                    self.written += 1
                    self.wake()
                    if isinstance(happening, Erased):
                        await self._database.scrub()
                for listener in self._listeners:
                    listener(happening)
                break
            except IntegrityError as error:
                # Somebody made the same row meanwhile; the next look sees it.
                conflicts += 1
                if conflicts > 2:
                    self._give_up(happening, error)
                    break
            except Exception as error:
                if not is_passing(error):
                    self._give_up(happening, error)
                    break
                self._note_away(error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
        self._note_back()

    def _give_up(self, happening: Happening, error: Exception) -> None:
        # Without the error's text, which may hold what was said.
        log.error(
            "a happening cannot be written",
            extra={
                "session": happening.interview_id,
                "kind": type(happening).__name__,
                "error": type(error).__name__,
            },
        )
        self.lost += 1
        self.last_error = _kind(error)

    def _note_away(self, error: Exception) -> None:
        self.last_error = _kind(error)
        if self._away_since is None:
            self._away_since = time.monotonic()
            log.warning("the database is away", extra={"error": type(error).__name__})

    def _note_back(self) -> None:
        if self._away_since is not None:
            away = round(time.monotonic() - self._away_since, 1)
            self._away_since = None
            log.warning("the database is back", extra={"seconds": away})


def _kind(error: Exception) -> str:
    origin = getattr(error, "orig", None)
    return type(error if origin is None else origin).__name__
