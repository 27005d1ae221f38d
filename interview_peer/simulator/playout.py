"""Which reply sounds, which waits to, and what is told when sound is cut off. Plain code."""

from __future__ import annotations

from collections import deque

from ..types import Json
from .commands import Limit, Play, Stop
from .items import ItemList
from .outbox import Outbox
from .reply import Event, Reply

FORGOTTEN: Json = {"type": "output_audio"}
"""What is left of a reply that was cut off: the service forgets all of its words."""


class Playout:
    """One reply at a time, the others after it in their order."""

    def __init__(self, items: ItemList, outbox: Outbox) -> None:
        self._items = items
        self._outbox = outbox
        self.playing: Reply | None = None
        self._waiting: deque[Reply] = deque()

    def add(self, now: float, reply: Reply) -> None:
        """Let a reply sound, now or when those before it are through."""
        if self.playing is None:
            self._play(now, reply)
        else:
            self._waiting.append(reply)

    def through(self, now: float, response_id: str) -> bool:
        """The last of a reply's sound has gone out; false if that one is not playing."""
        playing = self.playing
        if playing is None or playing.response_id != response_id:
            return False
        self.playing = None
        self._outbox.emit(*self._outbox.gateway_event("output_audio_buffer.stopped", response_id))
        if self._waiting:
            self._play(now, self._waiting.popleft())
        return True

    def limit(self, reply: Reply) -> None:
        """A reply ended early: it sounds to the end of what was generated."""
        if self.playing is reply:
            self._outbox.command(Limit(reply.generated_ms))

    def silence(self, now: float) -> list[Event]:
        """Stop all sound; returns what is to be said about it, nothing if there was none."""
        events: list[Event] = []
        playing, self.playing = self.playing, None
        cut_off = list(self._waiting)
        self._waiting.clear()
        if playing is not None:
            self._outbox.command(Stop())
            cleared = self._outbox.gateway_event("output_audio_buffer.cleared", playing.response_id)
            events.append(cleared)
            cut_off.insert(0, playing)
        for reply in cut_off:
            if not reply.outside and self._items.get(reply.item_id) is not None:
                heard_ms = min(reply.played_ms(now), reply.generated_ms)
                events.append(self.truncated(reply.item_id, heard_ms))
        return events

    def truncated(self, item_id: str, heard_ms: int) -> Event:
        """Cut an item's sound to what was heard of it."""
        item = self._items.get(item_id)
        if item is not None:
            item["content"] = [dict(FORGOTTEN)]
        self._items.audio_ms[item_id] = heard_ms
        fields = {"item_id": item_id, "content_index": 0, "audio_end_ms": heard_ms}
        return "conversation.item.truncated", fields

    def _play(self, now: float, reply: Reply) -> None:
        reply.started_at = now
        self.playing = reply
        self._outbox.command(Play(reply.response_id, reply.line))
        if not reply.generating and reply.status != "completed":
            self._outbox.command(Limit(reply.generated_ms))
        started = self._outbox.gateway_event("output_audio_buffer.started", reply.response_id)
        self._outbox.emit(*started)
