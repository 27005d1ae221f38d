"""The files of one interview: begun with its answer, fed while it lasts, closed at its end.

No disk is waited for while the interview runs: one that fails or hangs stops no conversation.
Not responsible for what the files hold (``storage``), for finishing them (``finishing``), nor for
when an interview begins and ends (``session.interview``).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime
from typing import Final

from .. import logs
from ..core.consent import Consent
from ..core.lifecycle import FAILURES, Phase, Reason
from ..errors import SessionIdTaken
from ..finishing.facts import Facts
from ..media.forwarder import Forwarder
from ..state import happenings
from ..storage.folder import InterviewFolder
from ..storage.recorder import Recorder, RecordingSummary
from ..tasks import Tasks
from ..types import Direction, Json, SessionId, Speaker
from .finished import Files
from .surroundings import Surroundings

MAX_EARLY: Final = 512
"""Events kept until the files are open; without a disk that is all that is kept."""

MAX_EARLY_CHARACTERS: Final = 1024 * 1024
"""The same by length."""

FILES_SECONDS: Final = 20.0
"""How long the ending waits for the disk."""


class Recording:
    """What is kept of one interview on disk: both voices, every event, and the transcript.

    ``begin`` starts it once, ``end`` finishes it; what is journalled before is kept, within
    bounds, until it has begun. Times are ``time.monotonic()`` seconds.
    """

    def __init__(
        self,
        session_id: SessionId,
        around: Surroundings,
        up: Forwarder,
        down: Forwarder,
        tasks: Tasks,
    ) -> None:
        """``up`` carries the candidate's voice, ``down`` the interviewer's; both are tapped."""
        self._id = session_id
        self._node_id = around.node_id
        self._storage = around.storage
        self._finishing = around.finishing
        self._tell = around.tell
        self._up = up
        self._down = down
        self._tasks = tasks
        self._log = logs.get(__name__, session=session_id)
        self.folder = InterviewFolder(around.data_dir, session_id)
        """Where the files are; made by ``begin``."""
        self._recorder: Recorder | None = None
        self._consent: Consent | None = None
        self._closing = False
        self._making: asyncio.Task[None] | None = None
        self._early: list[tuple[Direction | None, float, Json | str]] = []
        self._early_characters = 0
        self._started_at = time.monotonic()
        self.began = False
        """Whether ``begin`` was called: until then the interview has no time and no files."""
        self.wall_started_at = datetime.now(UTC)
        """When the recording's time zero was, once it has begun."""
        self.failed: str | None = None
        """One word for what stopped the recording before the end, or made a hole in it; None while
        all is well."""

    def elapsed(self) -> float:
        """Seconds since the recording began; 0 before."""
        return self.since_start(time.monotonic())

    def since_start(self, at: float) -> float:
        """Where in the recording the moment ``at`` is, in seconds; 0 until it has begun."""
        return max(0.0, at - self._started_at) if self.began else 0.0

    def heard_at(self, audio_ms: int) -> float | None:
        """Where in the recording that is, in seconds, which the model heard so far into all that
        it heard; None before it began."""
        at = self._up.sent_at(audio_ms)
        return None if at is None or not self.began else self.since_start(at)

    def begin(self, persona: str, consent: Consent | None) -> None:
        """Start recording; the disk is waited for by the storage thread alone.

        ``consent`` is the agreement that it is begun with; None where nobody was asked.

        A disk that fails or hangs stops no interview: what is to be written waits, within
        bounds, and is then dropped and counted.
        """
        self._started_at = time.monotonic()
        self.wall_started_at = datetime.now(UTC)
        self.began = True
        self._tell(
            happenings.Opened(
                interview_id=self._id, at=self.wall_started_at, persona=persona, consent=consent
            )
        )
        self._consent = consent
        recorder = Recorder(
            self.folder,
            self._started_at,
            self.wall_started_at,
            keep_claim=True,
            consent=None if consent is None else consent.told(),
        )
        self._recorder = recorder
        loop = asyncio.get_running_loop()

        def failed(reason: str) -> None:
            # Too late for a loop that is closed: then there is nobody left to tell.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._broke, reason)

        recorder.on_failure = failed
        for direction, at, event in self._early:
            recorder.event(direction, max(at, self._started_at), event)
        self._early.clear()
        self._up.tap = recorder.queue(Speaker.CANDIDATE)
        self._down.tap = recorder.queue(Speaker.INTERVIEWER)
        self._making = self._tasks.start(self._make_folder(recorder), "make folder of")

    def journal(self, direction: Direction | None, at: float, event: Json | str) -> None:
        """Have one event written down; one that comes before the files waits for them."""
        if self._recorder is not None:
            # A large event may have come before the recording began, and be read only now.
            self._recorder.event(direction, max(at, self._started_at), event)
            return
        # The model's channel may open before the reply that begins the recording.
        size = self._early_characters + (len(event) if isinstance(event, str) else 0)
        if len(self._early) < MAX_EARLY and size <= MAX_EARLY_CHARACTERS:
            self._early_characters = size
            self._early.append((direction, at, event))

    async def end(self, now: float, document: Json, reason: Reason | None) -> Files:
        """Finish the files and say what they came to.

        ``document`` is the transcript's, ``now`` where the sound ends, ``reason`` why it ended.
        """
        self._closing = True
        if self._recorder is None:
            # What was said is known even where the disk refused everything.
            return Files(document, failed="no_folder") if self.began else Files()
        closing = asyncio.create_task(
            self._close(self._recorder, now, document, reason), name=f"close files of {self._id}"
        )
        try:
            # A disk that hangs must not keep the interview from ending.
            async with asyncio.timeout(FILES_SECONDS):
                summary = await asyncio.shield(closing)
        except (OSError, TimeoutError, asyncio.CancelledError) as error:
            if not closing.done():
                self._finishing.adopt(self.folder, closing)
            if isinstance(error, asyncio.CancelledError):
                raise
            self._log.error(
                "files could not be closed in time", extra={"error": logs.word_for(error)}
            )
            return Files(document, failed="disk")
        self._log.info(
            "interview over",
            extra={
                "seconds": round(summary.duration_seconds, 1),
                "turns": len(document["turns"]),
                "up": self._up.counters.forwarded,
                "down": self._down.counters.forwarded,
                "events": summary.events,
                "recording": summary.failed or "complete",
            },
        )
        return Files(document, summary.failed)

    async def discard(self) -> bool:
        """Have nothing of it kept: nobody was heard. False if the disk refuses, or does not answer
        in time; then it is to be ended."""
        if self._making is None:
            return True
        self._up.tap = self._down.tap = None
        try:
            async with asyncio.timeout(FILES_SECONDS):
                await asyncio.wait([self._making])
                recorder = self._recorder
                if recorder is None:
                    # What is there under this name may be somebody else's.
                    return False
                await self._storage.finish(recorder, time.monotonic())
                await self._storage.run(self.folder.remove)
        except (OSError, TimeoutError) as error:
            self._log.error(
                "files of a called-off interview stay", extra={"error": logs.word_for(error)}
            )
            return False
        self._recorder = None
        self.began = False
        self._storage.later(recorder.release)
        return True

    async def _make_folder(self, recorder: Recorder) -> None:
        try:
            await self._storage.run(self._create_folder)
        except (OSError, SessionIdTaken) as error:
            self._log.error("no folder for the recording", extra={"error": logs.word_for(error)})
            self._up.tap = self._down.tap = None
            self._recorder = None
            self._broke("no_folder")
        else:
            # One that is being closed already is not flushed any more, and nobody would end that.
            if not self._closing:
                self._storage.register(recorder)

    def _create_folder(self) -> None:
        self.folder.create()
        self.folder.mark_untold(self._node_id)

    def _broke(self, reason: str) -> None:
        """Have it told at once that the recording stopped, or lost sound; the interview goes on."""
        if self.failed is None:
            self.failed = reason
            self._tell(happenings.RecordingBroke(interview_id=self._id, reason=reason))

    async def _close(
        self, recorder: Recorder, now: float, document: Json, reason: Reason | None
    ) -> RecordingSummary:
        """Close the recording, write the transcript and hand the folder over; as long as it takes.

        Raises ``OSError`` if the disk refuses; the folder is handed over all the same.
        """
        storage = self._storage
        try:
            summary = await storage.finish(recorder, now)
            phase = Phase.FAILED if reason in FAILURES else Phase.ENDED
            word = reason.value if reason is not None else None
            facts = Facts.at_end(
                self._id, self.wall_started_at, phase.value, word, summary, self._consent
            )
            try:
                await storage.run(lambda: self.folder.write_json("transcript.json", document))
            finally:
                # A full disk may have room again by then. Not let go before: on a shared disk
                # another server would finish the folder as one that a crash left.
                await self._finishing.take(self.folder, facts, recorder.release)
            return summary
        finally:
            # Also where this was called off while the disk hung.
            storage.later(recorder.release)
