"""STUN messages as bytes: enough to ask a STUN server for an address and a TURN relay for a relay.

RFC 8489 and RFC 8656, with the long-term credential (MD5, SHA-1) that relays ask of browsers. Only
what the server needs to try its own relays; the legs' ICE is the library's.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

HEADER_BYTES: Final = 20
MAX_BYTES: Final = 2048
"""No answer that is of use here is longer."""

BINDING: Final = 0x001
ALLOCATE: Final = 0x003
REFRESH: Final = 0x004
CREATE_PERMISSION: Final = 0x008
SEND_INDICATION: Final = 0x016

SUCCESS: Final = 0x100
ERROR: Final = 0x110

UNAUTHORIZED: Final = 401
STALE_NONCE: Final = 438

_COOKIE: Final = 0x2112A442
_USERNAME: Final = 0x0006
_INTEGRITY: Final = 0x0008
_ERROR_CODE: Final = 0x0009
_LIFETIME: Final = 0x000D
_PEER: Final = 0x0012
_DATA: Final = 0x0013
_REALM: Final = 0x0014
_NONCE: Final = 0x0015
_TRANSPORT: Final = 0x0019
_MAPPED: Final = 0x0020
_UDP: Final = b"\x11\x00\x00\x00"

Address = tuple[str, int]
Attributes = Iterable[tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class Credential:
    """A user name and password, with what the relay said that they are for."""

    username: str
    password: str
    realm: str
    nonce: bytes

    @property
    def key(self) -> bytes:
        """What messages are signed with."""
        text = f"{self.username}:{self.realm}:{self.password}"
        return hashlib.md5(text.encode(), usedforsecurity=False).digest()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered to one request."""

    kind: int
    transaction: bytes
    attributes: dict[int, bytes]

    @property
    def is_success(self) -> bool:
        """Whether it did what it was asked."""
        return self.kind & ERROR == SUCCESS

    @property
    def error(self) -> int | None:
        """The code it refused with, 300 to 699."""
        value = self.attributes.get(_ERROR_CODE, b"")
        return (value[2] & 7) * 100 + value[3] if len(value) >= 4 else None

    @property
    def realm(self) -> str | None:
        """What a credential is asked for."""
        value = self.attributes.get(_REALM)
        return None if value is None else value.decode("utf-8", "replace")

    @property
    def nonce(self) -> bytes | None:
        """What the next request has to repeat."""
        return self.attributes.get(_NONCE)

    @property
    def mapped(self) -> Address | None:
        """The address that the server saw the request come from."""
        return self._address(_MAPPED)

    def _address(self, attribute: int) -> Address | None:
        value = self.attributes.get(attribute, b"")
        if len(value) not in (8, 20) or value[1] != (1 if len(value) == 8 else 2):
            return None
        mask = struct.pack("!I", _COOKIE) + self.transaction
        port = struct.unpack("!H", _xor(value[2:4], mask))[0]
        return str(ipaddress.ip_address(_xor(value[4:], mask))), port


def new_transaction() -> bytes:
    """The 12 bytes by which an answer is known."""
    return secrets.token_bytes(12)


def binding(transaction: bytes) -> bytes:
    """Asks from which address it came."""
    return _message(BINDING, transaction, ())


def allocate(transaction: bytes, credential: Credential | None = None) -> bytes:
    """Asks for a relay over UDP. Without a credential it asks what that should be for."""
    return _message(ALLOCATE, transaction, [(_TRANSPORT, _UDP)], credential)


def give_back(transaction: bytes, credential: Credential) -> bytes:
    """Ends a relay that was given."""
    return _message(REFRESH, transaction, [(_LIFETIME, bytes(4))], credential)


def permit(transaction: bytes, peer: Address, credential: Credential) -> bytes:
    """Asks that a peer may be sent to."""
    return _message(CREATE_PERMISSION, transaction, [_peer(transaction, peer)], credential)


def send(transaction: bytes, peer: Address, data: bytes) -> bytes:
    """Has a permitted peer sent a datagram; nobody answers."""
    return _message(SEND_INDICATION, transaction, [_peer(transaction, peer), (_DATA, data)])


def length_of(header: bytes) -> int:
    """Bytes of the message that begins so, as a stream carries it. ValueError if none does."""
    if len(header) < HEADER_BYTES or header[0] & 0xC0:
        raise ValueError("not STUN")
    length, cookie = struct.unpack("!HI", header[2:8])
    if cookie != _COOKIE or length % 4 or HEADER_BYTES + length > MAX_BYTES:
        raise ValueError("not STUN")
    return HEADER_BYTES + int(length)


def read(data: bytes) -> Answer:
    """The message of a whole datagram. Raises ValueError if it is none."""
    if length_of(data) != len(data):
        raise ValueError("not STUN")
    attributes: dict[int, bytes] = {}
    position = HEADER_BYTES
    while position < len(data):
        kind, length = struct.unpack("!HH", data[position : position + 4])
        value = data[position + 4 : position + 4 + length]
        if len(value) != length:
            raise ValueError("an attribute is longer than its message")
        attributes.setdefault(kind, value)
        position += 4 + length + -length % 4
    return Answer(int.from_bytes(data[:2], "big"), data[8:20], attributes)


def _message(
    kind: int, transaction: bytes, attributes: Attributes, credential: Credential | None = None
) -> bytes:
    told = list(attributes)
    if credential is not None:
        told += [
            (_USERNAME, credential.username.encode()),
            (_REALM, credential.realm.encode()),
            (_NONCE, credential.nonce),
        ]
    body = b"".join(_attribute(*one) for one in told)
    if credential is None:
        return _header(kind, len(body), transaction) + body
    # The length counts the signature that it is signed by.
    signed = _header(kind, len(body) + 24, transaction) + body
    digest = hmac.new(credential.key, signed, hashlib.sha1).digest()
    return signed + _attribute(_INTEGRITY, digest)


def _header(kind: int, length: int, transaction: bytes) -> bytes:
    return struct.pack("!HHI", kind, length, _COOKIE) + transaction


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def _peer(transaction: bytes, peer: Address) -> tuple[int, bytes]:
    mask = struct.pack("!I", _COOKIE) + transaction
    packed = ipaddress.ip_address(peer[0]).packed
    family = b"\x00\x01" if len(packed) == 4 else b"\x00\x02"
    return _PEER, family + _xor(struct.pack("!H", peer[1]), mask) + _xor(packed, mask)


def _xor(value: bytes, mask: bytes) -> bytes:
    return bytes(one ^ other for one, other in zip(value, mask, strict=False))
