"""How late we are: meters that cost next to nothing while media flows.

Delay here is what this process adds: from the kernel's receive time stamp of a datagram to the
moment its packet has been handed back to the kernel. Not responsible for what the network adds;
that is in ``core.rtcp``.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from ..types import Json

BOUNDS: Final = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
"""Upper bounds of the meter's buckets, in seconds; the last bucket takes the rest."""

LATE_SECONDS: Final = 0.005
"""A packet held longer than this is late: no code of ours may hold the event loop so long."""

SAMPLE_EVERY: Final = 16
"""Wake-ups of a port for each one that is measured: asking for the kernel's time costs 3 us."""

LAG_SECONDS: Final = 0.1


@dataclass(slots=True)
class DelayMeter:
    """Counts delays into buckets; good for a quantile to within a bucket."""

    count: int = 0
    total: float = 0.0
    largest: float = 0.0
    late: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))

    def add(self, seconds: float) -> None:
        """Count one delay."""
        self.count += 1
        self.total += seconds
        self.buckets[bisect.bisect_left(BOUNDS, seconds)] += 1
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


class Port(Protocol):
    """What ``media_health`` reads of a UDP port."""

    @property
    def delay(self) -> DelayMeter:
        """Sampled delays."""

    @property
    def dropped(self) -> Mapping[str, int]:
        """Datagrams dropped, by reason."""


class LoopWatch:
    """Measures how long the event loop is held by other work: the media's loop-lag gauge."""

    def __init__(self) -> None:
        self.lag = DelayMeter()
        self.recent = 0.0
        """Largest lag of the last seconds, fading."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin measuring, ten times a second."""
        self._task = asyncio.create_task(self._run(), name="loop watch")

    async def close(self) -> None:
        """Stop measuring."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        due = time.monotonic() + LAG_SECONDS
        while True:
            await asyncio.sleep(due - time.monotonic())
            now = time.monotonic()
            lag = max(0.0, now - due)
            self.lag.add(lag)
            self.recent = max(lag, self.recent * 0.97)
            due = now + LAG_SECONDS


def media_health(port: Port, watch: LoopWatch) -> Json:
    """How late this process is and what its UDP port dropped; times in milliseconds."""
    delay = port.delay
    return {
        "loop_lag_ms": round(watch.recent * 1000, 3),
        "loop_held_over_5_ms": watch.lag.late,
        "added_delay_p50_ms": round(delay.quantile(0.5) * 1000, 3),
        "added_delay_p99_ms": round(delay.quantile(0.99) * 1000, 3),
        "late_packets_sampled": delay.late,
        "packets_sampled": delay.count,
        "dropped": dict(port.dropped),
    }
