"""RTCP as plain values: what we received, what we report, what the far end reports.

Follows RFC 3550: counting and loss in appendix A.3, jitter in A.8, packet forms in section 6.
Time comes in as an argument; nothing here reads a clock or a socket.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

CLOCK_RATE = 48_000
"""Opus' RTP clock, whatever the audio's bandwidth (RFC 7587 section 4.1)."""

NTP_EPOCH_OFFSET = 2_208_988_800
"""Seconds from 1900 (NTP) to 1970 (Unix)."""

SENDER_REPORT = 200
RECEIVER_REPORT = 201
SOURCE_DESCRIPTION = 202
GOODBYE = 203

_HEADER = struct.Struct("!BBH")
_REPORT_BLOCK = struct.Struct("!IIIIII")
_SENDER_INFO = struct.Struct("!IIIIII")


@dataclass(frozen=True, slots=True)
class ReportBlock:
    """What one receiver says of one stream."""

    ssrc: int
    fraction_lost: float
    """Share of packets lost since the report before, 0 to 1."""
    cumulative_lost: int
    jitter: int
    """In RTP clock units."""
    last_sr: int
    delay_since_last_sr: int
    """In 1/65536 s."""


@dataclass(frozen=True, slots=True)
class SenderReport:
    """When a sender says it sent what."""

    ssrc: int
    ntp_middle: int
    """The middle 32 bits of the NTP time stamp: what a receiver echoes as LSR."""
    rtp_timestamp: int
    packets: int
    octets: int


@dataclass(frozen=True, slots=True)
class Received:
    """The parts of one compound packet that we use."""

    sender_reports: tuple[SenderReport, ...]
    blocks: tuple[ReportBlock, ...]
    goodbyes: tuple[int, ...]


def parse(data: bytes) -> Received:
    """Read a decrypted compound packet; what is malformed or unknown is passed over."""
    sender_reports: list[SenderReport] = []
    blocks: list[ReportBlock] = []
    goodbyes: list[int] = []
    position = 0
    while position + 8 <= len(data):
        first, kind, words = _HEADER.unpack_from(data, position)
        end = position + 4 * (words + 1)
        if first >> 6 != 2 or end > len(data):
            break
        count, body = first & 0x1F, position + 4
        if kind == SENDER_REPORT and body + 24 <= end:
            ssrc, high, low, rtp, packets, octets = _SENDER_INFO.unpack_from(data, body)
            middle = ((high & 0xFFFF) << 16) | (low >> 16)
            sender_reports.append(SenderReport(ssrc, middle, rtp, packets, octets))
            blocks += _blocks(data, body + 24, end, count)
        elif kind == RECEIVER_REPORT:
            blocks += _blocks(data, body + 4, end, count)
        elif kind == GOODBYE:
            usable = min(count, (end - body) // 4)
            goodbyes += struct.unpack_from(f"!{usable}I", data, body)
        position = end
    return Received(tuple(sender_reports), tuple(blocks), tuple(goodbyes))


def _blocks(data: bytes, position: int, end: int, count: int) -> list[ReportBlock]:
    found = []
    for _ in range(count):
        if position + 24 > end:
            break
        ssrc, loss, _highest, jitter, last_sr, delay = _REPORT_BLOCK.unpack_from(data, position)
        cumulative = loss & 0xFFFFFF
        if cumulative & 0x800000:
            cumulative -= 1 << 24
        found.append(ReportBlock(ssrc, (loss >> 24) / 256, cumulative, jitter, last_sr, delay))
        position += 24
    return found


@dataclass(slots=True)
class Reception:
    """Counts what comes in, and the newest stream of it as RFC 3550 A.3 and A.8 say.

    Totals go on when the far end begins a new stream; reports speak of that stream alone.
    ``received`` is on the hot path: once per packet, no allocation.
    """

    ssrc: int = 0
    packets: int = 0
    """Of all streams so far, as are octets."""
    octets: int = 0
    highest: int = 0
    """Extended highest sequence number."""
    jitter: float = 0.0
    """In RTP clock units."""
    last_at: float = 0.0
    """When (monotonic) the newest packet came; 0 before the first."""
    _base: int = 0
    _packets_of_others: int = 0
    """Packets, and below expected ones, of the streams before this one."""
    _expected_of_others: int = 0
    _transit: float = 0.0
    _expected_before: int = 0
    _packets_before: int = 0
    _last_sr: int = 0
    _last_sr_at: float = 0.0

    def received(self, ssrc: int, sequence: int, timestamp: int, octets: int, at: float) -> None:
        """Count one packet that arrived at ``at`` (monotonic seconds)."""
        transit = at * CLOCK_RATE - timestamp
        if ssrc != self.ssrc or not self.packets:
            self.restart(ssrc, sequence, transit)
        step = (sequence - self.highest) & 0xFFFF
        if step < 0x8000:
            self.highest += step
        drift = abs(transit - self._transit)
        self._transit = transit
        # A jump of a second or more is a pause or a wrapped clock, not jitter.
        if drift < CLOCK_RATE:
            self.jitter += (drift - self.jitter) / 16
        self.packets += 1
        self.octets += octets
        self.last_at = at

    def adopt(
        self, highest: int, jitter: float, transit: float, last_at: float, packets: int, octets: int
    ) -> None:
        """Go on where somebody else counted the same stream, who counted so many more."""
        self.highest, self.jitter, self._transit = highest, jitter, transit
        self.last_at = last_at
        self.packets += packets
        self.octets += octets

    @property
    def state(self) -> tuple[int, float, float, float]:
        """What ``adopt`` takes: highest sequence number, jitter, transit, time of the newest."""
        return self.highest, self.jitter, self._transit, self.last_at

    def restart(self, ssrc: int, sequence: int, transit: float) -> None:
        """Begin a new stream; the totals go on."""
        self._expected_of_others = self.expected
        self._packets_of_others = self.packets
        self.ssrc = ssrc
        self.highest = self._base = sequence
        self.jitter = 0.0
        self._transit = transit
        self._expected_before = self._packets_before = 0
        self._last_sr = 0

    def sender_report(self, report: SenderReport, at: float) -> None:
        """Remember the sender's last report, to be echoed as LSR and DLSR."""
        self._last_sr = report.ntp_middle
        self._last_sr_at = at

    @property
    def expected(self) -> int:
        """Packets the sender has sent so far, as far as its sequence numbers tell."""
        return self._expected_of_others + self._expected_of_stream

    @property
    def lost(self) -> int:
        """Packets missing so far; negative if more were duplicated than lost."""
        return self.expected - self.packets

    @property
    def _expected_of_stream(self) -> int:
        begun = self.packets > self._packets_of_others
        return self.highest - self._base + 1 if begun else 0

    def report(self, at: float, path_loss: float = 0.0) -> bytes | None:
        """One report block (24 bytes), or nothing before the first packet.

        Args:
            at: monotonic seconds.
            path_loss: loss that the *other* hop reports. An encoder must know the loss of the
                whole path, for the FEC it writes protects the far hop as well.
        """
        if not self.packets:
            return None
        expected = self._expected_of_stream
        packets = self.packets - self._packets_of_others
        expected_now = expected - self._expected_before
        lost_now = expected_now - (packets - self._packets_before)
        self._expected_before, self._packets_before = expected, packets
        own_loss = max(0.0, lost_now / expected_now) if expected_now > 0 else 0.0
        fraction = min(255, int(max(own_loss, path_loss) * 256))
        cumulative = max(-0x800000, min(0x7FFFFF, expected - packets)) & 0xFFFFFF
        delay = int((at - self._last_sr_at) * 65536) & 0xFFFFFFFF if self._last_sr else 0
        return _REPORT_BLOCK.pack(
            self.ssrc,
            fraction << 24 | cumulative,
            self.highest & 0xFFFFFFFF,
            int(self.jitter) & 0xFFFFFFFF,
            self._last_sr,
            delay,
        )


@dataclass(slots=True)
class Sending:
    """Counts one outgoing stream and remembers when its RTP clock stood where."""

    ssrc: int
    packets: int = 0
    octets: int = 0
    last_timestamp: int = 0
    last_at: float = 0.0
    heard: ReportBlock | None = field(default=None)
    """The far end's newest report of this stream."""
    round_trip: float | None = None
    """Seconds, from the newest report that echoes one of ours."""

    def reported(self, block: ReportBlock, ntp_middle_now: int) -> None:
        """Take the far end's report of this stream."""
        self.heard = block
        if block.last_sr:
            trip = (ntp_middle_now - block.last_sr - block.delay_since_last_sr) & 0xFFFFFFFF
            if trip < 0x80000000:
                self.round_trip = trip / 65536


def ntp(wall: float) -> tuple[int, int]:
    """Unix seconds as NTP seconds and 1/2^32 fractions."""
    seconds = int(wall)
    return (seconds + NTP_EPOCH_OFFSET) & 0xFFFFFFFF, int((wall - seconds) * (1 << 32))


def ntp_middle(wall: float) -> int:
    """The middle 32 bits of the NTP time of Unix seconds ``wall``."""
    seconds, fraction = ntp(wall)
    return (seconds & 0xFFFF) << 16 | fraction >> 16


def compound(sending: Sending, block: bytes | None, cname: str, at: float, wall: float) -> bytes:
    """One compound packet: SR (or RR before anything was sent), report block, SDES.

    The SR's RTP time is extrapolated from the last packet sent, so that it names the same
    instant as its NTP time.
    """
    blocks = block or b""
    count = len(blocks) // 24
    if sending.packets:
        elapsed = max(0.0, at - sending.last_at)
        timestamp = (sending.last_timestamp + int(elapsed * CLOCK_RATE)) & 0xFFFFFFFF
        seconds, fraction = ntp(wall)
        report = (
            _HEADER.pack(0x80 | count, SENDER_REPORT, 6 + 6 * count)
            + _SENDER_INFO.pack(
                sending.ssrc,
                seconds,
                fraction,
                timestamp,
                sending.packets & 0xFFFFFFFF,
                sending.octets & 0xFFFFFFFF,
            )
            + blocks
        )
    else:
        report = (
            _HEADER.pack(0x80 | count, RECEIVER_REPORT, 1 + 6 * count)
            + struct.pack("!I", sending.ssrc)
            + blocks
        )
    name = cname.encode()
    chunk = struct.pack("!IBB", sending.ssrc, 1, len(name)) + name
    chunk += b"\0" * (4 - len(chunk) % 4)
    return report + _HEADER.pack(0x81, SOURCE_DESCRIPTION, len(chunk) // 4) + chunk
