"""The replies of a conversation: when each begins, what it says, how it ends. Plain code."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..types import Json
from .agenda import Agenda
from .commands import Drop
from .items import ItemList
from .library import Line, Script
from .outbox import Outbox
from .playout import FORGOTTEN, Playout
from .reply import Event, Kind, Output, Reply
from .settings import SimulatorSettings

FIRST_PIECE_AFTER = 0.12
PIECES_BEFORE_SOUND = 3
RATE_LIMITS_AFTER = 0.04


@dataclass(slots=True)
class State:
    """What all parts of a conversation look at. ``session`` is the effective one."""

    session: Json
    conversation_id: str
    voiced_ms: int = 0
    lines_said: int = 0
    has_spoken: bool = False


class Replies:
    """Generates replies beside each other; one at most is part of the conversation."""

    def __init__(
        self,
        settings: SimulatorSettings,
        script: Script,
        rng: random.Random,
        state: State,
        items: ItemList,
        outbox: Outbox,
        agenda: Agenda,
        playout: Playout,
        silent: Callable[[float], None],
    ) -> None:
        """``silent`` is called when a reply without sound is finished."""
        self._settings = settings
        self._script = script
        self._rng = rng
        self._state = state
        self._items = items
        self._outbox = outbox
        self._agenda = agenda
        self._playout = playout
        self._silent = silent
        self._replies: dict[str, Reply] = {}
        self._has_called = False

    def begin(self, now: float, request: Json) -> None:
        """Answer: by the session's settings, or by those of a ``response.create``."""
        state = self._state
        response_id = self._outbox.make_id("resp_")
        outside = request.get("conversation") == "none"
        line = self._script.line(state.lines_said)
        texts = self._texts(request, line)
        if texts[0][0] != "call":
            state.lines_said += 1
        outputs = [
            Output(
                response_id=response_id,
                item_id=self._outbox.make_id("item_"),
                kind=kind,
                text=text,
                index=index,
                outside=outside,
                call_id=self._outbox.make_id("call_") if kind == "call" else "",
                tool=tool,
            )
            for index, (kind, tool, text) in enumerate(texts)
        ]
        sound = dict(state.session["audio"]["output"])
        sound |= request.get("audio", {}).get("output", {})
        sound.pop("speed", None)
        if isinstance(sound["voice"], dict):
            # A voice of one's own is an object in sessions and a string in responses.
            sound["voice"] = sound["voice"]["id"]
        reply = Reply(
            response_id=response_id,
            conversation_id=state.conversation_id,
            line=line,
            outputs=outputs,
            number=state.lines_said,
            outside=outside,
            settings={
                "output_modalities": self._setting("output_modalities", request),
                "max_output_tokens": self._setting("max_output_tokens", request),
                "output": sound,
                "metadata": request.get("metadata"),
            },
        )
        self._may_end_early(reply)
        self._replies[response_id] = reply
        self._outbox.emit("response.created", {"response": reply.response(state.voiced_ms)})
        self._agenda.at(now + FIRST_PIECE_AFTER, lambda due: self._open(due, reply))

    def _texts(self, request: Json, line: Line) -> list[tuple[Kind, str, str]]:
        """What the reply is made of: kind, name of the function, text."""
        settings = self._settings
        choice = self._setting("tool_choice", request)
        names = [tool["name"] for tool in self._setting("tools", request) if "name" in tool]
        asked = ""
        if isinstance(choice, dict):
            asked = str(choice.get("name") or "")
        elif choice == "required" and names:
            asked = names[0]
        if asked:
            arguments = settings.tool_arguments if asked == settings.tool else "{}"
            return [("call", asked, arguments)]
        is_spoken = self._setting("output_modalities", request) == ["audio"]
        said: tuple[Kind, str, str] = ("audio" if is_spoken else "text", "", line.text)
        if choice != "auto" or settings.tool not in names or not self._is_time_to_call():
            return [said]
        self._has_called = True
        call: tuple[Kind, str, str] = ("call", settings.tool, settings.tool_arguments)
        return [said, call] if self._calls_while_speaking() else [call]

    def _is_time_to_call(self) -> bool:
        due = self._state.lines_said + self._calls_while_speaking()
        return not self._has_called and due >= self._call_after

    def _calls_while_speaking(self) -> bool:
        return self._settings.tool_speaks and self._state.lines_said < self._call_after

    @property
    def _call_after(self) -> int:
        after = self._settings.tool_after
        return len(self._script.lines) if after is None else after

    def _setting(self, name: str, request: Json) -> Any:
        return request.get(name, self._state.session[name])

    def _may_end_early(self, reply: Reply) -> None:
        settings = self._settings
        # No draw where nothing can come of it: a seed then means the same with other settings.
        if not settings.reply_failure_share and not settings.reply_incomplete_share:
            return
        draw = self._rng.random()
        if draw < settings.reply_failure_share:
            message = "The simulator was told to fail here."
            code = settings.reply_failure_code
            reply.error = {"type": "server_error", "code": code, "message": message}
        elif draw < settings.reply_failure_share + settings.reply_incomplete_share:
            reply.ends_as = "incomplete"
        else:
            return
        reply.ends_after = self._rng.randint(1, len(reply.outputs[0].pieces))

    def _open(self, now: float, reply: Reply) -> None:
        """Begin the reply's next item."""
        if not reply.generating:
            return
        output = reply.current
        output.opened = True
        item = output.item()
        previous = None if reply.outside else self._items.append(item)
        self._outbox.emit_all(output.opening(item, previous))
        seconds = reply.line.duration_ms / 1000 if output.kind == "audio" else 1.0
        pace = seconds / self._settings.generation_speed / len(output.pieces)
        self._agenda.at(now + pace, lambda due: self._generate(due, reply, pace))

    def _generate(self, now: float, reply: Reply, pace: float) -> None:
        if not reply.generating:
            return
        output = reply.current
        name, fields = output.delta()
        self._outbox.emit(name, fields | {"obfuscation": self._outbox.padding()})
        enough = min(PIECES_BEFORE_SOUND, len(output.pieces))
        if output.kind == "audio" and output.sent == enough and not reply.silenced:
            self._state.has_spoken = True
            self._playout.add(now, reply)
            self.sounds(now)
        if output.index == 0 and output.sent == reply.ends_after:
            reason = "max_output_tokens" if reply.ends_as == "incomplete" else None
            self._finish(now, reply, reply.ends_as, reason)
            self._playout.limit(reply)
        elif output.sent < len(output.pieces):
            self._agenda.at(now + pace, lambda due: self._generate(due, reply, pace))
        elif output is not reply.outputs[-1]:
            self._outbox.emit_all(self._close(reply, "completed"))
            self._agenda.at(now + pace, lambda due: self._open(due, reply))
        else:
            self._finish(now, reply, "completed", None)

    def _close(self, reply: Reply, status: str) -> list[Event]:
        """End the item that is being generated; the events that tell it."""
        output = reply.current
        output.status = status
        previous = None
        if output.opened and not reply.outside:
            item = output.item()
            if output.kind == "audio" and reply.silenced:
                item["content"] = [dict(FORGOTTEN)]
            elif output.kind == "audio":
                self._items.audio_ms[output.item_id] = reply.generated_ms
            previous = self._items.replace(item)
        return output.closing(previous)

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
        events = self._close(reply, "completed" if status == "completed" else "incomplete")
        events.append(("response.done", {"response": reply.response(self._state.voiced_ms)}))
        if between:
            position = self._place_among(len(events))
            events[position:position] = between
        self._outbox.emit_all(events)
        del self._replies[reply.response_id]
        if self._rng.random() < self._settings.rate_limits_share:
            self._agenda.at(now + RATE_LIMITS_AFTER, lambda _: self._outbox.rate_limits())
        if reply.kind != "audio":
            self._silent(now)

    def _place_among(self, count: int) -> int:
        """Where the events about the sound stand to a cancelled reply's closing events."""
        match self._settings.barge_in:
            case "before":
                return 0
            case "after":
                return count
            case "between" if count > 1:
                return self._rng.randint(1, count - 1)
        return self._rng.randint(0, count)

    def active(self) -> Reply | None:
        """The reply that is being generated in the conversation."""
        return next((reply for reply in self._replies.values() if not reply.outside), None)

    def sounds(self, now: float) -> None:
        """A reply may have begun to sound: lose the network in its middle, if it is the one."""
        reply = self._playout.playing
        if reply is None or reply.number != self._settings.drop_in_reply:
            return

        def drop(_: float) -> None:
            if self._playout.playing is reply:
                self._outbox.command(Drop())

        self._agenda.at(now + reply.line.duration_ms / 2000, drop)

    def silence(self, now: float) -> list[Event]:
        """Stop all sound; returns what is to be said about it."""
        for reply in self._replies.values():
            reply.silenced = True
        return self._playout.silence(now)

    def cancel(self, now: float, response_id: object) -> bool:
        """End a reply for the client, the conversation's if None; false if there is none."""
        reply = self.active() if response_id is None else self._replies.get(str(response_id))
        if reply is None:
            return False
        self._finish(now, reply, "cancelled", "client_cancelled")
        self._playout.limit(reply)
        return True

    def interrupt(self, now: float) -> None:
        """The candidate speaks: stop all sound and cancel the reply that is being generated."""
        about_sound = self.silence(now)
        reply = self.active()
        if reply is None:
            self._outbox.emit_all(about_sound)
        else:
            self._finish(now, reply, "cancelled", "turn_detected", about_sound)
