"""One UDP socket, and who on it gets which datagram.

A port may serve one connection (the model's legs have one each) or many (all browsers on one
port). It finds the connection by ICE user name fragment first, by verified address after, and
answers nothing itself: what belongs to nobody is counted and dropped.

Not responsible for what the datagrams mean: ``media.engine`` is.
"""

from __future__ import annotations

import asyncio
import collections
import errno
import ipaddress
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, Self, TypeVar

from ..errors import ConfigurationError, OutOfDescriptors, StartFailed
from . import native
from .addresses import announceable
from .descriptors import ran_out
from .meters import DOUBT_SECONDS, SAMPLE_EVERY, DelayMeter, looks_of

Address = tuple[str, int]
Key = TypeVar("Key")

MAX_DATAGRAM: Final = 2048
"""Larger than any packet of ours or a browser's: WebRTC keeps below 1,500 bytes."""

TRAILER_ROOM: Final = 148
"""Bytes of the buffer beyond any datagram: libsrtp encrypts in place and writes its tag behind
the packet without knowing where the buffer ends."""

BATCH: Final = 32
"""Datagrams read in one wake-up before other work of the event loop gets its turn."""

RECEIVE_BUFFER_BYTES: Final = 4 * 1024 * 1024
"""What the kernel is asked to keep while we are busy; it gives no more than its own limit
(``net.core.rmem_max``), and does not say so."""

_MAPPED: Final = "::ffff:"
"""How an IPv6 socket writes IPv4 addresses (RFC 4291 section 2.5.5.2)."""

_SO_TIMESTAMPNS: Final = 35
"""Linux's number for the receive time stamp; Python's socket module has no name for it."""
_TIMESPEC = struct.Struct("@qq")
_CONTROL_BYTES: Final = socket.CMSG_SPACE(_TIMESPEC.size)

STUN_BINDING_REQUEST: Final = b"\x00\x01"
STUN_USERNAME: Final = 0x0006
STUN_HEADER_BYTES: Final = 20


class Endpoint(Protocol):
    """One connection on a port."""

    ufrag: str
    """Our own ICE user name fragment, unique on the port."""

    delay: DelayMeter
    """How long this connection's packets were with us; the port fills it."""

    def stun_request(self, data: bytes, addr: Address) -> bool:
        """Handle a check addressed to us; false if its integrity does not hold.

        An endpoint tells the port of addresses it has verified by ``UdpPort.learn``.
        """

    def stun_response(self, data: bytes, addr: Address) -> None:
        """Handle the response to a check of ours."""

    def handshake(self, data: bytes, addr: Address) -> None:
        """Handle a DTLS datagram from a verified address."""

    lane: native.Lane | None
    """Forwards this connection's ordinary packets natively; None: Python forwards them."""

    def packet(self, size: int, at: float) -> None:
        """Handle the SRTP or SRTCP packet in the first ``size`` bytes of the port's buffer."""

    def stray(self, size: int, at: float, addr: Address) -> None:
        """Judge a packet that comes from elsewhere than where this endpoint sends to, and carries
        its SSRC or comes from an address it has verified."""


def stun_username(data: bytes) -> str | None:
    """The first half of a STUN message's USERNAME: the receiver's fragment (RFC 8445 7.2.2)."""
    position = STUN_HEADER_BYTES
    while position + 4 <= len(data):
        kind = data[position] << 8 | data[position + 1]
        length = data[position + 2] << 8 | data[position + 3]
        if kind == STUN_USERNAME:
            value = data[position + 4 : position + 4 + length]
            return value.partition(b":")[0].decode("ascii", "replace")
        position += 4 + length + (-length % 4)
    return None


class UdpPort:
    """A bound UDP socket shared by the endpoints registered on it.

    Receives into one buffer that is reused for every datagram: an endpoint must be done with it
    when its method returns. ``announced`` are the addresses that candidates carry. ``delay`` is
    the meter it counts into, beside those of its endpoints: one of its own, or one that several
    ports share. ``use_native`` lets native code forward what it can, where it is built.
    """

    def __init__(
        self,
        sock: socket.socket,
        announced: Sequence[str],
        delay: DelayMeter | None = None,
        *,
        use_native: bool = True,
    ) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self.address: Address = sock.getsockname()[:2]
        self.announced: tuple[str, ...] = tuple(announced) or (self.address[0],)
        self.receive_buffer = _given(sock)
        """Bytes of room for what waits to be read; ``RECEIVE_BUFFER_BYTES`` were asked for."""
        self.buffer = bytearray(MAX_DATAGRAM + TRAILER_ROOM)
        self._room = [memoryview(self.buffer)[:MAX_DATAGRAM]]
        self.dropped: collections.Counter[str] = collections.Counter()
        """Datagrams not delivered, and packets not sent, by reason."""
        self.delay = DelayMeter() if delay is None else delay
        """From the kernel's receipt of a packet to the end of its forwarding."""
        self._looks = looks_of(self._loop)
        self._late = False
        """Whether the newest datagram that was measured was late; the next may be as well."""
        self._wake_ups = 0
        self._by_ufrag: dict[str, Endpoint] = {}
        self._by_address: dict[Address, Endpoint] = {}
        """Addresses that have been verified."""
        self._in_use: dict[Address, Endpoint] = {}
        """Those of them that endpoints send to: audio from there needs no second look."""
        self._by_transaction: dict[bytes, Endpoint] = {}
        self._by_ssrc: dict[int, Endpoint] = {}
        self._receive: Callable[..., tuple[int, tuple[str, int]]] = sock.recvfrom_into
        self._send = sock.sendto
        self._send_to_peer = sock.send
        self._is_ipv6 = sock.family == socket.AF_INET6
        self._peer: Endpoint | None = None
        self._peer_address: Address | None = None
        self._lanes: dict[bytes, native.Lane] = {}
        self._reader: native.Reader | None = None
        if use_native and native.BUILT:
            self._reader = native.built.Reader(
                sock.fileno(), self.buffer, self._lanes, self._left_to_us
            )
            self._loop.add_reader(sock.fileno(), self._reader.shared)
        else:
            self._loop.add_reader(sock.fileno(), self._readable)

    @classmethod
    async def open(
        cls,
        host: str,
        port: int = 0,
        announce: Sequence[str] = (),
        delay: DelayMeter | None = None,
        *,
        use_native: bool = True,
    ) -> Self:
        """Bind a socket and start reading from it.

        Args:
            host: address or name to bind; ``fly-global-services`` and the like are resolved.
            port: 0 picks a free one.
            announce: addresses that candidates carry instead of the bound one.
            delay: a meter shared with other ports.
            use_native: forward natively where that is built.

        Raises:
            ConfigurationError: the address cannot be bound.
            OutOfDescriptors: no more sockets can be opened.
            StartFailed: somebody else has the port.
        """
        loop = asyncio.get_running_loop()
        try:
            address: Any = (host, port)
            family = _literal_family(host)
            if family is None:
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
                family, _, _, _, address = found[0]
            sock = socket.socket(family, socket.SOCK_DGRAM)
        except OSError as error:
            if ran_out(error):
                raise OutOfDescriptors from None
            raise ConfigurationError(
                f"INTERVIEW_UDP_HOST {host!r} is not an address of this machine "
                f"({error.strerror or error})."
            ) from None
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            if sys.platform == "linux":
                sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            if family == socket.AF_INET6:
                # One socket for both families where the address allows it ("::").
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind(address)
        except OSError as error:
            sock.close()
            if port and error.errno == errno.EADDRINUSE:
                raise StartFailed(
                    f"UDP port {port} on {host} is already in use; stop what uses it, "
                    "or set INTERVIEW_UDP_PORT to another."
                ) from None
            raise ConfigurationError(
                f"INTERVIEW_UDP_HOST and INTERVIEW_UDP_PORT name {host}:{port}, "
                f"which cannot be opened ({error.strerror or error})."
            ) from None
        announced = announce or announceable(sock.getsockname()[0])
        return cls(sock, announced, delay, use_native=use_native)

    def close(self) -> None:
        """Stop reading and close the socket; registered endpoints hear nothing more."""
        if self._reader is not None:
            self._reader.close()
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
        self._by_ufrag.clear()
        self._by_address.clear()
        self._in_use.clear()
        self._by_transaction.clear()
        self._by_ssrc.clear()
        self._lanes.clear()
        self._peer = self._peer_address = None

    def new_lane(self) -> native.Lane | None:
        """A lane for one endpoint's packets; None where this port forwards in Python."""
        return native.built.Lane() if self._reader is not None else None

    def descriptor(self) -> int:
        """The socket's number, for native code to send by; -1 once closed."""
        return self._sock.fileno()

    def destination(self, addr: Address) -> Address | None:
        """A far end as native code must name it to this socket; None: it is connected to it."""
        if addr == self._peer_address:
            return None
        return (_MAPPED + addr[0], addr[1]) if self._maps(addr) else addr

    def register(self, endpoint: Endpoint) -> None:
        """Take an endpoint in; its fragment must be free (128 random bits make it so)."""
        if endpoint.ufrag in self._by_ufrag:
            raise ValueError("ICE user name fragment is already in use on this port")
        self._by_ufrag[endpoint.ufrag] = endpoint

    def unregister(self, endpoint: Endpoint) -> None:
        """Forget an endpoint, its addresses and its open transactions."""
        if self._by_ufrag.get(endpoint.ufrag) is endpoint:
            del self._by_ufrag[endpoint.ufrag]
        if self._peer is endpoint:
            self._peer = None
            if self._reader is not None:
                self._reader.peer = None
        _drop(self._by_address, endpoint)
        for addr in [addr for addr, owner in self._in_use.items() if owner is endpoint]:
            del self._in_use[addr]
            self._find_lane(addr)
        _drop(self._by_transaction, endpoint)
        _drop(self._by_ssrc, endpoint)

    def expect(self, transaction: bytes, endpoint: Endpoint) -> None:
        """Hand the response with this 12-byte transaction id to ``endpoint``."""
        self._by_transaction[transaction] = endpoint

    def forget(self, transaction: bytes) -> None:
        """Stop waiting for a response."""
        self._by_transaction.pop(transaction, None)

    def learn(
        self,
        addr: Address,
        endpoint: Endpoint,
        *,
        claim: bool = True,
        instead_of: Address | None = None,
    ) -> None:
        """Deliver what comes from ``addr`` to ``endpoint``: the address has been verified.

        Args:
            addr: the far end's.
            endpoint: whose far end it is.
            claim: it is sent to from now on. Without, an address that is another endpoint's stays
                its, and audio from there is judged as a stray.
            instead_of: the address that was sent to before.
        """
        if not claim:
            self._by_address.setdefault(addr, endpoint)
            return
        self._by_address[addr] = self._in_use[addr] = endpoint
        self._find_lane(addr)
        if instead_of not in (None, addr) and self._in_use.get(instead_of) is endpoint:
            del self._in_use[instead_of]
            self._find_lane(instead_of)

    def unlearn(self, addr: Address, endpoint: Endpoint) -> None:
        """Stop taking ``addr`` for ``endpoint``'s, unless it has become another's."""
        for addresses in (self._by_address, self._in_use):
            if addresses.get(addr) is endpoint:
                del addresses[addr]
        self._find_lane(addr)

    def _find_lane(self, addr: Address) -> None:
        """Tell native code whose packets come from ``addr`` now."""
        if self._reader is None:
            return
        key = native.address_key(addr, is_ipv6=self._is_ipv6)
        endpoint = self._in_use.get(addr)
        if endpoint is not None and endpoint.lane is not None:
            self._lanes[key] = endpoint.lane
        else:
            self._lanes.pop(key, None)

    def learn_ssrc(self, ssrc: int, endpoint: Endpoint) -> None:
        """Know a stream by its SSRC should its address change. The first to use an SSRC keeps it,
        so that nobody takes another's by sending its number."""
        self._by_ssrc.setdefault(ssrc, endpoint)

    def connect(self, addr: Address, endpoint: Endpoint) -> None:
        """Bind the socket to one far end, for a port that serves one connection alone.

        The kernel then looks up the route once, not for every packet, and keeps strangers off.
        """
        try:
            self._sock.connect((_MAPPED + addr[0], addr[1]) if self._maps(addr) else addr)
        except OSError:
            # It goes on unconnected, a little dearer.
            return
        self._peer, self._peer_address = endpoint, addr
        if self._reader is not None:
            self._reader.peer = endpoint.lane
            self._loop.add_reader(self._sock.fileno(), self._reader.connected)
        else:
            self._loop.add_reader(self._sock.fileno(), self._readable_from_peer)

    def _maps(self, addr: Address) -> bool:
        return self._is_ipv6 and ":" not in addr[0]

    def send(self, data: bytes | bytearray | memoryview, addr: Address) -> bool:
        """Send one datagram now or never: a full socket buffer drops it, counted."""
        try:
            if addr == self._peer_address:
                self._send_to_peer(data)
            elif self._maps(addr):
                self._send(data, (_MAPPED + addr[0], addr[1]))
            else:
                self._send(data, addr)
        except BlockingIOError:
            self.dropped["send_full"] += 1
            return False
        except OSError:
            self.dropped["send_error"] += 1
            return False
        return True

    def _readable(self) -> None:
        buffer, receive, in_use = self.buffer, self._receive, self._in_use
        self._wake_ups += 1
        sample = self._wake_ups % SAMPLE_EVERY == 0
        if sample or self._late or time.monotonic() - self._looks.before > DOUBT_SECONDS:
            self._measured(sample)
            # They are read in the order they came: behind one in time none is late.
            for _ in range(BATCH):
                if not self._late:
                    break
                self._measured(False)
            else:
                return
        for _ in range(BATCH):
            try:
                size, addr = receive(buffer, MAX_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:
                # An ICMP error of an earlier send shows up here; the next read is fine.
                self.dropped["receive_error"] += 1
                continue
            if self._is_ipv6:
                addr = _plain(addr)
            first = buffer[0]
            endpoint = in_use.get(addr)
            if 127 < first < 192 and size > 12:
                if endpoint is not None:
                    endpoint.packet(size, time.monotonic())
                else:
                    self._stray(size, addr)
            else:
                self._other(size, first, addr, endpoint)

    def _readable_from_peer(self) -> None:
        """The same for a connected socket. One datagram a wake-up: its packets come 20 ms apart,
        so a second read would nearly always find nothing."""
        self._wake_ups += 1
        at = time.monotonic()
        sample = self._wake_ups % SAMPLE_EVERY == 0
        if sample or self._late or at - self._looks.before > DOUBT_SECONDS:
            self._measured(sample)
            return
        try:
            size = self._sock.recv_into(self.buffer, MAX_DATAGRAM)
        except BlockingIOError:
            return
        except OSError:
            self.dropped["receive_error"] += 1
            return
        first, peer, addr = self.buffer[0], self._peer, self._peer_address
        if peer is None or addr is None:
            return
        if 127 < first < 192 and size > 12:
            peer.packet(size, at)
        else:
            self._other(size, first, addr, peer)

    def _deliver(self, size: int, addr: Address, endpoint: Endpoint | None) -> bool:
        """Give the datagram in the buffer to whom it is for; whether it is a sender's audio, which
        alone is forwarded at once."""
        first, second = self.buffer[0], self.buffer[1]
        if not (127 < first < 192 and size > 12):
            self._other(size, first, addr, endpoint)
            return False
        if endpoint is None:
            self._stray(size, addr)
            return False
        endpoint.packet(size, time.monotonic())
        return not 192 <= second <= 208

    def _left_to_us(self, size: int, addr: Address | None, received: float) -> None:
        """Handle a datagram that native code read and cannot forward.

        ``addr`` is None for a connected socket's far end, ``size`` -1 for an error instead of a
        datagram, ``received`` the kernel's wall clock or 0.
        """
        if size < 0:
            self.dropped["receive_error"] += 1
            return
        if addr is None:
            addr, endpoint = self._peer_address, self._peer
            if addr is None or endpoint is None:
                return
        else:
            addr = _plain(addr)
            endpoint = self._in_use.get(addr)
        if self._deliver(size, addr, endpoint) and endpoint is not None and received:
            # The wall clock may be set back meanwhile; a delay is never negative.
            delay = max(0.0, time.time() - received)
            self.delay.add(delay)
            endpoint.delay.add(delay)

    def _measured(self, sample: bool) -> None:
        """Handle one datagram, the oldest that waits, and note how long it was with us."""
        self._late = False
        try:
            size, control, _, addr = self._sock.recvmsg_into(self._room, _CONTROL_BYTES)
        except OSError:
            return
        addr = _plain(addr)
        endpoint = self._in_use.get(addr)
        is_audio = self._deliver(size, addr, endpoint)
        for level, kind, data in control:
            if level != socket.SOL_SOCKET or kind != _SO_TIMESTAMPNS:
                continue
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            # The wall clock may be set back meanwhile; a delay is never negative.
            delay = max(0.0, time.time() - seconds - nanoseconds / 1e9)
            self._late = delay > DOUBT_SECONDS
            if endpoint is None or not is_audio:
                continue
            if sample:
                self.delay.add(delay)
                endpoint.delay.add(delay)
            elif self._late:
                self.delay.judge(delay)
                endpoint.delay.judge(delay)

    def _stray(self, size: int, addr: Address) -> None:
        buffer = self.buffer
        # RTCP names its sender in other bytes than RTP (RFC 3550 section 6.4).
        ssrc = buffer[4:8] if 192 <= buffer[1] <= 208 else buffer[8:12]
        endpoint = self._by_ssrc.get(int.from_bytes(ssrc, "big")) or self._by_address.get(addr)
        if endpoint is None:
            self.dropped["unknown"] += 1
        else:
            endpoint.stray(size, time.monotonic(), addr)

    def _other(self, size: int, first: int, addr: Address, endpoint: Endpoint | None) -> None:
        if not 0 < size < MAX_DATAGRAM:
            self.dropped["size"] += 1
            return
        data = bytes(memoryview(self.buffer)[:size])
        if first < 4:
            self._stun(data, addr)
        elif (endpoint := endpoint or self._by_address.get(addr)) is None:
            self.dropped["unknown"] += 1
        elif 19 < first < 64:
            endpoint.handshake(data, addr)
        else:
            self.dropped["form"] += 1

    def _stun(self, data: bytes, addr: Address) -> None:
        if len(data) < STUN_HEADER_BYTES:
            self.dropped["form"] += 1
        elif data[:2] == STUN_BINDING_REQUEST:
            endpoint = self._by_ufrag.get(stun_username(data) or "")
            if endpoint is None:
                self.dropped["ufrag"] += 1
            elif not endpoint.stun_request(data, addr):
                self.dropped["integrity"] += 1
        else:
            endpoint = self._by_transaction.pop(data[8:20], None)
            if endpoint is None:
                self.dropped["transaction"] += 1
            else:
                endpoint.stun_response(data, addr)


def _given(sock: socket.socket) -> int:
    size = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    # Linux doubles what it is asked for, to pay for its own bookkeeping, and says so (socket(7)).
    return size // 2 if sys.platform == "linux" else size


def _plain(addr: tuple[Any, ...]) -> Address:
    """An address as everybody else writes it: no scope, IPv4 as IPv4."""
    host: str = addr[0]
    return (host.removeprefix(_MAPPED) if "." in host else host), addr[1]


def _literal_family(host: str) -> socket.AddressFamily | None:
    """The family of an address that needs no look-up, which would wait for a thread."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    return socket.AF_INET6 if version == 6 else socket.AF_INET


def _drop(table: dict[Key, Endpoint], endpoint: Endpoint) -> None:
    for key in [key for key, owner in table.items() if owner is endpoint]:
        del table[key]
