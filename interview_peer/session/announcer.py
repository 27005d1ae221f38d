"""Has the chronicle write what became of recordings: finished, not to be finished, or erased.

An interview's end is told at once; its recording when the manifest is written, which may be after
a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sqlalchemy import select

from ..errors import InvalidSessionId
from ..finishing.worker import finished_before
from ..logs import word_for
from ..state.database import Database, Transaction
from ..state.happenings import Erased, Happening, Recorded, RecordingLost, RecordingMade
from ..state.records import FINAL
from ..state.schema import interviews, recordings
from ..storage.finished import TOMBSTONE_NAME, read_finished, read_tombstone
from ..storage.folder import INTERVIEWS, InterviewFolder
from ..tasks import stop
from ..types import SessionId

log = logging.getLogger(__name__)

CLOSE_SECONDS: Final = 2.0
_AT_ONCE: Final = 500


class Announcer:
    """Has it written down what became of each recording. Belongs to the event loop.

    What an earlier process finished or erased, and did not live to tell, is told after a start.
    """

    def __init__(
        self, database: Database, data_dir: Path, tell: Callable[[Happening], None]
    ) -> None:
        self._database = database
        self._data_dir = data_dir
        self._tell = tell
        self._work: asyncio.Queue[InterviewFolder | None] = asyncio.Queue()
        """Finished folders; None to look for what an earlier process did not tell."""
        self._task: asyncio.Task[None] | None = None

    def start(self, after: asyncio.Event) -> None:
        """Begin, once the ends that an earlier process did not tell were told (``after``)."""
        self._work.put_nowait(None)
        self._task = asyncio.create_task(self._run(after), name="announce recordings")

    def made(self, folder: InterviewFolder) -> None:
        """A folder was finished."""
        self._work.put_nowait(folder)

    def lost(self, folder: InterviewFolder, reason: str) -> None:
        """A folder could not be finished, for a reason in one word."""
        self._tell(RecordingLost(interview_id=folder.session_id, reason=reason))

    def erased(self, session_id: SessionId, reason: str) -> None:
        """Sound and text are gone, by ``request`` or ``retention``."""
        self._tell(Erased(interview_id=session_id, reason=reason))

    async def rested(self) -> None:
        """Wait until everything that was finished is told. For as long as it takes."""
        await self._work.join()

    async def close(self) -> None:
        """Tell what waits, and stop; what is left is told after the next start. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._work.join()
            await stop(task)

    async def _run(self, after: asyncio.Event) -> None:
        await after.wait()
        while True:
            folder = await self._work.get()
            try:
                if folder is None:
                    news = await self._untold()
                else:
                    made = await asyncio.to_thread(_made, folder)
                    news = [] if made is None else [made]
                for one in news:
                    self._tell(one)
            except Exception as error:
                # It is looked for again after the next start.
                log.warning("recordings wait to be told", extra={"error": word_for(error)})
            self._work.task_done()

    async def _untold(self) -> list[Happening]:
        """Manifests and tombstones that the database does not know of."""
        finished = await asyncio.to_thread(finished_before, self._data_dir)
        graves = await asyncio.to_thread(_graves, self._data_dir)
        told = interviews.c.id.not_in(select(recordings.c.interview_id))
        names = await self._among([one.session_id for one in finished], told)
        made = [await asyncio.to_thread(_made, one) for one in finished if one.session_id in names]
        names = await self._among(list(graves))
        erased = [Erased(interview_id=one, reason=graves[one]) for one in graves if one in names]
        return [*(one for one in made if one is not None), *erased]

    async def _among(self, names: list[SessionId], *where: object) -> set[str]:
        """Of these interviews, those that are over and not erased."""
        found: set[str] = set()
        for start in range(0, len(names), _AT_ONCE):
            part = names[start : start + _AT_ONCE]

            async def look(tx: Transaction, part: list[SessionId] = part) -> list[str]:
                query = select(interviews.c.id).where(
                    interviews.c.id.in_(part),
                    interviews.c.phase.in_(FINAL),
                    interviews.c.deleted_at.is_(None),
                    *where,  # type: ignore[arg-type]
                )
                return [*(await tx.execute(query)).scalars()]

            found.update(await self._database.run(look))
        return found


def _made(folder: InterviewFolder) -> RecordingMade | None:
    """What a folder's manifest says; None if it was erased meanwhile. Waits for the disk."""
    finished = read_finished(folder)
    if finished is None or not finished.files:
        return None
    return RecordingMade(
        interview_id=folder.session_id,
        files=tuple(
            Recorded(one.name, one.bytes, one.sha256, one.seconds) for one in finished.files
        ),
        seconds=finished.seconds,
    )


def _graves(data_dir: Path) -> dict[SessionId, str]:
    """Every erased interview, and why."""
    found: dict[SessionId, str] = {}
    for path in sorted((data_dir / INTERVIEWS).glob(f"*/{TOMBSTONE_NAME}")):
        try:
            folder = InterviewFolder(data_dir, SessionId(path.parent.name))
        except InvalidSessionId:
            continue
        tombstone = read_tombstone(folder)
        if tombstone is not None:
            found[folder.session_id] = tombstone.why
    return found
