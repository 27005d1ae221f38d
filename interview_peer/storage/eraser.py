"""Erases one recording, here and wherever its copies went, and leaves a tombstone.

The tombstone is written first, so that a crash leaves no half-erased recording, and says which
stores copies are in, so that a change of the settings loses none of them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import shutil
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

from ..errors import RecordingElsewhere, StoreUnavailable
from ..types import Json, SessionId
from .claim import HELD_SECONDS, claimed
from .finished import STORED_NAME, TOMBSTONE_NAME, Place, Tombstone, read_stored, read_tombstone
from .folder import InterviewFolder
from .shelf import Shelf
from .store import Store

log = logging.getLogger(__name__)

ON_REQUEST: Final = "request"
BY_AGE: Final = "retention"
AGAIN_SECONDS: Final = 60.0
"""After an upload was called off, the store may take its last bytes for so long."""


async def nobody(session_id: SessionId) -> None:
    """Stands for a finisher where there is none."""


class Eraser:
    """Erases from the disk and from stores. Belongs to the event loop.

    ``drop`` calls off the finishing of a folder, and returns when nobody works on it.
    """

    def __init__(
        self,
        shelf: Shelf,
        *,
        drop: Callable[[SessionId], Awaitable[None]] = nobody,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        held_seconds: float = HELD_SECONDS,
    ) -> None:
        self._shelf = shelf
        self._drop = drop
        self._now = now
        self._held_seconds = held_seconds
        self.erased = 0
        """Interviews erased."""

    async def here(self, session_id: SessionId, why: str, *, called_off: bool = False) -> Tombstone:
        """Erase the local files; ``why`` counts for one that was not erased before.

        ``called_off`` says that an upload was, for this: ``once_more`` is to follow. A tombstone
        that is not ``complete`` says that ``there`` is to follow.

        Raises:
            RecordingNotReady: somebody still writes into the folder.
            OSError: the disk refused.
        """
        await self._drop(session_id)
        folder = self._shelf.folder(session_id)
        async with claimed(folder, self._held_seconds):
            tombstone = await asyncio.to_thread(self._erase, folder, why, called_off)
        self._shelf.forget(session_id)
        return tombstone

    async def there(self, session_id: SessionId) -> Tombstone:
        """Erase the copies in every store that the tombstone names.

        Raises:
            StoreUnavailable: one does not answer; ``RecordingElsewhere`` if that one is not the
                configured one, or none is known.
            OSError: the disk refused.
        """
        folder = self._shelf.folder(session_id)
        tombstone = await asyncio.to_thread(read_tombstone, folder)
        if tombstone is None or tombstone.complete:
            return tombstone or Tombstone("", ON_REQUEST, True, False)
        if not tombstone.places:
            # An unreadable tombstone, and no store configured that could be asked.
            raise RecordingElsewhere
        done = dataclasses.replace(tombstone, complete=True)
        trouble: type[StoreUnavailable] | None = None
        for place in tombstone.places:
            # One store in trouble must not keep the others from being asked.
            try:
                await self._erase_at(self._shelf.stores.at(place), session_id, done)
            except StoreUnavailable as error:
                trouble = trouble or type(error)
        if trouble is not None:
            raise trouble
        await asyncio.to_thread(_bury, folder, done)
        return done

    async def once_more(self, session_id: SessionId) -> float:
        """Erase what an upload that was called off brought after all; seconds to wait until then.

        0 if there is nothing left to look for. Raises as ``there``.
        """
        folder = self._shelf.folder(session_id)
        tombstone = await asyncio.to_thread(read_tombstone, folder)
        if tombstone is None or tombstone.again_at is None:
            return 0.0
        wait = tombstone.again_at - self._now().timestamp()
        # A clock that was set back must not put it off for long.
        if 0.0 < wait <= AGAIN_SECONDS:
            return wait
        for place in tombstone.places:
            await self._erase_at(self._shelf.stores.at(place), session_id, tombstone)
        await asyncio.to_thread(_bury, folder, dataclasses.replace(tombstone, again_at=None))
        return 0.0

    async def _erase_at(self, store: Store, session_id: SessionId, done: Tombstone) -> None:
        key = f"{session_id}/{TOMBSTONE_NAME}"
        await store.put_bytes(_encoded(_document(session_id, done)), key, "application/json")
        # Until nothing is seen: an upload that was called off can still arrive.
        while copies := [one.key for one in await store.under(session_id) if one.key != key]:
            await store.delete(copies)

    def _erase(self, folder: InterviewFolder, why: str, called_off: bool) -> Tombstone:
        """In a thread, with the folder held."""
        known = read_tombstone(folder)
        if known is not None and known.complete:
            return known
        places = self._places(folder, known)
        if known is None:
            # A mark that says nothing any more still says that copies were begun.
            stored = bool(places) or (folder.path / STORED_NAME).exists()
        else:
            stored = known.stored
        if not folder.exists():
            folder.create()
        erased_at = self._now().isoformat(timespec="seconds").replace("+00:00", "Z")
        tombstone = Tombstone(
            (known.erased_at if known else "") or erased_at,
            known.why if known and known.erased_at else why,
            False,
            stored,
            places if stored else (),
            self._now().timestamp() + AGAIN_SECONDS
            if called_off
            else (known.again_at if known else None),
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
            tombstone = dataclasses.replace(tombstone, complete=True)
            _bury(folder, tombstone)
        self.erased += known is None
        log.info("recording erased", extra={"session": folder.session_id, "why": why})
        return tombstone

    def _places(self, folder: InterviewFolder, known: Tombstone | None) -> tuple[Place, ...]:
        """Where copies are or may be."""
        places = [] if known is None else [*known.places]
        stored = read_stored(folder)
        if stored is not None:
            places += stored.places
        if self._shelf.store is not None:
            # An upload may have been under way; and what is not on the disk can only be there.
            places.append(self._shelf.store.place)
        return tuple(dict.fromkeys(places))


def _bury(folder: InterviewFolder, tombstone: Tombstone) -> None:
    places = [place.document() for place in tombstone.places]
    document = {**_document(folder.session_id, tombstone), "places": places}
    if tombstone.again_at is not None:
        document["again_at"] = tombstone.again_at
    folder.write_json(TOMBSTONE_NAME, document)


def _document(session_id: str, tombstone: Tombstone) -> Json:
    return {
        "schema": 1,
        "session_id": session_id,
        "erased_at": tombstone.erased_at,
        "why": tombstone.why,
        "complete": tombstone.complete,
        "stored": tombstone.stored,
    }


def _encoded(document: Json) -> bytes:
    return json.dumps(document, indent=2).encode() + b"\n"
