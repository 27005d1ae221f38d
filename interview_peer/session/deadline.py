"""A moment by which something must have happened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Deadline:
    """One moment at a time; what is to be done then is not done if it is cancelled before.

    Moments are those of the running event loop's clock, in seconds.
    """

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_set(self) -> bool:
        """Whether a moment is waited for."""
        return self._timer is not None

    def set(self, at: float, passed: Callable[[], None]) -> None:
        """Call ``passed`` at that moment, in place of whatever was set before."""
        self.cancel()

        def due() -> None:
            self._timer = None
            passed()

        self._timer = asyncio.get_running_loop().call_at(at, due)

    def set_in(self, seconds: float, passed: Callable[[], None]) -> None:
        """The same so many seconds from now."""
        self.set(asyncio.get_running_loop().time() + seconds, passed)

    def cancel(self) -> None:
        """Wait no longer; again is harmless."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
