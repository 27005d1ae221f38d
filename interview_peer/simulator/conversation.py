"""What the simulated model says and when: the order of events, turns, interruptions.

Plain code without I/O: inputs carry the time they happened at, every input returns the commands
that follow from it, and ``next_due`` tells when ``advance`` has something to do. All of ``now`` is
one monotonic clock in seconds.

Generation runs ahead of playout, as in the real service: the transcript and ``response.done`` come
while the sound is still going out, ``output_audio_buffer.stopped`` when it has.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from ..types import Json
from .agenda import Agenda
from .checks import Fault, missing
from .client_events import Unreadable, check_fields, decoded
from .commands import Command, HangUp, Listen, SendRaw
from .item_requests import ItemRequests
from .items import ItemList
from .library import Script
from .outbox import Outbox
from .playout import Playout
from .replies import Replies, State
from .session_config import updated_session
from .session_schema import check_response
from .settings import SimulatorSettings
from .transcription import Transcriber
from .vad import Detection, SpeechStart

HINT_AFTER = 0.05
MIN_COMMIT_MS = 100
MAX_EARLY = 100
"""Events kept from before the session's creation; more are dropped."""

MALFORMED = ('{"type": "response.created", "respon', "[1, 2]", '"text"', '{"event_id": "event_x"}')
BINARY = (b"\x00\xff\x00\xff", b'{"type": "x_simulator.hint", "event_id": "event_x"}')


class Conversation:
    """One session from the opening of its channel. Not thread-safe; never raises for bad input."""

    def __init__(
        self,
        session: Json,
        script: Script,
        settings: SimulatorSettings,
        rng: random.Random,
        make_id: Callable[[str], str],
    ) -> None:
        """``session`` is the effective one; ``make_id`` turns a prefix into a fresh id."""
        self._state = State(session | {"id": make_id("sess_")}, make_id("conv_"))
        self._settings = settings
        self._make_id = make_id
        self._items = ItemList()
        self._outbox = Outbox(rng, make_id)
        self._agenda = Agenda()
        self._playout = Playout(self._items, self._outbox)
        self._transcriber = Transcriber(settings, rng, self._agenda, self._outbox)
        self._item_requests = ItemRequests(settings, self._items, self._playout, self._outbox)
        self._replies = Replies(
            settings,
            script,
            rng,
            self._state,
            self._items,
            self._outbox,
            self._agenda,
            self._playout,
            self._wait_for_candidate,
        )
        self._open = False
        self._created = False
        self._early: list[str | bytes] = []
        self._heard_ms = 0
        self._committed_ms = 0
        self._turn: SpeechStart | None = None
        self._turn_item_id = ""
        self._idle_round = 0

    @property
    def lines_said(self) -> int:
        """Replies in words so far, the one under way included."""
        return self._state.lines_said

    def next_due(self) -> float | None:
        """When ``advance`` must be called next; None if nothing is scheduled."""
        return self._agenda.next_due()

    def opened(self, now: float, wall_clock: float) -> list[Command]:
        """The client's channel is open. ``wall_clock`` is in epoch seconds."""
        if self._open:
            return []
        self._open = True
        delay = self._settings.session_delay
        if delay:
            self._agenda.at(now + delay, lambda due: self._create(due, wall_clock + delay))
        else:
            self._create(now, wall_clock)
        return self._outbox.take()

    def heard(self, now: float, heard_ms: int) -> list[Command]:
        """Audio has come in; ``heard_ms`` is all of it since the call's beginning."""
        first = self._heard_ms == 0 and heard_ms > 0
        self._heard_ms = heard_ms
        if first and self._created:
            self._greet_soon(now)
        return self._outbox.take()

    def detected(self, now: float, detection: Detection) -> list[Command]:
        """The candidate began or ended to speak."""
        rules = self._turn_detection
        if not self._created or rules is None:
            return []
        if isinstance(detection, SpeechStart):
            self._idle_round += 1
            self._turn = detection
            self._turn_item_id = self._make_id("item_")
            fields = {"audio_start_ms": detection.at_ms, "item_id": self._turn_item_id}
            self._outbox.emit("input_audio_buffer.speech_started", fields)
            if rules["interrupt_response"]:
                self._replies.interrupt(now)
        elif self._turn is not None:
            fields = {"audio_end_ms": detection.at_ms, "item_id": self._turn_item_id}
            self._outbox.emit("input_audio_buffer.speech_stopped", fields)
            length_ms = detection.at_ms - self._turn.at_ms
            item_id = self._turn_item_id
            self._turn = None
            self._commit(now, item_id, length_ms, detection.voiced_ms)
            if rules["create_response"] and self._replies.active() is None:
                self._begin_reply(now, {})
        return self._outbox.take()

    def client_message(self, now: float, message: str | bytes) -> list[Command]:
        """The client sent a message, valid or not."""
        if self._created:
            self._client_message(now, message)
        elif len(self._early) < MAX_EARLY:
            self._early.append(message)
        return self._outbox.take()

    def played_out(self, now: float, response_id: str) -> list[Command]:
        """The last of a reply's sound has gone out."""
        if self._playout.through(now, response_id):
            if self._playout.playing is not None:
                self._replies.sounds(now)
            else:
                self._wait_for_candidate(now)
        return self._outbox.take()

    def advance(self, now: float) -> list[Command]:
        """Do what has become due."""
        self._agenda.run(now)
        return self._outbox.take()

    def expire(self, *, silently: bool) -> list[Command]:
        """The session's time is over, told by an error or by nothing but the end."""
        if self._created and not silently:
            message = "Your session hit the maximum duration of 60 minutes."
            self._outbox.refuse(Fault("session_expired", message), None)
        self._outbox.command(HangUp("session expired"))
        return self._outbox.take()

    def fault(self, code: str, message: str) -> list[Command]:
        """Tell an error that no event of the client's caused."""
        if self._created:
            self._outbox.refuse(Fault(code, message), None)
        return self._outbox.take()

    # The beginning

    def _create(self, now: float, wall_clock: float) -> None:
        settings = self._settings
        self._created = True
        self._state.session["expires_at"] = int(wall_clock + settings.session_seconds)
        self._tell_session("session.created")
        if settings.planted_error is not None:
            self._outbox.refuse(Fault("server_error", settings.planted_error), None)
        if settings.malformed_events:
            self._send_raw(MALFORMED)
        if settings.binary_events:
            self._send_raw(BINARY)
        if settings.unknown_events:
            self._agenda.at(now + HINT_AFTER, self._hint)
        silently = settings.expiry == "silent"
        self._agenda.at(now + settings.session_seconds, lambda _: self._expire(silently))
        if self._heard_ms:
            self._greet_soon(now)
        early, self._early = self._early, []
        for message in early:
            self._client_message(now, message)

    def _tell_session(self, kind: str) -> None:
        told = self._state.session
        if self._settings.instructions_padding:
            padding = "x" * self._settings.instructions_padding
            told = told | {"instructions": told["instructions"] + padding}
        self._outbox.emit(kind, {"session": told})

    def _send_raw(self, messages: Sequence[str | bytes]) -> None:
        for message in messages:
            self._outbox.command(SendRaw(message))

    def _hint(self, _: float) -> None:
        self._outbox.emit("x_simulator.hint", {"hint": "ignore me"})

    def _expire(self, silently: bool) -> None:
        for command in self.expire(silently=silently):
            self._outbox.command(command)

    # The candidate's turns

    @property
    def _turn_detection(self) -> Json | None:
        detection: Json | None = self._state.session["audio"]["input"]["turn_detection"]
        return detection

    def _greet_soon(self, now: float) -> None:
        if self._settings.greet:
            self._agenda.at(now + self._settings.greet_after, self._greet)

    def _greet(self, now: float) -> None:
        if self._state.lines_said == 0 and self._turn is None and self._replies.active() is None:
            self._begin_reply(now, {})

    def _commit(self, now: float, item_id: str, length_ms: int, voiced_ms: int) -> None:
        self._committed_ms = self._heard_ms
        self._state.voiced_ms += voiced_ms
        item: Json = {"id": item_id, "type": "message", "status": "completed", "role": "user"}
        item["content"] = [{"type": "input_audio", "transcript": None}]
        previous = self._items.append(item)
        self._items.audio_ms[item_id] = length_ms
        fields = {"item_id": item_id, "previous_item_id": previous}
        self._outbox.emit("input_audio_buffer.committed", fields)
        self._outbox.item_events(item, previous)
        if self._state.session["audio"]["input"]["transcription"] is not None:
            self._transcriber.later(now, item, voiced_ms)

    def _wait_for_candidate(self, now: float) -> None:
        """Start the idle timeout, if the session has one."""
        detection = self._turn_detection
        timeout_ms = detection.get("idle_timeout_ms") if detection else None
        if timeout_ms is None:
            return
        self._idle_round += 1
        this_round = self._idle_round

        def give_up(due: float) -> None:
            if self._idle_round != this_round or self._replies.active() is not None:
                return
            item_id = self._make_id("item_")
            start_ms = self._committed_ms
            fields = {"audio_start_ms": start_ms, "audio_end_ms": self._heard_ms}
            self._outbox.emit("input_audio_buffer.timeout_triggered", fields | {"item_id": item_id})
            self._commit(due, item_id, self._heard_ms - start_ms, 0)
            self._begin_reply(due, {})

        self._agenda.at(now + timeout_ms / 1000, give_up)

    def _begin_reply(self, now: float, request: Json) -> None:
        self._idle_round += 1
        self._replies.begin(now, request)

    # Client events

    def _client_message(self, now: float, message: str | bytes) -> None:
        event_id = None
        try:
            event = decoded(message)
            if isinstance(event.get("event_id"), str):
                event_id = event["event_id"]
            check_fields(event)
            getattr(self, "_on_" + event["type"].replace(".", "_"))(now, event)
        except Unreadable as fault:
            if self._settings.strict_channel:
                self._outbox.command(HangUp("a message that is no JSON text"))
            else:
                self._outbox.refuse(fault, None)
        except Fault as fault:
            self._outbox.refuse(fault, event_id)

    def _on_session_update(self, now: float, event: Json) -> None:
        if "session" not in event:
            raise missing("session")
        before = self._turn_detection
        self._state.session = updated_session(
            self._state.session, event["session"], assistant_has_spoken=self._state.has_spoken
        )
        if self._turn_detection != before:
            self._turn = None
            self._outbox.command(Listen(self._turn_detection))
        self._tell_session("session.updated")

    def _on_response_create(self, now: float, event: Json) -> None:
        request = event.get("response") or {}
        check_response(request)
        active = self._replies.active()
        if active is not None and request.get("conversation") != "none":
            message = (
                "Conversation already has an active response in progress: "
                f"{active.response_id}. Wait until the response is finished before creating a "
                "new one."
            )
            raise Fault("conversation_already_has_active_response", message)
        self._begin_reply(now, request)

    def _on_response_cancel(self, now: float, event: Json) -> None:
        if not self._replies.cancel(now, event.get("response_id")):
            message = "Cancellation failed: no active response found"
            raise Fault("response_cancel_not_active", message)

    def _on_output_audio_buffer_clear(self, now: float, event: Json) -> None:
        self._outbox.emit_all(self._replies.silence(now))

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
        self._outbox.emit("input_audio_buffer.cleared", {})

    def _on_conversation_item_create(self, now: float, event: Json) -> None:
        self._item_requests.create(event)

    def _on_conversation_item_retrieve(self, now: float, event: Json) -> None:
        self._item_requests.retrieve(event)

    def _on_conversation_item_truncate(self, now: float, event: Json) -> None:
        self._item_requests.truncate(event)

    def _on_conversation_item_delete(self, now: float, event: Json) -> None:
        self._item_requests.delete(event)
