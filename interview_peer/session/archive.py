"""Recordings as clients may have them: what there is, its bytes, and its erasure.

Decides what can be had while an interview runs or its recording is being finished. Where the bytes
are, and whether they are whole, is the shelf's business; erasing is the keeper's.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from ..core.transcript_text import FORMATS
from ..errors import (
    InterviewPeerError,
    InterviewRunning,
    ManifestDamaged,
    NotFound,
    RecordingDamaged,
    RecordingErased,
    RecordingFailed,
    RecordingMissing,
    RecordingNotReady,
    SessionNotFound,
    StoreUnavailable,
)
from ..storage.finished import (
    CANDIDATE_FILE,
    INTERVIEWER_FILE,
    MIXED_FILE,
    FinishedFile,
)
from ..storage.keeper import Erasure, Keeper
from ..storage.shelf import Content, Found, Shelf
from ..types import Json, SessionId
from .registry import Interviews

SOUNDS: Final = {
    "candidate": CANDIDATE_FILE,
    "interviewer": INTERVIEWER_FILE,
    "mixed": MIXED_FILE,
}
"""The files that are handed out as sound, by the word that asks for them."""

TRANSCRIPT: Final = "transcript.json"
NO_TRANSCRIPT: Final = "There is no transcript of that interview, or none yet."
WAVEFORM: Final = "waveform.json"

WAITING: Final[Json] = {"state": "waiting", "progress": 0.0}
"""Of a folder that was not taken up yet."""

URL_SECONDS: Final = 300.0
"""How long a presigned address opens a file to whoever has it."""


class Archive:
    """The recordings of this process's interviews, past and present."""

    def __init__(
        self,
        interviews: Interviews,
        shelf: Shelf,
        keeper: Keeper,
    ) -> None:
        self._interviews = interviews
        self._shelf = shelf
        self._keeper = keeper

    def statistics(self) -> Json:
        """Figures for operators, of all recordings from their writing to their keeping."""
        return {
            **self._interviews.recording_statistics(),
            "keeping": self._keeper.statistics(),
        }

    async def _listing(self, session_id: str) -> Json:
        """What an interview's recording consists of.

        ``state`` is ``running``, ``finishing``, ``ready``, ``failed`` or ``damaged``; files are
        listed when it is ready, and ``code`` says what is wrong with one that will not be soon.

        Raises:
            InvalidSessionId, SessionNotFound, RecordingErased, StoreUnavailable
        """
        if self._runs(session_id):
            return _without_files(session_id, "running")
        try:
            found = await self._shelf.find(session_id)
            if found is None:
                raise await self._why_not(session_id)
        except RecordingNotReady:
            finishing = await self._interviews.finishing(session_id)
            return _without_files(session_id, "finishing", finishing or WAITING)
        except (RecordingFailed, RecordingMissing) as error:
            finishing = await self._interviews.finishing(session_id)
            return _without_files(session_id, "failed", finishing, error)
        except ManifestDamaged as error:
            return _without_files(session_id, "damaged", None, error)
        document = found.finished.document
        trouble: StoreUnavailable | None = None
        try:
            damage = await self._shelf.damage(session_id, found)
        except StoreUnavailable as error:
            trouble, damage = error, {}
        return {
            "id": session_id,
            "state": "ready",
            "code": None if trouble is None else trouble.code,
            "message": None if trouble is None else trouble.message,
            "finishing": {"state": "done", "progress": 1.0},
            "kept": "store" if found.in_store else "disk",
            "started_at": document["started_at"],
            "seconds": found.finished.seconds,
            "complete": document.get("complete") is True,
            "failure": document.get("failure"),
            "reason": document.get("reason"),
            "consent": document.get("consent"),
            "files": [
                await self._describe(session_id, found, file, damage.get(file.name, file.damage))
                for file in found.finished.files
            ],
        }

    async def listing(self, session_id: str) -> Json:
        """What an interview's recording consists of, from its first moment on.

        ``state`` as ``_listing`` says. ``failure`` is one word for what stopped the recording while
        the interview went on, and None for one that did not stop. Raises as ``_listing``.
        """
        document = await self._listing(session_id)
        document.setdefault("failure", self._interviews.recording_failed(session_id))
        return document

    async def sound(self, session_id: str, which: str, *, damaged: bool = False) -> Content:
        """One of ``SOUNDS``, whole; with ``damaged`` also one that was damaged when it was
        finished, as it was then.

        Raises:
            InterviewRunning, RecordingNotReady, RecordingFailed: not yet.
            RecordingDamaged, ManifestDamaged: it is not what was recorded.
            RecordingMissing: nothing was.
            InvalidSessionId, SessionNotFound, NotFound, RecordingErased, StoreUnavailable
        """
        if which not in SOUNDS:
            raise NotFound("A recording is candidate, interviewer or mixed.")
        return await self.file(session_id, SOUNDS[which], damaged=damaged)

    async def transcript(self, session_id: str, kind: str = "json") -> Content | bytes:
        """The transcript; before the recording is finished, as it was first written, in JSON.

        ``kind`` is the suffix of the file. Raises as ``sound``, and ``NotFound`` where none was
        written.
        """
        try:
            return await self.file(session_id, f"transcript.{kind}")
        except (
            InterviewRunning,
            RecordingNotReady,
            RecordingFailed,
            RecordingMissing,
            SessionNotFound,
        ) as error:
            if kind != "json":
                raise
            body = await self._interviews.transcript(session_id)
            if body is None and isinstance(error, SessionNotFound):
                raise
        if body is None:
            raise NotFound(NO_TRANSCRIPT)
        return body

    async def file(self, session_id: str, name: str, *, damaged: bool = False) -> Content:
        """A file by the name in its manifest. Raises as ``sound``."""
        if self._runs(session_id):
            raise InterviewRunning
        found = await self._shelf.find(session_id)
        if found is None:
            raise await self._why_not(session_id)
        file = found.finished.file(name)
        if file is None:
            raise NotFound("This recording has no such file.")
        if file.damage and not damaged:
            raise RecordingDamaged(
                f"This file was damaged when it was finished ({', '.join(file.damage)}). "
                "Ask with ?damaged=true to get what is left of it."
            )
        return await self._shelf.open(session_id, found, file)

    async def erase(self, session_id: str) -> Erasure:
        """Erase an interview's sound and text, wherever they are, and leave a tombstone.

        One that is not ``complete`` says that copies in a store are still to go, and what keeps
        them. Again is harmless.

        Raises:
            InterviewRunning: it runs.
            RecordingNotReady: another process works on its recording.
            InvalidSessionId, SessionNotFound, StoreUnavailable
        """
        if self._runs(session_id):
            raise InterviewRunning
        try:
            known = await self._shelf.find(session_id) is not None
            known = known or await self._has_folder(session_id)
            if not known and not await self._shelf.is_begun(session_id):
                raise SessionNotFound
        except (RecordingErased, ManifestDamaged):
            # Asked again, the answer is the same, and an erasure that hangs is pushed on.
            pass
        self._interviews.drop(session_id)
        return await self._keeper.erase(SessionId(session_id))

    def _runs(self, session_id: str) -> bool:
        return self._interviews.runs(SessionId(session_id))

    async def _has_folder(self, session_id: str) -> bool:
        return await asyncio.to_thread(self._shelf.folder(session_id).exists)

    async def _why_not(self, session_id: str) -> InterviewPeerError:
        """What keeps an interview that is over from having a recording."""
        if not await self._has_folder(session_id):
            return SessionNotFound()
        finishing = await self._interviews.finishing(session_id)
        if finishing is not None and finishing["state"] == "failed":
            return RecordingFailed()
        if finishing is None and not await self._shelf.holds_sound(session_id):
            return RecordingMissing()
        return RecordingNotReady()

    async def _describe(
        self, session_id: str, found: Found, file: FinishedFile, damage: tuple[str, ...]
    ) -> Json:
        base = f"/api/interviews/{session_id}"
        paths = {name: f"{base}/recording/{word}" for word, name in SOUNDS.items()}
        paths |= {f"transcript.{kind}": f"{base}/transcript.{kind}" for kind in FORMATS}
        paths |= {TRANSCRIPT: f"{base}/transcript", WAVEFORM: f"{base}/waveform"}
        url = None
        if found.in_store and not damage:
            with contextlib.suppress(StoreUnavailable):
                url = await self._shelf.url_for(session_id, found, file, URL_SECONDS)
        return {
            "name": file.name,
            "content_type": file.content_type,
            "bytes": file.bytes,
            "seconds": file.seconds,
            "sha256": file.sha256,
            "damage": list(damage),
            "path": paths.get(file.name),
            "url": url,
            "url_seconds": None if url is None else int(URL_SECONDS),
        }


def _without_files(
    session_id: str,
    state: str,
    finishing: Json | None = None,
    error: InterviewPeerError | None = None,
) -> Json:
    return {
        "id": session_id,
        "state": state,
        "code": None if error is None else error.code,
        "message": None if error is None else error.message,
        "finishing": finishing,
        "files": [],
    }


__all__ = ["SOUNDS", "TRANSCRIPT", "URL_SECONDS", "WAVEFORM", "Archive", "Content"]
