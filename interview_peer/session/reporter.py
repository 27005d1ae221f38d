"""Tells everybody around an interview what happens in it, each in their own way and in order.

Pages on a signalling connection get messages, those who follow it live its feed, the database and
whoever is notified what the chronicle writes down, and the recording's journal its phases. Nothing
here waits, and nothing here decides.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from ..core.flood import Flood
from ..core.lifecycle import Happening, Phase, Reason
from ..core.limits import Warned
from ..core.turns import Turn, turn_document
from ..core.turnwatch import TurnWatch
from ..errors import ConnectTimeout, InterviewPeerError
from ..state import happenings
from ..types import Json, SessionId
from .feed import Feed
from .finished import Files
from .recording import Recording

Observer = Callable[[Json], None]
"""Takes a signalling message (``state``, ``session_ended``, ``error``); must return at once."""

FAILURE_SENTENCES: Final = {
    Reason.CONNECT_TIMEOUT: ConnectTimeout.sentence,
    Reason.BROWSER_FAILED: (
        "The audio connection broke while it was being made. Please connect again."
    ),
    Reason.MODEL_UNREACHABLE: (
        "The voice service could not be connected in time. Please try again later."
    ),
    Reason.MODEL_LOST: "The connection to the voice service was lost. Please connect again.",
    Reason.MODEL_CLOSED: "The voice service ended the connection. Please connect again.",
    Reason.INTERNAL: InterviewPeerError.sentence,
}
"""What a candidate is told when an interview fails; the code is the reason in upper case."""


class Reporter:
    """Of one interview. An open client's is in the database from its files' beginning on, an
    invited one from its making."""

    def __init__(
        self,
        session_id: SessionId,
        recording: Recording,
        feed: Feed,
        tell: Callable[[happenings.Happening], None],
        is_invited: Callable[[], bool],
        log: logging.LoggerAdapter[logging.Logger],
    ) -> None:
        """``tell`` is the chronicle's; ``is_invited`` whether the database had it before."""
        self._id = session_id
        self._recording = recording
        self._feed = feed
        self._tell = tell
        self._is_invited = is_invited
        self._log = log
        self._observers: list[Observer] = []
        self._turn_watch = TurnWatch()
        self._live_since: float | None = None

    def observe(self, observer: Observer) -> None:
        """Tell ``observer`` what happens from now on."""
        self._observers.append(observer)

    def unobserve(self, observer: Observer) -> None:
        """Stop telling ``observer``; again is harmless."""
        if observer in self._observers:
            self._observers.remove(observer)

    @property
    def watched(self) -> bool:
        """Whether anybody observes."""
        return bool(self._observers)

    def state(self, phase: Phase, reason: Reason | None) -> Json:
        """The ``state`` message for that phase."""
        message: Json = {"type": "state", "phase": phase.value, "sessionId": self._id}
        return message | _because(reason)

    def phase(
        self, happening: Happening, before: Phase, phase: Phase, reason: Reason | None, now: float
    ) -> None:
        """The interview came from one phase into another at ``now`` (monotonic)."""
        extra: Json = {"before": before.value, "phase": phase.value, **_because(reason)}
        self._log.info("phase", extra=extra)
        self._recording.journal(None, now, {"type": "interview.phase", **extra})
        if phase is Phase.ENDING and reason in FAILURE_SENTENCES:
            self._show(
                {
                    "type": "error",
                    "code": reason.value.upper(),
                    "message": FAILURE_SENTENCES[reason],
                }
            )
        self._show(self.state(phase, reason))
        self._feed.phase(phase.value, reason.value if reason is not None else None)
        if self._is_known():
            self._chronicle(happening, phase, reason)

    def flooded(self, flood: Flood, error: InterviewPeerError, now: float) -> None:
        """The browser's connection is ended at ``now`` (monotonic) for what it sent."""
        self._recording.journal(None, now, {"type": "interview.flooded", "by": flood.value})
        self._show({"type": "error", "code": error.code, "message": error.message})

    def warning(self, warned: Warned) -> None:
        """The end is near."""
        self._log.info("the end is near", extra={"reason": warned.reason.value})
        message: Json = {"type": "warning", "sessionId": self._id, **_because(warned.reason)}
        if warned.seconds is not None:
            message["seconds"] = warned.seconds
        self._show(message)

    def turns(self, turns: Sequence[Turn], *, over: bool = False) -> None:
        """The conversation is this now; ``over`` if it stays so."""
        if not self._recording.began:
            return
        news = self._turn_watch.look(turns, over=over)
        if news is not None:
            self._feed.turns(news.position, [turn_document(turn) for turn in news.turns])
            self._tell(
                happenings.Turns(
                    interview_id=self._id,
                    position=news.position,
                    turns=news.turns,
                    settled=news.settled,
                )
            )

    def finished(
        self,
        now: float,
        phase: Phase,
        reason: Reason | None,
        usage: Json,
        turns: Sequence[Turn],
        files: Files,
    ) -> None:
        """The interview is over; it was heard until ``now`` (monotonic). The last that is told."""
        if self._is_known():
            self.turns(turns, over=True)
            began = self._recording.began
            self._tell(
                happenings.Finished(
                    interview_id=self._id,
                    phase=phase,
                    reason=reason or Reason.INTERNAL,
                    opened_at=self._recording.wall_started_at if began else None,
                    seconds=None if self._live_since is None else round(now - self._live_since, 3),
                    usage=usage or None,
                    turns=tuple(turns) if began else None,
                    transcript=files.transcript,
                    recording_failed=files.failed,
                )
            )
        self._show({"type": "session_ended", "sessionId": self._id, **_because(reason)})
        self._observers.clear()
        self._feed.end(reason.value if reason is not None else None)

    def _is_known(self) -> bool:
        """Whether the database has the interview."""
        return self._recording.began or self._is_invited()

    def _chronicle(self, happening: Happening, phase: Phase, reason: Reason | None) -> None:
        match phase:
            case Phase.LIVE if happening is Happening.CONNECTED:
                self._live_since = time.monotonic()
                self._tell(happenings.Started(interview_id=self._id))
            case Phase.LIVE:
                self._tell(happenings.Returned(interview_id=self._id))
            case Phase.DETACHED:
                self._tell(happenings.Detached(interview_id=self._id))
            case Phase.ENDING if reason is not None:
                self._tell(happenings.Ending(interview_id=self._id, reason=reason))
            case _:
                # Made by its creator, opened by its files; its end is told with them.
                pass

    def _show(self, message: Json) -> None:
        for observer in tuple(self._observers):
            observer(message)


def _because(reason: Reason | None) -> Json:
    return {} if reason is None else {"reason": reason.value}
