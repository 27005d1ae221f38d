"""Writes down a conversation as the service would tell it: the journal of a short interview.

Each method is one step of the service's order of events, in official shapes; a scene is made of
such steps, and says with ``wait`` when they happen. What the simulator does is not asked: these are
the orders of the contract, also those that the simulator does not choose.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from interview_peer.core.realtime import TAG
from interview_peer.core.replay import speech_line
from interview_peer.types import ItemId, Json

BEGAN: Final = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)

PREFIX_MS, SILENCE_MS = 300, 500
"""What the session that the scenes run in has the service add to the times of speech."""

LEAD: Final = 0.04
"""How much later the recording began than the sound that the model heard, in seconds."""


class Scribe:
    """The journal of one scene, on a clock of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.now = 0.0
        self.lines: list[Json] = []
        self.last: str | None = None
        """The newest item of the conversation."""
        self._numbers = 0
        self._said: dict[str, str] = {}
        self._items: dict[str, Json] = {}
        self.ours("interview.started", session_id=name, schema=1)

    # -- lines -------------------------------------------------------------------------------

    def _line(self, direction: str | None, event: Json) -> None:
        at = (BEGAN + timedelta(seconds=self.now)).isoformat(timespec="milliseconds")
        self.lines.append(
            {
                "t": round(self.now, 3),
                "at": at.removesuffix("+00:00") + "Z",
                "direction": direction,
                "event": event,
            }
        )

    def service(self, kind: str, **fields: Any) -> None:
        """The service says something."""
        self._numbers += 1
        self._line("to_browser", {"type": kind, "event_id": f"event_{self._numbers:03}", **fields})

    def client(self, kind: str, **fields: Any) -> None:
        """The browser, or the server itself, says something to the service."""
        self._line("to_model", {"type": kind, **fields})

    def ours(self, kind: str, **fields: Any) -> None:
        """A line of the server's own."""
        self._line(None, {"type": kind, **fields})

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now = round(self.now + seconds, 3)

    def text(self) -> str:
        """The whole journal."""
        return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in self.lines)

    # -- the session -------------------------------------------------------------------------

    def session(self, kind: str = "session.created", **detection: Any) -> None:
        """The session as it is now."""
        vad: Json = {
            "type": "server_vad",
            "threshold": 0.5,
            "prefix_padding_ms": PREFIX_MS,
            "silence_duration_ms": SILENCE_MS,
            "idle_timeout_ms": None,
            "create_response": True,
            "interrupt_response": True,
        }
        session: Json = {
            "id": "sess_1",
            "type": "realtime",
            "object": "realtime.session",
            "model": "gpt-realtime-2.1",
            "expires_at": 1_795_172_400,
            "output_modalities": ["audio"],
            "instructions": "Be kind.",
            "audio": {
                "input": {
                    "transcription": {"model": "gpt-transcribe"},
                    "turn_detection": {**vad, **detection},
                },
                "output": {"voice": "marin"},
            },
        }
        self.service(kind, session=session)

    def end(self, reason: str, before: str = "live") -> None:
        """The interview ends, here."""
        self.ours("interview.phase", before=before, phase="ending", reason=reason)

    def error(self, code: str, message: str, *, event_id: str | None = None, **more: Any) -> None:
        """The service refuses something, or fails at it."""
        told: Json = {"type": "invalid_request_error", "code": code, "message": message}
        self.service("error", error={**told, "param": None, "event_id": event_id, **more})

    # -- the candidate -----------------------------------------------------------------------

    def speech_starts(self, item: str, ago: float = 0.2) -> None:
        """The service notices that the candidate began to speak ``ago`` seconds ago."""
        begins = self.now - ago
        heard = max(0.0, begins - LEAD - PREFIX_MS / 1000)
        self.service(
            "input_audio_buffer.speech_started",
            audio_start_ms=round(heard * 1000),
            item_id=item,
        )
        self._line(None, speech_line(ItemId(item), "start", round(heard + LEAD, 3)))

    def speech_stops(self, item: str) -> None:
        """The service notices that the candidate fell silent, half a second ago."""
        heard = self.now - LEAD
        self.service(
            "input_audio_buffer.speech_stopped", audio_end_ms=round(heard * 1000), item_id=item
        )
        self._line(None, speech_line(ItemId(item), "end", round(self.now, 3)))

    def commits(self, item: str) -> None:
        """What was heard becomes an item."""
        self.service("input_audio_buffer.committed", item_id=item, previous_item_id=self.last)
        content = {"type": "input_audio", "transcript": None}
        body = self._message(item, "user", "completed", content)
        self.joins(body)

    def joins(self, body: Json, previous: Any = ...) -> None:
        """An item takes its place, finished."""
        after = self.last if previous is ... else previous
        for kind in ("added", "done"):
            self.service(f"conversation.item.{kind}", item=body, previous_item_id=after)
        if after == self.last:
            self.last = str(body["id"])

    def speaks(self, item: str, seconds: float) -> None:
        """The candidate says something for so long; nothing else happens meanwhile."""
        self.wait(0.2)
        self.speech_starts(item)
        self.wait(seconds - 0.2 + SILENCE_MS / 1000)
        self.speech_stops(item)
        self.commits(item)

    def heard_piece(self, item: str, *pieces: str) -> None:
        """Part of a transcription."""
        for piece in pieces:
            self.service(
                "conversation.item.input_audio_transcription.delta",
                item_id=item,
                content_index=0,
                delta=piece,
                obfuscation="Qx4",
            )
            self.wait(0.02)

    def heard(self, item: str, text: str) -> None:
        """A transcription is finished."""
        self.service(
            "conversation.item.input_audio_transcription.completed",
            item_id=item,
            content_index=0,
            transcript=text,
            usage={"type": "duration", "seconds": 2.0},
        )

    def not_heard(self, item: str) -> None:
        """A transcription failed."""
        self.service(
            "conversation.item.input_audio_transcription.failed",
            item_id=item,
            content_index=0,
            error={
                "type": "transcription_error",
                "code": "audio_unintelligible",
                "message": "The audio could not be transcribed.",
                "param": None,
            },
        )

    def writes(self, item: str, text: str, *, role: str = "user", previous: Any = ...) -> None:
        """An item of text is created by the client."""
        kind = "output_text" if role == "assistant" else "input_text"
        body = self._message(item, role, "completed", {"type": kind, "text": text})
        self.client("conversation.item.create", item=body)
        self.wait(0.03)
        self.joins(body, previous)

    def deletes(self, item: str) -> None:
        """An item is taken out by the client."""
        self.client("conversation.item.delete", item_id=item)
        self.wait(0.03)
        self.service("conversation.item.deleted", item_id=item)

    @staticmethod
    def _message(item: str, role: str, status: str, *content: Json) -> Json:
        return {
            "id": item,
            "type": "message",
            "status": status,
            "role": role,
            "content": list(content),
        }

    # -- the interviewer ---------------------------------------------------------------------

    def begins(
        self, reply: str, conversation: str | None = "conv_1", *, tag: str | None = None
    ) -> None:
        """A reply is begun; one that the server asked for has its tag."""
        self.service(
            "response.created",
            response={
                "object": "realtime.response",
                "id": reply,
                "status": "in_progress",
                "status_details": None,
                "output": [],
                "conversation_id": conversation,
                "output_modalities": ["audio"],
                "max_output_tokens": "inf",
                "usage": None,
                "metadata": None if tag is None else {TAG: tag},
            },
        )

    def opens(
        self, reply: str, item: str, *, kind: str = "audio", index: int = 0, aside: bool = False
    ) -> None:
        """A reply opens an item of speech or text; aside, it joins no conversation."""
        body = self._message(item, "assistant", "in_progress")
        self._items[item] = {"index": index, "kind": kind, "after": self.last, "aside": aside}
        self._said[item] = ""
        self.service("response.output_item.added", response_id=reply, output_index=index, item=body)
        if not aside:
            self.service("conversation.item.added", item=body, previous_item_id=self.last)
            self.last = item
        empty = {"transcript": ""} if kind == "audio" else {"text": ""}
        self._part("response.content_part.added", reply, item, part={"type": kind, **empty})

    def _part(self, kind: str, reply: str, item: str, **fields: Any) -> None:
        place = {
            "response_id": reply,
            "item_id": item,
            "output_index": self._items[item]["index"],
            "content_index": 0,
        }
        self.service(kind, **place, **fields)

    def says(self, reply: str, item: str, *pieces: str) -> None:
        """Pieces of what is said or written, a tenth of a second each."""
        spoken = self._items[item]["kind"] == "audio"
        kind = "output_audio_transcript" if spoken else "output_text"
        for piece in pieces:
            self._said[item] += piece
            self._part(f"response.{kind}.delta", reply, item, delta=piece, obfuscation="w0")
            self.wait(0.1)

    def closes(self, reply: str, item: str, status: str = "completed") -> None:
        """The events that finish an item of speech or text."""
        known, text = self._items[item], self._said[item]
        spoken = known["kind"] == "audio"
        if spoken:
            self._part("response.output_audio.done", reply, item)
            self._part("response.output_audio_transcript.done", reply, item, transcript=text)
            content = {"type": "output_audio", "transcript": text}
            part = {"type": "audio", "transcript": text}
        else:
            self._part("response.output_text.done", reply, item, text=text)
            content = {"type": "output_text", "text": text}
            part = {"type": "text", "text": text}
        self._part("response.content_part.done", reply, item, part=part)
        body = self._message(item, "assistant", status, content)
        known["body"] = body
        if not known["aside"]:
            self.service("conversation.item.done", item=body, previous_item_id=known["after"])
        self.service(
            "response.output_item.done", response_id=reply, output_index=known["index"], item=body
        )

    def done(
        self,
        reply: str,
        *items: str,
        status: str = "completed",
        details: Json | None = None,
        audio_ms: int = 0,
        conversation: str | None = "conv_1",
    ) -> None:
        """Generation of a reply is over; its sound takes ``audio_ms`` in all."""
        tokens = audio_ms // 50
        usage = {
            "total_tokens": 100 + tokens,
            "input_tokens": 80,
            "output_tokens": 20 + tokens,
            "output_token_details": {"text_tokens": 20, "audio_tokens": tokens},
        }
        self.service(
            "response.done",
            response={
                "object": "realtime.response",
                "id": reply,
                "status": status,
                "status_details": None if details is None else {"type": status, **details},
                "output": [self._items[item]["body"] for item in items],
                "conversation_id": conversation,
                "output_modalities": ["audio"],
                "max_output_tokens": "inf",
                "usage": None if status == "failed" else usage,
                "metadata": None,
            },
        )

    def limits(self) -> None:
        """What is left of the account's allowance."""
        left = {"name": "tokens", "limit": 40000, "remaining": 39500, "reset_seconds": 0.75}
        self.service("rate_limits.updated", rate_limits=[left])

    def sound(self, edge: str, reply: str) -> None:
        """A reply's sound is ``started``, ``stopped`` or ``cleared``."""
        self.service(f"output_audio_buffer.{edge}", response_id=reply)

    def truncates(self, item: str, heard_ms: int) -> None:
        """The service notes how much of an item was heard."""
        self.service(
            "conversation.item.truncated", item_id=item, content_index=0, audio_end_ms=heard_ms
        )

    def replies(
        self, reply: str, item: str, *pieces: str, audio_ms: int = 2000, tag: str | None = None
    ) -> None:
        """A whole spoken reply, up to where its generation is over; its sound goes on."""
        self.begins(reply, tag=tag)
        self.wait(0.1)
        self.opens(reply, item)
        self.says(reply, item, *pieces[:3])
        self.sound("started", reply)
        self.says(reply, item, *pieces[3:])
        self.closes(reply, item)
        self.done(reply, item, audio_ms=audio_ms)
        self.wait(0.04)
        self.limits()

    def calls(self, reply: str, item: str, name: str, call_id: str, *, index: int = 0) -> None:
        """A reply asks for a tool."""
        body: Json = {
            "id": item,
            "type": "function_call",
            "status": "in_progress",
            "name": name,
            "call_id": call_id,
            "arguments": "",
        }
        place: Json = {"response_id": reply, "output_index": index}
        self.service("response.output_item.added", **place, item=body)
        self.service("conversation.item.added", item=body, previous_item_id=self.last)
        asked: Json = {**place, "item_id": item, "call_id": call_id}
        for piece in ('{"topic":', ' "scale"}'):
            self.service(
                "response.function_call_arguments.delta", **asked, delta=piece, obfuscation="k"
            )
            self.wait(0.05)
        arguments = '{"topic": "scale"}'
        self.service(
            "response.function_call_arguments.done", **asked, name=name, arguments=arguments
        )
        body = {**body, "status": "completed", "arguments": arguments}
        self._items[item] = {"body": body}
        self.service("conversation.item.done", item=body, previous_item_id=self.last)
        self.service("response.output_item.done", **place, item=body)
        self.last = item

    def answers_call(self, item: str, call_id: str, output: str) -> None:
        """The tool's result is given to the model."""
        body = {
            "id": item,
            "type": "function_call_output",
            "status": "completed",
            "call_id": call_id,
            "output": output,
        }
        self.client("conversation.item.create", item=body)
        self.wait(0.03)
        self.joins(body)
