"""How often a caller may ask: a bucket of tokens for each network address."""

from __future__ import annotations

import ipaddress
import itertools
from collections import OrderedDict
from typing import Final

MAX_CALLERS: Final = 10_000
"""Buckets kept; beyond, the one that was not used for longest is forgotten, and so is full."""
SWEPT_AT_ONCE: Final = 2
"""Buckets looked at with each request, to be forgotten: one more than a request can add."""


class Allowance:
    """``burst`` requests at once, then ``per_second`` of them, for each caller.

    A bucket that is full again is the same as none, and is forgotten: who asked once, an
    interview that is long over, is not kept until the table is full.
    """

    def __init__(self, per_second: float, burst: int, callers: int = MAX_CALLERS) -> None:
        self._per_second = per_second
        self._burst = burst
        self._callers = callers
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, caller: str, now: float, count: int = 1) -> bool:
        """Whether the caller may go on at ``now`` (seconds of a clock that never goes back).

        ``count`` requests at once are taken together, or none of them.
        """
        tokens, at = self._buckets.get(caller, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - at) * self._per_second)
        allowed = tokens >= count
        self._buckets[caller] = (tokens - count if allowed else tokens, now)
        self._buckets.move_to_end(caller)
        if len(self._buckets) > self._callers:
            self._buckets.popitem(last=False)
        self._sweep(now)
        return allowed

    def give_back(self, caller: str) -> None:
        """What was taken did not count after all."""
        kept = self._buckets.get(caller)
        if kept is not None:
            self._buckets[caller] = (min(self._burst, kept[0] + 1), kept[1])

    def _sweep(self, now: float) -> None:
        """Forget those used longest ago, as far as they are full again."""
        for _ in range(SWEPT_AT_ONCE):
            caller, (tokens, at) = next(iter(self._buckets.items()))
            if tokens + (now - at) * self._per_second < self._burst:
                break
            del self._buckets[caller]
            if not self._buckets:
                break


class Turns:
    """``per_second`` requests of each caller at once, then so many a second: others wait.

    A caller whose turns are past is the same as none, and is forgotten.
    """

    def __init__(self, per_second: float, most_seconds: float, callers: int = MAX_CALLERS) -> None:
        """Nobody waits for longer than ``most_seconds``."""
        self._apart = 1 / per_second
        self._most_seconds = most_seconds
        self._callers = callers
        self._next: OrderedDict[str, float] = OrderedDict()
        """When the next request of a caller would be due, if none came at once."""

    def __len__(self) -> int:
        return len(self._next)

    def take(self, caller: str, now: float) -> float | None:
        """Seconds until it is the caller's turn, who came at ``now``; None where that is too long,
        and no turn was taken."""
        self._sweep(now)
        due = max(self._next.get(caller, now), now)
        # A second's worth may come before it is due.
        wait = max(0.0, due + self._apart - 1.0 - now)
        if wait > self._most_seconds:
            return None
        self._next[caller] = due + self._apart
        self._next.move_to_end(caller)
        if len(self._next) > self._callers:
            self._next.popitem(last=False)
        return wait

    def _sweep(self, now: float) -> None:
        """Forget those who came longest ago, as far as their turns are past."""
        for oldest, at in [*itertools.islice(self._next.items(), SWEPT_AT_ONCE)]:
            if at > now:
                break
            del self._next[oldest]


class Bucket:
    """``burst`` bytes at once, then ``per_second`` of them; what is beyond is owed."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = burst
        self._at: float | None = None

    def take(self, count: int, now: float) -> float:
        """Seconds by which they came too early at ``now``; 0 where there was room for them."""
        if self._at is not None:
            self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        self._left -= count
        return max(0.0, -self._left / self._per_second)


def caller_of(address: str | None) -> str:
    """What counts as one caller: an IPv4 address, or an IPv6 network of 64 bits.

    A household holds a whole IPv6 network and could use a new address for each request.
    """
    try:
        known = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return ""
    if isinstance(known, ipaddress.IPv6Address):
        if known.ipv4_mapped is not None:
            return str(known.ipv4_mapped)
        return str(ipaddress.IPv6Network((known, 64), strict=False))
    return str(known)
