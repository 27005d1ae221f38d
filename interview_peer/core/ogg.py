"""Makes an Ogg Opus file (RFC 3533, RFC 7845) out of Opus packets, page by page.

Pure: packets go in, bytes to append come out. Every page can be played as soon as it is written,
there is no index and nothing to finalise, so a file cut anywhere plays up to its last whole page.
"""

from __future__ import annotations

import struct
import zlib

from interview_peer.core.opus import FRAME_SAMPLES, SAMPLE_RATE, packet_samples

PRE_SKIP = 312
"""Samples a player drops at the beginning: the look-ahead of the Opus encoder (6.5 ms).

A sound that was captured at a packet's position leaves the decoder this much later; with the
pre-skip it plays at that position.
"""

PAGE_SAMPLES = SAMPLE_RATE // 2
"""A page never holds more than this, so that a crash or a damaged page costs half a second."""

_MAX_SEGMENTS = 255
_CONTINUES, _BEGINS, _ENDS = 1, 2, 4
_HEADER = struct.Struct("<4sBBqIIIB")
_CRC_AT = 22

# zlib knows Ogg's polynomial bit-reversed, with inverted start and end. Feeding it reversed bytes
# and undoing both gives Ogg's checksum at C speed.
_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
_ALL_ONES = 0xFFFFFFFF


def checksum(page: bytes) -> bytes:
    """Return Ogg's CRC-32 of ``page`` as the four bytes that go into its header."""
    crc = zlib.crc32(page.translate(_REVERSED), _ALL_ONES) ^ _ALL_ONES
    return crc.to_bytes(4, "big").translate(_REVERSED)


class OggOpusMuxer:
    """One logical stream of mono Opus packets.

    ``serial`` is any 32-bit number; it tells streams apart should files be joined. A decoder
    mixes stereo packets down, so one channel fits whatever a sender does.
    """

    def __init__(self, serial: int, vendor: str = "interview_peer") -> None:
        self._serial = serial & _ALL_ONES
        self._vendor = vendor.encode()
        self._page = 0
        self._granule = 0
        self._pending: list[bytes] = []
        self._lacing = bytearray()
        self._pending_samples = 0
        self._ended = False

    @classmethod
    def resume(cls, serial: int, page: int, granule: int) -> OggOpusMuxer:
        """Go on behind the pages a stream has: ``page`` is the next one's number, ``granule`` where
        the last one ended."""
        muxer = cls(serial)
        muxer._page = page
        muxer._granule = granule
        return muxer

    @property
    def samples(self) -> int:
        """How many samples all packets so far last, pre-skip included."""
        return self._granule + self._pending_samples

    def headers(self) -> bytes:
        """Return the two pages every file begins with."""
        head = struct.pack("<8sBBHIhB", b"OpusHead", 1, 1, PRE_SKIP, SAMPLE_RATE, 0, 0)
        tags = struct.pack("<8sI", b"OpusTags", len(self._vendor)) + self._vendor + bytes(4)
        pages = b""
        for packet, flags in ((head, _BEGINS), (tags, 0)):
            self._pending.append(packet)
            self._lacing.append(len(packet))
            pages += self._take_page(flags)
        return pages

    def add(self, packets: list[bytes]) -> bytes:
        """Take packets in order; return the pages that became full."""
        pages: list[bytes] = []
        pending, lacing = self._pending, self._lacing
        waiting = self._pending_samples
        for packet in packets:
            toc = packet[0] if packet else 3
            # One frame, which is what nearly all packets are, needs no closer look.
            samples = packet_samples(packet) if toc & 3 else FRAME_SAMPLES[toc]
            full, rest = divmod(len(packet), 255)
            if pending and (
                waiting + samples > PAGE_SAMPLES or len(lacing) + full >= _MAX_SEGMENTS
            ):
                self._pending_samples = waiting
                pages.append(self._take_page(0))
                waiting = 0
            # A length that is a multiple of 255 needs a closing zero, which ``rest`` is.
            if full:
                lacing += b"\xff" * full
            lacing.append(rest)
            pending.append(packet)
            waiting += samples
        self._pending_samples = waiting
        return b"".join(pages)

    def flush(self) -> bytes:
        """Close the page begun, if any, so that all packets so far are in the returned bytes."""
        return self._take_page(0) if self._pending else b""

    def end(self) -> bytes:
        """Return the last page, marked as the end of the stream. Later calls return nothing."""
        if self._ended:
            return b""
        self._ended = True
        return self._take_page(_ENDS)

    def _take_page(self, flags: int) -> bytes:
        self._granule += self._pending_samples
        lacing, pending = self._lacing, self._pending
        header = _HEADER.pack(
            b"OggS", 0, flags, self._granule, self._serial, self._page, 0, len(lacing)
        )
        page = b"".join((header, lacing, *pending))
        self._page += 1
        self._pending_samples = 0
        lacing.clear()
        pending.clear()
        return b"".join((page[:_CRC_AT], checksum(page), page[_CRC_AT + 4 :]))
