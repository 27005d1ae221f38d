"""What a conversation will do later: steps by the time they are due. Plain code, no clock."""

from __future__ import annotations

import heapq
from collections.abc import Callable

Step = Callable[[float], None]
"""Takes the time it was due at."""


class Agenda:
    """Steps in the order of their times; those of one time in the order they were put down."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Step]] = []
        self._count = 0

    def next_due(self) -> float | None:
        """When the first step is due; None if there is none."""
        return self._due[0][0] if self._due else None

    def at(self, due: float, step: Step) -> None:
        """Put a step down."""
        self._count += 1
        heapq.heappush(self._due, (due, self._count, step))

    def run(self, now: float) -> None:
        """Take every step that is due by now, those included that are put down meanwhile."""
        while self._due and self._due[0][0] <= now:
            due, _, step = heapq.heappop(self._due)
            step(due)
