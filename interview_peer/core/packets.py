"""Packets of one speaker on their way from the event loop to another thread: bounded, counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

Packet = tuple[float, int, int, bytes, int]
"""``(arrival, sequence, timestamp, Opus payload, source)``; the source is the sender's SSRC."""


class PacketQueue:
    """Takes packets until ``limit`` of them wait; what comes then is refused and counted.

    One thread puts, another takes from ``waiting``. Native code appends to ``waiting`` itself
    while it is shorter than ``limit``.
    """

    __slots__ = ("limit", "on_refused", "put", "refused", "waiting")

    def __init__(self, limit: int) -> None:
        self.limit: Final = limit
        self.waiting: deque[Packet] = deque()
        self.refused = 0
        self.on_refused: Callable[[], None] | None = None
        """Called once, by who puts, when a packet is refused for want of room. Must not raise."""
        waiting, append = self.waiting, self.waiting.append

        # A closure, not a method: it is called for every packet.
        def put(at: float, source: int, sequence: int, timestamp: int, payload: bytes) -> None:
            """Take one packet as its sender numbered it. Never waits, never raises."""
            if len(waiting) < limit:
                append((at, sequence, timestamp, payload, source))
            else:
                self.refused += 1
                if self.on_refused is not None:
                    told, self.on_refused = self.on_refused, None
                    told()

        self.put = put

    def forget(self) -> None:
        """Refuse what waits."""
        self.refused += len(self.waiting)
        self.waiting.clear()
