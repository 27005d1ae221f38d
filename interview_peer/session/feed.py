"""What one interview tells those who follow it live: numbered, and kept a while for who comes back.

A follower has a bounded queue. Who reads too slowly is dropped, which is counted, and can come back
with the number of what it read last: what was missed is sent again, or, if that is gone by then,
the conversation as it is now. Nothing here waits, and nothing is made into text before somebody
wants to read it.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import TooManyFollowers
from ..types import Json

KEPT: Final = 1_000
"""Events kept for those who come back: most are pieces of text, some 25 a second of speech."""

BEHIND: Final = 256
"""Events that may wait for one follower: ten seconds of fast talk."""

MAX_FOLLOWERS: Final = 16
"""Of one interview."""


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """One event. ``number`` counts from 1; a snapshot has that of the last event it covers."""

    number: int
    kind: str
    data: Json


class Follower:
    """One reader. Iterate with ``take``; ``close`` it when it is gone."""

    def __init__(self, feed: Feed, first: Sequence[FeedEvent], dropped: Callable[[], None]) -> None:
        self.is_dropped = False
        """Whether it read too slowly; nothing more comes."""
        self._feed = feed
        self._waiting = collections.deque(first)
        self._news = asyncio.Event()
        self._dropped = dropped

    def put(self, event: FeedEvent) -> None:
        """Queue an event; called by the feed."""
        if len(self._waiting) >= BEHIND:
            self._waiting.clear()
            self.is_dropped = True
            self._feed.counters["dropped"] += 1
            self.close()
            self._dropped()
        else:
            self._waiting.append(event)
        self._news.set()

    def wake(self) -> None:
        """Let a waiting reader see that the feed is over; called by the feed."""
        self._news.set()

    async def take(self, patience: float) -> FeedEvent | None:
        """The next event; None if there is none within ``patience`` seconds, or ever.

        `Feed.is_over` and `is_dropped` tell these apart.
        """
        if not self._waiting and not self.is_dropped and not self._feed.is_over:
            self._news.clear()
            # News may come in the same moment as the end of patience.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._news.wait()
        return self._waiting.popleft() if self._waiting else None

    def close(self) -> None:
        """Stop following."""
        self._feed.leave(self)


class Feed:
    """The events of one interview. All methods belong to the event loop."""

    def __init__(self) -> None:
        self.counters: collections.Counter[str] = collections.Counter()
        self.is_over = False
        """Whether the last event was told."""
        self._last = 0
        self._kept: collections.deque[FeedEvent] = collections.deque(maxlen=KEPT)
        self._followers: list[Follower] = []
        self._phase: Json = {"phase": "created", "reason": None}
        self._turns: list[Json] = []

    @property
    def last(self) -> int:
        """The number of the latest event."""
        return self._last

    def phase(self, phase: str, reason: str | None) -> None:
        """Tell where the interview stands."""
        self._phase = {"phase": phase, "reason": reason}
        self._tell("phase", self._phase)

    def turns(self, position: int, turns: Sequence[Json]) -> None:
        """Tell that from ``position`` on the conversation is ``turns`` now."""
        self._turns[position:] = turns
        self._tell("turns", {"position": position, "turns": [*turns]})

    def piece(self, item_id: str, speaker: str, text: str) -> None:
        """Tell a further piece of a turn's text that is not settled yet."""
        self._tell("text", {"item_id": item_id, "speaker": speaker, "delta": text})

    def end(self, reason: str | None) -> None:
        """Tell that the interview is over; the first call counts, and nothing follows it."""
        if self.is_over:
            return
        self._tell("end", {"reason": reason})
        self.is_over = True
        for follower in self._followers:
            follower.wake()

    def follow(self, after: int | None, dropped: Callable[[], None] = lambda: None) -> Follower:
        """Follow from now on, or from behind event ``after``.

        ``dropped`` is called once if the reader is too slow. Raises ``TooManyFollowers``.
        """
        if len(self._followers) >= MAX_FOLLOWERS:
            raise TooManyFollowers
        follower = Follower(self, self._since(after), dropped)
        self._followers.append(follower)
        self.counters["followers"] += 1
        return follower

    def leave(self, follower: Follower) -> None:
        """Forget a follower; again is harmless."""
        if follower in self._followers:
            self._followers.remove(follower)

    def _since(self, after: int | None) -> list[FeedEvent]:
        if after is not None and after <= self._last:
            missed = [event for event in self._kept if event.number > after]
            if len(missed) == self._last - after and len(missed) < BEHIND:
                return missed
            self.counters["snapshots"] += 1
        snapshot: Json = {**self._phase, "turns": [*self._turns]}
        told = [FeedEvent(self._last, "snapshot", snapshot)]
        # The end is told to everybody, however late.
        return [*told, self._kept[-1]] if self.is_over and self._kept else told

    def _tell(self, kind: str, data: Json) -> None:
        if self.is_over:
            return
        self._last += 1
        event = FeedEvent(self._last, kind, data)
        self._kept.append(event)
        for follower in tuple(self._followers):
            follower.put(event)
