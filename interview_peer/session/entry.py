"""By what candidates come into one interview: the claim of this process, and join tokens.

A token serves once: it is used up when somebody who showed it is connected, for until then the
answer may have been lost. Which tokens are good at all is decided before (``web``).
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import TokenUsed
from ..state import happenings
from ..types import SessionId


class Entry:
    """Of one interview. What is used up or given back is told to the chronicle."""

    def __init__(self, session_id: SessionId, tell: Callable[[happenings.Happening], None]) -> None:
        """``tell`` is the chronicle's."""
        self.claim: str | None = None
        """By which taking the database has it that this process holds it; only invited ones."""
        self._id = session_id
        self._tell = tell
        self._shown: set[str] = set()
        self._used: set[str] = set()

    def has_used(self, token: str) -> bool:
        """Whether somebody came in by this token (its ``jti``)."""
        return token in self._used

    def check(self, token: str | None) -> None:
        """Raise ``TokenUsed`` if somebody came in by this token; None is none."""
        if token in self._used:
            raise TokenUsed

    def show(self, token: str | None) -> None:
        """Somebody is coming in by this token."""
        if token is not None:
            self._shown.add(token)

    def use(self) -> None:
        """Somebody is connected, and so has the answer and what brings them back."""
        for token in sorted(self._shown):
            self._used.add(token)
            self._tell(happenings.Entered(interview_id=self._id, token=token))
        self._shown.clear()

    def give_back(self) -> None:
        """Let the first offer be made again, on another node too; harmless to repeat."""
        claim, self.claim = self.claim, None
        if claim is not None:
            self._tell(happenings.Released(interview_id=self._id, claim=claim))
