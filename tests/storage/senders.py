"""A sender and a network in simulated time, with the true place of everything that was sent.

Truth is when a packet would have arrived had the path always had its smallest delay. It is taken
from the generator, never from what the code under test counted.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

FRAME = 960
FRAME_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Delivery:
    """One packet as it reaches the server."""

    at: float
    sequence: int
    timestamp: int
    payload: bytes
    source: int


def numbered(index: int) -> bytes:
    """A 20 ms packet that can be recognised again; sound does not matter."""
    return b"\x78" + index.to_bytes(4, "big")


def index_of(packet: bytes) -> int | None:
    """The number of a packet made by ``numbered``, None for any other."""
    return int.from_bytes(packet[1:], "big") if packet[0] == 0x78 and len(packet) == 5 else None


class Sender:
    """Talks, pauses and restarts; the network between loses, delays, repeats and reorders.

    ``jitter`` is the largest extra delay in seconds, evenly spread, which also reorders; ``ppm``
    how much slower than true time the sender's clock runs.
    """

    def __init__(
        self,
        start: float,
        *,
        seed: int = 1,
        payload: Callable[[int], bytes] = numbered,
        sequence: int = 100,
        timestamp: int = 10_000,
        delay: float = 0.03,
        jitter: float = 0.0,
        loss: float = 0.0,
        duplicates: float = 0.0,
        ppm: float = 0.0,
    ) -> None:
        self.now = start
        self.true: list[float] = []
        """When each frame would have arrived over the path at its best, by frame index."""
        self.delivered: list[bool] = []
        self.deliveries: list[Delivery] = []
        self._random = random.Random(seed)
        self._payload = payload
        self._sequence = sequence
        self._timestamp = timestamp
        self._delay = delay
        self.jitter = jitter
        self.loss = loss
        self.queue = 0.0
        """Extra delay of the path from now on, seconds; going down it keeps packets in order."""
        self.stalls: list[tuple[int, float]] = []
        """Before which frame the sender stood still, its RTP time too, and how long, seconds."""
        self.held: set[int] = set()
        """Frames that were held up, perhaps for too long to find their place."""
        self._queued = 0.0
        self._duplicates = duplicates
        self._step = FRAME_SECONDS * (1 + ppm * 1e-6)
        self._source = 1

    def talk(self, seconds: float, *, lost: bool = False, held_until_end: bool = False) -> None:
        """Send 20 ms packets. ``lost``: none arrives; ``held_until_end``: all arrive at once."""
        end = self.now + seconds
        while self.now < end - 1e-9:
            self._queued = max(self.queue, self._queued - 0.019)
            at = self.now + self._delay + self._queued + self._random.random() * self.jitter
            if held_until_end:
                at = end + self._delay + 1e-5 * (len(self.true) % 1_000)
                self.held.add(len(self.true))
            self._send(at, lost or self._random.random() < self.loss)

    def frames(self, count: int, *, lost: Sequence[int] = ()) -> None:
        """Send ``count`` packets, without those whose place in this row is in ``lost``."""
        for index in range(count):
            self._send(self.now + self._delay, index in lost)

    def pause(self, seconds: float, *, clock_stands: bool) -> None:
        """Send nothing. The RTP clock goes on, or stands still as a removed track's does."""
        steps = round(seconds / FRAME_SECONDS)
        self.now += steps * self._step
        if not clock_stands:
            self._timestamp += steps * FRAME

    def stall(self, seconds: float) -> None:
        """Stand still, as a sound card that drops samples does: RTP time stands, too."""
        self.now += seconds
        self.stalls.append((len(self.true), seconds))

    def restart(self) -> None:
        """Begin a new RTP stream: another SSRC, sequence number and time."""
        self._source += 1
        self._sequence = self._random.randrange(1 << 16)
        self._timestamp = self._random.randrange(1 << 32)

    def _send(self, at: float, lost: bool) -> None:
        index = len(self.true)
        self.true.append(self.now + self._delay)
        self.delivered.append(not lost)
        if not lost:
            delivery = Delivery(
                at,
                self._sequence & 0xFFFF,
                self._timestamp & 0xFFFFFFFF,
                self._payload(index),
                self._source,
            )
            self.deliveries.append(delivery)
            if self._random.random() < self._duplicates:
                again = at + self._random.random() * 0.1
                self.deliveries.append(
                    Delivery(
                        again,
                        delivery.sequence,
                        delivery.timestamp,
                        delivery.payload,
                        delivery.source,
                    )
                )
        self._sequence += 1
        self._timestamp += FRAME
        self.now += self._step

    def batches(self, until: float, interval: float = 0.5) -> list[tuple[float, list[Delivery]]]:
        """What arrived by each flush, in order of arrival: (time of the flush, deliveries)."""
        arrived = sorted(self.deliveries, key=lambda delivery: delivery.at)
        batches: list[tuple[float, list[Delivery]]] = []
        first = 0
        count = int((until - (start := self.true[0] // interval * interval)) / interval) + 1
        for tick in range(1, count + 1):
            now = start + tick * interval
            last = first
            while last < len(arrived) and arrived[last].at <= now:
                last += 1
            batches.append((now, arrived[first:last]))
            first = last
        return batches
