"""Moves one direction's audio from leg to leg, as RTP, without decoding it.

Decrypt, rewrite the header in place, encrypt for the other leg, send: all in the buffer the
datagram arrived in. The far end sees one continuous stream with one SSRC, whatever legs and
SSRCs come and go at the near end; holes in the sequence numbers stay, so that it can conceal
them. While packets are ordinary, native code does the same where it is built (``media.native``);
whatever changes comes back here first. Towards the model, silence takes the place of a browser
that sends nothing. Not responsible for what is recorded: a tap is handed each payload.
"""

from __future__ import annotations

import asyncio
import secrets
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ..core import rtcp
from ..core.packets import PacketQueue
from .leg import Leg
from .native import settle

Tap = Callable[[float, int, int, int, bytes], None]
"""Takes ``(arrival, ssrc, sequence, timestamp, Opus payload)``; must return at once."""

FLOOR_DISTANCE: Final = 1024
"""How far behind the newest packet one may come and still be sent: SRTP's replay window."""

FRAME: Final = 960
"""20 ms of the 48 kHz RTP clock: what both ends put into one packet."""

FRAME_SECONDS: Final = 0.02

FILL_AFTER_SECONDS: Final = 0.3
"""Silence of the source after which we speak silence ourselves.

Not below: jitter of 150 +- 100 ms would pass for silence, and good packets be refused."""

RESUME_SECONDS: Final = 0.03
"""How long packets that come in the past are watched before they are judged; two packets."""

SILENCE: Final = b"\xf8\xff\xfe"
"""20 ms of coded silence: what libopus makes of digital zero, CELT fullband, mono."""

_HEADER = struct.Struct("!BBHII")


@dataclass(slots=True)
class ForwarderCounters:
    """What became of the packets of one direction."""

    forwarded: int = 0
    filled: int = 0
    """Packets of silence we sent in the place of a source that sent nothing."""
    malformed: int = 0
    wrong_payload_type: int = 0
    not_ready: int = 0
    """Decrypted before the other leg could send: dropped, not queued."""
    refused: int = 0
    """Came after their place had been given away; sending them would reuse key stream."""
    stale: int = 0
    """Came behind silence that had taken their time already."""
    not_sent: int = 0
    """The socket was full."""
    rebased: int = 0


class Forwarder:
    """One direction between two legs, either of which may be replaced while it runs.

    Args:
        tap: is handed each packet's payload, before anything can drop it.
        fill: speak silence to the sink while the source sends nothing. Its owner must call
            ``stop`` at the end.
    """

    def __init__(self, tap: Tap | PacketQueue | None = None, *, fill: bool = False) -> None:
        self._counters = ForwarderCounters()
        self._lent = False
        """Whether native code has the stream, as of the newest packet we had ourselves."""
        self._queue: PacketQueue | None = None
        self._tap: Tap | None = None
        self._fill = fill
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
        self._first_timestamp: int | None = None
        """RTP time of the first packet that this sink was sent."""
        self._interrupted = False
        """Whether silence of ours was sent since the source's last packet."""
        self._behind: tuple[float, int] | None = None
        """When the first packet in the past came, and how far behind it was."""
        self._timer: asyncio.TimerHandle | None = None
        self._received = rtcp.Reception()
        self._sending = rtcp.Sending(ssrc=0)
        self.tap = tap

    @property
    def counters(self) -> ForwarderCounters:
        """What became of the packets so far."""
        self.settle()
        return self._counters

    @property
    def tap(self) -> Tap | PacketQueue | None:
        """Is handed each packet's payload. A queue is served fastest."""
        return self._queue or self._tap

    @tap.setter
    def tap(self, tap: Tap | PacketQueue | None) -> None:
        self._take_back()
        self._queue = tap if isinstance(tap, PacketQueue) else None
        self._tap = tap.put if isinstance(tap, PacketQueue) else tap

    def connect(self, source: Leg | None, sink: Leg | None) -> None:
        """Forward from ``source`` to ``sink`` from now on; the leg before goes unheard.

        What arrives next is rebased onto the end of what was sent.
        """
        self._take_back()
        if self._source is not None and self._source is not source:
            self._source.engine.on_rtp = self._source.deliver
        if sink is not self._sink:
            self._first_timestamp = None
        self._source, self._sink = source, sink
        # Read once: both settle each time they are asked for.
        self._received = source.reception if source is not None else rtcp.Reception()
        self._sending = sink.sending if sink is not None else rtcp.Sending(ssrc=0)
        self._in_ssrc = None
        self._behind = None
        if source is not None:
            source.engine.on_rtp = self.packet if source.engine.lane is None else self._unordinary
            source.path_loss = self._sink_loss
            source.settle_received = self.settle
        if sink is not None:
            sink.settle_sent = self.settle
        if sink is None:
            self.stop()
        elif self._fill and (self._timer is None or source is None):
            self.stop()
            self._watch(self._patience)

    def sent_at(self, audio_ms: float) -> float | None:
        """When (monotonic) the sound at this place of all that the sink was sent came in.

        Milliseconds from the first packet on, silence of ours included: the far end's own count of
        what it hears. None before anything was sent. Best for what was sent just now: of two
        clocks that run apart, the latest packet tells how far.
        """
        self.settle()
        if self._first_timestamp is None or self._last_at is None:
            return None
        units = (self._last_timestamp - self._first_timestamp) & 0xFFFFFFFF
        return self._last_at - (units * 1000 / rtcp.CLOCK_RATE - audio_ms) / 1000

    def stop(self) -> None:
        """Stop filling."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sink_loss(self) -> float:
        """The share of this direction's packets that the far receiver reports lost."""
        heard = self._sink.sending.heard if self._sink is not None else None
        return heard.fraction_lost if heard is not None else 0.0

    # -- lending the stream to native code ------------------------------------------------------

    def _unordinary(self, size: int, at: float) -> None:
        """Forward a packet that native code could not, and let it have those that follow."""
        self._take_back()
        if self._source is not None:
            # Whatever becomes of the packet, its sender lives.
            self._source.engine.last_heard = at
        self.packet(size, at)
        self._lend()

    def _lend(self) -> None:
        source, sink = self._source, self._sink
        if (
            source is None
            or sink is None
            or not sink.connected
            or self._interrupted
            or self._in_ssrc is None
            or self._last_at is None
            or self._received.ssrc != self._in_ssrc
        ):
            return
        lane = source.engine.lane
        if lane is None:
            return
        queue = self._queue
        if queue is not None:
            lane.tap(queue.waiting, queue.limit, self._tap)
        else:
            lane.tap(None, 0, self._tap)
        self._lent = source.engine.lend(
            sink.engine,
            ssrc=self._in_ssrc,
            payload_type=source.payload_type,
            sink_ssrc=self._sending.ssrc,
            sink_payload_type=sink.payload_type,
            offsets=(self._sequence_offset, self._timestamp_offset),
            floor=self._floor,
            last=(self._last_sequence, self._last_timestamp, self._last_at),
            reception=self._received.state,
        )

    def _take_back(self) -> None:
        """Have the stream to ourselves again, with all that was counted."""
        self.settle()
        self._lent = False
        lane = self._source.engine.lane if self._source is not None else None
        if lane is not None:
            lane.disarm()

    def settle(self) -> None:
        """Bring the counts of both legs up to date with what native code did."""
        source, sink = self._source, self._sink
        if not self._lent or source is None or sink is None or source.engine.lane is None:
            return
        done, reception, sending = settle(source.engine.lane), self._received, self._sending
        self._floor = done.floor
        self._last_sequence, self._last_timestamp = done.last_sequence, done.last_timestamp
        self._last_at = done.last_at
        reception.adopt(
            done.highest, done.jitter, done.transit, done.heard_at, done.packets, done.octets
        )
        source.engine.last_heard = max(source.engine.last_heard, done.heard_at)
        if done.unprotect:
            source.engine.dropped["unprotect"] += done.unprotect
        for meter in (source.engine.delay, source.port.delay):
            meter.merge(done.delays, done.late, done.delay_total, done.delay_largest, done.buckets)
        sending.packets += done.forwarded
        sending.octets += done.sent_octets
        sending.last_timestamp, sending.last_at = done.last_timestamp, done.last_at
        self._counters.forwarded += done.forwarded
        unsent = done.protect + done.send_full + done.send_error
        if unsent:
            self._counters.not_sent += unsent
            sink.engine.dropped["protect"] += done.protect
            sink.port.dropped["send_full"] += done.send_full
            sink.port.dropped["send_error"] += done.send_error

    # -- forwarding ---------------------------------------------------------------------------

    def packet(self, size: int, at: float) -> None:
        """Forward the packet that lies in the source's buffer. The hot path."""
        source, sink = self._source, self._sink
        if source is None:
            return
        buffer = source.port.buffer
        first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(buffer)
        start = 12 + ((first & 0x0F) << 2)
        if first & 0x10:
            # Of a header cut short what lies in the buffer behind is read: it leads beyond, too.
            start += 4 + ((buffer[start + 2] << 8 | buffer[start + 3]) << 2)
        if start >= size:
            self._counters.malformed += 1
            source.malformed += 1
            return
        if second & 0x7F != source.payload_type:
            self._counters.wrong_payload_type += 1
            source.malformed += 1
            return
        end = size - buffer[size - 1] if first & 0x20 else size
        if end <= start:
            self._counters.malformed += 1
            source.malformed += 1
            return
        self._received.received(ssrc, sequence, timestamp, end - start, at)
        if self._tap is not None:
            self._tap(at, ssrc, sequence, timestamp, bytes(buffer[start:end]))
        if sink is None or not sink.connected:
            self._counters.not_ready += 1
            return
        if ssrc != self._in_ssrc:
            source.engine.learn_ssrc(ssrc)
            self._rebase(ssrc, sequence, timestamp, at)
        elif self._interrupted and not self._resume(sequence, timestamp, at):
            self._counters.stale += 1
            return
        ahead = (sequence - self._floor) & 0xFFFF
        if ahead >= 0x8000:
            self._counters.refused += 1
            return
        if ahead > 2 * FLOOR_DISTANCE:
            self._floor = (sequence - FLOOR_DISTANCE) & 0xFFFF
        out_sequence = (sequence + self._sequence_offset) & 0xFFFF
        out_timestamp = (timestamp + self._timestamp_offset) & 0xFFFFFFFF
        sending = self._sending
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
        if (out_sequence - self._last_sequence) & 0xFFFF < 0x8000:
            # Whether or not the socket takes it, its number and its time are spoken for.
            self._last_sequence = out_sequence
            self._last_timestamp = sending.last_timestamp = out_timestamp
            self._last_at = sending.last_at = at
        if not sink.engine.forward(source.engine, offset, size - offset):
            self._counters.not_sent += 1
            return
        self._counters.forwarded += 1
        sending.packets += 1
        sending.octets += end - start

    def _rebase(self, ssrc: int, sequence: int, timestamp: int, at: float) -> None:
        """Join a new input stream to the end of what was sent: next number, time gone by."""
        next_timestamp = self._last_timestamp + self._elapsed(at)
        self._timestamp_offset = (next_timestamp - timestamp) & 0xFFFFFFFF
        if self._first_timestamp is None:
            self._first_timestamp = next_timestamp & 0xFFFFFFFF
        self._in_ssrc = ssrc
        self._renumber(sequence)
        self._counters.rebased += 1

    def _renumber(self, sequence: int) -> None:
        """Give this input packet the next number; what was numbered before it is refused."""
        self._sequence_offset = (self._last_sequence + 1 - sequence) & 0xFFFF
        self._floor = sequence
        self._interrupted = False
        self._behind = None

    def _elapsed(self, at: float) -> int:
        """RTP clock units since the last packet sent; at least one frame."""
        if self._last_at is None:
            return FRAME
        return max(FRAME, int((at - self._last_at) * rtcp.CLOCK_RATE))

    def _resume(self, sequence: int, timestamp: int, at: float) -> bool:
        """Whether a packet that follows silence of ours may be sent, and how it is numbered.

        Under the offset from before, its time is either ahead of what was sent (audio was lost,
        time went on: keep the time, renumber) or behind. Behind by the same amount for a while,
        the sender's clock stood still, as a browser's does while its track is away: rebase.
        Behind by less and less, a stalled network empties its queue: those words' time has been
        filled, and playing them would delay the conversation for the rest of the call.
        """
        mapped = (timestamp + self._timestamp_offset) & 0xFFFFFFFF
        ahead = (mapped - self._last_timestamp) & 0xFFFFFFFF
        if 0 < ahead < 0x80000000:
            self._renumber(sequence)
            return True
        behind = (-ahead) & 0xFFFFFFFF
        if self._behind is None:
            self._behind = (at, behind)
            return False
        since, before = self._behind
        if at - since < RESUME_SECONDS:
            return False
        if behind + 2 * FRAME > before:
            self._rebase(self._in_ssrc or 0, sequence, timestamp, at)
            return True
        self._behind = (at, behind)
        return False

    # -- filling ------------------------------------------------------------------------------

    @property
    def _patience(self) -> float:
        """How long to wait for a packet: no longer than a frame where none can come."""
        return FRAME_SECONDS if self._source is None else FILL_AFTER_SECONDS

    def _watch(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._sink is None:
            return
        self.settle()
        now = time.monotonic()
        if not self._sink.connected:
            self._watch(FILL_AFTER_SECONDS)
            return
        if self._last_at is None:
            # Nothing was ever sent: the stream begins now.
            self._last_at = now - FILL_AFTER_SECONDS
        silent = now - self._last_at
        if not self._interrupted and silent < self._patience:
            self._watch(self._patience - silent)
            return
        self.fill(now)
        self._watch(max(0.0, (self._last_at or now) + FRAME_SECONDS - time.monotonic()))

    def fill(self, now: float) -> None:
        """Send one packet of silence in the source's place, stamped as late as it is sent."""
        sink = self._sink
        if sink is None:
            return
        self._take_back()
        if self._interrupted and self._last_at is not None:
            # Whole frames, so that the silence is gapless and its clock keeps our pace.
            frames = max(1, round((now - self._last_at) / FRAME_SECONDS))
            step, at = frames * FRAME, self._last_at + frames * FRAME_SECONDS
        else:
            step, at = self._elapsed(now), now
        self._interrupted = True
        self._last_sequence = (self._last_sequence + 1) & 0xFFFF
        self._last_timestamp = (self._last_timestamp + step) & 0xFFFFFFFF
        if self._first_timestamp is None:
            self._first_timestamp = self._last_timestamp
        self._last_at = at
        if sink.send_audio(self._last_sequence, self._last_timestamp, SILENCE):
            self._counters.filled += 1
