"""Finds finished recordings, on the disk or in the store, and hands out no damaged byte.

Before a file's first byte goes out its hash is compared with the manifest. The answer is kept for
as long as the file does not change, so that a player's many small requests cost nothing more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from ..errors import ManifestDamaged, RecordingDamaged, RecordingErased
from ..types import SessionId
from .finished import (
    MANIFEST_NAME,
    TOMBSTONE_NAME,
    Finished,
    FinishedFile,
    Place,
    is_recording,
    parse_manifest,
    read_manifest,
    read_stored,
    read_tombstone,
    sha256_of,
)
from .folder import InterviewFolder
from .store import Held, Store
from .stores import Reopen, Stores

log = logging.getLogger(__name__)

CHUNK_BYTES: Final = 64 * 1024
"""What is read and sent at once: small, since the event loop copies it."""

YOUNG_SECONDS: Final = 60.0
"""For how long a new folder may be empty without that meaning anything."""

MISSING: Final = "missing"
CHANGED: Final = "changed"
UNREADABLE: Final = "unreadable"
"""What can become of a file after it was finished."""

REMEMBERED: Final = 2000
"""Files whose hash is known to be right."""


@dataclass(frozen=True, slots=True)
class Found:
    """A finished interview and where its files are."""

    finished: Finished
    place: Place | None = None
    """The store that its files moved to."""

    @property
    def in_store(self) -> bool:
        """Whether its files moved to a store."""
        return self.place is not None


class Content:
    """One whole file, ready to be read. ``file`` is what the manifest says of it."""

    def __init__(self, file: FinishedFile, path: Path | None, store: Store | None, key: str):
        self.file = file
        self._path = path
        self._store = store
        self._key = key

    async def read(self, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """The bytes from ``start`` up to, not including, ``end``.

        Raises ``StoreUnavailable`` or ``OSError`` when the rest cannot be had.
        """
        if self._path is not None:
            file = await asyncio.to_thread(_open_at, self._path, start)
            try:
                while start < end:
                    chunk = await asyncio.to_thread(file.read, min(CHUNK_BYTES, end - start))
                    if not chunk:
                        raise OSError("the file became shorter")
                    start += len(chunk)
                    yield chunk
            finally:
                file.close()
        elif self._store is not None:
            async for piece in self._store.read(self._key, start, end):
                for at in range(0, len(piece), CHUNK_BYTES):
                    yield piece[at : at + CHUNK_BYTES]


class Shelf:
    """All finished interviews of a data folder and of the stores that they moved to.

    ``store`` is the configured one, ``reopen`` opens those of earlier settings.
    """

    def __init__(self, data_dir: Path, store: Store | None, reopen: Reopen | None = None) -> None:
        self.data_dir = data_dir
        self.store = store
        self.stores = Stores(store, reopen)
        self._known: OrderedDict[tuple[str, str], object] = OrderedDict()

    def folder(self, session_id: str) -> InterviewFolder:
        """The interview's folder. Raises ``InvalidSessionId``."""
        return InterviewFolder(self.data_dir, SessionId(session_id))

    async def find(self, session_id: str) -> Found | None:
        """A finished interview; None if there is none, or none yet.

        Raises:
            InvalidSessionId: the id is no name.
            RecordingErased: there was one.
            ManifestDamaged: nobody can tell any more what it consists of.
            StoreUnavailable: it is not on the disk, and the store does not answer.
        """
        folder = self.folder(session_id)

        def look() -> tuple[bool, Finished | None, Place | None]:
            stored = read_stored(folder)
            place = None if stored is None or stored.tags is None else stored.place
            if read_tombstone(folder):
                raise RecordingErased
            return folder.exists(), read_manifest(folder), place

        exists, finished, place = await asyncio.to_thread(look)
        if finished is not None:
            return Found(finished, place)
        if exists or self.store is None:
            return None
        # The disk may be another one than the interview was recorded on.
        if await self.store.head(f"{session_id}/{TOMBSTONE_NAME}") is not None:
            raise RecordingErased
        data = await self.store.read_whole(f"{session_id}/{MANIFEST_NAME}")
        if data is None:
            return None
        finished = parse_manifest(data)
        if finished is None:
            raise ManifestDamaged
        return Found(finished, self.store.place)

    async def is_begun(self, session_id: str) -> bool:
        """Whether the configured store has anything of an interview that this disk knows nothing
        of: a disk that was lost in the middle of an upload leaves sound without a manifest.

        Raises ``InvalidSessionId``, ``StoreUnavailable``.
        """
        self.folder(session_id)
        if self.store is None:
            return False
        held = await self.store.under(session_id)
        return is_recording({one.key.partition("/")[2] for one in held})

    async def holds_sound(self, session_id: str) -> bool:
        """Whether there is, or may soon be, something in the folder to make a recording of."""
        folder = self.folder(session_id)

        def look() -> bool:
            try:
                age = time.time() - folder.path.stat().st_mtime
            except FileNotFoundError:
                return False
            # A folder is made a moment before its files.
            return any(folder.path.glob("*.ogg")) or age < YOUNG_SECONDS or folder.held()

        return await asyncio.to_thread(look)

    async def open(self, session_id: str, found: Found, file: FinishedFile) -> Content:
        """A file of a finished interview, compared with its manifest.

        Raises:
            RecordingDamaged: it is missing, or not what it was.
            StoreUnavailable: the store does not answer; ``RecordingElsewhere`` if it is not the
                configured one.
        """
        path = self.folder(session_id).path / file.name
        problem = await self._look_at(session_id, path, file)
        if problem is None:
            return Content(file, path, None, "")
        if problem != MISSING:
            raise self._damaged(session_id, file)
        return await self._open_stored(session_id, found, file)

    async def damage(self, session_id: str, found: Found) -> dict[str, tuple[str, ...]]:
        """What is wrong with each file, by its name: in the manifest, and since it was made.

        Raises:
            StoreUnavailable: what is in the store cannot be looked at now.
        """
        problems: dict[str, tuple[str, ...]] = {}
        kept: dict[str, Held] | None = None
        folder = self.folder(session_id)
        for file in found.finished.files:
            problem = await self._look_at(session_id, folder.path / file.name, file)
            if problem == MISSING and found.place is not None:
                if kept is None:
                    listed = await self.stores.at(found.place).under(session_id)
                    kept = {held.key.rpartition("/")[2]: held for held in listed}
                problem = await self._look_at_stored(session_id, found.place, file, kept)
            problems[file.name] = (*file.damage, *(() if problem is None else (problem,)))
        return problems

    async def _look_at(self, session_id: str, path: Path, file: FinishedFile) -> str | None:
        """What is wrong with a local file; None if it is what the manifest says."""
        try:
            identity = await asyncio.to_thread(_identity, path)
        except FileNotFoundError:
            return MISSING
        except OSError:
            return UNREADABLE
        if self._known.get((session_id, file.name)) == (identity, file.sha256):
            return None
        try:
            if await asyncio.to_thread(sha256_of, path) != file.sha256:
                return CHANGED
        except OSError:
            return UNREADABLE
        self._remember(session_id, file, identity)
        return None

    async def _look_at_stored(
        self, session_id: str, place: Place, file: FinishedFile, kept: dict[str, Held]
    ) -> str | None:
        held = kept.get(file.name)
        if held is None:
            return MISSING
        same = await self._is_whole(session_id, self.stores.at(place), held, file)
        return None if same else CHANGED

    async def url_for(
        self, session_id: str, found: Found, file: FinishedFile, seconds: float
    ) -> str | None:
        """A presigned address of a file in the store, or None.

        Raises ``RecordingElsewhere`` if that store cannot be opened.
        """
        if found.place is None:
            return None
        return await self.stores.at(found.place).url_for(f"{session_id}/{file.name}", seconds)

    def forget(self, session_id: str) -> None:
        """Drop what is remembered of an interview's files."""
        for key in [key for key in self._known if key[0] == session_id]:
            del self._known[key]

    async def _open_stored(self, session_id: str, found: Found, file: FinishedFile) -> Content:
        key = f"{session_id}/{file.name}"
        store = None if found.place is None else self.stores.at(found.place)
        held = None if store is None else await store.head(key)
        whole = (
            store is not None
            and held is not None
            and await self._is_whole(session_id, store, held, file)
        )
        if not whole:
            raise self._damaged(session_id, file)
        return Content(file, None, store, key)

    async def _is_whole(
        self, session_id: str, store: Store, held: Held, file: FinishedFile
    ) -> bool:
        """Whether the store's object is what the manifest says."""
        if held.size != file.bytes:
            return False
        if self._known.get((session_id, file.name)) == (held.tag, file.sha256):
            return True
        stored = await asyncio.to_thread(read_stored, self.folder(session_id))
        tag = (stored and stored.tags or {}).get(file.name)
        # The tag is still the one of the bytes that were read back after the upload.
        same = tag is not None and tag == held.tag
        if not same and await store.sha256(held) != file.sha256:
            return False
        if held.tag is not None:
            self._remember(session_id, file, held.tag)
        return True

    def _remember(self, session_id: str, file: FinishedFile, identity: object) -> None:
        self._known[(session_id, file.name)] = (identity, file.sha256)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _damaged(self, session_id: str, file: FinishedFile) -> RecordingDamaged:
        log.error(
            "a recording is damaged or missing", extra={"session": session_id, "file": file.name}
        )
        return RecordingDamaged()


def _identity(path: Path) -> object:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _open_at(path: Path, start: int) -> BinaryIO:
    file = path.open("rb")
    file.seek(start)
    return file
