"""Sends and receives the media of all calls, cheaply, and times each packet.

One process plays every browser and every model. Packets leave by an absolute schedule, evenly
spread; each carries its send time. They are read from the sockets in sweeps, which cannot make
them look late: the arrival is the kernel's receive time stamp. Everything goes through real SRTP.
"""

from __future__ import annotations

import asyncio
import math
import select
import selectors
import socket
import struct
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pylibsrtp._binding import ffi, lib

from interview_peer.media.leg import ChannelClosed, Leg
from interview_peer.media.meters import DelayMeter
from interview_peer.media.udp import UdpPort

from . import packets

TICK_SECONDS: Final = 0.00025
SWEEP_SECONDS: Final = 0.001
GOLDEN: Final = (math.sqrt(5) - 1) / 2
BURST_PERIOD: Final = 50
"""Packets from one burst of speech to the next."""

SOUND_BYTES: Final = 48
"""An RTP packet of this size is not coded silence."""

TO_MODEL: Final = 0
TO_BROWSER: Final = 1

_SO_TIMESTAMPNS: Final = 35
_TIMESPEC = struct.Struct("@qq")
_CONTROL_BYTES: Final = socket.CMSG_SPACE(_TIMESPEC.size)
_FIELDS = struct.Struct("!HII")
_HEADER = struct.Struct("!BBHII")
_SMALLEST_STAMPED: Final = 12 + 3 + packets.STAMP.size


class FineSelector(selectors.EpollSelector):
    """Waits to the microsecond; ``epoll_wait`` counts in milliseconds."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """The same as ``EpollSelector.select``."""
        if timeout is not None and 0 < timeout < 0.1:
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)


class SweptPort(UdpPort):
    """A port that is read when the pump says so instead of when something arrives."""

    batch = 1
    """Datagrams handled in one sweep: one where each call has a port, many where all share it."""

    def __init__(
        self,
        sock: socket.socket,
        announced: Sequence[str],
        delay: DelayMeter | None = None,
        *,
        use_native: bool = True,
    ) -> None:
        # Natively the port would read for itself.
        super().__init__(sock, announced, delay, use_native=False)
        self.streams: dict[tuple[str, int], Stream] = {}
        """Who judges the audio that comes from an address."""

    @property
    def socket(self) -> socket.socket:
        """The bound socket."""
        return self._sock

    def start_sweeping(self) -> None:
        """Leave the event loop."""
        self._loop.remove_reader(self._sock.fileno())

    def stop_sweeping(self) -> None:
        """Come back to the event loop."""
        self._loop.add_reader(self._sock.fileno(), self._readable)

    def sweep(self) -> None:
        """Handle what has arrived."""
        buffer, receive, streams = self.buffer, self._sock.recvmsg_into, self.streams
        buffers = [buffer]
        for _ in range(self.batch):
            try:
                size, control, _, addr = receive(buffers, _CONTROL_BYTES)
            except OSError:
                return
            stream = streams.get(addr)
            if stream is not None and 127 < buffer[0] < 192 and not 192 <= buffer[1] <= 208:
                seconds, nanoseconds = _TIMESPEC.unpack(control[0][2])
                stream.received(size, seconds * 1_000_000_000 + nanoseconds)
                continue
            endpoint = self._by_address.get(addr)
            if endpoint is not None and 127 < buffer[0] < 192:
                endpoint.packet(size, time.monotonic())
            else:
                self._other(size, buffer[0], addr, endpoint)


@dataclass
class Window:
    """What one measurement counts. Only what is sent between its ends belongs to it."""

    start: int
    end: int
    sent: list[int] = field(default_factory=lambda: [0, 0])
    delays: tuple[array[int], array[int]] = field(default_factory=lambda: (array("q"), array("q")))
    """Nanoseconds, by direction."""
    late: array[int] = field(default_factory=lambda: array("q"))
    """How long after its time each packet was sent: the generator's own lateness."""
    events_sent: int = 0
    event_delays: array[int] = field(default_factory=lambda: array("q"))
    unstamped: int = 0
    """Packets that hold no stamp of ours: transcoded, or silence made on the way."""

    @property
    def complete(self) -> bool:
        """Whether all that was sent has arrived."""
        return (
            self.sent == [len(delays) for delays in self.delays]
            and len(self.event_delays) == self.events_sent
        )


class Stream:
    """One direction of one call: speech out of ``source``, judged where it arrives.

    Does what ``Leg.send_audio`` and ``Leg.deliver`` do with fewer calls on the way: with ten
    thousand packets a second each way, the generator must not be what is measured.
    """

    def __init__(
        self,
        pump: Pump,
        direction: int,
        number: int,
        source: Leg,
        sink: Leg,
        *,
        bursts: bool = False,
    ) -> None:
        self.phase = (number * GOLDEN) % 1.0
        self._pump = pump
        self._direction = direction
        self._bursts = bursts
        self._burst_sent = 0
        self._quiet = 0
        self._source = source
        self._sink = sink
        self._speech = pump.speech
        self._position = number * 977 % len(pump.speech)
        self._sequence = number * 31 & 0x7FFF
        self._timestamp = number * 7919
        self._cycle: int | None = None
        self._length = ffi.new("int *")
        self._buffer = sink.port.buffer
        self._pointer = ffi.from_buffer(sink.port.buffer)

    def begin(self) -> None:
        """Take the keys and addresses that the connected legs have agreed on."""
        source, sink = self._source, self._sink
        self._tx = source.engine._tx
        self._rx = sink.engine._rx
        self._send = source.port.socket.sendto  # type: ignore[attr-defined]
        self._remote = source.engine.remote
        self._ssrc = source.engine.ssrc
        self._payload_type = source.payload_type
        sink.port.streams[sink.engine.remote] = self  # type: ignore[attr-defined]

    def send(self, cycle: int) -> None:
        """Send the packet of this 20 ms."""
        pump = self._pump
        # The RTP clock runs on while nothing is sent, as a microphone's would.
        frames = 1 if self._cycle is None else cycle - self._cycle
        self._cycle = cycle
        sequence = self._sequence = (self._sequence + 1) & 0xFFFF
        timestamp = self._timestamp = (self._timestamp + frames * packets.FRAME) & 0xFFFFFFFF
        self._position += 1
        now = time.time_ns()
        if self._bursts:
            head = self._burst(cycle, now)
        else:
            head = self._speech[self._position % len(self._speech)]
        scratch = pump.scratch
        end = 12 + len(head)
        _HEADER.pack_into(scratch, 0, 0x80, self._payload_type, sequence, timestamp, self._ssrc)
        scratch[12:end] = head
        packets.STAMP.pack_into(scratch, end, now)
        length = self._length
        length[0] = end + packets.STAMP.size
        if lib.srtp_protect(self._tx, pump.scratch_pointer, length):
            return
        window = pump.window
        if window is not None and window.start <= now < window.end:
            window.sent[self._direction] += not self._bursts or self._burst_sent == now
        try:
            self._send(pump.scratch_view[: length[0]], self._remote)
        except OSError:
            return
        sending = self._source.sending
        sending.packets += 1
        sending.octets += end - 4
        sending.last_timestamp = timestamp
        sending.last_at = time.monotonic()

    def received(self, size: int, arrived: int) -> None:
        """Judge the packet in the sink's buffer, which came at ``arrived`` (ns since 1970)."""
        length = self._length
        length[0] = size
        if lib.srtp_unprotect(self._rx, self._pointer, length):
            return
        size = length[0]
        buffer = self._buffer
        sink = self._sink
        sink.engine.last_heard = time.monotonic()
        sequence, timestamp, ssrc = _FIELDS.unpack_from(buffer, 2)
        reception = sink.reception
        if reception.ssrc != ssrc:
            reception.received(ssrc, sequence, timestamp, size - 12, sink.engine.last_heard)
        else:
            step = (sequence - reception.highest) & 0xFFFF
            if step < 0x8000:
                reception.highest += step
            reception.packets += 1
        window = self._pump.window
        if window is None:
            return
        if self._bursts:
            self._judge_burst(size, arrived, window)
            return
        if size >= _SMALLEST_STAMPED:
            (sent,) = packets.STAMP.unpack_from(buffer, size - packets.STAMP.size)
            if window.start <= sent < window.end:
                window.delays[self._direction].append(arrived - sent)
                return
            if abs(sent - window.start) < 60_000_000_000:
                return
        if window.start <= arrived < window.end:
            window.unstamped += 1

    def _burst(self, cycle: int, now: int) -> bytes:
        """Speech for 0.2 s of each second, and silence: through a transcoder no stamp comes."""
        step = cycle % BURST_PERIOD
        if step == 0:
            self._burst_sent = now
        return self._pump.burst[step] if step < len(self._pump.burst) else self._pump.silence

    def _judge_burst(self, size: int, arrived: int, window: Window) -> None:
        """Time the first packet that is not silence; an encoder makes silence a few bytes."""
        if size < SOUND_BYTES:
            self._quiet += 1
            return
        quiet, self._quiet = self._quiet, 0
        if quiet >= 10 and window.start <= self._burst_sent < window.end:
            window.delays[self._direction].append(arrived - self._burst_sent)


class EventSource:
    """Speaks transcript deltas on a model's event channel, as a talking model does."""

    PER_REPLY = 30

    def __init__(self, pump: Pump, number: int, leg: Leg) -> None:
        self.phase = (number * GOLDEN) % 1.0
        self._pump = pump
        self._leg = leg
        self._number = number
        self._count = 0

    def send(self, cycle: int) -> None:
        """Send the next event: one of 30 begins a reply, the others carry its words."""
        reply, step = divmod(self._count, self.PER_REPLY)
        self._count += 1
        now = time.time_ns()
        # Ids have the length of real ones; the event's carries the time it was sent.
        response_id = f"resp_bench{self._number:06d}{reply:010d}"
        item_id = f"item_bench{self._number:06d}{reply:010d}"
        if step == 0:
            text = (
                f'{{"type":"response.output_item.added","event_id":"event_{now:021d}",'
                f'"response_id":"{response_id}","output_index":0,"item":{{"id":"{item_id}",'
                '"type":"message","status":"in_progress","role":"assistant","content":[]}}'
            )
        else:
            text = (
                '{"type":"response.output_audio_transcript.delta",'
                f'"event_id":"event_{now:021d}","response_id":"{response_id}",'
                f'"item_id":"{item_id}","output_index":0,"content_index":0,'
                f'"delta":" about","obfuscation":"{self._count:010d}"}}'
            )
        window = self._pump.window
        try:
            self._leg.send_text(text)
        except ChannelClosed:
            return
        if window is not None and window.start <= now < window.end:
            window.events_sent += 1


def event_stamp(text: str) -> int | None:
    """When an event of ``EventSource`` was sent; None for any other."""
    place = text.find('"event_id":"event_')
    digits = text[place + 18 : place + 39]
    return int(digits) if place >= 0 and digits.isdigit() and len(digits) == 21 else None


class Ring:
    """Senders that each take their turn once a period, at their own phase of it."""

    def __init__(self, period: float) -> None:
        self.period = period
        self._senders: list[Any] = []
        self._next = 0
        self._cycle = 0
        self._base = 0.0

    def restart(self, senders: list[Any], now: float) -> None:
        """Begin again at ``now`` with these senders."""
        self._senders = sorted(senders, key=lambda sender: sender.phase)
        self._next = 0
        # Cycles count from a fixed origin, so that clocks run on through a pause.
        self._cycle = math.ceil(now / self.period)
        self._base = 0.0

    def run(self, late: array[int] | None) -> None:
        """Let everyone send whose time has come."""
        senders = self._senders
        if not senders:
            return
        period = self.period
        now = time.monotonic()
        while True:
            sender = senders[self._next]
            due = (self._cycle + sender.phase) * period
            if due > now:
                now = time.monotonic()
                if due > now:
                    return
            sender.send(self._cycle)
            if late is not None:
                late.append(int((now - due) * 1e9))
            self._next += 1
            if self._next == len(senders):
                self._next = 0
                self._cycle += 1


class Pump:
    """Runs on the event loop of the generator while media flows."""

    def __init__(self) -> None:
        self.speech = packets.speech()
        self.burst = packets.loudest(self.speech, 10)
        self.silence = packets.silence()
        self.scratch = bytearray(2048)
        self.scratch_pointer = ffi.from_buffer(self.scratch)
        self.scratch_view = memoryview(self.scratch)
        self.window: Window | None = None
        self.streams: list[Stream] = []
        self.event_sources: list[EventSource] = []
        self._ports: dict[int, SweptPort] = {}
        self._media = Ring(packets.FRAME_SECONDS)
        self._events = Ring(1.0)
        self._epoll: select.epoll | None = None
        self._timer: asyncio.Handle | None = None
        self._sweep_at = 0.0

    def add_port(self, port: SweptPort) -> None:
        """Sweep this port while running. Not while media flows."""
        self._ports[port.socket.fileno()] = port

    def remove_port(self, port: SweptPort) -> None:
        """Forget a port that is about to be closed. Not while media flows."""
        self._ports.pop(port.socket.fileno(), None)

    def event_arrived(self, text: str | bytes) -> None:
        """A browser was handed an event."""
        window = self.window
        if window is None or isinstance(text, bytes):
            return
        sent = event_stamp(text)
        if sent is not None and window.start <= sent < window.end:
            window.event_delays.append(time.time_ns() - sent)

    def start(self, events_per_second: float) -> None:
        """Let media flow; with events from each model if the rate is above 0."""
        now = time.monotonic()
        self._epoll = select.epoll()
        for number, port in self._ports.items():
            port.start_sweeping()
            self._epoll.register(number, select.EPOLLIN)
        for stream in self.streams:
            stream.begin()
        self._media.restart(self.streams, now)
        if events_per_second > 0:
            self._events.period = 1.0 / events_per_second
            self._events.restart(self.event_sources, now)
        else:
            self._events.restart([], now)
        self._timer = asyncio.get_running_loop().call_soon(self._tick)

    def stop(self) -> None:
        """Stop media; ports go back to the event loop, so that calls stay up."""
        if self._timer is None or self._epoll is None:
            return
        self._timer.cancel()
        self._timer = None
        self._epoll.close()
        self._epoll = None
        for port in self._ports.values():
            port.stop_sweeping()

    def _tick(self) -> None:
        began = time.monotonic()
        window = self.window
        self._media.run(window.late if window is not None else None)
        self._events.run(None)
        if began >= self._sweep_at and self._epoll is not None:
            self._sweep_at = began + SWEEP_SECONDS
            ports = self._ports
            for number, _ in self._epoll.poll(0, 1024):
                ports[number].sweep()
        self._timer = asyncio.get_running_loop().call_at(began + TICK_SECONDS, self._tick)
