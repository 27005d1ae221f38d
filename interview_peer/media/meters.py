"""How late we are: meters that cost next to nothing while media flows.

Delay here is what this process adds: from the kernel's receive time stamp of a datagram to the
moment its packet has been handed back to the kernel. Asking for that stamp costs a tenth of a
packet, so it is asked for a sample, and for every packet that may be late: ``Rounds`` knows since
when one can have waited. Not responsible for what the network adds; that is in ``core.rtcp``.
"""

from __future__ import annotations

import asyncio
import bisect
import collections
import selectors
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from ..tasks import stop
from ..types import Json
from .descriptors import Descriptors

BOUNDS: Final = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
"""Upper bounds of the meter's buckets, in seconds; the last bucket takes the rest."""

LATE_SECONDS: Final = 0.005
"""A packet held longer than this is late: no code of ours may hold the event loop so long."""

SAMPLE_EVERY: Final = 16
"""Wake-ups of a port for each one whose first packet is a sample of the delays."""

DOUBT_SECONDS: Final = LATE_SECONDS - 0.0005
"""Time since the loop's last look at the sockets beyond which a packet may be late: its own
handling, after it is read, is left off."""

LAG_BOUNDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Seconds of holding the event loop that are counted."""

PROBE_SECONDS: Final = 0.1
RECENT_SECONDS: Final = 10.0


@dataclass(slots=True)
class DelayMeter:
    """Counts a sample of delays into buckets, good for a quantile to within a bucket; and late
    packets, each of them."""

    count: int = 0
    """Delays in the sample."""
    total: float = 0.0
    largest: float = 0.0
    late: int = 0
    """Packets held longer than ``LATE_SECONDS``, whether in the sample or not."""
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))

    def add(self, seconds: float) -> None:
        """Count one delay of the sample."""
        self.count += 1
        self.total += seconds
        self.buckets[bisect.bisect_left(BOUNDS, seconds)] += 1
        self.judge(seconds)

    def merge(
        self, count: int, late: int, total: float, largest: float, buckets: Sequence[int]
    ) -> None:
        """Take over what was counted elsewhere, every one of it in the sample."""
        self.count += count
        self.late += late
        self.total += total
        self.largest = max(self.largest, largest)
        for place, number in enumerate(buckets):
            self.buckets[place] += number

    def judge(self, seconds: float) -> None:
        """Count whether a packet was late. Packets known to be in time need not be judged."""
        if seconds > self.largest:
            self.largest = seconds
        if seconds > LATE_SECONDS:
            self.late += 1

    def quantile(self, share: float) -> float:
        """The upper bound of the bucket that holds this share of the delays; 0 without any."""
        wanted, seen = share * self.count, 0
        for bound, count in zip((*BOUNDS, self.largest), self.buckets, strict=True):
            seen += count
            if count and seen >= wanted:
                return min(bound, self.largest)
        return 0.0

    def figures(self) -> Json:
        """What is known of the delays, in milliseconds."""
        return {
            "added_delay_p50_ms": round(self.quantile(0.5) * 1000, 3),
            "added_delay_p99_ms": round(self.quantile(0.99) * 1000, 3),
            "added_delay_largest_ms": round(self.largest * 1000, 3),
            "sampled": self.count,
            "late": self.late,
        }


@dataclass(slots=True)
class Looks:
    """When an event loop looked at its sockets."""

    before: float = 0.0
    """When (monotonic) the look before the newest one ended; 0 on a loop that does not tell."""


class Rounds(selectors.DefaultSelector):
    """The event loop's selector; notes when the loop looks at its sockets, and what keeps it.

    Between two looks lies one round: every callback that was due. What a socket did not show at
    one look has come since, so a packet read in a round is not older than the look before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.looks = Looks()
        self.on_held: Callable[[float], None] = _nothing_of_held
        """Takes the seconds of each round that lasted longer than the smallest of
        ``LAG_BOUNDS``; must return at once."""
        self._returned = 0.0
        self._looked = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """The same as the selector's of this platform."""
        returned = self._returned
        held = time.monotonic() - returned
        if held > LAG_BOUNDS[0] and returned:
            self.on_held(held)
        ready = super().select(timeout)
        self._returned = time.monotonic()
        # A look that shows nothing proves nothing: a signal may have cut it short.
        if ready:
            self.looks.before = self._looked
            self._looked = self._returned
        return ready


class MediaLoop(asyncio.SelectorEventLoop):
    """An event loop that knows its rounds: the one a server runs on."""

    def __init__(self) -> None:
        self.rounds = Rounds()
        super().__init__(self.rounds)


def looks_of(loop: asyncio.AbstractEventLoop) -> Looks:
    """When this loop looks at its sockets; on any but a ``MediaLoop`` every packet may be late."""
    return loop.rounds.looks if isinstance(loop, MediaLoop) else Looks()


class Port(Protocol):
    """What ``media_health`` reads of a UDP port."""

    @property
    def delay(self) -> DelayMeter:
        """Delays of what came in."""

    @property
    def receive_buffer(self) -> int:
        """Bytes of room that the kernel gave."""

    @property
    def dropped(self) -> Mapping[str, int]:
        """Datagrams dropped, by reason."""


class LoopWatch:
    """How long other work holds the event loop: the media's loop-lag gauge.

    A ``MediaLoop`` tells of every round. Another loop is asked ten times a second how late it
    comes, which finds long holds alone.
    """

    def __init__(self) -> None:
        self.held: collections.Counter[float] = collections.Counter()
        """How often the loop was held, by the largest of ``LAG_BOUNDS`` that was exceeded."""
        self._newest = _Largest()
        self._older = _Largest()
        self._rounds: Rounds | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin measuring."""
        loop = asyncio.get_running_loop()
        if isinstance(loop, MediaLoop):
            self._rounds = loop.rounds
            self._rounds.on_held = lambda seconds: self.note(seconds, time.monotonic())
        else:
            self._task = asyncio.create_task(self._probe(), name="loop watch")

    async def close(self) -> None:
        """Stop measuring."""
        if self._rounds is not None:
            self._rounds.on_held = _nothing_of_held
            self._rounds = None
        task, self._task = self._task, None
        await stop(task)

    def note(self, seconds: float, at: float) -> None:
        """The loop was held for so long, until ``at`` (monotonic)."""
        place = bisect.bisect_left(LAG_BOUNDS, seconds)
        if place:
            self.held[LAG_BOUNDS[place - 1]] += 1
        self._turn(at)
        self._newest.seconds = max(self._newest.seconds, seconds)

    def recent(self, at: float) -> float:
        """The longest hold of the last ten to twenty seconds; short ones are not noted."""
        self._turn(at)
        return max(self._newest.seconds, self._older.seconds)

    def held_over(self, bound: float) -> int:
        """How often the loop was held longer than one of ``LAG_BOUNDS``, so far."""
        return sum(count for found, count in self.held.items() if found >= bound)

    def _turn(self, at: float) -> None:
        age = at - self._newest.since
        if age > RECENT_SECONDS:
            self._older = self._newest if age < 2 * RECENT_SECONDS else _Largest()
            self._newest = _Largest(at)

    async def _probe(self) -> None:
        due = time.monotonic() + PROBE_SECONDS
        while True:
            await asyncio.sleep(due - time.monotonic())
            now = time.monotonic()
            self.note(max(0.0, now - due), now)
            due = now + PROBE_SECONDS


@dataclass(slots=True)
class _Largest:
    """The longest hold since a time."""

    since: float = 0.0
    seconds: float = 0.0


def media_health(
    port: Port, to_browser: DelayMeter, watch: LoopWatch, descriptors: Descriptors
) -> Json:
    """How late this process is, what its UDP port dropped, and what it has open; times in
    milliseconds.

    Args:
        port: all browsers' port: what comes in there goes to the models.
        to_browser: the meter of all models' ports.
        watch: of the loop they are on.
        descriptors: of this process.
    """
    return {
        "loop": {
            "lag_ms": round(watch.recent(time.monotonic()) * 1000, 3),
            "held_over_ms": {f"{bound * 1000:g}": watch.held_over(bound) for bound in LAG_BOUNDS},
        },
        "to_model": port.delay.figures(),
        "to_browser": to_browser.figures(),
        "receive_buffer_bytes": port.receive_buffer,
        "descriptors": {
            "open": descriptors.open,
            "limit": descriptors.limit,
            "refused": descriptors.refused,
        },
        "dropped": dict(port.dropped),
    }


def _nothing_of_held(seconds: float) -> None:
    pass
