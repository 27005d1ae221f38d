"""How long an interview is held for a browser that is gone, and the leg by which it comes back.

While a browser is coming back, the hold does not run out; returns that fail do not prolong it. Not
responsible for what comes of either (``session.interview``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..media.leg import Leg
from .deadline import Deadline


class Hold:
    """Of one interview. A browser may come back before its loss was noticed: without a hold."""

    def __init__(
        self,
        seconds: float,
        connect_seconds: float,
        run_out: Callable[[], None],
        late: Callable[[Leg], None],
    ) -> None:
        """Begin with a browser that is there.

        Args:
            seconds: how long a browser is waited for.
            connect_seconds: how long one that is coming back may take to connect.
            run_out: is called when nobody came.
            late: is given the leg of one that did not connect in time; not ``coming`` any more.
        """
        self.coming: Leg | None = None
        """The leg by which a browser is coming back."""
        self._seconds = seconds
        self._connect_seconds = connect_seconds
        self._run_out = run_out
        self._late = late
        self._until: float | None = None
        """When (the loop's clock) the hold runs out; None while the browser is there."""
        self._end = Deadline()
        self._connected_by = Deadline()

    def begin(self) -> None:
        """The browser is gone: its time runs from now on."""
        self._until = asyncio.get_running_loop().time() + self._seconds
        if self.coming is None:
            self._wait()

    def expect(self, leg: Leg) -> None:
        """A browser is coming back by this leg."""
        self.coming = leg
        self._end.cancel()
        self._connected_by.set_in(self._connect_seconds, self._is_late)

    def missed(self) -> None:
        """Nobody came by the leg that was expected: hold for what is left of the time."""
        self.coming = None
        self._connected_by.cancel()
        self._wait()

    def arrived(self) -> None:
        """A browser is there again, by the leg that was expected."""
        self.coming = None
        self.stop()

    def stop(self) -> None:
        """Wait for nobody any more: the interview is ending. Again is harmless."""
        self._until = None
        self._end.cancel()
        self._connected_by.cancel()

    def _wait(self) -> None:
        if self._until is None:
            return
        if self._until > asyncio.get_running_loop().time():
            self._end.set(self._until, self._run_out)
        else:
            self._end.cancel()
            self._run_out()

    def _is_late(self) -> None:
        leg, self.coming = self.coming, None
        if leg is not None:
            self._late(leg)
        self._wait()
