"""Carries a wish to end to the server that is to be emptied; loads nothing of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .drain import Drain


class StopRequest:
    """From whoever hears a signal to the server, once that is there."""

    def __init__(self) -> None:
        self._drain: Drain | None = None

    def serves(self, drain: Drain) -> None:
        """From now on there is something to empty."""
        self._drain = drain

    def gently(self) -> bool:
        """Have the server emptied and ended; false where it is not there yet."""
        if self._drain is None:
            return False
        self._drain.signalled()
        return True
