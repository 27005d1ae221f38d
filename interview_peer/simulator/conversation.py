"""What the simulated model says and when: the order of events, turns, interruptions.

Plain code without I/O: inputs carry the time they happened at, every input returns the commands
that follow from it, and ``next_due`` tells when ``advance`` has something to do. All of ``now`` is
one monotonic clock in seconds.

Generation runs ahead of playout, as in the real service: the transcript and ``response.done`` come
while the sound is still going out, ``output_audio_buffer.stopped`` when it has.
"""

from __future__ import annotations

import base64
import heapq
import json
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ..types import Json
from .client_events import check_fields, decoded
from .commands import Command, HangUp, Limit, Listen, Play, Rules, Send, Stop
from .items import ItemList, check_item
from .library import Script
from .reply import Event, Kind, Reply
from .session_config import Fault, check_response, updated_session
from .transcription import transcription
from .vad import Detection, SpeechStart

FIRST_PIECE_AFTER = 0.12
PIECES_BEFORE_SOUND = 3
RATE_LIMITS_AFTER = 0.04
HINT_AFTER = 0.05
LATE_TRANSCRIPT_SHARE = 0.25
TRANSCRIPT_PACE = 0.03
MIN_COMMIT_MS = 100
_FORGOTTEN: Json = {"type": "output_audio"}


class Conversation:
    """One session from the opening of its channel. Not thread-safe; never raises for bad input."""

    def __init__(
        self,
        session: Json,
        script: Script,
        rules: Rules,
        rng: random.Random,
        make_id: Callable[[str], str],
    ) -> None:
        """``session`` is the effective one; ``make_id`` turns a prefix into a fresh id."""
        self.session = session | {"id": make_id("sess_")}
        self._script = script
        self._rules = rules
        self._rng = rng
        self._make_id = make_id
        self._conversation_id = make_id("conv_")
        self._items = ItemList()
        self._commands: list[Command] = []
        self._due: list[tuple[float, int, Callable[[float], None]]] = []
        self._scheduled = 0
        self._open = False
        self._heard_ms = 0
        self._committed_ms = 0
        self._voiced_ms = 0
        self._turn: SpeechStart | None = None
        self._turn_item_id = ""
        self._replies: dict[str, Reply] = {}
        self._lines_said = 0
        self._has_spoken = False
        self._playing: Reply | None = None
        self._waiting: deque[Reply] = deque()
        self._idle_round = 0

    def next_due(self) -> float | None:
        """When ``advance`` must be called next; None if nothing is scheduled."""
        return self._due[0][0] if self._due else None

    def opened(self, now: float, wall_clock: float) -> list[Command]:
        """The client's channel is open. ``wall_clock`` is in epoch seconds."""
        if self._open:
            return []
        self._open = True
        self.session["expires_at"] = int(wall_clock + self._rules.session_seconds)
        self._emit("session.created", {"session": self.session})
        if self._rules.planted_error is not None:
            self._refuse(Fault("server_error", self._rules.planted_error), None)
        self._at(now + HINT_AFTER, lambda _: self._emit("x_simulator.hint", {"hint": "ignore me"}))
        self._at(now + self._rules.session_seconds, self._expire)
        if self._heard_ms:
            self._greet_soon(now)
        return self._take()

    def heard(self, now: float, heard_ms: int) -> list[Command]:
        """Audio has come in; ``heard_ms`` is all of it since the call's beginning."""
        first = self._heard_ms == 0 and heard_ms > 0
        self._heard_ms = heard_ms
        if first and self._open:
            self._greet_soon(now)
        return self._take()

    def detected(self, now: float, detection: Detection) -> list[Command]:
        """The candidate began or ended to speak."""
        rules = self._turn_detection
        if not self._open or rules is None:
            return []
        if isinstance(detection, SpeechStart):
            self._idle_round += 1
            self._turn = detection
            self._turn_item_id = self._make_id("item_")
            fields = {"audio_start_ms": detection.at_ms, "item_id": self._turn_item_id}
            self._emit("input_audio_buffer.speech_started", fields)
            if rules["interrupt_response"]:
                self._interrupt(now)
        elif self._turn is not None:
            fields = {"audio_end_ms": detection.at_ms, "item_id": self._turn_item_id}
            self._emit("input_audio_buffer.speech_stopped", fields)
            length_ms = detection.at_ms - self._turn.at_ms
            item_id = self._turn_item_id
            self._turn = None
            self._commit(now, item_id, length_ms, detection.voiced_ms)
            if rules["create_response"] and self._active() is None:
                self._begin_reply(now, {})
        return self._take()

    def client_message(self, now: float, message: str | bytes) -> list[Command]:
        """The client sent a message, valid or not."""
        event_id = None
        try:
            event = decoded(message)
            if isinstance(event.get("event_id"), str):
                event_id = event["event_id"]
            check_fields(event)
            getattr(self, "_on_" + event["type"].replace(".", "_"))(now, event)
        except Fault as fault:
            self._refuse(fault, event_id)
        return self._take()

    def played_out(self, now: float, response_id: str) -> list[Command]:
        """The last of a reply's sound has gone out."""
        playing = self._playing
        if playing is None or playing.response_id != response_id:
            return []
        self._playing = None
        self._emit_gateway("output_audio_buffer.stopped", response_id)
        if self._waiting:
            self._play(now, self._waiting.popleft())
        else:
            self._wait_for_candidate(now)
        return self._take()

    def advance(self, now: float) -> list[Command]:
        """Do what has become due."""
        while self._due and self._due[0][0] <= now:
            due, _, step = heapq.heappop(self._due)
            step(due)
        return self._take()

    # Replies

    def _begin_reply(self, now: float, request: Json) -> None:
        self._idle_round += 1
        kind, tool = self._kind_of(request)
        line = self._script.line(self._lines_said)
        if kind != "call":
            self._lines_said += 1
        output = dict(self.session["audio"]["output"]) | request.get("audio", {}).get("output", {})
        output.pop("speed", None)
        reply = Reply(
            response_id=self._make_id("resp_"),
            item_id=self._make_id("item_"),
            conversation_id=self._conversation_id,
            line=line,
            kind=kind,
            outside=request.get("conversation") == "none",
            call_id=self._make_id("call_") if kind == "call" else "",
            tool=tool,
            settings={
                "output_modalities": self._setting("output_modalities", request),
                "max_output_tokens": self._setting("max_output_tokens", request),
                "output": output,
                "metadata": request.get("metadata"),
            },
        )
        self._replies[reply.response_id] = reply
        self._emit("response.created", {"response": reply.response(self._voiced_ms)})
        self._at(now + FIRST_PIECE_AFTER, lambda due: self._open_reply(due, reply))

    def _kind_of(self, request: Json) -> tuple[Kind, str]:
        choice = self._setting("tool_choice", request)
        names = [tool["name"] for tool in self._setting("tools", request) if "name" in tool]
        if isinstance(choice, dict) and isinstance(choice.get("name"), str):
            return "call", choice["name"]
        if choice == "required" and names:
            return "call", names[0]
        return ("audio" if self._setting("output_modalities", request) == ["audio"] else "text"), ""

    def _setting(self, name: str, request: Json) -> Any:
        return request.get(name, self.session[name])

    def _open_reply(self, now: float, reply: Reply) -> None:
        if not reply.generating:
            return
        reply.opened = True
        previous = None
        if not reply.outside:
            previous = self._items.append(reply.item())
        self._emit_all(reply.opening(reply.item(), previous))
        seconds = reply.line.duration_ms / 1000 if reply.kind == "audio" else 1.0
        pace = seconds / self._rules.generation_speed / len(reply.pieces)
        self._at(now + pace, lambda due: self._generate(due, reply, pace))

    def _generate(self, now: float, reply: Reply, pace: float) -> None:
        if not reply.generating:
            return
        name, fields = reply.delta()
        self._emit(name, fields | {"obfuscation": self._padding()})
        enough = min(PIECES_BEFORE_SOUND, len(reply.pieces))
        if reply.kind == "audio" and reply.sent == enough and not reply.silenced:
            self._has_spoken = True
            if self._playing is None:
                self._play(now, reply)
            else:
                self._waiting.append(reply)
        if reply.sent < len(reply.pieces):
            self._at(now + pace, lambda due: self._generate(due, reply, pace))
            return
        self._finish(now, reply, "completed", None)

    def _finish(
        self,
        now: float,
        reply: Reply,
        status: str,
        reason: str | None,
        between: Sequence[Event] = (),
    ) -> None:
        """Close a reply; ``between`` goes somewhere among or around its closing events."""
        reply.status = status
        reply.reason = reason
        previous = None
        if reply.opened and not reply.outside:
            item = reply.item()
            if reply.kind == "audio" and reply.silenced:
                item["content"] = [dict(_FORGOTTEN)]
            elif reply.kind == "audio":
                self._items.audio_ms[reply.item_id] = reply.generated_ms
            previous = self._items.replace(item)
        events = reply.closing(previous)
        events.append(("response.done", {"response": reply.response(self._voiced_ms)}))
        if between:
            position = self._rng.randint(0, len(events))
            events[position:position] = between
        self._emit_all(events)
        del self._replies[reply.response_id]
        if self._rng.random() > 0.1:
            self._at(now + RATE_LIMITS_AFTER, lambda _: self._emit_rate_limits())
        if reply.kind != "audio":
            self._wait_for_candidate(now)

    def _active(self) -> Reply | None:
        """The reply that is being generated in the conversation."""
        return next((reply for reply in self._replies.values() if not reply.outside), None)

    # Sound

    def _play(self, now: float, reply: Reply) -> None:
        reply.started_at = now
        self._playing = reply
        self._commands.append(Play(reply.response_id, reply.line))
        if not reply.generating and reply.status != "completed":
            self._commands.append(Limit(reply.generated_ms))
        self._emit_gateway("output_audio_buffer.started", reply.response_id)

    def _silence(self, now: float) -> list[Event]:
        """Stop all sound; returns what is to be said about it."""
        for reply in self._replies.values():
            reply.silenced = True
        events: list[Event] = []
        playing, self._playing = self._playing, None
        cut_off = list(self._waiting)
        self._waiting.clear()
        if playing is not None:
            self._commands.append(Stop())
            fields = {"response_id": playing.response_id, "event_id": self._gateway_id()}
            events.append(("output_audio_buffer.cleared", fields))
            cut_off.insert(0, playing)
        for reply in cut_off:
            if not reply.outside and self._items.get(reply.item_id) is not None:
                heard_ms = min(reply.played_ms(now), reply.generated_ms)
                events.append(self._truncated(reply.item_id, heard_ms))
        return events

    def _truncated(self, item_id: str, heard_ms: int) -> Event:
        item = self._items.get(item_id)
        if item is not None:
            # The service forgets the words of what was cut off, not only those not heard.
            item["content"] = [dict(_FORGOTTEN)]
        self._items.audio_ms[item_id] = heard_ms
        fields = {"item_id": item_id, "content_index": 0, "audio_end_ms": heard_ms}
        return "conversation.item.truncated", fields

    def _interrupt(self, now: float) -> None:
        about_sound = self._silence(now)
        reply = self._active()
        if reply is None:
            self._emit_all(about_sound)
        else:
            self._finish(now, reply, "cancelled", "turn_detected", about_sound)

    # The candidate's turns

    @property
    def _turn_detection(self) -> Json | None:
        detection: Json | None = self.session["audio"]["input"]["turn_detection"]
        return detection

    def _greet_soon(self, now: float) -> None:
        if self._rules.greet:
            self._at(now + self._rules.greet_after, self._greet)

    def _greet(self, now: float) -> None:
        if self._lines_said == 0 and self._turn is None and self._active() is None:
            self._begin_reply(now, {})

    def _commit(self, now: float, item_id: str, length_ms: int, voiced_ms: int) -> None:
        self._committed_ms = self._heard_ms
        self._voiced_ms += voiced_ms
        item: Json = {"id": item_id, "type": "message", "status": "completed", "role": "user"}
        item["content"] = [{"type": "input_audio", "transcript": None}]
        previous = self._items.append(item)
        self._items.audio_ms[item_id] = length_ms
        self._emit(
            "input_audio_buffer.committed", {"item_id": item_id, "previous_item_id": previous}
        )
        self._emit_item_events(item, previous)
        if self.session["audio"]["input"]["transcription"] is not None:
            self._transcribe_later(now, item, voiced_ms)

    def _transcribe_later(self, now: float, item: Json, voiced_ms: int) -> None:
        fails = self._rng.random() < self._rules.transcription_failure_share
        # Late ones come after the reply is generated: a client must not rely on either order.
        late = self._rng.random() < LATE_TRANSCRIPT_SHARE
        due = now + (self._rng.uniform(2.5, 3.5) if late else self._rng.uniform(0.2, 1.0))
        for event in transcription(item["id"], voiced_ms, self._padding, fails=fails):
            self._at(due, self._transcriber(item, event))
            due += TRANSCRIPT_PACE

    def _transcriber(self, item: Json, event: Event) -> Callable[[float], None]:
        def send(_: float) -> None:
            if "transcript" in event[1]:
                item["content"][0]["transcript"] = event[1]["transcript"]
            self._emit(*event)

        return send

    def _wait_for_candidate(self, now: float) -> None:
        """Start the idle timeout, if the session has one."""
        detection = self._turn_detection
        timeout_ms = detection.get("idle_timeout_ms") if detection else None
        if timeout_ms is None:
            return
        self._idle_round += 1
        this_round = self._idle_round

        def give_up(due: float) -> None:
            if self._idle_round != this_round or self._active() is not None:
                return
            item_id = self._make_id("item_")
            start_ms = self._committed_ms
            fields = {"audio_start_ms": start_ms, "audio_end_ms": self._heard_ms}
            self._emit("input_audio_buffer.timeout_triggered", fields | {"item_id": item_id})
            self._commit(due, item_id, self._heard_ms - start_ms, 0)
            self._begin_reply(due, {})

        self._at(now + timeout_ms / 1000, give_up)

    # Client events

    def _on_session_update(self, now: float, event: Json) -> None:
        if "session" not in event:
            message = "Missing required parameter: 'session'."
            raise Fault("missing_required_parameter", message, "session")
        before = self._turn_detection
        self.session = updated_session(
            self.session, event["session"], assistant_has_spoken=self._has_spoken
        )
        if self._turn_detection != before:
            self._turn = None
            self._commands.append(Listen(self._turn_detection))
        self._emit("session.updated", {"session": self.session})

    def _on_response_create(self, now: float, event: Json) -> None:
        request = event.get("response") or {}
        check_response(request)
        active = self._active()
        if active is not None and request.get("conversation") != "none":
            message = (
                "Conversation already has an active response in progress: "
                f"{active.response_id}. Wait until the response is finished before creating a "
                "new one."
            )
            raise Fault("conversation_already_has_active_response", message)
        self._begin_reply(now, request)

    def _on_response_cancel(self, now: float, event: Json) -> None:
        wanted = event.get("response_id")
        reply = self._active() if wanted is None else self._replies.get(str(wanted))
        if reply is None:
            message = "Cancellation failed: no active response found"
            raise Fault("response_cancel_not_active", message)
        self._finish(now, reply, "cancelled", "client_cancelled")
        if self._playing is reply:
            self._commands.append(Limit(reply.generated_ms))

    def _on_output_audio_buffer_clear(self, now: float, event: Json) -> None:
        self._emit_all(self._silence(now))

    def _on_input_audio_buffer_append(self, now: float, event: Json) -> None:
        message = "Audio comes over the media connection of this call, not as events."
        raise Fault("invalid_event_for_transport", message, "type")

    def _on_input_audio_buffer_commit(self, now: float, event: Json) -> None:
        length_ms = self._heard_ms - self._committed_ms
        if length_ms < MIN_COMMIT_MS:
            message = (
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{MIN_COMMIT_MS}ms of audio, but buffer only has {length_ms:.2f}ms of audio."
            )
            raise Fault("input_audio_buffer_commit_empty", message)
        item_id = self._turn_item_id if self._turn is not None else self._make_id("item_")
        self._turn = None
        self._commit(now, item_id, length_ms, length_ms)

    def _on_input_audio_buffer_clear(self, now: float, event: Json) -> None:
        self._committed_ms = self._heard_ms
        self._turn = None
        self._emit("input_audio_buffer.cleared", {})

    def _on_conversation_item_create(self, now: float, event: Json) -> None:
        item = check_item(event.get("item")) | {"status": "completed"}
        item.setdefault("id", self._make_id("item_"))
        if item["type"] == "function_call":
            item.setdefault("call_id", self._make_id("call_"))
        item.pop("object", None)
        previous = self._items.insert(item, event.get("previous_item_id"))
        self._emit_item_events(item, previous)

    def _on_conversation_item_retrieve(self, now: float, event: Json) -> None:
        item = self._existing(event, "retriev")
        length_ms = self._items.audio_ms.get(item["id"])
        if self._rules.retrieve_audio and length_ms is not None:
            audio = base64.b64encode(bytes(48 * length_ms)).decode()
            item = item | {"content": [part | {"audio": audio} for part in item["content"]]}
        self._emit("conversation.item.retrieved", {"item": item})

    def _on_conversation_item_truncate(self, now: float, event: Json) -> None:
        item = self._existing(event, "truncat")
        end_ms = event.get("audio_end_ms")
        length_ms = self._items.audio_ms.get(item["id"])
        if item.get("role") != "assistant" or length_ms is None:
            raise Fault("invalid_value", "Only assistant audio can be truncated.", "item_id")
        if isinstance(end_ms, bool) or not isinstance(end_ms, int) or not 0 <= end_ms <= length_ms:
            message = f"Audio content of {length_ms}ms is shorter than the wanted end."
            raise Fault("invalid_value", message, "audio_end_ms")
        self._emit_all([self._truncated(item["id"], end_ms)])

    def _on_conversation_item_delete(self, now: float, event: Json) -> None:
        item = self._existing(event, "delet")
        self._items.remove(item["id"])
        self._emit("conversation.item.deleted", {"item_id": item["id"]})

    def _existing(self, event: Json, verb: str) -> Json:
        item = self._items.get(event.get("item_id"))
        if item is None:
            message = (
                f"Error {verb}ing item: the item with id '{event.get('item_id')}' does not exist."
            )
            raise Fault(f"item_{verb}e_invalid_item_id", message, "item_id")
        return item

    # Helpers

    def _expire(self, now: float) -> None:
        message = "Your session hit the maximum duration of 60 minutes."
        self._refuse(Fault("session_expired", message), None)
        self._commands.append(HangUp("session expired"))

    def _emit(self, kind: str, fields: Json) -> None:
        # Copied by way of JSON's own types: later changes of an item must not reach back.
        event = {"type": kind, "event_id": self._make_id("event_")} | fields
        self._commands.append(Send(json.loads(json.dumps(event))))

    def _emit_all(self, events: list[Event]) -> None:
        for kind, fields in events:
            self._emit(kind, fields)

    def _emit_item_events(self, item: Json, previous: str | None) -> None:
        for kind in ("conversation.item.added", "conversation.item.done"):
            self._emit(kind, {"item": item, "previous_item_id": previous})

    def _emit_gateway(self, kind: str, response_id: str) -> None:
        self._emit(kind, {"response_id": response_id, "event_id": self._gateway_id()})

    def _gateway_id(self) -> str:
        # The real service's media gateway shapes its ids unlike the rest.
        return f"event_{self._rng.getrandbits(64):016x}"

    def _emit_rate_limits(self) -> None:
        limits = [{"name": "tokens", "limit": 40000, "remaining": 39500, "reset_seconds": 0.75}]
        if self._rng.random() < 0.5:
            requests = {"name": "requests", "limit": 200, "remaining": 199, "reset_seconds": 0.3}
            limits.insert(0, requests)
        self._emit("rate_limits.updated", {"rate_limits": limits})

    def _padding(self) -> str:
        return "x" * self._rng.randint(1, 16)

    def _refuse(self, fault: Fault, event_id: str | None) -> None:
        error = {
            "type": "invalid_request_error",
            "code": fault.code,
            "message": fault.message,
            "param": fault.param,
            "event_id": event_id,
        }
        self._emit("error", {"error": error})

    def _at(self, due: float, step: Callable[[float], None]) -> None:
        self._scheduled += 1
        heapq.heappush(self._due, (due, self._scheduled, step))

    def _take(self) -> list[Command]:
        commands, self._commands = self._commands, []
        return commands
