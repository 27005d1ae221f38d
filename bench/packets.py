"""Real speech as RTP payloads that carry the moment they were sent.

Each packet of the shipped speech is rewritten as an Opus packet with eight bytes of padding
(RFC 6716 section 3.2.5): any decoder plays it as before, and the padding holds a time stamp.
"""

from __future__ import annotations

import struct

from interview_peer.core.opus import SILENCE_20_MS
from interview_peer.simulator.library import scripts

FRAME = 960
"""20 ms of the 48 kHz clock: every packet of the shipped speech."""

FRAME_SECONDS = 0.02

STAMP = struct.Struct("!Q")
_ONE_FRAME_PADDED = 0x41


def with_room(packet: bytes) -> bytes:
    """The same audio with eight bytes at its end that no decoder looks at.

    Raises:
        ValueError: the packet does not hold exactly one frame.
    """
    if len(packet) < 2 or packet[0] & 3:
        raise ValueError("not an Opus packet of one frame")
    head = bytes((packet[0] | 3, _ONE_FRAME_PADDED, STAMP.size))
    return head + packet[1:] + bytes(STAMP.size)


def stamped(packet: bytes, nanoseconds: int) -> bytes:
    """A packet of ``with_room`` with its stamp filled in."""
    return packet[: -STAMP.size] + STAMP.pack(nanoseconds)


def stamp_of(payload: bytes) -> int:
    """The stamp of a packet; meaningless for one that has none."""
    (nanoseconds,) = STAMP.unpack_from(payload, len(payload) - STAMP.size)
    return int(nanoseconds)


def speech() -> tuple[bytes, ...]:
    """All shipped speech, one line after the other, as heads of stamped packets.

    Each is complete but for its last eight bytes.
    """
    packets = (packet for script in scripts() for line in script.lines for packet in line.packets)
    return tuple(with_room(packet)[: -STAMP.size] for packet in packets)


def loudest(speech: tuple[bytes, ...], count: int) -> tuple[bytes, ...]:
    """The ``count`` consecutive packets of speech that take the most bytes."""
    sizes = [len(head) for head in speech]
    best = max(range(len(speech) - count), key=lambda at: sum(sizes[at : at + count]))
    return speech[best : best + count]


def silence() -> bytes:
    """Digital silence as the head of a stamped packet."""
    return with_room(SILENCE_20_MS)[: -STAMP.size]
