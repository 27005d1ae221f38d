"""RTP packets made by hand, and read back by a parser that is not ours."""

from __future__ import annotations

import struct

from aiortc.rtp import RtpPacket

OPUS = 96
"""The payload type in aiortc's offers."""


def rtp(
    sequence: int,
    timestamp: int,
    payload: bytes,
    *,
    ssrc: int = 0x0BADCAFE,
    payload_type: int = OPUS,
    marker: bool = False,
    csrcs: tuple[int, ...] = (),
    extension: bytes | None = None,
    padding: int = 0,
) -> bytes:
    """One packet; ``extension`` is the body of a header extension, in whole words."""
    first = 0x80 | len(csrcs) | (0x10 if extension is not None else 0) | (0x20 if padding else 0)
    packet = struct.pack(
        "!BBHII",
        first,
        payload_type | (0x80 if marker else 0),
        sequence & 0xFFFF,
        timestamp & 0xFFFFFFFF,
        ssrc,
    )
    packet += b"".join(struct.pack("!I", csrc) for csrc in csrcs)
    if extension is not None:
        packet += struct.pack("!HH", 0xBEDE, len(extension) // 4) + extension
    packet += payload
    if padding:
        packet += bytes(padding - 1) + bytes([padding])
    return packet


def read(packet: bytes) -> RtpPacket:
    """Parse a packet."""
    return RtpPacket.parse(packet)
