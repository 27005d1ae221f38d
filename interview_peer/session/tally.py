"""What all interviews of this process came to: the counts that outlive them.

An interview and its legs count for themselves while they run. Here stands the sum of what is over,
so that a figure of all, running or not, never falls. Nothing here is touched by a packet.
"""

from __future__ import annotations

import bisect
import dataclasses
import weakref
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from ..core.flood import Flood
from ..core.lifecycle import Phase, Reason
from ..media.forwarder import ForwarderCounters
from ..media.leg import Leg

if TYPE_CHECKING:
    from .interview import Interview

SETUP_BOUNDS: Final = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0)
"""Upper bounds of the set-up times' buckets, in seconds; the last bucket takes the rest."""

LEGS: Final = ("browser", "model")


@dataclasses.dataclass(slots=True)
class LegTotals:
    """What legs of one kind carried."""

    received_packets: int = 0
    received_bytes: int = 0
    lost_packets: int = 0
    """That did not arrive here, by their sequence numbers."""
    sent_packets: int = 0

    def add(self, leg: Leg) -> None:
        """Add one leg's counts."""
        received, sent = leg.reception, leg.sending
        self.received_packets += received.packets
        self.received_bytes += received.octets
        # Packets that came twice can make it negative.
        self.lost_packets += max(0, received.lost)
        self.sent_packets += sent.packets


class Tally:
    """Of one process; see the module."""

    def __init__(self) -> None:
        self.ended: Counter[tuple[Phase, Reason]] = Counter()
        """Interviews that are over, by how and why."""
        self.refused: Counter[str] = Counter()
        """Offers that could not be answered after all, by the error's code."""
        self.flooded: Counter[Flood] = Counter()
        """Browsers' connections that were ended because they sent far too much, by what."""
        self.setup_buckets = [0] * (len(SETUP_BOUNDS) + 1)
        self.setup_seconds = 0.0
        """The sum, from the offer that is answered until both legs carry audio."""
        self._legs = {name: LegTotals() for name in LEGS}
        self._directions = {"to_model": ForwarderCounters(), "to_browser": ForwarderCounters()}
        self._counted_legs: weakref.WeakSet[Leg] = weakref.WeakSet()
        self._counted: weakref.WeakSet[Interview] = weakref.WeakSet()

    def set_up(self, seconds: float) -> None:
        """An interview went live so long after its offer."""
        self.setup_buckets[bisect.bisect_left(SETUP_BOUNDS, seconds)] += 1
        self.setup_seconds += seconds

    def closed(self, leg: Leg) -> None:
        """A leg is closed, or about to be: its counts are final. A second time nothing happens."""
        if leg not in self._counted_legs:
            self._counted_legs.add(leg)
            self._legs[leg.name].add(leg)

    def over(self, interview: Interview) -> None:
        """An interview is over, with all its legs closed. A second time nothing happens."""
        if interview in self._counted:
            return
        self._counted.add(interview)
        self.ended[interview.phase, interview.reason or Reason.INTERNAL] += 1
        for name, counters in interview.directions.items():
            _add(self._directions[name], counters)

    def legs(self, running: Iterable[Interview]) -> dict[str, LegTotals]:
        """Of all legs there were, and those of ``running``, which may have ended meanwhile."""
        totals = {name: dataclasses.replace(total) for name, total in self._legs.items()}
        for interview in running:
            for leg in interview.legs:
                if leg not in self._counted_legs:
                    totals[leg.name].add(leg)
        return totals

    def directions(self, running: Iterable[Interview]) -> dict[str, ForwarderCounters]:
        """The same of what was forwarded in each direction."""
        totals = {name: dataclasses.replace(total) for name, total in self._directions.items()}
        for interview in running:
            if interview not in self._counted:
                for name, counters in interview.directions.items():
                    _add(totals[name], counters)
        return totals


def _add(total: ForwarderCounters, more: ForwarderCounters) -> None:
    for field in dataclasses.fields(ForwarderCounters):
        setattr(total, field.name, getattr(total, field.name) + getattr(more, field.name))
