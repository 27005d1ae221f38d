"""Datagrams that no port should answer, and one that it must."""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from aioice import stun

from interview_peer.media.udp import Address


@dataclass(frozen=True)
class Credentials:
    """What a leg's description says of its ICE agent."""

    ufrag: str
    password: str

    @classmethod
    def of(cls, text: str) -> Credentials:
        """Read them from a session description."""
        values = dict(
            line[2:].split(":", 1) for line in text.splitlines() if line.startswith("a=ice-")
        )
        return cls(values["ice-ufrag"], values["ice-pwd"])


def check(
    theirs: Credentials,
    ours: Credentials,
    *,
    change: Callable[[stun.Message], None] | None = None,
    method: stun.Method = stun.Method.BINDING,
    sign: str | None = None,
) -> bytes:
    """A connectivity check addressed to ``theirs``; ``sign`` replaces the right password."""
    message = stun.Message(method, stun.Class.REQUEST)
    message.attributes["USERNAME"] = f"{theirs.ufrag}:{ours.ufrag}"
    message.attributes["PRIORITY"] = 1_845_501_695
    message.attributes["ICE-CONTROLLING"] = 1
    if change is not None:
        change(message)
    if sign != "":
        message.add_message_integrity((sign or theirs.password).encode())
    return bytes(message)


def transaction_of(data: bytes) -> bytes:
    """The transaction id of a STUN message."""
    return data[8:20]


def strays(theirs: Credentials, ours: Credentials) -> dict[str, bytes]:
    """Each kind of datagram that must be counted and never answered."""
    foreign = Credentials("nobodysfragmentatall22", theirs.password)
    good = check(theirs, ours)
    indication = stun.Message(stun.Method.BINDING, stun.Class.INDICATION)
    response = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE)
    response.attributes["XOR-MAPPED-ADDRESS"] = ("192.0.2.1", 9)
    response.add_message_integrity(theirs.password.encode())
    error = stun.Message(stun.Method.BINDING, stun.Class.ERROR)
    error.attributes["ERROR-CODE"] = (487, "Role Conflict")
    hello = b"\x16\xfe\xff" + bytes(8) + struct.pack("!H", 60) + b"\x01" + bytes(59)
    return {
        "nothing": b"",
        "one byte of STUN": b"\x00",
        "one byte of RTP": b"\x80",
        "check for nobody": check(foreign, ours),
        "check with a wrong password": check(theirs, ours, sign="x" * 22),
        "check without integrity": check(theirs, ours, sign=""),
        "check without user name": check(
            theirs, ours, change=lambda message: message.attributes.pop("USERNAME")
        ),
        "check from another user": check(theirs, Credentials("someoneelse", ""), sign="y" * 22),
        "check cut in its header": good[:19],
        "check cut in its user name": good[:27],
        "check cut in its integrity": good[:-20],
        "check with more behind it": good + b"\0\0\0\0",
        "check with one bit changed": good[:40] + bytes([good[40] ^ 1]) + good[41:],
        "check with an attribute beyond its end": good[:20] + b"\x00\x06\xff\xff" + good[24:],
        "bare binding request": bytes(stun.Message(stun.Method.BINDING, stun.Class.REQUEST)),
        "request for an allocation": bytes(stun.Message(stun.Method.ALLOCATE, stun.Class.REQUEST)),
        "indication": bytes(indication),
        "response to nothing": bytes(response),
        "error to nothing": bytes(error),
        "ClientHello": hello,
        "DTLS record, cut": hello[:5],
        "DTLS application data": b"\x17\xfe\xfd" + secrets.token_bytes(60),
        "RTP": b"\x80\x6f" + secrets.token_bytes(90),
        "RTP, only a header": b"\x80\x6f" + secrets.token_bytes(10),
        "RTCP": b"\x80\xc8\x00\x06" + secrets.token_bytes(40),
        "TURN channel data": b"\x40\x00\x00\x04abcd",
        "ZRTP": b"\x10\x00" + secrets.token_bytes(40),
        "QUIC": b"\xc3\x00\x00\x00\x01" + secrets.token_bytes(1195),
        "text": b"GET / HTTP/1.1\r\n\r\n",
        "longer than any packet": b"\x80" + secrets.token_bytes(5000),
        "longer than any DTLS record": b"\x16" + secrets.token_bytes(5000),
        "longer than any check": good + secrets.token_bytes(5000),
    }


class Stranger:
    """A bare socket that keeps what comes back."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind((host, 0))
        self.received: list[bytes] = []
        """What came back, in order."""
        asyncio.get_running_loop().add_reader(self._socket, self._readable)

    @property
    def address(self) -> Address:
        """Where it sends from."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    def send(self, data: bytes, to: Address) -> None:
        """Send one datagram, which may be empty."""
        self._socket.sendto(data, to)

    def _readable(self) -> None:
        self.received.append(self._socket.recv(65536))

    def close(self) -> None:
        """Close the socket."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
