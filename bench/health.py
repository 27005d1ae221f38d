"""What a server says of its own lateness: two readings of ``/healthz``, and what lies between.

Limits for it: the longest time that the event loop may be held is one packet's, for no receiver
plays with less in hand than the packet it waits for; and at most one packet in a hundred may be
late, as p99 is what the goals are about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from interview_peer.types import Json

LAG_LIMIT_MS: Final = 20.0
LATE_LIMIT: Final = 0.01
"""Share of all packets that may be held longer than 5 ms."""

REMEMBERED_SECONDS: Final = 10.0
"""So long at least a server remembers its longest hold."""


class NotFed(Exception):
    """The meters stood still although packets flowed; the sentence says which."""


def between(before: Json, after: Json, seconds: float) -> Json:
    """The window between two readings that lie ``seconds`` apart.

    Returns:
        ``lag_ms``: the longest hold, exact or from above; ``held_over_ms``: how often the loop
        was held, by bound; ``late``: packets by direction; ``sampled``: the same.

    Raises:
        NotFed: a direction's meter took no sample.
    """
    held = {
        bound: count - before["loop"]["held_over_ms"][bound]
        for bound, count in after["loop"]["held_over_ms"].items()
    }
    sides = ("to_model", "to_browser")
    sampled = [after[side]["sampled"] - before[side]["sampled"] for side in sides]
    for side, count in zip(sides, sampled, strict=True):
        if count <= 0:
            raise NotFed(f"the server's meter {side} took no sample in {seconds:g} s")
    return {
        "lag_ms": _longest(held, after["loop"]["lag_ms"], seconds),
        "held_over_ms": held,
        "late": [after[side]["late"] - before[side]["late"] for side in sides],
        "sampled": sampled,
    }


def _longest(held: Mapping[str, int], newest_ms: float, seconds: float) -> float:
    """The next bound above the largest that was exceeded, or the hold that is remembered."""
    bounds = sorted(float(bound) for bound in held)
    exceeded = [bound for bound in bounds if held[f"{bound:g}"]]
    if not exceeded:
        return bounds[0]
    above = [bound for bound in bounds if bound > exceeded[-1]]
    # The longest hold that is remembered may be older than the window, but no shorter.
    known = newest_ms if seconds <= REMEMBERED_SECONDS and newest_ms > exceeded[-1] else None
    if known is None:
        return above[0] if above else float("inf")
    return min([known, *above[:1]])
