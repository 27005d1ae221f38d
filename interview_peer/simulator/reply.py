"""One reply of the simulated model: its state and the events that open, fill and close it.

Plain code. When each event is due is decided in ``replies``; here is only what it says and in
which order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from ..types import Json
from .library import Line

Kind = Literal["audio", "text", "call"]
Event = tuple[str, Json]
"""An event's type and its fields, without ``event_id``."""

USER_MS_PER_TOKEN = 100
ASSISTANT_MS_PER_TOKEN = 50


@dataclass(slots=True, eq=False)
class Output:
    """One item of a response: a message in sound or writing, or the call of a function.

    ``text`` is all that it will hold: the words, or the call's arguments.
    """

    response_id: str
    item_id: str
    kind: Kind
    text: str
    index: int = 0
    outside: bool = False
    call_id: str = ""
    tool: str = ""
    status: str = "in_progress"
    opened: bool = False
    sent: int = 0
    pieces: list[str] = field(init=False)

    def __post_init__(self) -> None:
        cut = r"(?s).{1,8}" if self.kind == "call" else r"\S+\s*"
        self.pieces = re.findall(cut, self.text)

    @property
    def generating(self) -> bool:
        """True until its closing events."""
        return self.status == "in_progress"

    @property
    def written(self) -> str:
        """What was generated so far."""
        return "".join(self.pieces[: self.sent])

    def opening(self, item: Json, previous_item_id: str | None) -> list[Event]:
        """The events before the first delta. ``item`` is the one just put into the conversation."""
        about: Json = {"response_id": self.response_id, "output_index": self.index}
        events: list[Event] = [("response.output_item.added", about | {"item": item})]
        if not self.outside:
            fields: Json = {"item": item, "previous_item_id": previous_item_id}
            events.append(("conversation.item.added", fields))
        if self.kind != "call":
            about = self._about | {"content_index": 0}
            events.append(("response.content_part.added", about | {"part": self._part("")}))
        return events

    def delta(self) -> Event:
        """The next piece of text, counted as sent."""
        piece = self.pieces[self.sent]
        self.sent += 1
        if self.kind == "call":
            fields = self._about | {"call_id": self.call_id, "delta": piece}
            return "response.function_call_arguments.delta", fields
        name = "output_audio_transcript" if self.kind == "audio" else "output_text"
        return f"response.{name}.delta", self._about | {"content_index": 0, "delta": piece}

    def closing(self, previous_item_id: str | None) -> list[Event]:
        """The events after the last delta; none if there was no first one."""
        if not self.opened:
            return []
        text = self.written
        events: list[Event] = []
        if self.kind == "call":
            call = {"call_id": self.call_id, "name": self.tool, "arguments": text}
            events.append(("response.function_call_arguments.done", self._about | call))
        else:
            about = self._about | {"content_index": 0}
            if self.kind == "audio":
                events.append(("response.output_audio.done", about))
                done = ("response.output_audio_transcript.done", {"transcript": text})
            else:
                done = ("response.output_text.done", {"text": text})
            events.append((done[0], about | done[1]))
            events.append(("response.content_part.done", about | {"part": self._part(text)}))
        item = self.item()
        if not self.outside:
            fields: Json = {"item": item, "previous_item_id": previous_item_id}
            events.append(("conversation.item.done", fields))
        place = {"response_id": self.response_id, "output_index": self.index}
        events.append(("response.output_item.done", place | {"item": item}))
        return events

    def item(self) -> Json:
        """The item as it stands; its content is empty while it is being generated."""
        item: Json = {"id": self.item_id, "status": self.status}
        if self.kind == "call":
            arguments = "" if self.generating else self.written
            call = {"name": self.tool, "call_id": self.call_id, "arguments": arguments}
            return item | {"type": "function_call"} | call
        content: list[Json] = []
        if not self.generating and self.kind == "audio":
            content = [{"type": "output_audio", "transcript": self.written}]
        elif not self.generating:
            content = [{"type": "output_text", "text": self.written}]
        return item | {"type": "message", "role": "assistant", "content": content}

    @property
    def _about(self) -> Json:
        return {
            "response_id": self.response_id,
            "item_id": self.item_id,
            "output_index": self.index,
        }

    def _part(self, text: str) -> Json:
        if self.kind == "audio":
            return {"type": "audio", "transcript": text}
        return {"type": "text", "text": text}


@dataclass(slots=True, eq=False)
class Reply:
    """A response: one item, or a message and the call of a function after it.

    ``outside`` is a response that is no part of the conversation (``conversation: "none"``).
    ``number`` counts the spoken and written ones from 1; calls of functions have that of the last.
    ``ends_after`` pieces of its first item it ends as ``ends_as``, should that come before its own
    end. ``started_at`` is the time its sound began, None before that and for replies without sound.
    """

    response_id: str
    conversation_id: str
    line: Line
    outputs: list[Output]
    settings: Json
    number: int = 0
    outside: bool = False
    ends_after: int | None = None
    ends_as: str = "failed"
    error: Json | None = None
    status: str = "in_progress"
    reason: str | None = None
    started_at: float | None = None
    silenced: bool = False

    @property
    def generating(self) -> bool:
        """True from ``response.created`` to ``response.done``."""
        return self.status == "in_progress"

    @property
    def kind(self) -> Kind:
        """What its first item is."""
        return self.outputs[0].kind

    @property
    def item_id(self) -> str:
        """The id of its first item: the one that sounds, if any does."""
        return self.outputs[0].item_id

    @property
    def current(self) -> Output:
        """The item that is being generated, or the last."""
        return next((one for one in self.outputs if one.generating), self.outputs[-1])

    @property
    def generated_ms(self) -> int:
        """How much of the sound exists by now, in milliseconds."""
        first = self.outputs[0]
        return self.line.duration_ms * first.sent // len(first.pieces)

    def played_ms(self, now: float) -> int:
        """How much of the sound has gone out by now, in milliseconds."""
        if self.started_at is None:
            return 0
        return min(self.line.duration_ms, int((now - self.started_at) * 1000))

    def response(self, heard_ms: int) -> Json:
        """The response object. ``heard_ms`` is the candidate's speech so far, for the usage."""
        details: Json | None = None
        if self.reason is not None:
            details = {"type": self.status, "reason": self.reason}
        elif self.error is not None and self.status == "failed":
            details = {"type": self.status, "error": self.error}
        finished = not self.generating
        return {
            "object": "realtime.response",
            "id": self.response_id,
            "status": self.status,
            "status_details": details,
            "output": [one.item() for one in self.outputs if finished and one.opened],
            "conversation_id": None if self.outside else self.conversation_id,
            "output_modalities": self.settings["output_modalities"],
            "max_output_tokens": self.settings["max_output_tokens"],
            "audio": {"output": self.settings["output"]},
            "usage": self._usage(heard_ms) if finished else None,
            "metadata": self.settings["metadata"],
        }

    def _usage(self, heard_ms: int) -> Json:
        heard = heard_ms // USER_MS_PER_TOKEN
        spoken = self.generated_ms // ASSISTANT_MS_PER_TOKEN if self.kind == "audio" else 0
        written = sum(one.sent for one in self.outputs) + 8
        cached = {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0}
        return {
            "total_tokens": 110 + heard + written + spoken,
            "input_tokens": 110 + heard,
            "output_tokens": written + spoken,
            "input_token_details": {
                "text_tokens": 110,
                "audio_tokens": heard,
                "image_tokens": 0,
                "cached_tokens": 0,
                "cached_tokens_details": cached,
            },
            "output_token_details": {"text_tokens": written, "audio_tokens": spoken},
        }
