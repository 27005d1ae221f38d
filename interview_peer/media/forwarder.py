"""Moves one direction's audio from leg to leg, as RTP, without decoding it.

Decrypt, rewrite the header in place, encrypt for the other leg, send: all in the buffer the
datagram arrived in. The far end sees one continuous stream with one SSRC, whatever legs and
SSRCs come and go at the near end; holes in the sequence numbers stay, so that it can conceal
them. Not responsible for what is recorded: a tap is handed each payload.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Callable
from dataclasses import dataclass

from ..core import rtcp
from .leg import Leg

Tap = Callable[[float, int, int, int, bytes], None]
"""Takes ``(arrival, ssrc, sequence, timestamp, Opus payload)``; must return at once."""

FLOOR_DISTANCE = 1024
"""How far behind the newest packet one may come and still be sent: SRTP's replay window."""

_FIELDS = struct.Struct("!HII")
_HEADER = struct.Struct("!BBHII")


@dataclass(slots=True)
class ForwarderCounters:
    """What became of the packets of one direction."""

    forwarded: int = 0
    malformed: int = 0
    wrong_payload_type: int = 0
    not_ready: int = 0
    """Decrypted before the other leg could send: dropped, not queued."""
    refused: int = 0
    """Came after their place had been given away; sending them would reuse key stream."""
    not_sent: int = 0
    """The socket was full."""
    rebased: int = 0


class Forwarder:
    """One direction between two legs, either of which may be replaced while it runs."""

    def __init__(self, tap: Tap | None = None) -> None:
        self.counters = ForwarderCounters()
        self._tap = tap
        self._source: Leg | None = None
        self._sink: Leg | None = None
        self._in_ssrc: int | None = None
        self._sequence_offset = 0
        self._timestamp_offset = 0
        self._floor = 0
        # RFC 3711 section 3.3.1: start below 2^15, so that a first packet lost near the wrap
        # cannot leave the two ends with different roll-over counters.
        self._last_sequence = secrets.randbits(15)
        self._last_timestamp = secrets.randbits(32)
        self._last_at: float | None = None

    def connect(self, source: Leg | None, sink: Leg | None) -> None:
        """Forward from ``source`` to ``sink`` from now on; the leg before goes unheard.

        What arrives next is rebased onto the end of what was sent.
        """
        if self._source is not None and self._source is not source:
            self._source.engine.on_rtp = self._source.deliver
        self._source, self._sink = source, sink
        self._in_ssrc = None
        if source is not None:
            source.engine.on_rtp = self.packet
            source.path_loss = self._sink_loss

    def _sink_loss(self) -> float:
        """The share of this direction's packets that the far receiver reports lost."""
        heard = self._sink.sending.heard if self._sink is not None else None
        return heard.fraction_lost if heard is not None else 0.0

    def packet(self, size: int, at: float) -> None:
        """Forward the packet that lies in the source's buffer. The hot path."""
        source, sink = self._source, self._sink
        if source is None:
            return
        buffer = source.port.buffer
        first = buffer[0]
        start = 12 + ((first & 0x0F) << 2)
        if first & 0x10 and start + 4 <= size:
            start += 4 + ((buffer[start + 2] << 8 | buffer[start + 3]) << 2)
        if start >= size:
            self.counters.malformed += 1
            return
        second = buffer[1]
        if second & 0x7F != source.payload_type:
            self.counters.wrong_payload_type += 1
            return
        sequence, timestamp, ssrc = _FIELDS.unpack_from(buffer, 2)
        end = size - buffer[size - 1] if first & 0x20 else size
        if end <= start:
            self.counters.malformed += 1
            return
        source.reception.received(ssrc, sequence, timestamp, end - start, at)
        if self._tap is not None:
            self._tap(at, ssrc, sequence, timestamp, bytes(buffer[start:end]))
        if sink is None or not sink.connected:
            self.counters.not_ready += 1
            return
        if ssrc != self._in_ssrc:
            self._rebase(ssrc, sequence, timestamp, at)
        ahead = (sequence - self._floor) & 0xFFFF
        if ahead >= 0x8000:
            self.counters.refused += 1
            return
        if ahead > 2 * FLOOR_DISTANCE:
            self._floor = (sequence - FLOOR_DISTANCE) & 0xFFFF
        out_sequence = (sequence + self._sequence_offset) & 0xFFFF
        out_timestamp = (timestamp + self._timestamp_offset) & 0xFFFFFFFF
        sending = sink.sending
        # The new header ends where the payload begins, so extensions fall away without a copy.
        offset = start - 12
        _HEADER.pack_into(
            buffer,
            offset,
            0x80 | first & 0x20,
            second & 0x80 | sink.payload_type,
            out_sequence,
            out_timestamp,
            sending.ssrc,
        )
        if not sink.engine.forward(source.engine, offset, size - offset):
            self.counters.not_sent += 1
            return
        self.counters.forwarded += 1
        sending.packets += 1
        sending.octets += end - start
        if (out_sequence - self._last_sequence) & 0xFFFF < 0x8000:
            self._last_sequence = out_sequence
            self._last_timestamp = sending.last_timestamp = out_timestamp
            self._last_at = sending.last_at = at

    def _rebase(self, ssrc: int, sequence: int, timestamp: int, at: float) -> None:
        """Join a new input stream to the end of what was sent: next number, time gone by."""
        elapsed = 0.0 if self._last_at is None else at - self._last_at
        next_timestamp = self._last_timestamp + max(960, int(elapsed * rtcp.CLOCK_RATE))
        self._sequence_offset = (self._last_sequence + 1 - sequence) & 0xFFFF
        self._timestamp_offset = (next_timestamp - timestamp) & 0xFFFFFFFF
        self._floor = sequence
        self._in_ssrc = ssrc
        # Even if this packet is not sent, its number is spoken for.
        self._last_sequence = (self._last_sequence + 1) & 0xFFFF
        self.counters.rebased += 1
