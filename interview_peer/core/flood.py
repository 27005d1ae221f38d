"""What the browser's connections of one interview may send, and what is a flood.

The gate counts events. What comes before an event costs the event loop as well: records to
decrypt, chunks to put together, checks to verify. One ``Budget`` stands at one interview, so that
whoever comes back begins with what is left of it. Times are seconds of a clock that never goes
back.
"""

from __future__ import annotations

import enum
from typing import Final

from .allowance import Allowance
from .gate import EVENTS_PER_SECOND

CHUNKS_PER_EVENT: Final = 8
CHUNKS_PER_SECOND: Final = CHUNKS_PER_EVENT * EVENTS_PER_SECOND
"""SCTP chunks, acknowledgements of what we sent left out, that may come for long.

A browser puts an event into one chunk of 1.1 kB; pages send fewer than ten a second, and the
busiest client libraries that were seen 300. A chunk costs 0.05 to 0.1 ms, so whoever stays just
below has a twentieth of the event loop at most."""

CHUNKS_AT_ONCE: Final = 5 * CHUNKS_PER_SECOND
"""The same in one burst: 35 events of the greatest length, 57 chunks each."""

RECORDS_PER_SECOND: Final = 1000
RECORDS_AT_ONCE: Final = 4000
"""Datagrams of DTLS that are decrypted. Beyond the chunks these are acknowledgements, one for two
datagrams of ours while a large event goes out. What is dropped SCTP sends again. In a burst more
than chunks, so that whoever floods with right ones is told before any are dropped."""

CHECKS_PER_SECOND: Final = 50
CHECKS_AT_ONCE: Final = 100
"""Connectivity checks that are verified. All of a connection's are paced together: 50 ms apart in
browsers (RFC 8445 section 14.2), 20 ms in aioice."""

REPORTS_PER_SECOND: Final = 50
REPORTS_AT_ONCE: Final = 100
"""RTCP packets that are decrypted. A browser sends one or two a second for one audio stream."""

PACKETS_PER_SECOND: Final = 500
PACKETS_AT_ONCE: Final = 2000
"""Audio packets. Browsers send 50 a second, 100 with frames of 10 ms, and no Opus frame is shorter
than 2.5 ms. A network that stood still for the 4 s after which a leg is lost lets go 400."""

BYTES_PER_ACKNOWLEDGEMENT: Final = 1000
"""At most one acknowledgement answers a datagram of ours, which holds no less of a long event."""

MOST_ACKNOWLEDGEMENTS: Final = 16 * 1024
"""Owed at once: of the largest event that passes, 16 MiB."""


class Flood(enum.Enum):
    """What a connection was ended for."""

    EVENTS = "events"
    """Chunks of the event channel, whether or not events came of them."""
    AUDIO = "audio"


class Budget:
    """How much of everything may come; see the module."""

    def __init__(self, events_per_second: int = EVENTS_PER_SECOND) -> None:
        """``events_per_second`` is what the gate lets through: where that is more than usual, more
        chunks and records may come; 0 counts neither."""
        more = max(1.0, events_per_second / EVENTS_PER_SECOND)
        self._counts_events = events_per_second > 0
        self._chunks = _allowance(CHUNKS_PER_SECOND * more, CHUNKS_AT_ONCE * more)
        self._records = _allowance(RECORDS_PER_SECOND * more, RECORDS_AT_ONCE * more)
        self._checks = _allowance(CHECKS_PER_SECOND, CHECKS_AT_ONCE)
        self._reports = _allowance(REPORTS_PER_SECOND, REPORTS_AT_ONCE)
        self._packets = _allowance(PACKETS_PER_SECOND, PACKETS_AT_ONCE)
        self._owed = 0
        """Acknowledgements of what we sent that have not come."""

    def sent(self, size: int) -> None:
        """Note that an event of ``size`` bytes goes out: it will be acknowledged."""
        answers = 1 + size // BYTES_PER_ACKNOWLEDGEMENT
        self._owed = min(self._owed + answers, MOST_ACKNOWLEDGEMENTS)

    def record(self, now: float) -> bool:
        """Whether a datagram is to be decrypted; otherwise it is dropped."""
        return not self._counts_events or self._records.take("", now)

    def check(self, now: float) -> bool:
        """Whether a connectivity check is to be verified; otherwise it is dropped."""
        return self._checks.take("", now)

    def report(self, now: float) -> bool:
        """Whether an RTCP packet is to be decrypted; otherwise it is dropped."""
        return self._reports.take("", now)

    def chunk(self, now: float, *, acknowledges: bool = False) -> bool:
        """Whether a chunk that came authenticated is no flood yet."""
        if acknowledges and self._owed:
            self._owed -= 1
            return True
        return not self._counts_events or self._chunks.take("", now)

    def packets(self, count: int, now: float) -> bool:
        """Whether ``count`` audio packets, come authenticated since the last call, are none."""
        return self._packets.take("", now, count)


def _allowance(per_second: float, at_once: float) -> Allowance:
    return Allowance(per_second, round(at_once), 1)
