"""Keeps every event of an interview, one JSON object a line, in the order it passed.

``record`` is called on the event loop and only appends to a bounded list; ``take`` turns what
waits into lines, in the storage thread. An event must not be changed after it was recorded.
"""

from __future__ import annotations

import json
from collections import deque
from datetime import UTC, datetime, timedelta

from interview_peer.types import Direction, Json, SessionId

SCHEMA = 1
"""Version of the lines' shape, told in the first one."""

WAITING_EVENTS = 2_000
"""Events kept while the disk does not answer: a minute and more of fast talk (some 25 events a
second), about a megabyte. What comes beyond is dropped and counted."""

WAITING_CHARACTERS = 32 * 1024 * 1024
"""The same by length, for the few events that are large; counted for those given as text."""


class Journal:
    """The lines of one interview. The first one names the session and the schema.

    ``started_at`` is the recording's start in monotonic seconds, ``wall_started_at`` the same
    moment as an aware date. ``consent`` is the agreement to be recorded, told in the first line.
    """

    def __init__(
        self,
        session_id: SessionId,
        started_at: float,
        wall_started_at: datetime,
        consent: Json | None = None,
    ) -> None:
        self._started_at = started_at
        self._wall_started_at = wall_started_at.astimezone(UTC)
        self._waiting: deque[tuple[Direction | None, float, Json | str]] = deque()
        # Two sums, each with one writer: one goes up on the event loop, one in the thread.
        self._put_characters = 0
        self._taken_characters = 0
        self.events = 0
        """Events written, our own included."""
        self.dropped = 0
        """Events lost because too many waited, or because they cannot be written as JSON."""
        first: Json = {"type": "interview.started", "session_id": session_id, "schema": SCHEMA}
        if consent is not None:
            first["consent"] = consent
        self.record(None, started_at, first)

    def record(self, direction: Direction | None, at: float, event: Json | str) -> None:
        """Queue one event. ``at`` is monotonic seconds, ``direction`` None for our own events.

        A ``str`` is taken as JSON text that has been parsed without error, and is kept as it is.
        """
        size = len(event) if isinstance(event, str) else 0
        waiting = self._put_characters - self._taken_characters
        if len(self._waiting) >= WAITING_EVENTS or waiting + size > WAITING_CHARACTERS:
            self.dropped += 1
        else:
            self._put_characters += size
            self._waiting.append((direction, at, event))

    def take(self) -> bytes:
        """Return the lines of all events that wait, to be appended to the file."""
        lines: list[bytes] = []
        # Only as many as wait now: the event loop goes on appending.
        for _ in range(len(self._waiting)):
            direction, at, event = self._waiting.popleft()
            if isinstance(event, str):
                self._taken_characters += len(event)
            try:
                lines.append(self._line(direction, at, event))
            except (TypeError, ValueError, RecursionError):
                self.dropped += 1
        self.events += len(lines)
        return b"".join(lines)

    def forget(self) -> None:
        """Drop what waits, and count it."""
        self.dropped += len(self._waiting)
        self._waiting.clear()
        self._taken_characters = self._put_characters

    def _line(self, direction: Direction | None, at: float, event: Json | str) -> bytes:
        elapsed = at - self._started_at
        wall = self._wall_started_at + timedelta(seconds=elapsed)
        stamp = wall.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        way = "null" if direction is None else f'"{direction.value}"'
        head = f'{{"t": {elapsed:.3f}, "at": "{stamp}", "direction": {way}, "event": '
        return head.encode() + _one_line(event) + b"}\n"


def _one_line(event: Json | str) -> bytes:
    if isinstance(event, str):
        # Line breaks in JSON text can only stand between tokens.
        text = event.replace("\r", " ").replace("\n", " ")
    else:
        text = json.dumps(event, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair is legal in JSON, as an escape only.
        return json.dumps(json.loads(text), separators=(",", ":")).encode()
