"""Decides where in the recording each audio packet of one speaker belongs.

Position 0 is the moment the recording began, for both speakers; positions are samples at 48 kHz.
What comes out is one gapless sequence of Opus packets, because players ignore the holes that a
container can describe: whatever is missing is concealed or written as silence.

A packet's place is its RTP time plus one *offset*, the lower envelope of its *delay*, which is
(arrival - RTP time): no packet arrives before it was sent, so the smallest delay is the path's own,
jitter and queues taken away. The offset changes in four cases only:

- a packet is early by more than 12 ms: at once, because the path was just seen to be faster
  (counted as drift);
- the smallest delay of 20 to 25 s of speech is more than 10 ms above the offset: by all of it
  (counted as drift);
- the delay of all packets of 300 ms is more than 200 ms off, either way: at once, by arrival
  (counted as re-anchoring). However many short stalls of a sender come together, their sum does not
  pass 200 ms;
- packets resume after a pause of more than 10 s: by their delay, however small the difference.

Within 20 ms of the sender's time laid along the fastest path, for every packet: jitter, loss and
reordering; queues on the path that stand for less than 20 s, and hold-ups that end in a burst,
however often; pauses in which RTP time goes on, and those in which it stands still for more than
200 ms; clocks up to 200 ppm off, also over long pauses; restarts.

What cannot be told apart: a delay that goes up by less than 200 ms and stays, and a sender that
stood still for as long without its RTP time noticing. The packets are the same. For 20 to 25 s it
is taken for a queue: had the sender stood still, what it says meanwhile lies early by as much.
Then it is taken for the sender: was it the path, what follows lies late by as much until the path
recovers. Neither adds up, and neither passes 200 ms. Nor can the first packets of a stream show a
queue that was there before them, or a few packets alone what was jitter in all of them.

Packets are held back for a moment only: while an offset is looked up, and while an earlier packet
is missing. Pure: time comes in with the packets, nothing is read from a clock.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from interview_peer.core.opus import (
    FRAME_SAMPLES,
    SAMPLE_RATE,
    SHORTEST,
    SILENCE_20_MS,
    concealment,
    packet_samples,
    silence,
)
from interview_peer.core.packets import Packet

HOLD_SECONDS = 0.2
"""How long a packet waits for earlier ones."""

LOOK_SECONDS = 0.3
"""How much is heard before an offset is chosen: of fifteen packets, one had little jitter."""

FILL_LAG_SECONDS = 0.4
"""Silence is written up to this long ago, so that packets that come late, or were held back, still
find their place."""

RESUME_SECONDS = 0.2
"""A pause in arrivals longer than this, or a disagreement between RTP time and our clock larger
than this, puts the offset in question. Jitter stays below it."""

MAX_CONCEALED_FRAMES = 3
"""A decoder's guess is good for about this many frames; beyond it silence is the truth."""

_HOLD = int(HOLD_SECONDS * SAMPLE_RATE)
_LOOK = int(LOOK_SECONDS * SAMPLE_RATE)
_RESUME = int(RESUME_SECONDS * SAMPLE_RATE)
_FILL_LAG = int(FILL_LAG_SECONDS * SAMPLE_RATE)
_SILENT_PACKET = 960

_FEW = 3
"""Fewer packets than these do not show that all of them were held up by the same."""

_TOLERANCE = SAMPLE_RATE // 200
"""A packet may begin up to 5 ms late; were it to overlap more, it would be dropped."""

_OLDEST, _NEWEST = -500, 3_000
"""Sequence numbers outside this range around the last one mean that the sender started anew."""

_LONG_PAUSE = 10 * SAMPLE_RATE
"""After a pause of this length the offset is taken anew, however small the difference: 200 ppm
make 2 ms of it, and minutes of silence make more than drift correction can follow."""

_ABOVE = SAMPLE_RATE // 100
_BELOW = 12 * SAMPLE_RATE // 1_000
_STEP = SAMPLE_RATE // 50
"""The smallest delay may be 10 ms above the offset or 12 ms below it. Then the offset is corrected
by whole packets of 20 ms: for drift that is one more or less, hardly heard. The limits differ so
that a step up, to 10 ms above at most, is not followed by one down."""

_PERIOD = 5 * SAMPLE_RATE
_PERIODS = 4
"""The smallest delay is that of four full periods. What stands on the path for less than that is
not mistaken for the sender; 200 ppm are 5 ms in that time."""

_NEVER = 1 << 62

_SURELY_SHORT = 1_000
"""Bytes that any frame may have."""

_PLAIN = frozenset(
    toc for toc, samples in enumerate(FRAME_SAMPLES) if samples == _SILENT_PACKET and not toc & 3
)
"""First bytes of packets that are one frame of 20 ms."""

_NEARLY_SHORTEST = SHORTEST // 2
"""A gap below this is none that could be written."""


@dataclass(slots=True)
class Counters:
    """What happened to one speaker's packets. Read it at any time; only the timeline writes it."""

    packets: int = 0
    """Packets written as they came."""
    lost: int = 0
    """Sequence numbers that were absent when their place was written."""
    late: int = 0
    """Packets that came after their place was written; dropped."""
    duplicate: int = 0
    """Packets that had been written already; dropped."""
    invalid: int = 0
    """Payloads that are not Opus; dropped."""
    concealed: int = 0
    """Frames the decoder is asked to conceal."""
    silence_ms: float = 0.0
    """Silence written, milliseconds."""
    reanchors: int = 0
    """How often RTP time was set anew by arrival time, the first packet not counted."""
    drift_ms: float = 0.0
    """Sum of all corrections that were no re-anchoring, milliseconds: positive for a sender whose
    clock is slow, or stands still for moments."""
    overflow: int = 0
    """Packets refused because the recorder's list was full; dropped."""


# Sequence number, RTP time (both unwrapped), arrival as a position, payload. Unwrapped sequence
# numbers can repeat, and then the rest decides, which is harmless.
_Held = tuple[int, int, int, bytes]


class Timeline:
    """One speaker's line. ``started_at`` and all times are seconds of one monotonic clock."""

    def __init__(self, started_at: float, counters: Counters | None = None) -> None:
        self.counters = counters or Counters()
        self._started_at = started_at
        self._written = 0
        self._offset = 0
        self._anchored = False
        self._source: int | None = None
        self._former: int | None = None
        self._switched_at = 0  # position
        self._last_arrival = 0  # position
        self._newest = 0  # unwrapped sequence number
        self._newest_time = 0  # its unwrapped RTP time
        self._next = 0  # unwrapped sequence number to write next
        self._held: list[_Held] = []
        self._pause = 0  # longest pause before what is being looked at
        self._look_until: int | None = None  # position; an offset is being looked up until then
        self._missing: set[int] = set()
        self._toc = -1  # of the packet written last; -1 after silence
        self._period_ends = 0
        self._smallest = 0  # delay in this period
        self._periods: list[int] = []  # the smallest delay of each of the last ones

    @property
    def position(self) -> int:
        """Where the next packet would be written."""
        return self._written

    def place(
        self, at: float, sequence: int, timestamp: int, payload: bytes, source: int = 0
    ) -> list[bytes]:
        """Take one packet in order of arrival; return the Opus packets to write now.

        ``at`` is its arrival in seconds, ``sequence`` and ``timestamp`` are as the sender wrote
        them, ``source`` tells senders (or their restarts) apart. The answer can be empty, and can
        hold earlier packets that waited.
        """
        arrival = int((at - self._started_at) * SAMPLE_RATE)
        output: list[bytes] = []
        pause = arrival - self._last_arrival
        paused = pause > _RESUME
        if self._held:
            # What came before a pause says nothing about the offset after it.
            self._release(None if paused else arrival, output)
        step = ((sequence - self._newest + 0x8000) & 0xFFFF) - 0x8000
        if source != self._source or not _OLDEST <= step <= _NEWEST:
            if source == self._former and arrival - self._switched_at < SAMPLE_RATE:
                # A straggler must not switch the line back.
                self.counters.late += 1
                return output
            self._begin_source(source, sequence, timestamp, arrival, output)
            step = 0
        number = self._newest + step
        ahead = ((timestamp - self._newest_time + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        time = self._newest_time + ahead
        if number < self._next and self._anchored:
            self._count_old(number)
            return output
        if paused or (
            self._look_until is None and not -_RESUME <= arrival - time - self._offset <= _RESUME
        ):
            # RTP time and our clock may disagree, or this packet was held up on its way.
            self._look_until = arrival + _LOOK
            self._pause = max(self._pause, pause)
        self._last_arrival = arrival
        if step > 0:
            self._newest = number
            self._newest_time = time
        if self._look_until is not None or number != self._next:
            heapq.heappush(self._held, (number, time, arrival, payload))
            return output
        self._write(number, time, arrival, payload, output)
        if self._held:
            self._release(arrival, output)
        return output

    def place_all(self, packets: Iterable[Packet]) -> list[bytes]:
        """``place`` for packets in order of arrival.

        Takes the short way for a packet that follows the one before it, which nearly all do: its
        place is there, and nothing else changes.
        """
        output: list[bytes] = []
        started_at, counters = self._started_at, self.counters
        for packet in packets:
            at, sequence, timestamp, payload, source = packet
            arrival = int((at - started_at) * SAMPLE_RATE)
            number, time = self._newest + 1, self._newest_time + _SILENT_PACKET
            delay = arrival - time
            offset = self._offset
            if (
                sequence == number & 0xFFFF
                and number == self._next
                and timestamp == time & 0xFFFFFFFF
                and source == self._source
                and self._look_until is None
                and not self._held
                and arrival - self._last_arrival <= _RESUME
                and offset - _BELOW <= delay <= offset + _RESUME
                and arrival < self._period_ends
                and payload
                and payload[0] in _PLAIN
                and len(payload) < _SURELY_SHORT
                and -_TOLERANCE <= time + offset - self._written < _NEARLY_SHORTEST
            ):
                self._last_arrival = arrival
                self._newest, self._newest_time, self._next = number, time, number + 1
                if delay < self._smallest:
                    self._smallest = delay
                output.append(payload)
                self._written += _SILENT_PACKET
                self._toc = payload[0]
                counters.packets += 1
            else:
                output += self.place(*packet)
        return output

    def fill_to(self, now: float) -> list[bytes]:
        """Return what is due at ``now`` (seconds): packets that waited long enough, and silence
        up to ``FILL_LAG_SECONDS`` ago, or to what still waits."""
        position = int((now - self._started_at) * SAMPLE_RATE)
        output: list[bytes] = []
        self._release(position, output)
        end = position - _FILL_LAG
        if self._held and self._anchored:
            # What was late already when it came, and then had to wait, keeps its place.
            place = self._held[0][1] + self._offset
            if self._written - _TOLERANCE <= place < end:
                end = place
        count = (end - self._written) // _SILENT_PACKET
        if count > 0:
            output += [SILENCE_20_MS] * count
            self._count_silence(count * _SILENT_PACKET)
        return output

    def drain(self) -> list[bytes]:
        """Return all packets still held back; none can come before them any more."""
        output: list[bytes] = []
        self._release(None, output)
        return output

    def pad_to(self, position: int) -> list[bytes]:
        """Return silence up to ``position``, rounded up to 2.5 ms."""
        missing = -(-(position - self._written) // SHORTEST) * SHORTEST
        if missing <= 0:
            return []
        self._count_silence(missing)
        return silence(missing)

    # Finding the offset

    def _begin_source(
        self, source: int, sequence: int, timestamp: int, arrival: int, output: list[bytes]
    ) -> None:
        """Start counting anew: another sender, or the same one after a restart."""
        self._release(None, output)
        if self._source is not None:
            self.counters.reanchors += 1
        self._former, self._source = self._source, source
        self._switched_at = arrival
        self._newest = self._next = sequence
        self._newest_time = timestamp
        self._missing.clear()
        self._anchored = False
        self._last_arrival = arrival
        self._look_until = arrival + _LOOK

    def _look(self) -> None:
        """End the look-up: choose the offset by the packets that were held meanwhile."""
        self._look_until = None
        delay = min(arrival - time for _, time, arrival, _ in self._held)
        if len(self._held) < _FEW and self._anchored and self._pause <= _RESUME:
            if delay > self._offset:
                # Speech broke off again: too little to tell a hold-up from more.
                return
        is_near = self._anchored and abs(delay - self._offset) <= _RESUME
        # Over a long pause clocks drift apart unseen, and step by step would take too long.
        rested, self._pause = self._pause > _LONG_PAUSE, 0
        if is_near and not rested:
            return
        if is_near:
            self.counters.drift_ms += (delay - self._offset) * 1_000 / SAMPLE_RATE
        elif self._anchored:
            self.counters.reanchors += 1
        else:
            # A restart has no packets before this one, and reordering can have shown a later one
            # first.
            self._next = self._held[0][0]
        self._anchored = True
        self._offset = delay
        self._smallest = delay
        self._periods.clear()
        self._period_ends = self._last_arrival + _PERIOD

    def _end_period(self, arrival: int) -> None:
        """Compare the smallest delay of the last periods with the offset; step up if it is above.

        It may be a queue on the path, hence the patience.
        """
        self._periods.append(self._smallest)
        self._smallest = _NEVER
        self._period_ends = arrival + _PERIOD
        if len(self._periods) < _PERIODS:
            return
        smallest = min(self._periods)
        if smallest > self._offset + _ABOVE:
            self._step_to(smallest)
        del self._periods[0]

    def _step_to(self, delay: int) -> None:
        """Bring the offset to within 10 ms of ``delay``, from which it is further away."""
        step = max(1, (abs(delay - self._offset) + _STEP // 2) // _STEP) * _STEP
        if delay < self._offset:
            step = -step
        self._offset += step
        self.counters.drift_ms += step * 1_000 / SAMPLE_RATE

    # Writing in order

    def _release(self, now: int | None, output: list[bytes]) -> None:
        """Write what was held and is in order, or has waited long enough. None: everything."""
        if self._look_until is not None and self._held:
            if now is not None and now < self._look_until:
                return
            self._look()
        held = self._held
        while held:
            number, time, arrival, payload = held[0]
            if number > self._next and now is not None and now < arrival + _HOLD:
                return
            heapq.heappop(held)
            if number < self._next:
                self._count_old(number)
            else:
                self._write(number, time, arrival, payload, output)

    def _write(
        self, number: int, time: int, arrival: int, payload: bytes, output: list[bytes]
    ) -> None:
        """Write one packet at its place, and whatever belongs before it."""
        if number > self._next:
            self._count_lost(number)
        self._next = number + 1
        toc = payload[0] if payload else 3
        # One short frame, which is what nearly all packets are, needs no closer look.
        known = not toc & 3 and len(payload) < _SURELY_SHORT
        samples = FRAME_SAMPLES[toc] if known else packet_samples(payload)
        if not samples:
            self.counters.invalid += 1
            return
        delay = arrival - time
        if delay < self._smallest:
            self._smallest = delay
            if delay < self._offset - _BELOW:
                # Nothing arrives before it is sent, so this is certain.
                self._step_to(delay)
        if arrival >= self._period_ends:
            self._end_period(arrival)
        gap = time + self._offset - self._written
        if gap >= SHORTEST // 2:
            self._fill(gap, output)
        elif gap < -min(_TOLERANCE, samples // 2):
            self.counters.late += 1
            return
        output.append(payload)
        self._written += samples
        self._toc = toc
        self.counters.packets += 1

    def _fill(self, gap: int, output: list[bytes]) -> None:
        """Fill ``gap`` samples before a packet: by concealment if short, else by silence."""
        # To the nearest 2.5 ms: nothing shorter can be written.
        gap = (gap + SHORTEST // 2) // SHORTEST * SHORTEST
        if self._toc >= 0:
            frame = FRAME_SAMPLES[self._toc]
            frames = gap // frame
            if 1 <= frames <= MAX_CONCEALED_FRAMES:
                output += [concealment(self._toc)] * frames
                self.counters.concealed += frames
                self._written += frames * frame
                gap -= frames * frame
        if gap > 0:
            output += silence(gap)
            self._count_silence(gap)

    def _count_silence(self, samples: int) -> None:
        self._written += samples
        self._toc = -1
        self.counters.silence_ms += samples * 1_000 / SAMPLE_RATE

    def _count_lost(self, number: int) -> None:
        self.counters.lost += number - self._next
        self._missing.update(range(self._next, number))
        oldest = number + _OLDEST
        if len(self._missing) > -2 * _OLDEST:
            self._missing = {lost for lost in self._missing if lost >= oldest}

    def _count_old(self, number: int) -> None:
        """Count a packet whose turn is over: it was written already, or given up as lost."""
        if number in self._missing:
            self._missing.discard(number)
            self.counters.late += 1
        else:
            self.counters.duplicate += 1
