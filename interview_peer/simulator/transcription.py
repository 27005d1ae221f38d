"""The pretended transcription of what the candidate said, and when it comes. Plain code.

Nothing here understands speech, and the text says so.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from ..types import Json
from .agenda import Agenda
from .outbox import Outbox
from .reply import USER_MS_PER_TOKEN, Event
from .settings import SimulatorSettings

TEXT_TOKENS = 8
PACE = 0.03
"""Seconds between the events of one transcription."""
HELD_SECONDS = 10.0
"""So long a transcription is held back for the next turn's."""
_NAME = "conversation.item.input_audio_transcription"


class Transcriber:
    """Tells the transcription of each turn some time after it: late, failed, swapped, never."""

    def __init__(
        self, settings: SimulatorSettings, rng: random.Random, agenda: Agenda, outbox: Outbox
    ) -> None:
        self._settings = settings
        self._rng = rng
        self._agenda = agenda
        self._outbox = outbox
        self._held: list[Callable[[float], float]] = []

    def later(self, now: float, item: Json, voiced_ms: int) -> None:
        """Transcribe the turn of this item, which gets its text when the client is told."""
        settings, chance = self._settings, self._rng.random
        if chance() < settings.transcription_missing_share:
            return
        fails = chance() < settings.transcription_failure_share
        # Late ones come after the reply is generated: a client must not rely on either order.
        is_late = chance() < settings.transcription_late_share
        delay = self._rng.uniform(2.5, 3.5) if is_late else self._rng.uniform(0.2, 1.0)
        if settings.transcription_delay is not None:
            delay = settings.transcription_delay
        events = transcription(item["id"], voiced_ms, self._outbox.padding, fails=fails)

        def tell(due: float) -> float:
            for event in events:
                self._agenda.at(due, self._teller(item, event))
                due += PACE
            return due

        if not self._held and chance() < settings.transcription_swap_share:
            self._held.append(tell)
            self._agenda.at(now + HELD_SECONDS, self._release)
            return
        self._release(tell(now + delay))

    def _release(self, due: float) -> None:
        """Tell what was held back."""
        held, self._held = self._held, []
        for tell in held:
            due = tell(due)

    def _teller(self, item: Json, event: Event) -> Callable[[float], None]:
        def tell(_: float) -> None:
            if "transcript" in event[1]:
                item["content"][0]["transcript"] = event[1]["transcript"]
            self._outbox.emit(*event)

        return tell


def transcript_pieces(voiced_ms: int) -> list[str]:
    """What stands in for the words of a turn with so much voice in it."""
    return ["[simulated transcript: ", f"{voiced_ms / 1000:.1f} seconds", " of candidate speech]"]


def transcription(
    item_id: str, voiced_ms: int, padding: Callable[[], str], *, fails: bool
) -> list[Event]:
    """The events of one turn's transcription, in order; ``padding`` makes ``obfuscation``."""
    about = {"item_id": item_id, "content_index": 0}
    if fails:
        error = {
            "type": "server_error",
            "code": "audio_unintelligible",
            "message": "The simulator was told to fail here.",
            "param": "",
        }
        return [(f"{_NAME}.failed", about | {"error": error})]
    pieces = transcript_pieces(voiced_ms)
    events: list[Event] = [
        (f"{_NAME}.delta", about | {"delta": piece, "obfuscation": padding()}) for piece in pieces
    ]
    tokens = max(1, voiced_ms // USER_MS_PER_TOKEN)
    usage = {
        "type": "tokens",
        "total_tokens": tokens + TEXT_TOKENS,
        "input_tokens": tokens,
        "output_tokens": TEXT_TOKENS,
        "input_token_details": {"text_tokens": 0, "audio_tokens": tokens},
    }
    done = about | {"transcript": "".join(pieces), "usage": usage}
    events.append((f"{_NAME}.completed", done))
    return events
