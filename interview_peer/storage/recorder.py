"""Writes one interview while it happens: two Ogg Opus files and the journal.

``audio`` and ``event`` are called on the event loop and only append to bounded lists. ``flush``
and ``close`` run in the storage thread: they place packets on the time line, pack pages and
write. A disk that fails marks the recording as failed and nothing more: the interview goes on.
"""

from __future__ import annotations

import logging
import os
import secrets
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from interview_peer.core.ogg import PRE_SKIP, OggOpusMuxer
from interview_peer.core.opus import SAMPLE_RATE
from interview_peer.core.packets import PacketQueue
from interview_peer.core.timeline import Counters, Timeline
from interview_peer.logs import word_for
from interview_peer.storage.folder import InterviewFolder
from interview_peer.storage.journal import Journal
from interview_peer.types import Direction, Json, Speaker

logger = logging.getLogger(__name__)

WAITING_PACKETS = 3_000
"""Packets of one speaker kept while the disk does not answer: a minute of 20 ms packets, about
half a megabyte. What comes beyond is dropped, counted, and silence in the file."""

OVERFLOW = "overflow"
"""The word for packets that were refused because the disk hung; the files go on behind them."""

SYNC_SECONDS = 2.0
"""At most this long is lost when the machine, not only the process, goes down."""

JOURNAL_NAME = "events.jsonl"


def audio_name(speaker: Speaker) -> str:
    """The name of a speaker's file in the interview's folder."""
    return f"{speaker.value}.ogg"


@dataclass(frozen=True, slots=True)
class RecordingSummary:
    """What a recording came to.

    ``bytes`` counts all files, ``duration_seconds`` is what a player shows for either speaker.
    ``failed`` is None, or one word for what the disk (or this code) refused; the files hold what
    was written until then.
    """

    duration_seconds: float
    counters: Mapping[Speaker, Counters]
    events: int
    events_dropped: int
    bytes: int
    failed: str | None


class Recorder:
    """Records one interview into ``folder``, which must exist by the first flush.

    ``started_at`` and all times are ``time.monotonic()`` seconds; ``wall_started_at`` is the same
    moment as an aware date. Nothing touches the disk before the first ``flush``. With
    ``keep_claim`` the folder stays claimed after ``close``, until ``release``. ``consent`` is the
    agreement to be recorded, for the journal's first line.
    """

    def __init__(
        self,
        folder: InterviewFolder,
        started_at: float,
        wall_started_at: datetime,
        *,
        keep_claim: bool = False,
        consent: Json | None = None,
    ) -> None:
        self.folder = folder
        self.failed: str | None = None
        """Why writing stopped for good, or None."""
        self.on_failure: Callable[[str], None] | None = None
        """Is told that word once, when it happens, in the storage thread; ``OVERFLOW``, also once,
        by who hands in packets. Must not raise."""
        self._candidate = _Track(Speaker.CANDIDATE, started_at)
        self._interviewer = _Track(Speaker.INTERVIEWER, started_at)
        for track in (self._candidate, self._interviewer):
            track.queue.on_refused = self._overflowed
        self._journal = Journal(folder.session_id, started_at, wall_started_at, consent)
        self._started_at = started_at
        self._files: dict[str, _File] = {}
        self._claim: int | None = None
        self._keep_claim = keep_claim
        self._overflowing = False
        self._synced_at = started_at
        self._summary: RecordingSummary | None = None

    # On the event loop

    def audio(
        self,
        speaker: Speaker,
        at: float,
        sequence: int,
        timestamp: int,
        payload: bytes,
        source: int = 0,
    ) -> None:
        """Take one Opus packet as its sender numbered it. Never waits, never raises.

        ``source`` is the sender's SSRC (or any number that changes with the sender); a change
        places the next packet by its arrival.
        """
        self._track(speaker).queue.put(at, source, sequence, timestamp, payload)

    def queue(self, speaker: Speaker) -> PacketQueue:
        """Where ``audio`` puts a speaker's packets, for those who have many."""
        return self._track(speaker).queue

    def event(self, direction: Direction | None, at: float, event: Json | str) -> None:
        """Take one event of the data channel; None as direction for our own. Never waits.

        JSON text must have been parsed without error; an object must not be changed afterwards.
        """
        if self.failed is None and self._summary is None:
            self._journal.record(direction, at, event)

    def counters(self, speaker: Speaker) -> Counters:
        """Return a copy of what happened to a speaker's packets up to the last flush."""
        track = self._track(speaker)
        return replace(track.timeline.counters, overflow=track.queue.refused)

    def _overflowed(self) -> None:
        """Have it told that sound is being lost. The files are written when the disk answers."""
        if self._overflowing or self.failed is not None or self._summary is not None:
            return
        self._overflowing = True
        logger.error(
            "recording loses sound, the disk does not answer",
            extra={"session": self.folder.session_id, "reason": OVERFLOW},
        )
        if self.on_failure is not None:
            self.on_failure(OVERFLOW)

    # In the storage thread

    def flush(self, now: float) -> None:
        """Write what is due at ``now``. Never raises: an error is kept in ``failed``."""
        if self._summary is not None:
            return
        if self.failed is not None:
            self._forget()
            return
        try:
            self._write_due(now)
        except Exception as error:
            self._fail(error)

    def close(self, now: float) -> RecordingSummary:
        """Write all that is left, end both speakers at one position, close the files.

        Never raises; later calls return the first one's answer.
        """
        if self._summary is None:
            if self.failed is None:
                try:
                    self._write_end(now)
                except Exception as error:
                    self._fail(error)
            self._close_files()
            if not self._keep_claim:
                self.release()
            self._forget()
            self._summary = self._summarise()
        return self._summary

    def release(self) -> None:
        """Let the folder go after ``close``, for others to finish. Never raises, harmless twice."""
        claim, self._claim = self._claim, None
        if claim is not None:
            with suppress(OSError):
                os.close(claim)

    def _write_due(self, now: float) -> None:
        files = self._open()
        for track in (self._candidate, self._interviewer):
            files[track.name].write(track.due(now))
        files[JOURNAL_NAME].write(self._journal.take())
        if now - self._synced_at >= SYNC_SECONDS:
            self._synced_at = now
            for file in files.values():
                file.sync()

    def _write_end(self, now: float) -> None:
        files = self._open()
        tracks = (self._candidate, self._interviewer)
        pages = [track.rest() for track in tracks]
        # The pre-skip takes this much off what is heard.
        end = int((now - self._started_at) * SAMPLE_RATE) + PRE_SKIP
        end = max(end, *(track.timeline.position for track in tracks))
        for track, page in zip(tracks, pages, strict=True):
            files[track.name].write(page + track.end(end))
        files[JOURNAL_NAME].write(self._journal.take())
        for file in files.values():
            file.sync()

    def _open(self) -> dict[str, _File]:
        if not self._files:
            # Tells every other process that this interview goes on, until ``release`` or the end
            # of this process.
            self._claim = self.folder.hold()
            for track in (self._candidate, self._interviewer):
                self._files[track.name] = file = _File(self.folder.open_new(track.name))
                file.write(track.muxer.headers())
            self._files[JOURNAL_NAME] = _File(self.folder.open_new(JOURNAL_NAME))
            self.folder.sync()
        return self._files

    def _fail(self, error: Exception) -> None:
        self.failed = word_for(error)
        # The place in the code, never the error's text: that can show a path or what was said.
        place = traceback.extract_tb(error.__traceback__)[-1]
        logger.error(
            "recording failed, the interview goes on",
            extra={
                "session": self.folder.session_id,
                "reason": self.failed,
                "place": f"{os.path.basename(place.filename)}:{place.lineno}",
            },
        )
        self._close_files()
        self._forget()
        if self.on_failure is not None:
            self.on_failure(self.failed)

    def _close_files(self) -> None:
        for file in self._files.values():
            file.close()

    def _forget(self) -> None:
        """Give up what waits, so that a failed or closed recording costs no memory."""
        for track in (self._candidate, self._interviewer):
            track.queue.forget()
        self._journal.forget()

    def _summarise(self) -> RecordingSummary:
        samples = max(self._candidate.muxer.samples, self._interviewer.muxer.samples)
        return RecordingSummary(
            duration_seconds=max(samples - PRE_SKIP, 0) / SAMPLE_RATE,
            counters={speaker: self.counters(speaker) for speaker in Speaker},
            events=self._journal.events,
            events_dropped=self._journal.dropped,
            bytes=sum(file.size for file in self._files.values()),
            failed=self.failed,
        )

    def _track(self, speaker: Speaker) -> _Track:
        return self._candidate if speaker is Speaker.CANDIDATE else self._interviewer


class _Track:
    """One speaker: packets that wait, their time line, and the pages they become."""

    def __init__(self, speaker: Speaker, started_at: float) -> None:
        self.name = audio_name(speaker)
        self.queue = PacketQueue(WAITING_PACKETS)
        self.timeline = Timeline(started_at)
        self.muxer = OggOpusMuxer(secrets.randbits(32))

    def due(self, now: float) -> bytes:
        packets = self._place()
        packets += self.timeline.fill_to(now)
        return self.muxer.add(packets) + self.muxer.flush()

    def rest(self) -> bytes:
        packets = self._place()
        packets += self.timeline.drain()
        return self.muxer.add(packets)

    def end(self, position: int) -> bytes:
        return self.muxer.add(self.timeline.pad_to(position)) + self.muxer.end()

    def _place(self) -> list[bytes]:
        waiting = self.queue.waiting
        # Only as many as wait now: the event loop goes on appending.
        return self.timeline.place_all([waiting.popleft() for _ in range(len(waiting))])


class _File:
    """An append-only file that never keeps half of a write: a page is there, or it is not."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._open = True
        self._synced = 0
        self.size = 0

    def write(self, data: bytes) -> None:
        if not data:
            return
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self.size)
            raise
        self.size += len(data)

    def sync(self) -> None:
        if self._synced < self.size:
            os.fdatasync(self._descriptor)
            self._synced = self.size

    def close(self) -> None:
        if self._open:
            self._open = False
            with suppress(OSError):
                os.close(self._descriptor)
