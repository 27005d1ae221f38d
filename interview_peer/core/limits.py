"""How long an interview may last and how much it may use: when it is warned, and when it ends.

Nearing an end is told once, to the model and to the page; then the interviewer says goodbye; then,
at the latest, it is over. Plain code: time and counts are arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ..types import Json
from .lifecycle import Reason

WARNING_SECONDS: Final = 120.0
"""How long before the end of its time an interview is warned; a fifth of short ones."""

GOODBYE_SECONDS: Final = 20.0
"""How much of its time is for the goodbye; a tenth of short ones."""

MODEL_MARGIN_SECONDS: Final = 5.0
"""How much earlier than the voice service's own end an interview ends; a tenth of short ones."""

WARNING_SHARE: Final = 0.9
"""Of the tokens that are allowed: what has been used when the interview is warned."""

_BRIEF: Final = (
    "Thank the candidate and say goodbye now, in one or two short sentences. Ask nothing more."
)

GOODBYES: Final[Mapping[Reason, str]] = MappingProxyType(
    {
        Reason.TIME_LIMIT: f"The time of this interview is over. {_BRIEF}",
        Reason.MODEL_EXPIRED: f"The time of this interview is over. {_BRIEF}",
        Reason.USAGE_LIMIT: f"This interview has reached its full length. {_BRIEF}",
    }
)
"""What the model is told when it is to say goodbye, by why it is."""


@dataclass(frozen=True, slots=True)
class Warned:
    """The end is near."""

    reason: Reason
    seconds: int | None
    """What is left; None where it is not time that runs out."""

    @property
    def instruction(self) -> str:
        """What the model is told."""
        left = "Little" if self.seconds is None else _spoken(self.seconds)
        return (
            f"{left} of this interview remains. Bring it to its end from now on: finish what is "
            "being talked about, and begin nothing that needs a long answer."
        )


@dataclass(frozen=True, slots=True)
class Parting:
    """Goodbye is to be said, within so many seconds."""

    reason: Reason
    seconds: float


@dataclass(frozen=True, slots=True)
class Over:
    """It ends now."""

    reason: Reason


Step = Warned | Parting | Over


class Limits:
    """The limits of one interview; remembers what was told. Each step comes once, in this order."""

    def __init__(self) -> None:
        self._warned: set[Reason] = set()
        self._parting = False

    def look(
        self,
        lasted: float,
        *,
        longest: float | None,
        model_left: float | None,
        used: int,
        most: int | None,
    ) -> Step | None:
        """What is to be done now, if anything.

        Args:
            lasted: seconds since the interview began.
            longest: how many of them it may last; None for no limit.
            model_left: seconds until the voice service ends its session; None if not known.
            used: tokens so far, by the service's count.
            most: how many there may be; None for no limit.
        """
        ends: list[tuple[float, Reason]] = []
        if longest is not None:
            ends.append((longest, Reason.TIME_LIMIT))
        if model_left is not None:
            whole = lasted + model_left
            end = whole - min(MODEL_MARGIN_SECONDS, whole / 10)
            ends.append((end, Reason.MODEL_EXPIRED))
        step = self._by_time(lasted, *min(ends)) if ends else None
        # One at a time: what the tokens ask for is still so when this is asked again.
        return step or self._by_tokens(used, most)

    def _by_time(self, lasted: float, end: float, reason: Reason) -> Step | None:
        left = end - lasted
        if left <= 0:
            return Over(reason)
        if left <= min(GOODBYE_SECONDS, end / 10):
            return self._part(Parting(reason, left))
        if left <= min(WARNING_SECONDS, end / 5):
            return self._warn(Warned(reason, round(left)))
        return None

    def _by_tokens(self, used: int, most: int | None) -> Step | None:
        if most is None or used < most * WARNING_SHARE:
            return None
        if used >= most:
            return self._part(Parting(Reason.USAGE_LIMIT, GOODBYE_SECONDS))
        return self._warn(Warned(Reason.USAGE_LIMIT, None))

    def _warn(self, step: Warned) -> Step | None:
        if self._parting or step.reason in self._warned:
            return None
        self._warned.add(step.reason)
        return step

    def _part(self, step: Parting) -> Step | None:
        if self._parting:
            return None
        self._parting = True
        return step


def tokens_of(usage: Json) -> int:
    """All tokens in what the service counted, in and out."""
    total = usage.get("total_tokens")
    return total if isinstance(total, int) and not isinstance(total, bool) else 0


def _spoken(seconds: int) -> str:
    """A length as it is told to the model."""
    if seconds < 90:
        return f"About {seconds} seconds"
    return f"About {round(seconds / 60)} minutes"
