"""Since when something that should move has stood still, for a watcher who may be stopped too.

Time counts only as far as the watcher was awake to see it: after a suspended machine or a debugger
both have stood still, and the watched one gets its whole time again to show that it moves.
"""

from __future__ import annotations


class Stillness:
    """Judges looks at a counter that should change. Times are of a clock that never goes back."""

    def __init__(self, limit: float, step: float) -> None:
        """``limit`` seconds without a change are too long; looks should be ``step`` apart."""
        self._limit = limit
        self._step = step
        self._beat = -1
        self._looked_at: float | None = None
        self._still = 0.0

    def look(self, beat: int, now: float) -> bool:
        """Whether the counter has stood still for too long, by a look at ``now``."""
        before, self._looked_at = self._looked_at, now
        if beat != self._beat or before is None:
            self._beat, self._still = beat, 0.0
            return False
        gone = now - before
        if gone > 4 * self._step:
            # The watcher was held up itself: what was seen before says nothing of now.
            self._still = 0.0
            return False
        self._still += gone
        return self._still >= self._limit
