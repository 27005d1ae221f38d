"""Reads an Ogg Opus file page by page, by the letter of RFC 3533 and RFC 7845.

Says where each page is, whether it is whole and what it holds; decodes nothing and mends nothing.
What lies between two whole pages is told as damage.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from ..core.ogg import PRE_SKIP, checksum
from ..core.opus import SAMPLE_RATE, packet_samples

_HEADER: Final = struct.Struct("<4sBBqIIIB")
_LARGEST: Final = _HEADER.size + 255 + 255 * 255
_CHUNK: Final = 1 << 20

CONTINUES, BEGINS, ENDS = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Page:
    """One whole page: its checksum is right."""

    offset: int
    size: int
    flags: int
    granule: int
    serial: int
    number: int
    packets: tuple[bytes, ...]
    """Packets that end in this page, the first without what an earlier page held of it."""
    open_ended: bool
    """Whether the last packet goes on in the next page."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that belong to no whole page."""

    offset: int
    size: int


@dataclass(slots=True)
class Stream:
    """What a whole file says about itself, and what is wrong with it."""

    pages: int = 0
    whole_bytes: int = 0
    """Where the last whole page ends."""
    serial: int = 0
    granule: int = 0
    """Samples up to the last page's end, pre-skip included."""
    pre_skip: int = PRE_SKIP
    head: bool = False
    """Whether the first page is that of an Opus stream."""
    header: bool = False
    """Whether both header pages are there."""
    ended: bool = False
    """Whether the stream is closed by an end mark, with nothing behind it."""
    torn_bytes: int = 0
    """Bytes behind the last whole page."""
    problems: list[str] = field(default_factory=list)
    """Everything that is not as it should be, an unclosed or torn end included."""
    codes: list[str] = field(default_factory=list)
    """The same in words that stay the same, each once: ``torn_page``, ``missing_page``,
    ``foreign_page``, ``after_end``, ``wrong_position``, ``torn_packet``, ``no_header``,
    ``torn_end``, ``not_closed``."""
    damaged: bool = False
    """Whether something is wrong before the last whole page."""

    def tell(self, code: str, sentence: str) -> None:
        """Add a problem."""
        self.problems.append(sentence)
        if code not in self.codes:
            self.codes.append(code)

    @property
    def seconds(self) -> float:
        """How long a player says the file is."""
        return max(self.granule - self.pre_skip, 0) / SAMPLE_RATE


def pages(file: BinaryIO) -> Iterator[Page | Damage]:
    """Read a file from where it stands; memory stays bounded, whatever the file holds."""
    buffer, offset = bytearray(), 0
    bad_from = -1
    end_of_file = False
    while True:
        if not end_of_file and len(buffer) < _LARGEST:
            data = file.read(_CHUNK)
            end_of_file = not data
            buffer += data
            if not end_of_file and len(buffer) < _LARGEST:
                continue
        if not buffer:
            break
        page = _page(buffer, offset)
        if page is not None:
            if bad_from >= 0:
                yield Damage(bad_from, offset - bad_from)
                bad_from = -1
            yield page
            step = page.size
        else:
            if bad_from < 0:
                bad_from = offset
            step = _to_next_mark(buffer, end_of_file)
        del buffer[:step]
        offset += step
    if bad_from >= 0:
        yield Damage(bad_from, offset - bad_from)


def scan(path: Path) -> Stream:
    """Read a whole file and judge it. Raises ``OSError`` if it cannot be read."""
    stream = Stream()
    counted = 0
    expected: int | None = None
    with path.open("rb") as file:
        for found in pages(file):
            if isinstance(found, Damage):
                stream.torn_bytes = found.size
                continue
            if stream.torn_bytes:
                stream.damaged = True
                sentence = f"{stream.torn_bytes} bytes before byte {found.offset} are no whole page"
                stream.tell("torn_page", sentence)
                stream.torn_bytes = 0
            if expected is not None and found.number != expected:
                stream.damaged = True
                sentence = f"page {expected} is missing before page {found.number}"
                stream.tell("missing_page", sentence)
                # What follows is counted from where this page says it ends.
                counted = found.granule - _samples(found)
            expected = found.number + 1
            counted = _judge(stream, found, counted)
    if not stream.header:
        stream.damaged = True
        stream.tell("no_header", "there is no Ogg Opus header")
    if stream.torn_bytes:
        stream.tell("torn_end", f"the last {stream.torn_bytes} bytes are no whole page")
    elif not stream.ended:
        stream.tell("not_closed", "the stream is not closed")
    return stream


def _judge(stream: Stream, page: Page, counted: int) -> int:
    """Take one page into account; returns the samples counted in packets so far."""
    number = stream.pages
    stream.pages += 1
    stream.whole_bytes = page.offset + page.size
    if number == 0:
        stream.serial = page.serial
    elif page.serial != stream.serial or page.flags & BEGINS:
        stream.damaged = True
        stream.tell("foreign_page", f"page {page.number} belongs to another stream")
    if stream.ended:
        stream.damaged = True
        stream.tell("after_end", f"page {page.number} follows the end of the stream")
    stream.ended = bool(page.flags & ENDS)
    if number < 2:
        _read_header(stream, number, page)
        return counted
    counted += _samples(page)
    if page.granule != counted and not (page.flags & ENDS and page.granule < counted):
        stream.damaged = True
        sentence = f"page {page.number} ends at {page.granule} samples instead of {counted}"
        stream.tell("wrong_position", sentence)
        counted = page.granule
    if page.flags & CONTINUES or page.open_ended:
        stream.damaged = True
        stream.tell("torn_packet", f"page {page.number} holds a part of a packet")
    stream.granule = page.granule
    return counted


def _samples(page: Page) -> int:
    return sum(map(packet_samples, page.packets))


def _read_header(stream: Stream, number: int, page: Page) -> None:
    packet = page.packets[0] if len(page.packets) == 1 else b""
    if number == 0:
        stream.head = packet[:8] == b"OpusHead" and len(packet) >= 19 and bool(page.flags & BEGINS)
        if stream.head:
            stream.pre_skip = int.from_bytes(packet[10:12], "little")
    else:
        stream.header = stream.head and packet[:8] == b"OpusTags"


def _page(buffer: bytearray, offset: int) -> Page | None:
    """The page at the beginning of ``buffer``; nothing if there is no whole one."""
    if len(buffer) < _HEADER.size or buffer[:4] != b"OggS":
        return None
    _, version, flags, granule, serial, number, _, segments = _HEADER.unpack_from(buffer)
    body = _HEADER.size + segments
    lacing = bytes(buffer[_HEADER.size : body])
    size = body + sum(lacing)
    if version or len(lacing) < segments or len(buffer) < size:
        return None
    data = bytes(buffer[:size])
    if checksum(data[:22] + bytes(4) + data[26:]) != data[22:26]:
        return None
    packets, open_ended = _packets(data[body:], lacing)
    return Page(offset, size, flags, granule, serial, number, packets, open_ended)


def _packets(body: bytes, lacing: bytes) -> tuple[tuple[bytes, ...], bool]:
    packets: list[bytes] = []
    start = end = 0
    for length in lacing:
        end += length
        if length < 255:
            packets.append(body[start:end])
            start = end
    return tuple(packets), start < end


def _to_next_mark(buffer: bytearray, end_of_file: bool) -> int:
    """How many bytes to leave out until another page may begin."""
    found = buffer.find(b"OggS", 1)
    if found > 0:
        return found
    # The mark itself may be cut by the end of what has been read.
    return len(buffer) if end_of_file else max(1, len(buffer) - 3)
