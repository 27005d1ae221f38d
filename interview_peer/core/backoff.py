"""When a notice is tried again, what an answer means, and how long later notices wait.

Plain rules: the moment, the answer and the chance come in as values. Seconds throughout.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

DELAYS: Final = (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
"""Pauses after the first, second, … failed attempt: about 75 hours in all."""

MAX_ATTEMPTS: Final = len(DELAYS) + 1
JITTER: Final = 0.2
"""A pause is up to this share shorter or longer, so that failures do not come back in step."""

MAX_RETRY_AFTER: Final = 86_400.0
"""A receiver may ask for a day of peace, not for for ever."""

HOLD: Final = 300.0
"""How long a failing notice may hold up the later ones of its interview."""

REST_AFTER: Final = 3
"""Failures in a row after which a destination is left alone for a while."""

LONGEST_REST: Final = 60.0
SLOW_DOWN_REST: Final = 5.0


class Meaning(enum.Enum):
    """What an attempt's outcome asks of us."""

    DELIVERED = "delivered"
    """2xx: the receiver has it."""
    AGAIN = "again"
    """Anything else, redirects included, which are never followed."""
    SLOWER = "slower"
    """429, 502, 503, 504: again, and fewer requests to this receiver for a while."""
    GONE = "gone"
    """410: the receiver wants no further notices."""


def meaning(status: int | None) -> Meaning:
    """What the answer's status means; None stands for no answer at all."""
    if status is None:
        return Meaning.AGAIN
    if 200 <= status < 300:
        return Meaning.DELIVERED
    if status == 410:
        return Meaning.GONE
    return Meaning.SLOWER if status in (429, 502, 503, 504) else Meaning.AGAIN


def retry_after(header: str | None, now: float) -> float | None:
    """Seconds that a ``Retry-After`` header asks for; None if there is none or it is nonsense.

    Both forms count: seconds, and a date. At most ``MAX_RETRY_AFTER``. ``now`` is Unix time.
    """
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        # Longer numbers than any delay are not worth converting.
        return min(float(text[:12]), MAX_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(text)
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.fromtimestamp(now, UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def pause(failures: int, chance: float, asked: float | None = None) -> float | None:
    """Seconds until the next attempt after ``failures`` failed ones; None when it was the last.

    ``chance`` is from 0 up to 1. A receiver's wish (``asked``) makes a pause longer, never shorter.
    """
    if failures < 1:
        raise ValueError("no failure, no pause")
    if failures >= MAX_ATTEMPTS:
        return None
    seconds = DELAYS[failures - 1] * (1 - JITTER + 2 * JITTER * chance)
    return max(seconds, asked or 0.0)


def rest(failures_in_a_row: int, slower: bool, asked: float | None) -> float:
    """Seconds during which a destination as a whole is left alone; 0 for not at all.

    A receiver that is down is then asked by one notice at a time instead of by all that wait.
    """
    seconds = 0.0
    if failures_in_a_row >= REST_AFTER:
        seconds = min(LONGEST_REST, math.ldexp(1.0, min(failures_in_a_row - REST_AFTER, 16)))
    if slower:
        seconds = max(seconds, SLOW_DOWN_REST, min(asked or 0.0, MAX_RETRY_AFTER))
    return seconds


@dataclass(frozen=True, slots=True)
class Before:
    """What is still undelivered before a notice, of the same interview and destination."""

    untried: bool
    """Whether any of it was never tried."""
    failing_since: int | None
    """When the first of those that failed did so, in microseconds; None if none has."""


def free_at(created_at: int, before: Before) -> int | None:
    """When a notice may be sent, in microseconds; None while others go out before it.

    Behind notices that were never tried it waits its turn, however long: these go out before it.
    Behind failing ones it waits ``HOLD`` seconds at most, counted from when it began to wait.
    """
    if before.untried:
        return None
    if before.failing_since is None:
        return created_at
    return max(created_at, before.failing_since) + int(HOLD * 1_000_000)
