"""How many connections there are at once: WebSockets of one interview, of all, and of one address.

An invitation is for one candidate, who has a page or two; whoever opens more of them takes no
place from others, but from themselves.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, Protocol

from ..errors import AtCapacity

SOCKETS_PER_INTERVIEW: Final = 4
KEPT_SHARE: Final = 20
"""One place in so many is not for WebSockets, so that health and operators are heard."""


class Replaceable(Protocol):
    """A connection that may have to make room."""

    def replace(self) -> None:
        """Be told so, and end."""


class Sockets:
    """The open WebSockets of a server that has room for ``connections`` of every kind."""

    def __init__(self, connections: int) -> None:
        self.kept = max(1, connections // KEPT_SHARE)
        self._most = connections - self.kept
        self._open = 0
        self._of: dict[str, list[Replaceable]] = {}

    def open(self) -> None:
        """Let one be opened, until it is ``closed``. Raises ``AtCapacity``."""
        if self._open >= self._most:
            raise AtCapacity
        self._open += 1

    def closed(self) -> None:
        """One of them is closed."""
        self._open -= 1

    def enter(self, interview_id: str, who: Replaceable) -> None:
        """It speaks for an interview now; the oldest of more than a few has to go."""
        inside = self._of.setdefault(interview_id, [])
        inside.append(who)
        if len(inside) > SOCKETS_PER_INTERVIEW:
            inside.pop(0).replace()

    def leave(self, interview_id: str, who: Replaceable) -> None:
        """It no longer does. Idempotent."""
        inside = self._of.get(interview_id, [])
        if who in inside:
            inside.remove(who)
        if not inside:
            self._of.pop(interview_id, None)


class Addresses:
    """How many connections each address has open; ``most`` 0 counts none."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._of: Counter[str] = Counter()

    def enter(self, caller: str) -> bool:
        """Whether there is room for one more of this caller's, which is to ``leave`` then."""
        if self._most and self._of[caller] >= self._most:
            return False
        self._of[caller] += 1
        return True

    def leave(self, caller: str) -> None:
        """One that entered is gone."""
        self._of[caller] -= 1
        if not self._of[caller]:
            del self._of[caller]
