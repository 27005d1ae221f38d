"""What is new in a conversation since it was last looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..types import ItemId, Speaker
from .turns import Turn, TurnStatus


@dataclass(frozen=True, slots=True)
class TurnNews:
    """The turns from ``position`` on, as they are now, and which of all turns were just settled."""

    position: int
    turns: tuple[Turn, ...]
    settled: tuple[tuple[int, Turn], ...]
    """Places and turns that will be told as said: each item once."""


@dataclass(slots=True)
class TurnWatch:
    """Remembers one conversation, to say only what changed."""

    _known: list[Turn] = field(default_factory=list)
    _told: set[ItemId] = field(default_factory=set)

    def look(self, turns: Sequence[Turn], *, over: bool = False) -> TurnNews | None:
        """What changed; None if nothing did. ``over`` settles what will not change any more."""
        same = 0
        for before, now in zip(self._known, turns, strict=False):
            if before != now:
                break
            same += 1
        settled = tuple(
            (place, turn)
            for place, turn in enumerate(turns)
            if turn.item_id not in self._told and _is_settled(turn, over)
        )
        changed = same < max(len(self._known), len(turns))
        if not changed and not settled:
            return None
        self._known = list(turns)
        self._told.update(turn.item_id for _, turn in settled)
        return TurnNews(same, tuple(turns[same:]), settled)


def _is_settled(turn: Turn, over: bool) -> bool:
    if turn.status is TurnStatus.PARTIAL:
        return False
    # A reply's text is complete before it has been spoken, and may yet be interrupted.
    return over or turn.speaker is Speaker.CANDIDATE or turn.ended_at is not None
