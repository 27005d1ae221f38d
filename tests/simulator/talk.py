"""A conversation on a clock of the test's own, with a mouth that only keeps time."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

from interview_peer.simulator.commands import (
    Command,
    Drop,
    HangUp,
    Limit,
    Listen,
    Play,
    Send,
    SendRaw,
    Stop,
)
from interview_peer.simulator.conversation import Conversation
from interview_peer.simulator.library import scripts
from interview_peer.simulator.session_config import new_session
from interview_peer.simulator.settings import SimulatorSettings
from interview_peer.simulator.vad import SpeechStart, SpeechStop
from interview_peer.types import Json

TRANSCRIBED: Json = {
    "type": "realtime",
    "audio": {"input": {"transcription": {"model": "gpt-transcribe"}}},
}


class Talk:
    """Drives a conversation; ``events`` holds what was sent, ``at`` when each of it was."""

    def __init__(self, session: Json | None = None, seed: int = 1, **settings: Any) -> None:
        numbers = itertools.count(1)
        self.conversation = Conversation(
            new_session(session or TRANSCRIBED),
            scripts()[0],
            SimulatorSettings(**({"greet": False} | settings)),
            random.Random(seed),
            lambda prefix: f"{prefix}{next(numbers)}",
        )
        self.now = 1000.0
        self.events: list[Json] = []
        self.at: list[float] = []
        self.commands: list[Command] = []
        self.raw_messages: list[str | bytes] = []
        self.hung_up = False
        self.dropped = False
        self._playing: tuple[str, float, float] | None = None

    def opened(self) -> Talk:
        """Open the channel and forget the events of the beginning."""
        self.take(self.conversation.opened(self.now, 1_800_000_000.0))
        self.take(self.conversation.heard(self.now, 20))
        self.pass_time(0.1)
        self.events.clear()
        self.at.clear()
        return self

    def take(self, commands: list[Command]) -> None:
        """Carry commands out."""
        for command in commands:
            match command:
                case Send(event):
                    self.events.append(event)
                    self.at.append(self.now)
                case Play(response_id, line):
                    self._playing = (response_id, self.now, self.now + line.duration_ms / 1000)
                case Limit(played_ms):
                    assert self._playing is not None
                    name, start, end = self._playing
                    self._playing = (name, start, min(end, start + played_ms / 1000))
                case Stop():
                    self._playing = None
                case HangUp():
                    self.hung_up = True
                case Drop():
                    self.dropped = True
                case SendRaw(message):
                    self.raw_messages.append(message)
                case Listen():
                    pass
            self.commands.append(command)

    def pass_time(self, seconds: float) -> None:
        """Let everything happen that is due within that time."""
        end = self.now + seconds
        while True:
            due = self.conversation.next_due()
            played = self._playing[2] if self._playing else None
            times = [time for time in (due, played) if time is not None and time <= end]
            if not times:
                self.now = end
                return
            self.now = max(self.now, min(times))
            if due is not None and due <= self.now:
                self.take(self.conversation.advance(self.now))
            elif self._playing is not None:
                name, self._playing = self._playing[0], None
                self.take(self.conversation.played_out(self.now, name))

    def pass_until(self, kind: str) -> Json:
        """Go on until an event of this type is sent that was not there before; return it."""
        seen = len(self.events)
        for _ in range(3000):
            self.pass_time(0.01)
            for event in self.events[seen:]:
                if event["type"] == kind:
                    return event
        raise AssertionError(f"no {kind} within 30 s; got {self.types()}")

    def client(self, kind: str, **fields: Any) -> None:
        """Send a client event."""
        self.raw(json.dumps({"type": kind} | fields))

    def raw(self, message: str | bytes) -> None:
        """Send a message as it is."""
        self.take(self.conversation.client_message(self.now, message))

    def speech_starts(self) -> None:
        """The candidate begins to speak."""
        self.take(self.conversation.detected(self.now, SpeechStart(1000, 1100)))

    def speech_stops(self, voiced_ms: int = 2400) -> None:
        """The candidate stops."""
        stop = SpeechStop(1000 + voiced_ms + 500, voiced_ms)
        self.take(self.conversation.detected(self.now, stop))

    def types(self) -> list[str]:
        """Types of the events sent, runs of the same type as one."""
        return [kind for kind, _ in itertools.groupby(event["type"] for event in self.events)]

    def only(self, kind: str) -> Json:
        """The one event of this type."""
        (event,) = (event for event in self.events if event["type"] == kind)
        return event

    def error(self) -> Json:
        """The newest event, which must be an error: its inner object."""
        assert self.events[-1]["type"] == "error", self.events[-1]
        error: Json = self.events[-1]["error"]
        return error
