"""Moves finished recordings to the store, and erases them, on request or by age.

One task per process. Nothing is kept of what is to be done: it is read from the folders after a
start, so an upload or an erasure that a crash interrupted is taken up again. A local copy is
removed only after every file was read back from the store and its hash compared with the manifest.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from ..errors import InvalidSessionId, RecordingNotReady, StoreUnavailable
from ..types import Json, SessionId
from .finished import (
    MANIFEST_NAME,
    STORED_NAME,
    TOMBSTONE_NAME,
    Finished,
    Tombstone,
    read_finished,
    read_stored,
    read_tombstone,
    sha256_of,
)
from .folder import INTERVIEWS, InterviewFolder, write_whole
from .shelf import Shelf
from .store import Held

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = (5.0, 15.0, 60.0, 300.0)
"""Pauses after the first, second, … failure; the last one holds for ever."""

LOOK_SECONDS: Final = 3600.0
"""How often folders are looked through for what nobody told of, and for what is too old."""

HELD_SECONDS: Final = 5.0
"""How long an erasure waits for whoever still finishes the folder."""

ON_REQUEST: Final = "request"
BY_AGE: Final = "retention"


class WrongBytes(Exception):
    """The store holds something else than what was sent to it."""


class IdInStore(Exception):
    """The store holds another recording of this id, or what is left of one."""


class LocalDamage(Exception):
    """A local file is not what the manifest says; the store gets no such file."""


class Keeper:
    """Background work on finished recordings. All methods belong to the event loop.

    ``busy`` tells whether an interview still runs, and ``aged`` is told of each that was erased by
    age; ``now`` is the time of day, aware.
    """

    def __init__(
        self,
        shelf: Shelf,
        *,
        retention: timedelta | None = None,
        busy: Callable[[SessionId], bool] = lambda _: False,
        aged: Callable[[SessionId], None] = lambda _: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        retry_seconds: Sequence[float] = RETRY_SECONDS,
        look_seconds: float = LOOK_SECONDS,
        held_seconds: float = HELD_SECONDS,
    ) -> None:
        self._shelf = shelf
        self._store = shelf.store
        self._retention = retention
        self._busy = busy
        self._aged = aged
        self._now = now
        self._retry_seconds = retry_seconds
        self._look_seconds = look_seconds
        self._held_seconds = held_seconds
        self._due: dict[SessionId, float] = {}
        self._failures: dict[SessionId, int] = {}
        self._settled: set[str] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._current: tuple[SessionId, asyncio.Task[None]] | None = None
        self._erasing: weakref.WeakValueDictionary[SessionId, asyncio.Lock] = (
            weakref.WeakValueDictionary()
        )
        self.uploaded = 0
        """Interviews whose every file was checked in the store."""
        self.retries = 0
        """Uploads and erasures that will be tried again."""
        self.damaged = 0
        """Interviews that are not uploaded because a local file is damaged."""
        self.erased = 0
        """Interviews erased."""

    @property
    def waiting(self) -> int:
        """Interviews that wait for the store."""
        return len(self._due) + (self._current is not None)

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
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    # -- erasing --------------------------------------------------------------------------------

    async def erase(self, session_id: SessionId, why: str = ON_REQUEST) -> Tombstone:
        """Erase an interview's sound and text, here and in the store, and leave a tombstone.

        An answer that is not ``complete`` means that the store did not answer: it is asked again
        until it does. Erasing again changes nothing.

        Raises:
            RecordingNotReady: somebody still writes into the folder.
            OSError: the disk refused.
        """
        folder = self._shelf.folder(session_id)
        # While this lock is known, no upload of the interview begins.
        lock = self._erasing.setdefault(session_id, asyncio.Lock())
        self._due.pop(session_id, None)
        if self._current is not None and self._current[0] == session_id:
            self._current[1].cancel()
            await asyncio.wait([self._current[1]])
        async with lock:
            tombstone = await asyncio.to_thread(read_tombstone, folder)
            if tombstone is None or not tombstone.complete:
                claim = await self._claim(folder)
                try:
                    tombstone = await asyncio.to_thread(self._erase_here, folder, why)
                finally:
                    if claim is not None:
                        os.close(claim)
            self._shelf.forget(session_id)
            if tombstone.complete:
                return tombstone
            try:
                return await self._erase_there(session_id)
            except StoreUnavailable:
                self._again(session_id)
                return tombstone

    async def _claim(self, folder: InterviewFolder) -> int | None:
        """Hold the folder, so that nobody finishes it meanwhile; None if there is none."""
        deadline = asyncio.get_running_loop().time() + self._held_seconds
        while True:
            try:
                claim = await asyncio.to_thread(folder.hold)
            except FileNotFoundError:
                return None
            if claim is not None:
                return claim
            if asyncio.get_running_loop().time() >= deadline:
                raise RecordingNotReady
            await asyncio.sleep(0.05)

    def _erase_here(self, folder: InterviewFolder, why: str) -> Tombstone:
        """In a thread: the tombstone first, so that a crash leaves no half-erased recording."""
        known = read_tombstone(folder)
        stored = known.stored if known is not None else self._may_be_stored(folder)
        if not folder.exists():
            folder.create()
        erased_at = self._now().isoformat(timespec="seconds").replace("+00:00", "Z")
        tombstone = Tombstone(
            (known.erased_at if known else "") or erased_at,
            known.why if known and known.erased_at else why,
            False,
            stored,
        )
        _bury(folder, tombstone)
        for entry in folder.path.iterdir():
            if entry.name == TOMBSTONE_NAME:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)
        folder.sync()
        if not stored:
            tombstone = _completed(tombstone)
            _bury(folder, tombstone)
        self.erased += known is None
        log.info("recording erased", extra={"session": folder.session_id, "why": why})
        return tombstone

    def _may_be_stored(self, folder: InterviewFolder) -> bool:
        # An upload may have been under way; and what is not on the disk can only be in the store.
        return self._store is not None or read_stored(folder) is not None

    async def _erase_there(self, session_id: SessionId) -> Tombstone:
        folder = self._shelf.folder(session_id)
        tombstone = await asyncio.to_thread(read_tombstone, folder)
        if tombstone is None or tombstone.complete:
            return tombstone or Tombstone("", ON_REQUEST, True, False)
        if self._store is None:
            log.warning(
                "a recording's copies in the store are left: no store is configured",
                extra={"session": session_id},
            )
            return tombstone
        done = _completed(tombstone)
        key = f"{session_id}/{TOMBSTONE_NAME}"
        await self._store.put_bytes(_document(session_id, done), key, "application/json")
        # Until nothing is seen: an upload that was called off can still arrive.
        while copies := [one.key for one in await self._store.under(session_id) if one.key != key]:
            await self._store.delete(copies)
        await asyncio.to_thread(_bury, folder, done)
        self._settled.add(session_id)
        return done

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
        for folder in self._folders():
            if folder.session_id in self._settled:
                continue
            tombstone = read_tombstone(folder)
            if tombstone is not None:
                if tombstone.complete:
                    self._settled.add(folder.session_id)
                else:
                    left.append(folder.session_id)
            elif self._store is not None and (finished := read_finished(folder)) is not None:
                if read_stored(folder) is not None and not _local(folder, finished):
                    self._settled.add(folder.session_id)
                else:
                    left.append(folder.session_id)
        return left

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
                extra={"session": session_id, "why": type(error).__name__},
            )

    def _again(self, session_id: SessionId) -> None:
        failures = self._failures[session_id] = self._failures.get(session_id, 0) + 1
        pause = self._retry_seconds[min(failures, len(self._retry_seconds)) - 1]
        self._due[session_id] = asyncio.get_running_loop().time() + pause
        self.retries += 1
        self._wake.set()

    # -- moving to the store --------------------------------------------------------------------

    async def _move(self, session_id: SessionId) -> None:
        """Upload and check one folder, or end its erasure."""
        folder = self._shelf.folder(session_id)
        tombstone = await asyncio.to_thread(read_tombstone, folder)
        if tombstone is not None:
            if not tombstone.complete:
                await asyncio.to_thread(self._erase_here, folder, tombstone.why)
                await self._erase_there(session_id)
            return
        finished = await asyncio.to_thread(read_finished, folder)
        if finished is None or self._store is None:
            return
        if await asyncio.to_thread(read_stored, folder) is None:
            await self._check_ours(session_id, finished)
            tags: dict[str, str | None] = {}
            for file in finished.files:
                path = folder.path / file.name
                held = await self._bring(
                    path, f"{session_id}/{file.name}", file.sha256, file.bytes, file.content_type
                )
                tags[file.name] = held.tag
            # Last: a manifest in the store means that all it lists is there.
            await self._bring_manifest(session_id, finished)
            mark: Json = {"schema": 1, "url": self._store.url, "tags": tags}
            await asyncio.to_thread(
                write_whole, folder.path / STORED_NAME, json.dumps(mark).encode() + b"\n"
            )
        await asyncio.to_thread(_remove, folder, finished)
        self._settled.add(session_id)
        self._shelf.forget(session_id)
        self.uploaded += 1
        log.info("recording moved to the store", extra={"session": session_id})

    async def _check_ours(self, session_id: SessionId, finished: Finished) -> None:
        """Refuse to write over another recording of this id, made before this disk was new."""
        assert self._store is not None
        for name in (MANIFEST_NAME, TOMBSTONE_NAME):
            key = f"{session_id}/{name}"
            if await self._store.head(key) is None:
                continue
            if name == TOMBSTONE_NAME or await self._store.read_whole(key) != finished.data:
                raise IdInStore

    async def _bring(self, path: Path, key: str, sha256: str, size: int, content_type: str) -> Held:
        """Make the store hold a file, and read it back; what is there already is not sent again."""
        assert self._store is not None
        held = await self._right(key, sha256, size)
        if held is not None:
            return held
        if not await asyncio.to_thread(_is_whole, path, sha256):
            raise LocalDamage
        await self._store.put_file(path, key, content_type)
        held = await self._right(key, sha256, size)
        if held is None:
            raise WrongBytes
        return held

    async def _bring_manifest(self, session_id: SessionId, finished: Finished) -> None:
        assert self._store is not None
        key = f"{session_id}/{MANIFEST_NAME}"
        await self._store.put_bytes(finished.data, key, "application/json")
        if await self._store.read_whole(key) != finished.data:
            raise WrongBytes

    async def _right(self, key: str, sha256: str, size: int) -> Held | None:
        """The object, if it is there with these very bytes."""
        assert self._store is not None
        held = await self._store.head(key)
        if held is None or held.size != size or await self._store.sha256(held) != sha256:
            return None
        return held

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
                    extra={"session": session_id, "why": type(error).__name__},
                )
            else:
                self._aged(session_id)

    def _old(self, limit: datetime) -> tuple[set[str], list[SessionId]]:
        """Every interview of the disk, and those that ended before ``limit``."""
        folders = self._folders()
        old = [
            folder.session_id
            for folder in folders
            if read_tombstone(folder) is None and _ended_at(folder) < limit
        ]
        return {folder.session_id for folder in folders}, old

    async def _old_in_store(self, limit: datetime, here: set[str]) -> list[SessionId]:
        """Interviews that only the store knows, uploaded before ``limit``."""
        assert self._store is not None
        old: list[SessionId] = []
        for held in await self._store.under():
            session_id, _, name = held.key.rpartition("/")
            if name == MANIFEST_NAME and held.modified < limit and session_id not in here:
                with suppress(InvalidSessionId):
                    old.append(self._shelf.folder(session_id).session_id)
        return old


def _ended_at(folder: InterviewFolder) -> datetime:
    finished = read_finished(folder)
    if finished is not None:
        return finished.ended_at
    times = [folder.path.stat().st_mtime]
    for one in folder.path.iterdir():
        # A file may go at this moment, and a link may lead nowhere.
        with suppress(OSError):
            times.append(one.stat().st_mtime)
    return datetime.fromtimestamp(max(times), UTC)


def _is_whole(path: Path, sha256: str) -> bool:
    try:
        return sha256_of(path) == sha256
    except FileNotFoundError:
        return False


def _local(folder: InterviewFolder, finished: Finished) -> list[Path]:
    """The listed files that are on the disk."""
    paths = [folder.path / file.name for file in finished.files]
    return [path for path in paths if path.exists()]


def _remove(folder: InterviewFolder, finished: Finished) -> None:
    for path in _local(folder, finished):
        path.unlink(missing_ok=True)
    folder.sync()


def _completed(tombstone: Tombstone) -> Tombstone:
    return Tombstone(tombstone.erased_at, tombstone.why, True, tombstone.stored)


def _bury(folder: InterviewFolder, tombstone: Tombstone) -> None:
    folder.write_json(TOMBSTONE_NAME, json.loads(_document(folder.session_id, tombstone)))


def _document(session_id: str, tombstone: Tombstone) -> bytes:
    document: Json = {
        "schema": 1,
        "session_id": session_id,
        "erased_at": tombstone.erased_at,
        "why": tombstone.why,
        "complete": tombstone.complete,
        "stored": tombstone.stored,
    }
    return json.dumps(document, indent=2).encode() + b"\n"
