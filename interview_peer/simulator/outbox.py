"""Collects what a conversation wants done, and gives events their form. Plain code."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence

from ..types import Json
from .checks import Fault
from .commands import Command, Send
from .reply import Event


class Outbox:
    """Commands since the last ``take``. ``make_id`` turns a prefix into a fresh id."""

    def __init__(self, rng: random.Random, make_id: Callable[[str], str]) -> None:
        self.make_id = make_id
        self._rng = rng
        self._commands: list[Command] = []

    def take(self) -> list[Command]:
        """What has gathered; the box is empty afterwards."""
        commands, self._commands = self._commands, []
        return commands

    def command(self, command: Command) -> None:
        """Put in something else than an event."""
        self._commands.append(command)

    def emit(self, kind: str, fields: Json) -> None:
        """An event of this type; ``event_id`` is added where the fields have none."""
        # Copied by way of JSON's own types: later changes of an item must not reach back.
        event = {"type": kind, "event_id": self.make_id("event_")} | fields
        self._commands.append(Send(json.loads(json.dumps(event))))

    def emit_all(self, events: Sequence[Event]) -> None:
        """Several events in their order."""
        for kind, fields in events:
            self.emit(kind, fields)

    def item_events(self, item: Json, previous: str | None) -> None:
        """The two events of an item that is whole from the start."""
        for kind in ("conversation.item.added", "conversation.item.done"):
            self.emit(kind, {"item": item, "previous_item_id": previous})

    def gateway_event(self, kind: str, response_id: str) -> Event:
        """An event of the media gateway, which shapes its ids unlike the rest of the service."""
        event_id = f"event_{self._rng.getrandbits(64):016x}"
        return kind, {"response_id": response_id, "event_id": event_id}

    def refuse(self, fault: Fault, event_id: str | None) -> None:
        """An ``error`` event; ``event_id`` is the one of the client's event."""
        error = {
            "type": "invalid_request_error",
            "code": fault.code,
            "message": fault.message,
            "param": fault.param,
            "event_id": event_id,
        }
        self.emit("error", {"error": error})

    def rate_limits(self) -> None:
        """Both limits, or that of tokens alone."""
        limits = [{"name": "tokens", "limit": 40000, "remaining": 39500, "reset_seconds": 0.75}]
        if self._rng.random() < 0.5:
            requests = {"name": "requests", "limit": 200, "remaining": 199, "reset_seconds": 0.3}
            limits.insert(0, requests)
        self.emit("rate_limits.updated", {"rate_limits": limits})

    def padding(self) -> str:
        """What a delta carries as ``obfuscation``."""
        return "x" * self._rng.randint(1, 16)
