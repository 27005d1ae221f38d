"""Erases files of this data folder whose interview was erased elsewhere.

Whoever erases an interview marks its row. The files may be in the data folder of another process
on the same PostgreSQL, or come back with a copy of the disk: the owner of the folder sees the mark
and erases them. The row stops naming the folder when nothing is left in it.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from sqlalchemy import select, update

from ..errors import InterviewPeerError, SessionNotFound, StateUnavailable
from ..logs import word_for
from ..state.database import Database, Transaction
from ..state.schema import interviews
from ..storage.finished import TOMBSTONE_NAME
from ..storage.folder import INTERVIEWS
from ..tasks import stop

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 15.0
_AT_ONCE: Final = 200


class Erasures:
    """One task per process. ``erase`` erases an interview's files, or raises as ``Archive``."""

    def __init__(
        self,
        database: Database,
        data_dir: Path,
        place: str,
        erase: Callable[[str], Awaitable[object]],
        *,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._database = database
        self._data_dir = data_dir
        self._place = place
        self._erase = erase
        self._look_seconds = look_seconds
        self._task: asyncio.Task[None] | None = None
        self.erased = 0
        """Interviews whose files were erased because another asked."""

    def start(self, after: asyncio.Event) -> None:
        """Begin, once what an earlier process left was read (``after``)."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(after), name="erase for others")

    async def close(self) -> None:
        """Stop; what is left is seen after the next start. Idempotent."""
        task, self._task = self._task, None
        await stop(task)

    async def _run(self, after: asyncio.Event) -> None:
        await after.wait()
        compared = False
        while True:
            try:
                if not compared:
                    await self.compare()
                    compared = True
                await self.look()
            except StateUnavailable:
                log.debug("erasures wait for the database")
            except Exception as error:
                log.error("erasing for others failed", extra={"error": word_for(error)})
            if compared and self._database.is_sqlite:
                # Nobody else is there to ask.
                return
            await asyncio.sleep(self._look_seconds)

    async def look(self) -> None:
        """Erase what others marked since. Raises ``StateUnavailable``."""
        after = ""
        while True:
            names = await self._database.run(functools.partial(self._wanted, after=after))
            for name in names:
                if await self._gone(name):
                    await self._database.run(functools.partial(self._let_go, name=name))
            if len(names) < _AT_ONCE:
                return
            after = names[-1]

    async def compare(self) -> None:
        """Erase every folder that should be gone, whatever its row says of where it is.

        Raises ``StateUnavailable``.
        """
        names = await asyncio.to_thread(self._folders)
        for start in range(0, len(names), _AT_ONCE):
            part = names[start : start + _AT_ONCE]
            for name in await self._database.run(functools.partial(self._erased, names=part)):
                await self._gone(name)

    async def _gone(self, name: str) -> bool:
        """Erase one interview's files; whether none are left."""
        try:
            await self._erase(name)
        except SessionNotFound:
            return True
        except (InterviewPeerError, OSError) as error:
            # It is looked at again.
            log.warning(
                "a recording could not be erased yet",
                extra={"session": name, "why": word_for(error)},
            )
            return False
        self.erased += 1
        return True

    def _folders(self) -> list[str]:
        """Interviews with a folder that is no tombstone. Waits for the disk."""
        found = (self._data_dir / INTERVIEWS).glob("*/")
        return sorted(one.name for one in found if not (one / TOMBSTONE_NAME).exists())

    async def _wanted(self, tx: Transaction, after: str) -> list[str]:
        query = (
            select(interviews.c.id)
            .where(
                interviews.c.place == self._place,
                interviews.c.deleted_at.is_not(None),
                interviews.c.id > after,
            )
            .order_by(interviews.c.id)
            .limit(_AT_ONCE)
        )
        return [*(await tx.execute(query)).scalars()]

    async def _erased(self, tx: Transaction, names: list[str]) -> list[str]:
        query = select(interviews.c.id).where(
            interviews.c.id.in_(names), interviews.c.deleted_at.is_not(None)
        )
        return [*(await tx.execute(query)).scalars()]

    async def _let_go(self, tx: Transaction, name: str) -> None:
        await tx.execute(
            update(interviews)
            .where(interviews.c.id == name, interviews.c.place == self._place)
            .values(place=None)
        )
