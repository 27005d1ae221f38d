"""Who has the floor: what the model generates, what of it still sounds, whether the candidate
speaks.

A reducer over the model's events, without clock or I/O. Whoever wants the model to say something
asks it for the right moment, and learns from it how a reply came to its end.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from ..types import ResponseId
from .realtime import (
    InputCommitted,
    ModelEvent,
    PlayoutCleared,
    PlayoutStarted,
    PlayoutStopped,
    ReplyDone,
    ReplyStarted,
    ReplyTextDelta,
    ReplyTextDone,
    SpeechStarted,
    SpeechStopped,
)

MAX_REPLIES: Final = 32
"""Replies remembered whose end was not told. A service that tells no ends must not fill memory."""


class Ending(enum.Enum):
    """How a reply came to its end."""

    PLAYED = "played"
    """It was heard to its end."""
    CUT = "cut"
    """The candidate or a client interrupted it."""
    SILENT = "silent"
    """It had no sound: a text, or a call of a tool."""
    FAILED = "failed"
    """The service could not make it."""


@dataclass(slots=True)
class _Reply:
    out_of_band: bool = False
    spoken: bool = False
    sound_began: bool = False
    sound_over: bool = False
    cut: bool = False
    status: str | None = None
    """Of the finished generation; None before."""


class Floor:
    """Feed it every event of the model, in order."""

    def __init__(self) -> None:
        self._replies: dict[ResponseId, _Reply] = {}
        self._candidate_speaks = False

    @property
    def generating(self) -> bool:
        """Whether a reply is being made: the service takes no request for another one then."""
        return any(one.status is None and not one.out_of_band for one in self._replies.values())

    @property
    def sounding(self) -> bool:
        """Whether a finished reply is still to be heard, or one is being made that is heard."""
        return any(one.spoken or one.sound_began for one in self._replies.values())

    @property
    def free(self) -> bool:
        """Whether nobody speaks and nothing is being made."""
        return not (self._candidate_speaks or self.generating or self.sounding)

    def spoke(self, response_id: ResponseId) -> bool:
        """Whether a reply that is not over yet has sound."""
        reply = self._replies.get(response_id)
        return reply is not None and (reply.spoken or reply.sound_began)

    def feed(self, event: ModelEvent) -> Ending | None:
        """Take in one event; says how a reply ended, if one did with it."""
        match event:
            case ReplyTextDelta(response_id, written=written) | ReplyTextDone(
                response_id, written=written
            ):
                if not written and (reply := self._replies.get(response_id)):
                    reply.spoken = True
            case ReplyStarted(response_id, out_of_band):
                if len(self._replies) >= MAX_REPLIES:
                    del self._replies[next(iter(self._replies))]
                self._replies[response_id] = _Reply(out_of_band)
            case PlayoutStarted(response_id):
                if reply := self._replies.get(response_id):
                    reply.sound_began, reply.sound_over = True, False
            case PlayoutStopped(response_id) | PlayoutCleared(response_id):
                if reply := self._replies.get(response_id):
                    reply.sound_over = True
                    reply.cut = reply.cut or isinstance(event, PlayoutCleared)
                    return self._look(response_id, reply)
            case ReplyDone(response_id, status, audio_ms=audio_ms):
                if reply := self._replies.get(response_id):
                    reply.status = status or "completed"
                    reply.spoken = reply.spoken or bool(audio_ms)
                    return self._look(response_id, reply)
            case SpeechStarted():
                self._candidate_speaks = True
            case SpeechStopped() | InputCommitted():
                self._candidate_speaks = False
            case _:
                pass
        return None

    def _look(self, response_id: ResponseId, reply: _Reply) -> Ending | None:
        """Forget a reply that is over, and say how it ended."""
        if reply.status is None:
            return None
        if reply.sound_over:
            ending = Ending.CUT if reply.cut else Ending.PLAYED
        elif reply.sound_began:
            return None
        elif reply.status == "failed":
            ending = Ending.FAILED
        elif reply.status == "cancelled":
            ending = Ending.CUT
        elif reply.spoken:
            # Generation runs ahead of the sound, which may still wait for that of another reply.
            return None
        else:
            ending = Ending.SILENT
        del self._replies[response_id]
        return ending
