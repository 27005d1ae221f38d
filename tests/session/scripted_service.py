"""A voice service that answers events of the server's as a test tells it to, without a network."""

from __future__ import annotations

import asyncio

from interview_peer.core.realtime import TAG, model_event
from interview_peer.session.control import Control
from interview_peer.types import Json
from tests.support.official import client_problems


class Service:
    """Answers as a well-behaved service does, unless told otherwise."""

    def __init__(self) -> None:
        self.sent: list[Json] = []
        self.is_open = True
        self.mute: set[str] = set()
        """Types of events that get no answer."""
        self.refusals: dict[str, list[str]] = {}
        """Codes that the next events of a type are refused with."""
        self.speaks = True
        """Whether a reply is played at once, to its end."""
        self.control = Control(self._take)
        self._made = 0

    def _take(self, event: Json) -> bool:
        if self.is_open:
            assert client_problems(event) == []
            self.sent.append(event)
            asyncio.get_running_loop().call_soon(self._answer, event)
        return self.is_open

    def kinds(self) -> list[str]:
        return [event["type"] for event in self.sent]

    def tell(self, kind: str, **fields: object) -> None:
        self.control.take(model_event({"type": kind, **fields}))

    def begin(self, tag: str | None = None) -> str:
        """Begin a reply that is heard; its id."""
        self._made += 1
        name = f"resp_{self._made}"
        metadata = None if tag is None else {TAG: tag}
        response = {"id": name, "conversation_id": "conv_1", "metadata": metadata}
        self.tell("response.created", response=response)
        self.tell(
            "response.output_audio_transcript.delta", response_id=name, item_id="item_a", delta="A"
        )
        self.tell("output_audio_buffer.started", response_id=name)
        return name

    def finish(self, name: str, how: str = "stopped") -> None:
        """Let a reply end."""
        status = "completed" if how == "stopped" else "cancelled"
        self.tell("response.done", response={"id": name, "status": status})
        self.tell(f"output_audio_buffer.{how}", response_id=name)

    def _answer(self, event: Json) -> None:
        kind = event["type"]
        if kind in self.mute:
            return
        if codes := self.refusals.get(kind):
            error = {"code": codes.pop(0), "message": "No.", "event_id": event["event_id"]}
            self.tell("error", error=error)
        elif kind == "conversation.item.create":
            self.tell("conversation.item.added", item=event["item"], previous_item_id=None)
            self.tell("conversation.item.done", item=event["item"], previous_item_id=None)
        elif kind == "response.create":
            name = self.begin(event["response"]["metadata"][TAG])
            if self.speaks:
                self.finish(name)
        elif kind == "output_audio_buffer.clear" and self._made:
            self.finish(f"resp_{self._made}", "cleared")
