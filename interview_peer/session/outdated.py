"""Erases by age what only the database has of an interview: one that never got a folder, or whose
disk is gone.

What has files is erased by age with them, by the keeper. An interview that nobody joined has none,
and yet a plan and what its maker said of the candidate; one whose data folder was lost still has
its turns. It goes as one that is erased on request: the same row stays, the same notice is told.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Row, and_, func, or_, select, tuple_

from ..errors import StateUnavailable, StoreUnavailable
from ..logs import word_for
from ..state.database import Database, Transaction
from ..state.happenings import Erased, Happening
from ..state.records import FINAL
from ..state.schema import interviews, now_us
from ..storage.eraser import BY_AGE
from ..storage.shelf import Shelf
from ..tasks import stop
from ..types import SessionId

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 3600.0
PAUSE_SECONDS: Final = 0.05
"""Between two pages, so that whoever writes what happens never waits long."""
ELSEWHERE: Final = timedelta(days=7)
"""Whoever has another data folder erases by age itself, within an hour. It is given so much longer,
and taken for gone only if no interview was made there in that time. If it comes back after all, it
sees the mark and erases what it has."""
AT_ONCE: Final = 50
"""Interviews looked at, and at most erased, before others have their turn."""
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Sources:
    """What is looked at; ``place`` is the name of the shelf's data folder.

    ``tell`` has an erasure written, ``drained`` returns when all that was told is; ``busy`` tells
    whether an interview runs in this process.
    """

    database: Database
    shelf: Shelf
    place: str
    tell: Callable[[Happening], None]
    drained: Callable[[], Awaitable[None]]
    busy: Callable[[SessionId], bool] = lambda _: False


class Outdated:
    """One task per process; several may share a database. ``now`` gives microseconds."""

    def __init__(
        self,
        sources: Sources,
        retention: timedelta,
        *,
        now: Callable[[], int] = now_us,
        at_once: int = AT_ONCE,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._sources = sources
        self._retention = retention
        self._now = now
        self._at_once = at_once
        self._pause_seconds = pause_seconds
        self._task: asyncio.Task[None] | None = None
        self.erased = 0
        """Interviews erased."""

    def start(self, after: asyncio.Event) -> None:
        """Begin, once the ends that an earlier process did not tell were told (``after``)."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(after), name="erase what has no files")

    async def close(self) -> None:
        """Stop; what is left is seen after the next start. Idempotent."""
        task, self._task = self._task, None
        await stop(task)

    async def _run(self, after: asyncio.Event) -> None:
        await after.wait()
        while True:
            try:
                await self.look()
            except (StateUnavailable, StoreUnavailable):
                log.debug("what has no files is not erased while the database or store is away")
            except Exception as error:
                log.error("erasing by age failed", extra={"error": word_for(error)})
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Erase all that is too old. Raises ``StateUnavailable``, ``StoreUnavailable``."""
        sources, before = self._sources, self.erased
        after: tuple[int, str] = (0, "")
        while True:
            page = await sources.database.run(functools.partial(self._old, after=after))
            for row in page:
                name = SessionId(row.id)
                if row.is_old and not sources.busy(name) and not await self._has_files(name):
                    sources.tell(Erased(interview_id=name, reason=BY_AGE))
                    self.erased += 1
            # No more waits to be written than one page.
            await sources.drained()
            if len(page) < self._at_once:
                break
            after = (page[-1].created_at, page[-1].id)
            await asyncio.sleep(self._pause_seconds)
        if self.erased > before:
            log.info("erased by age", extra={"interviews": self.erased - before})

    async def _old(self, tx: Transaction, after: tuple[int, str]) -> list[Row[Any]]:
        """A page of those made before the limit; ``is_old`` says which were over before it, too."""
        table, now = interviews.c, self._now()
        limit, away = now - self._retention // _MICROSECOND, ELSEWHERE // _MICROSECOND
        over = func.coalesce(table.ended_at, table.created_at)
        here = or_(table.place.is_(None), table.place == self._sources.place)
        used = select(table.place).where(table.created_at >= now - away, table.place.is_not(None))
        lively = [*(await tx.execute(used.distinct())).scalars()]
        gone = and_(over < limit - away, table.place.not_in(lively))
        is_old = or_(and_(here, over < limit), gone)
        query = (
            select(table.id, table.created_at, is_old.label("is_old"))
            .where(
                table.deleted_at.is_(None),
                table.phase.in_(FINAL),
                table.created_at < limit,
                tuple_(table.created_at, table.id) > after,
            )
            .order_by(table.created_at, table.id)
            .limit(self._at_once)
        )
        return [*(await tx.execute(query))]

    async def _has_files(self, name: SessionId) -> bool:
        """Whether the disk or the store has anything, if only a tombstone that is to be told of.

        What cannot be seen now may be there.
        """
        folder = self._sources.shelf.folder(name)
        try:
            if await asyncio.to_thread(folder.exists):
                return True
        except OSError as error:
            extra = {"session": name, "why": word_for(error)}
            log.warning("a recording cannot be looked at", extra=extra)
            return True
        return await self._sources.shelf.is_begun(name)
