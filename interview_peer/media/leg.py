"""One WebRTC connection of an interview, from first description to close.

A leg hides aiortc: callbacks that arrive in many places become one ordered row of calls on its
listener, and audio becomes RTP packets that a forwarder moves. It does not know what an
interview is, nor which of its two ends it serves.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections.abc import Callable
from typing import Final, Protocol

from aiortc import RTCDataChannel, RTCSessionDescription
from aiortc.sdp import candidate_from_sdp

from ..core import rtcp, sdp
from ..core.flood import Budget, Flood
from ..errors import InvalidSdp, UpstreamInvalidAnswer
from ..types import Json
from .engine import Engine
from .udp import UdpPort

log = logging.getLogger(__name__)

CHANNEL_LABEL: Final = "oai-events"

PULSE_SECONDS: Final = 0.5
SILENT_SECONDS: Final = 1.0
"""After so long without a datagram the leg sends checks of its own, one a pulse.

A browser with its track removed is silent for up to 2.5 s, or 1.24 s when checked."""

LOST_SECONDS: Final = 4.0
"""After so long without any datagram the far end is gone: no false alarm at 15 % loss."""

CHANNEL_BUFFER_BYTES: Final = 4 * 1024 * 1024
"""Unsent bytes on the channel at which the far end is taken for dead."""

OFFERER_WINDOW_BYTES: Final = 16 * 1024 * 1024
"""Largest event the model may send: a retrieved item holds its sound, 3.8 MB a minute."""

CNAME: Final = "interview_peer"

_RTP_HEADER = struct.Struct("!BBHII")
_RTP_FIELDS = struct.Struct("!HII")


class ChannelClosed(Exception):
    """The far end's event channel is not open."""


class MessageTooLarge(Exception):
    """The far end does not take messages of this size."""


class LegListener(Protocol):
    """What a leg tells, always on the event loop and in the order it happened."""

    def leg_connected(self, leg: Leg) -> None:
        """Audio can flow: ICE and DTLS are done."""

    def leg_lost(self, leg: Leg, reason: str) -> None:
        """The far end closed, failed or fell silent. Told once; close the leg."""

    def channel_opened(self, leg: Leg) -> None:
        """Events can be sent."""

    def channel_message(self, leg: Leg, data: str | bytes) -> None:
        """One message came on the event channel."""

    def channel_closed(self, leg: Leg) -> None:
        """The far end closed the event channel."""


class Leg:
    """One peer connection: either ``answer`` an offer, or ``offer`` and ``accept`` its answer.

    Args:
        name: for logs: ``browser``, ``model``.
        port: the socket it lives on; several legs may share one.
        listener: is told what happens; see ``LegListener``.
        dtls_server: as the answerer, wait for the far end's ClientHello.
        own_port: close ``port`` together with the leg.
        budget: what the far end may send; without one it is trusted.
    """

    def __init__(
        self,
        name: str,
        port: UdpPort,
        listener: LegListener,
        *,
        dtls_server: bool = False,
        own_port: bool = False,
        budget: Budget | None = None,
    ) -> None:
        self.name = name
        self.port = port
        self.engine = Engine(port, alone=own_port, budget=budget)
        self.connected = False
        self.lost = False
        self.flood: Flood | None = None
        """What of it the far end sent far too much; it is lost then."""
        self.payload_type = 0
        """The Opus payload type both ends of this leg use."""
        self._reception = rtcp.Reception()
        self._sending = rtcp.Sending(ssrc=0)
        self.settle_received: Callable[[], None] = _nothing
        """Brings what was received up to date; set by the forwarder, as is the next."""
        self.settle_sent: Callable[[], None] = _nothing
        self.path_loss: Callable[[], float] = _no_loss
        """Loss on the hop beyond this leg's stream, for its reports; set by the forwarder."""
        self.on_audio: Callable[[float, int, int, bytes], None] | None = None
        """Takes ``(arrival, sequence, timestamp, Opus payload)`` of each packet, if set."""
        self.malformed = 0
        """Packets of audio that could not be read, or were none."""

        self._budget = budget
        self._counted = 0
        self._listener = listener
        self._dtls_server = dtls_server
        self._own_port = own_port
        self._channel: RTCDataChannel | None = None
        self._pulse_timer: asyncio.TimerHandle | None = None
        self._pulse_due = 0.0
        self._pulses = 0
        self._closing: asyncio.Task[None] | None = None
        self.engine.on_srtp = self._srtp_ready
        self.engine.on_closed = self._far_end_lost
        self.engine.on_flood = self._flooded
        self.engine.on_rtp = self.deliver
        self.engine.on_rtcp = self._rtcp

    @property
    def reception(self) -> rtcp.Reception:
        """What came from the far end."""
        self.settle_received()
        return self._reception

    @property
    def sending(self) -> rtcp.Sending:
        """What went to the far end."""
        self.settle_sent()
        return self._sending

    # -- negotiation ------------------------------------------------------------------------

    async def answer(self, offer: sdp.Offer) -> str:
        """Accept a far end's offer, candidates left out, and give the complete answer.

        Raises:
            InvalidSdp: the offer cannot be answered.
        """
        pc = self.engine.pc
        pc.on("datachannel", self._adopt_channel)
        self.engine.add_audio()
        try:
            await pc.setRemoteDescription(RTCSessionDescription(sdp.for_engine(offer), "offer"))
            self.engine.prepare(dtls_server=self._dtls_server)
            await pc.setLocalDescription(await pc.createAnswer())
        except Exception as error:
            # aiortc's parser answers odd text with whatever exception it meets.
            log.debug("offer refused by the SDP parser: %s", type(error).__name__)
            raise InvalidSdp from None
        return self._local_description()

    async def offer(self) -> str:
        """Make an offer with one audio section and the event channel."""
        pc = self.engine.pc
        # The track must come before the channel: the other way round a bundled connection
        # of aiortc 1.16 stops its shared transport when the answer arrives.
        self.engine.add_audio()
        self._adopt_channel(pc.createDataChannel(CHANNEL_LABEL))
        self.engine.prepare(receive_window=OFFERER_WINDOW_BYTES)
        await pc.setLocalDescription(await pc.createOffer())
        return self._local_description()

    async def accept(self, answer_sdp: str) -> None:
        """Take the answer to our offer; connecting begins.

        Raises:
            UpstreamInvalidAnswer: it cannot be used.
        """
        sdp.check_answer(answer_sdp)
        pc = self.engine.pc
        try:
            await pc.setRemoteDescription(
                RTCSessionDescription(_without_suffixes(answer_sdp), "answer")
            )
            # A bundled offerer keeps the candidates of the answer's last section only, and
            # they are usually in the first: add each again, known ones are ignored.
            for line in sdp.candidate_lines(answer_sdp):
                candidate = candidate_from_sdp(line.removeprefix("candidate:"))
                candidate.sdpMLineIndex = 0
                await pc.addIceCandidate(candidate)
            await pc.addIceCandidate(None)
        except Exception as error:
            log.debug("answer refused by the SDP parser: %s", type(error).__name__)
            raise UpstreamInvalidAnswer from None
        self.payload_type = sdp.opus_payload_type(answer_sdp) or self.payload_type

    def _local_description(self) -> str:
        text = sdp.finish(self.engine.pc.localDescription.sdp)
        self.payload_type = sdp.opus_payload_type(text) or 0
        self.sending.ssrc = self.engine.ssrc
        return text

    # -- audio ------------------------------------------------------------------------------

    def deliver(self, size: int, at: float) -> None:
        """Give the RTP packet in the port's buffer to ``on_audio``.

        A forwarder puts its own function in this one's place (``engine.on_rtp``).
        """
        buffer = self.port.buffer
        span = payload_span(buffer, size)
        if span is None or buffer[1] & 0x7F != self.payload_type:
            self.malformed += 1
            return
        start, end = span
        sequence, timestamp, ssrc = _RTP_FIELDS.unpack_from(buffer, 2)
        self.reception.received(ssrc, sequence, timestamp, end - start, at)
        if self.on_audio is not None:
            self.on_audio(at, sequence, timestamp, bytes(buffer[start:end]))

    def send_audio(
        self, sequence: int, timestamp: int, payload: bytes, marker: bool = False
    ) -> bool:
        """Send one Opus packet of our own making; false if it was dropped.

        Args:
            sequence: 16 bits; one writer must count them for the whole leg.
            timestamp: 32 bits of the 48 kHz clock.
            payload: the Opus packet.
            marker: the RTP marker: first packet of a talk spurt.
        """
        header = _RTP_HEADER.pack(
            0x80,
            self.payload_type | (0x80 if marker else 0),
            sequence & 0xFFFF,
            timestamp & 0xFFFFFFFF,
            self.engine.ssrc,
        )
        sent = self.engine.send_rtp(header + payload)
        if sent:
            sending = self.sending
            sending.packets += 1
            sending.octets += len(payload)
            sending.last_timestamp = timestamp & 0xFFFFFFFF
            sending.last_at = time.monotonic()
        return sent

    def statistics(self) -> Json:
        """Packets, octets, loss, jitter, round trip, and the delay we added to what came from
        here; times in milliseconds."""
        received, sent = self.reception, self.sending
        trip, heard = sent.round_trip, sent.heard
        return {
            "received": {
                "packets": received.packets,
                "octets": received.octets,
                "lost": received.lost,
                "jitter_ms": round(received.jitter / rtcp.CLOCK_RATE * 1000, 3),
                **self.engine.delay.figures(),
            },
            "sent": {
                "packets": sent.packets,
                "octets": sent.octets,
                "fraction_lost": heard.fraction_lost if heard is not None else None,
                "round_trip_ms": round(trip * 1000, 3) if trip is not None else None,
            },
            "address_changes": self.engine.moves,
            "dropped": dict(self.engine.dropped),
        }

    def _rtcp(self, data: bytes, at: float) -> None:
        received = rtcp.parse(data)
        for report in received.sender_reports:
            if report.ssrc == self.reception.ssrc:
                self.reception.sender_report(report, at)
        for block in received.blocks:
            if block.ssrc == self.sending.ssrc:
                self.sending.reported(block, rtcp.ntp_middle(time.time()))

    # -- the event channel --------------------------------------------------------------------

    @property
    def channel_open(self) -> bool:
        """Whether ``send_text`` can be called."""
        return self._channel is not None and self._channel.readyState == "open"

    def send_text(self, text: str) -> None:
        """Send one event.

        Raises:
            ChannelClosed: there is no open channel.
            MessageTooLarge: the far end announced a smaller limit.
        """
        self.send_message(text)

    def send_message(self, message: str | bytes) -> None:
        """The same for any message; bytes make a binary one, which is no event.

        Also to a far end that was just lost for a flood: it goes out before the leg is closed.
        """
        channel = self._channel
        if channel is None or channel.readyState != "open":
            raise ChannelClosed
        if channel.bufferedAmount > CHANNEL_BUFFER_BYTES:
            self._far_end_lost("event channel does not drain")
            raise ChannelClosed
        try:
            channel.send(message)
        except ValueError:
            raise MessageTooLarge from None
        except Exception:
            # aiortc raises InvalidStateError when the channel closed a moment ago.
            raise ChannelClosed from None
        if self._budget is not None:
            self._budget.sent(len(message))

    def _adopt_channel(self, channel: RTCDataChannel) -> None:
        if channel.label != CHANNEL_LABEL:
            log.debug("a data channel of another name was ignored", extra={"leg": self.name})
            return
        # As at OpenAI, a second channel of the name takes the first one's place.
        self._channel = channel

        def opened() -> None:
            if channel is self._channel:
                self._listener.channel_opened(self)

        def message(data: str | bytes) -> None:
            if channel is self._channel:
                try:
                    self._listener.channel_message(self, data)
                except Exception:
                    # An exception that escapes a handler would end aiortc's transport.
                    log.exception("event handler failed", extra={"leg": self.name})

        def closed() -> None:
            if channel is self._channel:
                self._listener.channel_closed(self)

        channel.on("message", message)
        channel.on("close", closed)
        if channel.readyState == "open":
            opened()
        else:
            channel.on("open", opened)

    # -- coming and going ---------------------------------------------------------------------

    def _srtp_ready(self) -> None:
        if self.connected or self.lost:
            return
        self.connected = True
        # Its own phase, so that legs which connect at one time do not all work at one time.
        share = 0.5 + self.engine.ssrc / (1 << 33)
        self._pulse_due = time.monotonic() - PULSE_SECONDS * (1 - share)
        self._set_pulse()
        self._listener.leg_connected(self)

    def _pulse(self) -> None:
        """Twice a second: watch for silence and floods; every other time, report by RTCP."""
        now = time.monotonic()
        self.settle_received()
        if self._floods(now):
            self.engine.deafen()
            self._flooded(Flood.AUDIO)
            return
        late = now - self._pulse_due
        if late > SILENT_SECONDS:
            # We stood still ourselves: what came meanwhile has not been read yet.
            self.engine.last_heard = min(now, self.engine.last_heard + late)
        silence = now - self.engine.last_heard
        if silence > LOST_SECONDS:
            self._far_end_lost("silent")
            return
        if silence > SILENT_SECONDS:
            self.engine.check()
        self._pulses += 1
        if self._pulses % 2:
            block = self.reception.report(now, self.path_loss())
            self.engine.send_rtcp(rtcp.compound(self.sending, block, CNAME, now, time.time()))
        self._set_pulse()

    def _floods(self, now: float) -> bool:
        """Whether far too much audio came, by what is counted anyway: a packet pays nothing."""
        if self._budget is None:
            return False
        counted = self._reception.packets + self.malformed
        came, self._counted = counted - self._counted, counted
        return not self._budget.packets(came, now)

    def _flooded(self, what: Flood = Flood.EVENTS) -> None:
        if not self.lost:
            self.flood = what
            self._far_end_lost(f"flood of {what.value}")

    def _set_pulse(self) -> None:
        """Wait for the next of this leg's own times.

        Counted from the last one, not from now: a stall of the loop, after which all legs are late
        at once, must not bring them into step for good.
        """
        now = time.monotonic()
        missed = max(0.0, now - self._pulse_due) // PULSE_SECONDS
        self._pulse_due += PULSE_SECONDS * (missed + 1)
        loop = asyncio.get_running_loop()
        self._pulse_timer = loop.call_later(self._pulse_due - now, self._pulse)

    def _far_end_lost(self, reason: str) -> None:
        if self.lost:
            return
        self.lost = True
        self.connected = False
        self.engine.halt()
        self._stop_pulse()
        self._listener.leg_lost(self, reason)

    def _stop_pulse(self) -> None:
        if self._pulse_timer is not None:
            self._pulse_timer.cancel()
            self._pulse_timer = None

    async def close(self) -> None:
        """Close the connection and wait until nothing of it is left. Idempotent.

        The listener hears no ``leg_lost`` for a close of our own.
        """
        self.lost = True
        self.connected = False
        self.engine.halt()
        self._stop_pulse()
        self._channel = None
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name=f"close {self.name} leg")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            await self.engine.close()
        finally:
            if self._own_port:
                self.port.close()


def payload_span(buffer: bytearray, size: int) -> tuple[int, int] | None:
    """Where an RTP packet's payload begins and ends, padding left out (RFC 3550 section 5.1).

    Nothing if the header does not fit the packet.
    """
    first = buffer[0]
    start = 12 + ((first & 0x0F) << 2)
    if first & 0x10:
        if start + 4 > size:
            return None
        start += 4 + ((buffer[start + 2] << 8 | buffer[start + 3]) << 2)
    end = size - buffer[size - 1] if first & 0x20 and size > start else size
    return (start, end) if start < end else None


def _without_suffixes(text: str) -> str:
    """Drop the ``ufrag …`` extension that OpenAI writes behind candidates; TCP ones as well."""
    lines = []
    for line in text.splitlines():
        if line.startswith("a=candidate:"):
            line = line.partition(" ufrag ")[0]
            if " tcp " in line.lower():
                continue
        lines.append(line)
    return sdp.join([line for line in lines if line.strip()])


def _nothing() -> None:
    pass


def _no_loss() -> float:
    return 0.0
