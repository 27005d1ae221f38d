"""Connections that are open and have not shown the token that they need: how many may wait.

A bound for all of them together, and one for each address, so that nobody takes every place.
"""

from __future__ import annotations

import logging
from collections import Counter

from ..core.allowance import caller_of
from ..errors import AtCapacity, TooManyConnections
from ..types import Json

log = logging.getLogger(__name__)


class WaitingRoom:
    """Who waits; ``per_address`` of one address at once, ``most`` of all of them together."""

    def __init__(self, per_address: int, most: int) -> None:
        self._per_address = per_address
        self._most = most
        self._inside: dict[object, str] = {}
        self._of: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        """Connections that found no place, by the code they were told."""

    def __len__(self) -> int:
        return len(self._inside)

    def enter(self, who: object, address: str | None) -> None:
        """Let a connection wait, until it leaves.

        Raises:
            TooManyConnections: enough of its address wait.
            AtCapacity: enough wait.
        """
        caller = caller_of(address)
        error: AtCapacity | TooManyConnections | None = None
        if self._of[caller] >= self._per_address:
            error = TooManyConnections()
        elif len(self._inside) >= self._most:
            error = AtCapacity()
        if error is not None:
            if not self._of[caller]:
                del self._of[caller]
            self.refused[error.code] += 1
            log.debug("a connection without a token was refused", extra={"code": error.code})
            raise error
        self._inside[who] = caller
        self._of[caller] += 1

    def leave(self, who: object) -> None:
        """It showed its token, or is closed. Idempotent."""
        caller = self._inside.pop(who, None)
        if caller is not None:
            self._of[caller] -= 1
            if not self._of[caller]:
                del self._of[caller]

    def statistics(self) -> Json:
        """Figures for operators."""
        return {"now": len(self._inside), "refused": self.refused.total()}
