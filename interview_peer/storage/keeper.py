"""Sees to finished recordings: that they move to the store, and that they go, on request or by age.

One task per process. Nothing is kept of what is to be done: it is read from the folders after a
start, so an upload or an erasure that a crash interrupted is taken up again. How a folder is moved
is the mover's business, how it is erased the eraser's.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from ..errors import InvalidSessionId, RecordingNotReady, StoreUnavailable
from ..logs import word_for
from ..tasks import stop
from ..types import Json, SessionId
from .claim import HELD_SECONDS
from .eraser import BY_AGE, ON_REQUEST, Eraser, nobody
from .finished import (
    TOMBSTONE_NAME,
    Tombstone,
    is_recording,
    read_finished,
    read_stored,
    read_tombstone,
)
from .folder import INTERVIEWS, InterviewFolder
from .mover import IdInStore, LocalDamage, Mover, local_files
from .shelf import Shelf

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = (5.0, 15.0, 60.0, 300.0)
"""Pauses after the first, second, … failure; the last one holds for ever."""

LOOK_SECONDS: Final = 3600.0
"""How often folders are looked through for what nobody told of, and for what is too old."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """What an erasure came to."""

    tombstone: Tombstone
    waits_for: str | None = None
    """Code of the trouble that a store is in which still has copies."""


class Keeper:
    """Background work on finished recordings. All methods belong to the event loop.

    ``busy`` tells whether an interview still runs, ``aged`` is told of each that was erased by
    age, and ``drop`` calls off the finishing of what is to be erased; ``now`` is the time of day,
    aware.
    """

    def __init__(
        self,
        shelf: Shelf,
        *,
        retention: timedelta | None = None,
        busy: Callable[[SessionId], bool] = lambda _: False,
        aged: Callable[[SessionId], None] = lambda _: None,
        drop: Callable[[SessionId], Awaitable[None]] = nobody,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        retry_seconds: Sequence[float] = RETRY_SECONDS,
        look_seconds: float = LOOK_SECONDS,
        held_seconds: float = HELD_SECONDS,
    ) -> None:
        self._shelf = shelf
        self._store = shelf.store
        self._eraser = Eraser(shelf, drop=drop, now=now, held_seconds=held_seconds)
        self._mover = None if shelf.store is None else Mover(shelf, shelf.store, held_seconds)
        self._retention = retention
        self._busy = busy
        self._aged = aged
        self._now = now
        self._retry_seconds = retry_seconds
        self._look_seconds = look_seconds
        self._due: dict[SessionId, float] = {}
        self._failures: dict[SessionId, int] = {}
        self._settled: set[str] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._current: tuple[SessionId, asyncio.Task[bool]] | None = None
        self._erasing: dict[SessionId, list[asyncio.Lock]] = {}
        """One lock for each interview that is being erased, as often as it was asked for."""
        self.uploaded = 0
        """Interviews whose every file was checked in the store."""
        self.retries = 0
        """Uploads and erasures that will be tried again."""
        self.damaged = 0
        """Interviews that are not uploaded because a local file is damaged."""

    @property
    def erased(self) -> int:
        """Interviews erased."""
        return self._eraser.erased

    @property
    def waiting(self) -> int:
        """Interviews that wait for the store."""
        return len(self._due) + (self._current is not None)

    def statistics(self) -> Json:
        """Figures for operators: what waits for the store, and what was done since the start."""
        return {
            "waiting": self.waiting,
            "uploaded": self.uploaded,
            "retries": self.retries,
            "damaged": self.damaged,
            "erased": self.erased,
        }

    def start(self) -> None:
        """Begin with what an earlier process left."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="keep recordings")

    def take(self, session_id: SessionId) -> None:
        """A folder has been finished: move it to the store, if there is one."""
        if self._store is not None:
            self._due[session_id] = 0.0
            self._wake.set()

    async def close(self) -> None:
        """Stop; what is under way is taken up by the next start. Idempotent."""
        task, self._task = self._task, None
        await stop(task)

    # -- erasing --------------------------------------------------------------------------------

    async def erase(self, session_id: SessionId, why: str = ON_REQUEST) -> Erasure:
        """Erase an interview's sound and text, here and in stores, and leave a tombstone.

        An answer that is not ``complete`` says by ``waits_for`` which trouble the store is in: it
        is asked again until it answers. Erasing again changes nothing.

        Raises:
            RecordingNotReady: somebody still writes into the folder.
            OSError: the disk refused.
        """
        # While a lock is known, no upload of the interview begins.
        locks = self._erasing.setdefault(session_id, [])
        locks.append(locks[0] if locks else asyncio.Lock())
        try:
            return await self._erase_alone(session_id, why, locks[0])
        finally:
            locks.pop()
            if not locks:
                del self._erasing[session_id]

    async def _erase_alone(self, session_id: SessionId, why: str, lock: asyncio.Lock) -> Erasure:
        self._due.pop(session_id, None)
        called_off = self._current is not None and self._current[0] == session_id
        if called_off and self._current is not None:
            self._current[1].cancel()
            await asyncio.wait([self._current[1]])
        async with lock:
            tombstone = await self._eraser.here(session_id, why, called_off=called_off)
            if tombstone.complete:
                self._rest(session_id, tombstone)
                return Erasure(tombstone)
            try:
                tombstone = await self._eraser.there(session_id)
            except StoreUnavailable as error:
                self._again(session_id)
                return Erasure(tombstone, error.code)
            self._rest(session_id, tombstone)
            return Erasure(tombstone)

    def _rest(self, session_id: SessionId, tombstone: Tombstone) -> None:
        """It is erased; what may still come is looked for by the task."""
        if tombstone.again_at is None:
            self._settled.add(session_id)
        else:
            self._due[session_id] = 0.0
            self._wake.set()

    # -- the task -------------------------------------------------------------------------------

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        next_look = loop.time()
        while True:
            if loop.time() >= next_look:
                next_look = loop.time() + self._look_seconds
                try:
                    await self.look()
                except Exception:
                    log.exception("looking through the recordings failed")
            self._wake.clear()
            first = min(self._due, key=self._due.__getitem__, default=None)
            if first is not None and self._due[first] <= loop.time():
                del self._due[first]
                await self._work_on(first)
                continue
            wake_at = min(next_look, *self._due.values()) if self._due else next_look
            with suppress(TimeoutError):
                async with asyncio.timeout_at(wake_at):
                    await self._wake.wait()

    async def look(self) -> None:
        """Queue what is left to do, and erase what is too old."""
        for session_id in await asyncio.to_thread(self._left_to_do):
            self._due.setdefault(session_id, 0.0)
        if self._retention is not None:
            await self._erase_old(self._retention)

    def _left_to_do(self) -> list[SessionId]:
        left = []
        gone = set(self._settled)
        folders = self._folders()
        # Names of folders that somebody took away; one that is put back is looked at anew.
        self._settled -= gone.difference(folder.session_id for folder in folders)
        for folder in folders:
            if folder.session_id in self._settled:
                continue
            try:
                settled = self._is_settled(folder)
            except OSError as error:
                _not_seen(folder, error)
                continue
            if settled:
                self._settled.add(folder.session_id)
            elif settled is False:
                left.append(folder.session_id)
        return left

    def _is_settled(self, folder: InterviewFolder) -> bool | None:
        """Whether nothing is left to do with a folder; None if there may be, later."""
        tombstone = read_tombstone(folder)
        if tombstone is not None:
            return tombstone.complete and tombstone.again_at is None
        if self._store is None or (finished := read_finished(folder)) is None:
            return None
        stored = read_stored(folder)
        return stored is not None and stored.tags is not None and not local_files(folder, finished)

    def _folders(self) -> list[InterviewFolder]:
        try:
            names = sorted(os.listdir(self._shelf.data_dir / INTERVIEWS))
        except FileNotFoundError:
            return []
        folders = []
        for name in names:
            with suppress(InvalidSessionId):
                folder = self._shelf.folder(name)
                if folder.exists():
                    folders.append(folder)
        return folders

    async def _work_on(self, session_id: SessionId) -> None:
        if session_id in self._erasing:
            # Whoever erases it sees to the rest.
            return
        work = asyncio.create_task(self._move(session_id), name=f"keep {session_id}")
        self._current = (session_id, work)
        try:
            await asyncio.wait([work])
        finally:
            self._current = None
            if not work.done():
                work.cancel()
                await asyncio.wait([work])
        if work.cancelled():
            return
        error = work.exception()
        if error is None:
            self._failures.pop(session_id, None)
            self.uploaded += work.result()
        elif isinstance(error, IdInStore):
            self.damaged += 1
            self._settled.add(session_id)
            log.error(
                "the store holds another recording of this id; this one stays where it is",
                extra={"session": session_id},
            )
        elif isinstance(error, LocalDamage):
            self.damaged += 1
            self._settled.add(session_id)
            log.error("a recording is damaged and stays where it is", extra={"session": session_id})
        else:
            self._again(session_id)
            log.warning(
                "a recording could not be moved yet",
                extra={"session": session_id, "why": word_for(error)},
            )

    def _again(self, session_id: SessionId) -> None:
        failures = self._failures[session_id] = self._failures.get(session_id, 0) + 1
        pause = self._retry_seconds[min(failures, len(self._retry_seconds)) - 1]
        self._due[session_id] = asyncio.get_running_loop().time() + pause
        self.retries += 1
        self._wake.set()

    async def _move(self, session_id: SessionId) -> bool:
        """Upload and check one folder, or end its erasure; whether it was uploaded."""
        tombstone = await asyncio.to_thread(read_tombstone, self._shelf.folder(session_id))
        if tombstone is not None:
            if not tombstone.complete:
                await self._eraser.here(session_id, tombstone.why)
                await self._eraser.there(session_id)
            if (wait := await self._eraser.once_more(session_id)) > 0.0:
                self._due[session_id] = asyncio.get_running_loop().time() + wait
            else:
                self._settled.add(session_id)
            return False
        if self._mover is None or not await self._mover.move(session_id):
            return False
        self._settled.add(session_id)
        self._shelf.forget(session_id)
        log.info("recording moved to the store", extra={"session": session_id})
        return True

    # -- age ------------------------------------------------------------------------------------

    async def _erase_old(self, retention: timedelta) -> None:
        limit = self._now() - retention
        here, old = await asyncio.to_thread(self._old, limit)
        if self._store is not None:
            with suppress(StoreUnavailable):
                old += await self._old_in_store(limit, here)
        for session_id in old:
            if self._busy(session_id):
                continue
            try:
                await self.erase(session_id, BY_AGE)
            except (OSError, RecordingNotReady) as error:
                log.warning(
                    "an old recording could not be erased yet",
                    extra={"session": session_id, "why": word_for(error)},
                )
            else:
                self._aged(session_id)

    def _old(self, limit: datetime) -> tuple[set[str], list[SessionId]]:
        """Every interview of the disk, and those that ended before ``limit``."""
        folders, old = self._folders(), []
        for folder in folders:
            # One that cannot be read must not keep the others for ever.
            try:
                if read_tombstone(folder) is None and _ended_at(folder) < limit:
                    old.append(folder.session_id)
            except OSError as error:
                _not_seen(folder, error)
        return {folder.session_id for folder in folders}, old

    async def _old_in_store(self, limit: datetime, here: set[str]) -> list[SessionId]:
        """Interviews that only the store knows, whose upload ended, or broke off, before ``limit``.

        A disk that was lost in the middle of an upload leaves sound without a manifest.
        """
        assert self._store is not None
        found: dict[str, dict[str, datetime]] = {}
        for held in await self._store.under():
            session_id, _, name = held.key.rpartition("/")
            if session_id not in here:
                found.setdefault(session_id, {})[name] = held.modified
        old: list[SessionId] = []
        for session_id, objects in found.items():
            erased = objects.keys() == {TOMBSTONE_NAME}
            if not erased and is_recording(objects.keys()) and max(objects.values()) < limit:
                with suppress(InvalidSessionId):
                    old.append(self._shelf.folder(session_id).session_id)
        return old


def _ended_at(folder: InterviewFolder) -> datetime:
    finished = read_finished(folder)
    if finished is not None:
        return finished.ended_at
    here = [*folder.path.iterdir()]
    originals = [one for one in here if one.suffix in (".ogg", ".jsonl") and one.name[0] != "."]
    times = [] if originals else [folder.path.stat().st_mtime]
    # What is made of the originals is made anew whenever finishing is tried again.
    for one in originals or here:
        # A file may go at this moment, and a link may lead nowhere.
        with suppress(OSError):
            times.append(one.stat().st_mtime)
    return datetime.fromtimestamp(max(times or [folder.path.stat().st_mtime]), UTC)


def _not_seen(folder: InterviewFolder, error: OSError) -> None:
    log.warning(
        "a recording cannot be looked at",
        extra={"session": folder.session_id, "why": word_for(error)},
    )
