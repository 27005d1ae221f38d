"""How far a run is, and about when it will be over: told from what has taken how long so far."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

TRUSTED_SHARE: Final = 0.05
"""From this share of the work on, its pace so far is believed more than the plan."""


class Progress:
    """Planned seconds of work, and how many of them are done.

    Args:
        planned: seconds that all of it should take on a quiet machine.
        clock: monotonic seconds.
    """

    def __init__(self, planned: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.planned = planned
        self._clock = clock
        self._began = clock()
        self._done = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._began

    def done(self, planned: float) -> None:
        """A piece of work is over that was planned to take so many seconds."""
        self._done = min(self.planned, self._done + planned)

    @property
    def left(self) -> float:
        """Seconds that the rest will take, at the pace so far."""
        rest = self.planned - self._done
        if self._done < TRUSTED_SHARE * self.planned or not self._done:
            return rest
        return rest * self.elapsed / self._done

    def line(self, text: str) -> str:
        """One line for whoever waits."""
        left = self.left
        about = f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"
        return f"[{self.elapsed:5.0f} s, about {about} left] {text}\n"
