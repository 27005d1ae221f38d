"""Brings one finished folder to the store, and reads everything back before it lets go of it.

A local copy is removed only after every file was read back from the store and its hash compared
with the manifest. Where the files went is written down before the first of them is sent, so that
they can be found and erased whatever the settings are later.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from ..types import SessionId
from .claim import HELD_SECONDS, claimed
from .finished import (
    MANIFEST_NAME,
    STORED_NAME,
    TOMBSTONE_NAME,
    Finished,
    FinishedFile,
    Stored,
    read_finished,
    read_stored,
    sha256_of,
)
from .folder import InterviewFolder, write_whole
from .shelf import Shelf
from .store import Held, Store


class WrongBytes(Exception):
    """The store holds something else than what was sent to it."""


class IdInStore(Exception):
    """The store holds another recording of this id, or what is left of one."""


class LocalDamage(Exception):
    """A local file is not what the manifest says; the store gets no such file."""


class Mover:
    """Moves folders to ``store``. Belongs to the event loop."""

    def __init__(self, shelf: Shelf, store: Store, held_seconds: float = HELD_SECONDS) -> None:
        self._shelf = shelf
        self._store = store
        self._held_seconds = held_seconds

    async def move(self, session_id: SessionId) -> bool:
        """Upload and check one folder, then remove its local files; False if it is not finished.

        What is in the store already is not sent again, and a folder that moved to an earlier
        store stays there.

        Raises:
            WrongBytes, IdInStore, LocalDamage, StoreUnavailable
            RecordingNotReady: somebody else works on the folder.
            OSError: the disk refused.
        """
        folder = self._shelf.folder(session_id)
        async with claimed(folder, self._held_seconds):
            finished = await asyncio.to_thread(read_finished, folder)
            if finished is None:
                return False
            stored = await asyncio.to_thread(read_stored, folder)
            if stored is None or stored.tags is None:
                await self._upload(folder, finished, self._begun(stored))
            await asyncio.to_thread(_remove, folder, finished)
        return True

    def _begun(self, stored: Stored | None) -> Stored:
        """The mark of an upload to this store, after whatever was begun before."""
        here = self._store.place
        left = () if stored is None else stored.places
        return Stored(here, None, tuple(place for place in left if place != here))

    async def _upload(self, folder: InterviewFolder, finished: Finished, mark: Stored) -> None:
        await self._check_ours(folder.session_id, finished)
        await asyncio.to_thread(_write, folder, mark)
        tags: dict[str, str | None] = {}
        for file in finished.files:
            tags[file.name] = (await self._bring(folder, file)).tag
        # Last: a manifest in the store means that all it lists is there.
        await self._bring_manifest(folder.session_id, finished)
        await asyncio.to_thread(_write, folder, Stored(mark.place, tags, mark.earlier))

    async def _check_ours(self, session_id: SessionId, finished: Finished) -> None:
        """Refuse to write over another recording of this id, made before this disk was new."""
        for name in (MANIFEST_NAME, TOMBSTONE_NAME):
            key = f"{session_id}/{name}"
            if await self._store.head(key) is None:
                continue
            if name == TOMBSTONE_NAME or await self._store.read_whole(key) != finished.data:
                raise IdInStore

    async def _bring(self, folder: InterviewFolder, file: FinishedFile) -> Held:
        """Make the store hold a file, and read it back; what is there already is not sent again."""
        key, path = f"{folder.session_id}/{file.name}", folder.path / file.name
        held = await self._right(key, file)
        if held is not None:
            return held
        if not await asyncio.to_thread(_is_whole, path, file.sha256):
            raise LocalDamage
        name = f"{folder.session_id}-{file.name}"
        await self._store.put_file(path, key, file.content_type, name)
        held = await self._right(key, file)
        if held is None:
            raise WrongBytes
        return held

    async def _bring_manifest(self, session_id: SessionId, finished: Finished) -> None:
        key = f"{session_id}/{MANIFEST_NAME}"
        await self._store.put_bytes(finished.data, key, "application/json")
        if await self._store.read_whole(key) != finished.data:
            raise WrongBytes

    async def _right(self, key: str, file: FinishedFile) -> Held | None:
        """The object, if it is there with these very bytes."""
        held = await self._store.head(key)
        if held is None or held.size != file.bytes:
            return None
        return held if await self._store.sha256(held) == file.sha256 else None


def local_files(folder: InterviewFolder, finished: Finished) -> list[Path]:
    """The listed files that are on the disk."""
    paths = [folder.path / file.name for file in finished.files]
    return [path for path in paths if path.exists()]


def _remove(folder: InterviewFolder, finished: Finished) -> None:
    for path in local_files(folder, finished):
        path.unlink(missing_ok=True)
    folder.sync()


def _write(folder: InterviewFolder, mark: Stored) -> None:
    write_whole(folder.path / STORED_NAME, json.dumps(mark.document()).encode() + b"\n")


def _is_whole(path: Path, sha256: str) -> bool:
    try:
        return sha256_of(path) == sha256
    except FileNotFoundError:
        return False
