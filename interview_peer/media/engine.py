"""The one place that touches private parts of aiortc, aioice and pylibsrtp.

aiortc keeps SDP, ICE, DTLS and SCTP. Sockets and media are ours: datagrams come from a
``UdpPort``, audio is decrypted and encrypted in place by the libsrtp that pylibsrtp ships, and no
decoder thread, jitter buffer or queue of aiortc's ever sees a packet.

Every private name is listed in ``tests/media/test_engine_contract.py``, which fails with a
sentence when a new version moves one. Not responsible for what an interview is, nor for what is
in a packet.
"""

from __future__ import annotations

import asyncio
import collections
import importlib.metadata
import logging
import secrets
import struct
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Final

import aiortc.rtcsctptransport
from aioice import stun
from aioice.candidate import Candidate, candidate_foundation, candidate_priority
from aioice.ice import CandidatePair, ConnectionClosed, ConnectionEvent, StunProtocol
from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpSender,
)
from OpenSSL.SSL import Error as TlsError
from pylibsrtp import Error as SrtpError
from pylibsrtp._binding import ffi, lib

from ..core.flood import Budget
from ..errors import ConfigurationError
from . import native
from .meters import DelayMeter
from .udp import Address, UdpPort

log = logging.getLogger(__name__)

TESTED_VERSIONS: Final = {"aiortc": "1.16.0", "aioice": "0.13.0", "pylibsrtp": "1.0.0"}
"""What the contract test was last run against. The packages are pinned to these."""

CLOSED_BY_FAR_END: Final = "closed by the far end"
"""Why a leg was lost whose far end said goodbye, in place of falling silent."""

UFRAG_LENGTH: Final = 22
"""Characters of our ICE user name fragment: 128 bits, so that nobody guesses another's."""

MAX_ADDRESSES: Final = 16
"""Verified addresses kept for one connection; the oldest is forgotten."""

MAX_TRANSACTIONS: Final = 64
"""Checks of one connection whose responses are awaited; the oldest is forgotten."""

PROBE_SECONDS: Final = 0.1
"""At most so often a new address is asked whether it is the far end's."""

MAX_STREAMS: Final = 64
"""SSRCs taken from one far end. libsrtp keeps a context for each that authenticates and looks
through all of them for every packet; a browser uses one or two."""

MAX_HANDSHAKE_QUEUE: Final = 512
"""DTLS datagrams waiting for aiortc's reader; beyond, they are dropped and sent again."""

MAX_CHANNELS: Final = 16
"""Data channels, and streams of SCTP, that a far end with a budget may have open. We need one."""

MAX_OUT_OF_ORDER: Final = 256
"""Chunks that are kept behind a missing one; beyond, they are dropped and sent again. aiortc looks
through all of them for every chunk."""

MAX_UNFINISHED: Final = 1024
"""Chunks of messages that are not whole: the longest we announce, 256 KiB, in pieces of 256 bytes.
aiortc puts no end to them."""

MAX_RECONFIGURATIONS: Final = 2
"""Parameters of one RE-CONFIG chunk (RFC 6525 section 3.1); aiortc answers each."""

CHUNKS_AT_A_TIME: Final = 8
"""Chunks of one far end that are handled before the event loop does other work, which a datagram
of 140 would hold up for 10 ms."""

SRTP_TRAILER_BYTES: Final = 148
"""Room that libsrtp may need behind a packet it encrypts."""

# Looked up once: through the library object each call would cost a dictionary more.
_protect = lib.srtp_protect
_unprotect = lib.srtp_unprotect
native.configure(
    *(
        int(ffi.cast("uintptr_t", ffi.addressof(lib, name)))
        for name in ("srtp_unprotect", "srtp_protect")
    )
)

_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_PARAMETER: Final = struct.Struct("!HH")
_INIT: Final = aiortc.rtcsctptransport.InitChunk.type
_DataChunk = aiortc.rtcsctptransport.DataChunk
_SackChunk = aiortc.rtcsctptransport.SackChunk
_ForwardTsnChunk = aiortc.rtcsctptransport.ForwardTsnChunk
_ReconfigChunk = aiortc.rtcsctptransport.ReconfigChunk


def check_versions() -> None:
    """Refuse to start on a version whose private parts were never tried.

    Raises:
        ConfigurationError: names the package and both versions.
    """
    for package, tested in TESTED_VERSIONS.items():
        found = importlib.metadata.version(package)
        if found != tested:
            raise ConfigurationError(
                f"{package} {found} is installed, but this release was built on {tested}; "
                f"install {package}=={tested}."
            )


def _decode_params(body: bytes) -> list[tuple[int, bytes]]:
    """Read SCTP parameters; a length that would not advance is an error.

    aiortc 1.16.0 loops for ever, growing, on a parameter whose declared length is zero, so any
    connected peer could stop the process. Its caller drops the packet on ``ValueError``.
    Remove when a release of aiortc checks the length itself.
    """
    params = []
    position = 0
    while position <= len(body) - 4:
        kind, length = _PARAMETER.unpack_from(body, position)
        if length < 4 or position + length > len(body):
            raise ValueError("SCTP parameter has an impossible length")
        params.append((kind, body[position + 4 : position + length]))
        position += length + (-length % 4)
    return params


_parse_sctp = aiortc.rtcsctptransport.parse_packet


def _parse_packet(data: bytes) -> tuple[int, int, int, list[Any]]:
    """Read an SCTP packet; whatever is wrong with it is a ``ValueError``.

    aiortc's caller drops the packet on that; on a short chunk its parser raises other errors,
    which would end the whole connection.
    """
    try:
        return _parse_sctp(data)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"SCTP packet cannot be read: {type(error).__name__}") from None


_serialize_sctp = aiortc.rtcsctptransport.serialize_packet


def _serialize_packet(
    source_port: int, destination_port: int, verification_tag: int, chunk: Any
) -> bytes:
    """Write an SCTP packet; one with an INIT has verification tag 0 (RFC 9260 section 8.5.1).

    aiortc 1.16.0 sends an INIT again with the far end's tag when that one's own INIT has come
    meanwhile, which every receiver drops. So where two ends begin at once and both answers are
    lost, the event channel would never open.
    """
    tag = 0 if chunk.type == _INIT else verification_tag
    return _serialize_sctp(source_port, destination_port, tag, chunk)


class _InboundStream(aiortc.rtcsctptransport.InboundStream):
    """Puts messages together without looking through all that has come at every fragment.

    aiortc 1.16.0 does, which takes seconds of the event loop for a message of megabytes. A fragment
    that comes in order and is not a message's last completes none.
    """

    def __init__(self) -> None:
        super().__init__()
        self._unfinished = False

    def add_chunk(self, chunk: Any) -> None:
        """Take in one fragment."""
        super().add_chunk(chunk)
        last = chunk.flags & aiortc.rtcsctptransport.SCTP_DATA_LAST_FRAG
        self._unfinished = not last and self.reassembly[-1] is chunk

    def pop_messages(self) -> Iterator[tuple[int, int, bytes]]:
        """Give out the messages that are whole now."""
        unfinished, self._unfinished = self._unfinished, False
        return iter(()) if unfinished else super().pop_messages()


def guard_sctp() -> None:
    """Mend what aiortc's SCTP does with odd or lost packets and large messages, process-wide."""
    aiortc.rtcsctptransport.decode_params = _decode_params
    aiortc.rtcsctptransport.parse_packet = _parse_packet
    aiortc.rtcsctptransport.serialize_packet = _serialize_packet
    aiortc.rtcsctptransport.InboundStream = _InboundStream  # type: ignore[misc]


def _distance(later: int, earlier: int) -> int:
    """How far one of SCTP's numbers is ahead of another, which wrap at 32 bits."""
    return (later - earlier) & 0xFFFFFFFF


def _is_sound(sack: Any, outstanding: int) -> bool:
    """Whether an acknowledgement names only what was sent, and that once (RFC 9260 section 3.3.4).

    aiortc 1.16.0 counts through every gap block: 250 of them that each name all numbers there are
    held the event loop for 0.7 s, one datagram after the other.
    """
    reached = 0
    for start, end in sack.gaps:
        if not reached < start <= end:
            return False
        reached = end
    return reached <= outstanding < 1 << 31


def random_ice_string(length: int) -> str:
    """A fragment or password of ICE characters from the system's randomness."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


class Engine:
    """One peer connection whose sockets and audio packets are ours.

    ``alone`` says that no other connection will live on the port. ``budget`` is what the far end
    may send; without one it is trusted.

    Call ``prepare`` once the audio transceiver exists (for an answer: after the remote
    description is set) and before the local description is. From then on:

    - ``on_srtp``: called once when DTLS is up and packets can be encrypted;
    - ``on_closed``: called with a reason when the far end closes, or DTLS or ICE fails;
    - ``on_rtp(size, at)``: a decrypted RTP packet lies in ``port.buffer[:size]``;
    - ``on_rtcp(data, at)``: a decrypted compound RTCP packet;
    - ``on_flood``: called once when the far end has sent far too much on the event channel.

    The callbacks run on the event loop and must not raise.
    """

    def __init__(self, port: UdpPort, *, alone: bool = False, budget: Budget | None = None) -> None:
        guard_sctp()
        self.port = port
        self._alone = alone
        self._budget = budget
        self.pc = RTCPeerConnection(
            RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)
        )
        self.ufrag = random_ice_string(UFRAG_LENGTH)
        self.on_srtp: Callable[[], None] = _nothing
        self.on_closed: Callable[[str], None] = _nothing_of_reason
        self.on_flood: Callable[[], None] = _nothing
        self.lane = port.new_lane()
        """Forwards the far end's ordinary packets natively, when armed."""
        self.feeder: native.Lane | None = None
        """The lane that sends through this engine."""
        self._on_rtp: Callable[[int, float], None] = _nothing_of_packet
        self.on_rtcp: Callable[[bytes, float], None] = _nothing_of_rtcp
        self.last_heard = 0.0
        """When (monotonic) anything came from the far end; 0 before the first."""
        self.dropped: collections.Counter[str] = collections.Counter()
        self.delay = DelayMeter()
        """How long the far end's packets were with us."""
        self.ssrc = 0
        self.remote: Address | None = None
        """Where to send: the nominated pair's far address."""

        self._dtls: Any = None
        self._ice: Any = None
        self._protocol: StunProtocol | None = None
        self._rx: Any = None
        self._tx: Any = None
        self._send = port.send
        self._buffer = port.buffer
        self._pointer = ffi.from_buffer(port.buffer)
        self._view = memoryview(port.buffer)
        self._scratch = bytearray(len(port.buffer))
        self._scratch_pointer = ffi.from_buffer(self._scratch)
        self._scratch_view = memoryview(self._scratch)
        self._length = ffi.new("int *")
        self._addresses: collections.deque[Address] = collections.deque()
        self._transactions: collections.deque[bytes] = collections.deque()
        self._streams: set[bytes] = set()
        self._stream = bytearray()
        """SSRC of the newest packet: the one nearly every packet has."""
        self._probed: dict[bytes, tuple[Address, CandidatePair]] = {}
        """Questions to new addresses that wait for their answers, by transaction."""
        self._checked: set[Address] = set()
        """Addresses whose checks aioice was given; it never forgets one."""
        self._probe_after = 0.0
        self.moves = 0
        """How often the far end's address changed and was followed."""
        self._closed = False
        self._deaf = False
        self._receive: Callable[[], Coroutine[Any, Any, bytes]]
        self._handle: Callable[[Any], Coroutine[Any, Any, None]]
        self._send_chunk: Callable[[Any], Coroutine[Any, Any, None]]
        self._chunks = 0
        self._connect: Callable[[], Coroutine[Any, Any, None]]
        self._connects: set[asyncio.Task[Any]] = set()

    @property
    def on_rtp(self) -> Callable[[int, float], None]:
        """Takes ``(size, at)`` of each decrypted RTP packet in ``port.buffer[:size]``."""
        return self._on_rtp

    @on_rtp.setter
    def on_rtp(self, take: Callable[[int, float], None]) -> None:
        self._on_rtp = take
        if self.lane is not None:
            self.lane.disarm()
            self.lane.irregular = take

    # -- setting up -------------------------------------------------------------------------

    def add_audio(self) -> None:
        """Add the one audio transceiver, Opus only."""
        transceiver = self.pc.addTransceiver("audio", direction="sendrecv")
        capabilities = RTCRtpSender.getCapabilities("audio")
        opus = [codec for codec in capabilities.codecs if codec.mimeType.lower() == "audio/opus"]
        transceiver.setCodecPreferences(opus)

    def prepare(
        self, *, dtls_server: bool | None = None, receive_window: int | None = None
    ) -> None:
        """Take over sockets and media.

        Args:
            dtls_server: wait for the far end's ClientHello (True) where it leaves us the choice.
                The DTLS server's preference picks the cipher, so as the answerer to a browser
                this gets AES-256-GCM instead of AES-CM with SHA-1.
            receive_window: bytes of an unfinished message that the event channel takes in.
                aiortc gives room back only when a message is whole, so one larger than its
                1 MiB would stop the channel for good.
        """
        (transceiver,) = self.pc.getTransceivers()
        sender, receiver = transceiver.sender, transceiver.receiver
        # aiortc awaits these when connected; theirs would start a decoder thread and RTCP tasks.
        sender.send = _register_nothing  # type: ignore[method-assign]
        receiver.receive = _register_nothing  # type: ignore[method-assign]
        self.ssrc = sender._ssrc
        self._dtls = sender.transport
        sctp: Any = self.pc.sctp
        if sctp is not None:
            self._send_chunk, sctp._send_chunk = sctp._send_chunk, self._send_while_open
            if receive_window is not None:
                sctp._advertised_rwnd = receive_window
        if dtls_server and self._dtls._role == "auto":
            self._dtls._set_role("server")
        if self._budget is not None:
            self._guard()
        self._dtls.on("statechange", self._dtls_changed)
        self._dtls.transport.on("statechange", self._ice_changed)
        self._ice = self._dtls.transport.iceGatherer._connection
        self._ice._local_username = self.ufrag
        self._ice._nominated = _Nominated(self._pair_nominated)
        self._ice.get_component_candidates = self._candidates
        self._connect = self._ice.connect
        self._ice.connect = self._connecting
        self._ice.get_event = _closed_is_an_event(self._ice.get_event)
        self.port.register(self)

    async def _candidates(
        self,
        component: int,
        addresses: list[str],
        timeout: int = 5,  # noqa: ASYNC109 - the signature is aioice's
    ) -> list[Candidate]:
        """Stand in for aioice's gathering: our port, under each announced address."""
        protocol = StunProtocol(self._ice)
        protocol.connection_made(_SharedTransport(self, protocol))
        candidates = [
            Candidate(
                foundation=candidate_foundation("host", "udp", address),
                component=component,
                transport="udp",
                priority=candidate_priority(component, "host", 65535 - index),
                host=address,
                port=self.port.address[1],
                type="host",
            )
            for index, address in enumerate(self.port.announced)
        ]
        protocol.local_candidate = candidates[0]
        self._ice._protocols.append(protocol)
        self._protocol = protocol
        return candidates

    async def _connecting(self) -> None:
        """Stand in for aioice's ``connect``: note aiortc's task, which goes on to DTLS and SCTP."""
        task = asyncio.current_task()
        if task is not None:
            self._connects.add(task)
            task.add_done_callback(self._connects.discard)
        await self._connect()

    async def _send_while_open(self, chunk: Any) -> None:
        """Have aiortc send a chunk, as long as the connection lasts.

        Its timers, and whatever is put on the channel, start this in tasks that nobody awaits:
        where the far end closed the connection a moment ago, the log would tell of a defect.
        """
        try:
            await self._send_chunk(chunk)
        except (ConnectionError, TlsError):
            log.debug("the connection was over before all events were sent")

    # -- what a far end may cost ------------------------------------------------------------

    def _guard(self) -> None:
        """Stand before aiortc's reader of records, and before its handling of each chunk."""
        transport = self._dtls.transport
        self._receive = transport._recv
        transport._recv = self._next_record
        sctp: Any = self.pc.sctp
        if sctp is not None:
            self._handle = sctp._receive_chunk
            sctp._receive_chunk = self._take_chunk

    async def _next_record(self) -> bytes:
        """Give aiortc the next record, after a turn of the event loop: it would else handle all
        that wait at once."""
        if not self._ice._queue.empty():
            await asyncio.sleep(0)
        data = await self._receive()
        while self._deaf:
            data = await self._receive()
        return data

    async def _take_chunk(self, chunk: Any) -> None:
        """Have aiortc handle a chunk, unless it is one of a flood or would cost far too much."""
        assert self._budget is not None
        self._chunks += 1
        acknowledges = isinstance(chunk, _SackChunk)
        # One with gaps makes aiortc look through all that is on its way.
        if self._chunks % CHUNKS_AT_A_TIME == 0 or (acknowledges and chunk.gaps):
            await asyncio.sleep(0)
        if self._deaf:
            return
        if not self._budget.chunk(asyncio.get_running_loop().time(), acknowledges=acknowledges):
            self._flooded()
        elif self._may_handle(chunk):
            await self._handle(chunk)
        else:
            self.dropped["chunks"] += 1

    def _may_handle(self, chunk: Any) -> bool:
        """Whether a chunk is within the bounds that aiortc does not have; beyond those of memory
        the far end floods."""
        sctp: Any = self.pc.sctp
        if isinstance(chunk, _DataChunk):
            is_next = _distance(chunk.tsn, sctp._last_received_tsn or 0) == 1
            streams = sctp._inbound_streams
            waiting = sum(len(stream.reassembly) for stream in streams.values())
            if waiting >= MAX_UNFINISHED:
                self._flooded()
                return False
            channels = max(len(streams), len(sctp._data_channels))
            if chunk.stream_id not in streams and channels >= MAX_CHANNELS:
                return False
            out_of_order = max(waiting, len(sctp._sack_misordered))
            return is_next or out_of_order < MAX_OUT_OF_ORDER
        if isinstance(chunk, _SackChunk):
            return _is_sound(chunk, _distance(sctp._local_tsn, chunk.cumulative_tsn) - 1)
        if isinstance(chunk, _ForwardTsnChunk):
            # It would make a stream of each that it names.
            named = {stream for stream, _ in chunk.streams}
            return len(named.union(sctp._inbound_streams)) <= MAX_CHANNELS
        if isinstance(chunk, _ReconfigChunk):
            return len(chunk.params) <= MAX_RECONFIGURATIONS
        return True

    def _flooded(self) -> None:
        if not self._deaf:
            self.deafen()
            self.on_flood()

    def _drop(self) -> None:
        """Count a datagram that came beyond its rate."""
        self.dropped["too_fast"] += 1
        self.port.dropped["too_fast"] += 1

    def deafen(self) -> None:
        """Hear nothing of the far end any more; what is sent still goes out.

        From now on its datagrams are a stranger's to the port, which drops them unread.
        """
        self._deaf = True
        self.halt()
        self.port.unregister(self)

    # -- sending ----------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether packets can be encrypted and have somewhere to go."""
        return self._tx is not None and self.remote is not None

    def forward(self, source: Engine, offset: int, size: int) -> bool:
        """Encrypt the RTP packet in ``source``'s buffer in place and send it to the far end.

        Args:
            source: the engine whose ``on_rtp`` is running.
            offset: where the packet's header begins in the buffer.
            size: bytes of header and payload.
        """
        tx, remote = self._tx, self.remote
        if tx is None or remote is None:
            self.dropped["not_ready"] += 1
            return False
        length = self._length
        length[0] = size
        if _protect(tx, source._pointer + offset, length):
            self.dropped["protect"] += 1
            return False
        return self._send(source._view[offset : offset + length[0]], remote)

    def lend(
        self,
        sink: Engine,
        *,
        ssrc: int,
        payload_type: int,
        sink_ssrc: int,
        sink_payload_type: int,
        offsets: tuple[int, int],
        floor: int,
        last: tuple[int, int, float],
        reception: tuple[int, float, float, float],
    ) -> bool:
        """Let native code forward this far end's packets to ``sink`` while they stay ordinary.

        Args:
            sink: the other leg's engine.
            ssrc: of the stream that comes in, which is known.
            payload_type: the one that is forwarded.
            sink_ssrc: of the stream that goes out.
            sink_payload_type: its payload type.
            offsets: what is added to sequence numbers and time stamps.
            floor: input sequence number before which packets are refused.
            last: sequence number, time stamp and time (monotonic) of the last packet sent.
            reception: highest sequence number, jitter, transit and time of the last received.

        Returns:
            False where that cannot be: there is no native code, or a side is not ready.
        """
        lane, remote = self.lane, sink.remote
        if lane is None or self._rx is None or sink._tx is None or remote is None:
            return False
        if sink.feeder is not lane:
            if sink.feeder is not None:
                sink.feeder.disarm()
            sink.feeder = lane
        highest, jitter, transit, heard_at = reception
        lane.arm(
            rx=int(ffi.cast("uintptr_t", self._rx)),
            tx=int(ffi.cast("uintptr_t", sink._tx)),
            # libsrtp's contexts live as long as these.
            keep=(self._dtls._rx_srtp, sink._dtls._tx_srtp),
            fd=sink.port.descriptor(),
            to=sink.port.destination(remote),
            in_ssrc=ssrc,
            in_payload_type=payload_type,
            out_ssrc=sink_ssrc,
            out_payload_type=sink_payload_type,
            sequence_offset=offsets[0],
            timestamp_offset=offsets[1],
            floor=floor,
            last_sequence=last[0],
            last_timestamp=last[1],
            last_at=last[2],
            highest=highest,
            jitter=jitter,
            transit=transit,
            heard_at=heard_at,
        )
        return True

    def halt(self) -> None:
        """Leave the packets of both directions to Python from the next one on."""
        for lane in (self.lane, self.feeder):
            if lane is not None:
                lane.disarm()

    def send_rtp(self, packet: bytes) -> bool:
        """Encrypt and send an RTP packet of our own making."""
        tx, remote = self._tx, self.remote
        size = len(packet)
        if tx is None or remote is None or size > len(self._scratch) - SRTP_TRAILER_BYTES:
            self.dropped["not_ready"] += 1
            return False
        self._scratch[:size] = packet
        length = self._length
        length[0] = size
        if _protect(tx, self._scratch_pointer, length):
            self.dropped["protect"] += 1
            return False
        return self.port.send(self._scratch_view[: length[0]], remote)

    def send_rtcp(self, packet: bytes) -> bool:
        """Encrypt and send a compound RTCP packet."""
        if self._tx is None or self.remote is None:
            return False
        try:
            protected = self._dtls._tx_srtp.protect_rtcp(packet)
        except SrtpError:
            self.dropped["protect"] += 1
            return False
        return self.port.send(protected, self.remote)

    def learn_ssrc(self, ssrc: int) -> None:
        """Note a stream that came authenticated, so that it is known from a new address."""
        self.port.learn_ssrc(ssrc, self)

    def check(self) -> None:
        """Send one ICE check over the current pair, without waiting or sending it again.

        The response only shows that the far end lives (``last_heard``).
        """
        pair = self._ice._nominated.get(1) if self._ice is not None else None
        if pair is None or self._protocol is None or self._ice.remote_password is None:
            return
        request = self._ice.build_request(pair, nominate=False)
        request.add_message_integrity(self._ice.remote_password.encode())
        self._protocol.send_stun(request, pair.remote_addr)

    # -- receiving: the port's Endpoint -------------------------------------------------------

    def packet(self, size: int, at: float) -> None:
        """Decrypt what lies in the port's buffer and pass it on. The hot path."""
        rx = self._rx
        if rx is None:
            self.dropped["not_ready"] += 1
            return
        if 192 <= self._buffer[1] <= 208:
            self._rtcp(size, at)
            return
        stream = self._buffer[8:12]
        if stream != self._stream and not self._may_begin(bytes(stream)):
            return
        length = self._length
        length[0] = size
        if _unprotect(rx, self._pointer, length):
            self.dropped["unprotect"] += 1
            return
        if stream != self._stream:
            self._stream = stream
            self._streams.add(bytes(stream))
        self.last_heard = at
        self._on_rtp(length[0], at)

    def stray(self, size: int, at: float, addr: Address) -> None:
        """Take a packet from elsewhere than where we send to: the far end may have moved there.

        Only what authenticates is taken, and nothing is sent there but one check; its verified
        response makes the address the one we send to. A check of the far end's alone shows that
        it could be reached there, a packet that it has chosen to.
        """
        rx = self._rx
        if rx is None:
            self.dropped["not_ready"] += 1
            return
        if 192 <= self._buffer[1] <= 208:
            # All that comes from a browser without a microphone.
            if self._rtcp(size, at):
                self._probe(addr, at)
            return
        stream = bytes(self._buffer[8:12])
        if not self._may_begin(stream):
            return
        length = self._length
        length[0] = size
        if _unprotect(rx, self._pointer, length):
            self.dropped["unprotect"] += 1
            return
        self._streams.add(stream)
        self.last_heard = at
        self._probe(addr, at)
        self._on_rtp(length[0], at)

    def _probe(self, addr: Address, at: float) -> None:
        """Ask an address whether it is the far end's, at most once per ``PROBE_SECONDS``."""
        if at < self._probe_after or self._protocol is None:
            return
        self._probe_after = at + PROBE_SECONDS
        candidate = Candidate(
            foundation="moved",
            component=1,
            transport="udp",
            priority=candidate_priority(1, "prflx"),
            host=addr[0],
            port=addr[1],
            type="prflx",
        )
        pair = CandidatePair(self._protocol, candidate)
        request = self._ice.build_request(pair, nominate=False)
        request.add_message_integrity(self._ice.remote_password.encode())
        # More than one may be under way: the answer takes a round trip, the next question less.
        self._probed[request.transaction_id] = (addr, pair)
        if len(self._probed) > MAX_ADDRESSES:
            del self._probed[next(iter(self._probed))]
        self._protocol.send_stun(request, addr)

    def _moved(self, data: bytes, addr: Address) -> bool:
        """Whether ``data`` answers our question to a new address; if it holds, send there."""
        probed = self._probed.pop(data[8:20], None)
        if probed is None:
            return False
        asked, pair = probed
        try:
            message = stun.parse_message(data)
            holds = (
                message.message_class == stun.Class.RESPONSE
                and "MESSAGE-INTEGRITY" in message.attributes
                and message.check_message_integrity(self._ice.remote_password.encode())
            )
        except Exception:
            holds = False
        if holds and addr == asked:
            self.moves += 1
            self._probed.clear()
            pair.state = CandidatePair.State.SUCCEEDED
            pair.nominated = True
            self._ice._nominated[1] = pair
        return True

    def _rtcp(self, size: int, at: float) -> bool:
        """Handle an RTCP packet; whether it is the far end's."""
        if self._budget is not None and not self._budget.report(at):
            self._drop()
            return False
        stream = self._view[4:8].tobytes()
        if not self._may_begin(stream):
            return False
        try:
            data = self._dtls._rx_srtp.unprotect_rtcp(bytes(self._view[:size]))
        except (SrtpError, ValueError):
            self.dropped["unprotect"] += 1
            return False
        self._streams.add(stream)
        self.last_heard = at
        self.on_rtcp(data, at)
        return True

    def _may_begin(self, stream: bytes) -> bool:
        """Whether packets of this SSRC are taken, by their number so far."""
        if stream in self._streams or len(self._streams) < MAX_STREAMS:
            return True
        self.dropped["streams"] += 1
        return False

    def handshake(self, data: bytes, addr: Address) -> None:
        """Give a DTLS datagram to aiortc's reader."""
        now = asyncio.get_running_loop().time()
        if self._budget is not None and not self._budget.record(now):
            self._drop()
            return
        if self._ice._queue.qsize() >= MAX_HANDSHAKE_QUEUE:
            self.dropped["handshake_full"] += 1
            return
        self.last_heard = now
        self._ice.data_received(data, 1)

    def stun_request(self, data: bytes, addr: Address) -> bool:
        """Answer a check whose integrity holds; anything else gets no answer."""
        if self._protocol is None:
            return False
        now = asyncio.get_running_loop().time()
        if self._budget is not None and not self._budget.check(now):
            self._drop()
            return True
        try:
            message = stun.parse_message(data)
            # aioice takes PRIORITY for granted.
            if not {"MESSAGE-INTEGRITY", "PRIORITY"} <= message.attributes.keys() or not (
                message.check_message_integrity(self._ice.local_password.encode())
            ):
                return False
        except Exception:
            # aioice's parser lets struct.error and others escape on malformed attributes.
            return False
        self.last_heard = now
        if addr not in self._checked:
            if len(self._checked) >= MAX_ADDRESSES:
                # For each aioice keeps a candidate, and asks it for seconds: no more of them.
                # A browser that really moves so often is followed by its packets.
                self.dropped["addresses"] += 1
                return True
            self._checked.add(addr)
        # Anybody with a session can put another's address on a check of their own, so a check
        # claims only what is free; the response to a check of ours may claim any.
        self._learn(addr, claim=False)
        self._ice.request_received(message, addr, self._protocol)
        return True

    def stun_response(self, data: bytes, addr: Address) -> None:
        """Give the response to one of our checks to aioice."""
        if self._protocol is None:
            return
        try:
            if not self._moved(data, addr):
                self._protocol.datagram_received(data, addr)
        except Exception:
            self.dropped["stun"] += 1
            return
        self.last_heard = asyncio.get_running_loop().time()

    # -- what aiortc tells ------------------------------------------------------------------

    def _pair_nominated(self, pair: CandidatePair) -> None:
        self.halt()
        before, self.remote = self.remote, pair.remote_addr
        if self._alone:
            self.port.connect(self.remote, self)
        self._learn(pair.remote_addr, claim=True, instead_of=before)

    def _learn(self, addr: Address, *, claim: bool, instead_of: Address | None = None) -> None:
        if addr not in self._addresses:
            self._addresses.append(addr)
            if len(self._addresses) > MAX_ADDRESSES:
                self.port.unlearn(self._addresses.popleft(), self)
        self.port.learn(addr, self, claim=claim, instead_of=instead_of)

    def expect(self, transaction: bytes) -> None:
        """Await the response to a check that is being sent."""
        if transaction in self._transactions:
            self._transactions.remove(transaction)
        self._transactions.append(transaction)
        if len(self._transactions) > MAX_TRANSACTIONS:
            self.port.forget(self._transactions.popleft())
        self.port.expect(transaction, self)

    def _dtls_changed(self) -> None:
        state = self._dtls.state
        if state == "connected":
            self._rx = self._dtls._rx_srtp._srtp[0]
            self._tx = self._dtls._tx_srtp._srtp[0]
            self.on_srtp()
        elif state == "closed":
            self._lost(CLOSED_BY_FAR_END)
        elif state == "failed":
            self._lost("DTLS failed")

    def _ice_changed(self) -> None:
        if self._dtls.transport.state == "failed":
            self._lost("ICE failed")

    def _lost(self, reason: str) -> None:
        self.halt()
        self._rx = self._tx = None
        if not self._closed:
            self.on_closed(reason)

    async def close(self) -> None:
        """Tell the far end, stop aiortc's tasks, and leave the port. Idempotent."""
        first, self._closed = not self._closed, True
        self.halt()
        # Without this, connecting that succeeds while aiortc closes goes on afterwards, for ever.
        connects = [task for task in self._connects if task is not asyncio.current_task()]
        for task in connects:
            task.cancel()
        if connects:
            await asyncio.wait(connects)
        try:
            await self.pc.close()
        except Exception as error:
            # aiortc stumbles over a section without transport, left by an offer it half applied.
            log.warning("a connection did not close cleanly: %s", type(error).__name__)
        if first:
            # A packet that came meanwhile may have armed the lane again.
            self.halt()
            self._rx = self._tx = None
            self.remote = None
            self.port.unregister(self)


class _Nominated(dict[int, CandidatePair]):
    """aioice's table of nominated pairs, which tells when one is set.

    The pair is set by a task after the check that nominates it, so looking after each check
    would be too early.
    """

    def __init__(self, told: Callable[[CandidatePair], None]) -> None:
        super().__init__()
        self._told = told

    def __setitem__(self, component: int, pair: CandidatePair) -> None:
        super().__setitem__(component, pair)
        self._told(pair)


class _SharedTransport(asyncio.DatagramTransport):
    """What an aioice protocol takes for its own socket; it sends through the port."""

    def __init__(self, engine: Engine, protocol: StunProtocol) -> None:
        super().__init__()
        self._engine = engine
        self._protocol = protocol
        self._closing = False

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send, and note the transaction if it is a check of ours."""
        if data[:2] == b"\x00\x01":
            self._engine.expect(bytes(data[8:20]))
        self._engine.port.send(data, addr)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The bound address, as a socket would say it."""
        return self._engine.port.address if name == "sockname" else default

    def is_closing(self) -> bool:
        """Whether ``close`` was called."""
        return self._closing

    def close(self) -> None:
        """End the protocol; the port stays open for others."""
        if not self._closing:
            self._closing = True
            self._protocol.connection_lost(None)

    def abort(self) -> None:
        """The same as ``close``: nothing is buffered here."""
        self.close()


def _closed_is_an_event(
    get_event: Callable[[], Awaitable[ConnectionEvent | None]],
) -> Callable[[], Awaitable[ConnectionEvent]]:
    """Tell aiortc that a connection is closed even if that was before it first asked.

    aioice answers nothing then, and aiortc 1.16.0 asks again at once, for ever, in one turn of the
    event loop: a connection closed as soon as it was made would stop the whole process.
    """

    async def event() -> ConnectionEvent:
        return await get_event() or ConnectionClosed()

    return event


async def _register_nothing(parameters: Any) -> None:
    """Stand in for a sender's ``send`` and a receiver's ``receive``."""


def _nothing() -> None:
    pass


def _nothing_of_reason(reason: str) -> None:
    pass


def _nothing_of_packet(size: int, at: float) -> None:
    pass


def _nothing_of_rtcp(data: bytes, at: float) -> None:
    pass
