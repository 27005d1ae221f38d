"""Pages as RFC 3533 and RFC 7845 want them, read back by a plain reader and by FFmpeg."""

from __future__ import annotations

import io
import random
import struct
from dataclasses import dataclass

import av
import pytest

from interview_peer.core.ogg import PAGE_SAMPLES, PRE_SKIP, OggOpusMuxer, checksum
from interview_peer.core.opus import SILENCE_20_MS, packet_samples


@dataclass(frozen=True)
class Page:
    flags: int
    granule: int
    serial: int
    number: int
    packets: list[bytes]


def slow_checksum(data: bytes) -> int:
    """Ogg's CRC as the standard words it: bit by bit."""
    crc = 0
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc


def read_pages(data: bytes) -> list[Page]:
    pages: list[Page] = []
    at = 0
    while at < len(data):
        magic, version, flags, granule, serial, number, crc, count = struct.unpack_from(
            "<4sBBqIIIB", data, at
        )
        assert (magic, version) == (b"OggS", 0)
        lacing = data[at + 27 : at + 27 + count]
        end = at + 27 + count + sum(lacing)
        assert end <= len(data)
        zeroed = data[at : at + 22] + bytes(4) + data[at + 26 : end]
        assert slow_checksum(zeroed) == crc
        packets = [b""]
        place = at + 27 + count
        for size in lacing:
            packets[-1] += data[place : place + size]
            place += size
            if size < 255:
                packets.append(b"")
        assert packets.pop() == b"", "every packet ends on its page"
        pages.append(Page(flags, granule, serial, number, packets))
        at = end
    return pages


def test_checksum_agrees_with_the_standard() -> None:
    choose = random.Random(2)
    for size in (0, 1, 27, 255, 4_000):
        data = choose.randbytes(size)
        assert int.from_bytes(checksum(data), "little") == slow_checksum(data)


def test_headers_say_what_follows() -> None:
    head, tags = read_pages(OggOpusMuxer(0xDEADBEEF).headers())
    assert (head.flags, head.granule, head.number, head.serial) == (2, 0, 0, 0xDEADBEEF)
    assert head.packets == [b"OpusHead" + struct.pack("<BBHIhB", 1, 1, PRE_SKIP, 48_000, 0, 0)]
    assert (tags.flags, tags.granule, tags.number) == (0, 0, 1)
    assert tags.packets == [b"OpusTags\x0e\x00\x00\x00interview_peer\x00\x00\x00\x00"]


def test_pages_hold_half_a_second_and_count_samples() -> None:
    muxer = OggOpusMuxer(1)
    muxer.headers()
    data = b"".join(muxer.add([SILENCE_20_MS]) for _ in range(60))
    first, second = read_pages(data)
    assert [len(page.packets) for page in (first, second)] == [25, 25]
    assert [page.granule for page in (first, second)] == [24_000, 48_000]
    (third,) = read_pages(muxer.flush())
    assert (third.granule, len(third.packets), third.flags) == (57_600, 10, 0)
    assert muxer.flush() == b""


def test_the_last_page_is_marked_even_if_nothing_was_left() -> None:
    muxer = OggOpusMuxer(1)
    muxer.headers()
    muxer.add([SILENCE_20_MS])
    muxer.flush()
    (last,) = read_pages(muxer.end())
    assert (last.flags, last.granule, last.packets) == (4, 960, [])
    assert muxer.end() == b""


def test_any_mixture_of_packets_comes_back_whole_and_in_order() -> None:
    choose = random.Random(3)
    packets: list[bytes] = []
    for _ in range(1_000):
        toc = choose.choice([0x78, 0xE0, 0xE8, 0xF0, 0x18, 0xFC])
        size = choose.choice([0, 1, 80, 253, 254, 255, 509, 510, 1_274, 1_275])
        packets.append(bytes((toc,)) + choose.randbytes(size))
    muxer = OggOpusMuxer(9)
    data = muxer.headers()
    taken = 0
    while taken < len(packets):
        batch = packets[taken : taken + choose.randrange(1, 400)]
        taken += len(batch)
        data += muxer.add(batch) + muxer.flush()
    data += muxer.end()
    pages = read_pages(data)
    assert [page.number for page in pages] == list(range(len(pages)))
    assert [packet for page in pages[2:] for packet in page.packets] == packets
    granule = 0
    for page in pages[2:]:
        samples = sum(map(packet_samples, page.packets))
        assert samples <= PAGE_SAMPLES
        granule += samples
        assert page.granule == granule
    assert muxer.samples == granule
    assert [page.flags for page in pages] == [2, *[0] * (len(pages) - 2), 4]


@pytest.mark.parametrize("torn", [0, 1, 30, 100])
def test_a_file_cut_anywhere_plays_up_to_its_last_whole_page(torn: int) -> None:
    muxer = OggOpusMuxer(5)
    data = muxer.headers()
    for _ in range(10):
        data += muxer.add([SILENCE_20_MS] * 25) + muxer.flush()
    kept = data[: len(data) - torn]
    with av.open(io.BytesIO(kept), mode="r") as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert samples == (10 if torn == 0 else 9) * 24_000 - PRE_SKIP
