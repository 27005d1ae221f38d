"""What an Opus packet says about its duration, and which bytes are no packet."""

from __future__ import annotations

import random

import av
import numpy as np
import pytest

from interview_peer.core.opus import concealment, packet_samples, silence


@pytest.mark.parametrize(
    ("configuration", "milliseconds"),
    [
        *((c, (10, 20, 40, 60)[c % 4]) for c in range(12)),
        *((c, (10, 20)[c % 2]) for c in range(12, 16)),
        *((c, (2.5, 5, 10, 20)[c % 4]) for c in range(16, 32)),
    ],
)
def test_every_configuration_has_its_duration(configuration: int, milliseconds: float) -> None:
    for stereo in (0, 4):
        assert packet_samples(bytes((configuration << 3 | stereo, 1, 2))) == milliseconds * 48


@pytest.mark.parametrize(
    ("payload", "samples"),
    [
        (b"\x79abcd", 1_920),
        (b"\x7a\x02abcd", 1_920),
        (b"\x7a\xfc\x01" + bytes(256 + 9), 1_920),
        (b"\x7b\x03abcabc", 2_880),
        (b"\x7b\x83\x01\x02abbc", 2_880),
        (b"\x7b\x43\x02abcabc\x00\x00", 2_880),
        (b"\x7b\x41\xff\x00a" + bytes(254), 960),
        (b"\xe3\x30" + bytes(48), 5_760),
        (b"\x78", 960),
    ],
)
def test_packets_of_several_frames_last_for_all_of_them(payload: bytes, samples: int) -> None:
    assert packet_samples(payload) == samples


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x79abc",  # two equal frames of an odd size
        b"\x7a\x09ab",  # a frame longer than the packet
        b"\x7a\xfc",  # half of a length
        b"\x7a",
        b"\x7b",  # no frame count
        b"\x7b\x00",  # no frames
        b"\x7b\x07" + bytes(7),  # 140 ms
        b"\x7b\x02abc",
        b"\x7b\x83\x01",
        b"\x7b\x83\xf0\x02abbc",
        b"\x7b\x43\xff",  # padding cut off
        b"\x7b\x43\x20abc",  # more padding than packet
        b"\x78" + bytes(1_276),  # a frame larger than a frame can be
        b"\x7b\x41" + b"\xff" * 300 + b"\x00" + bytes(254 * 300),  # more than readers take
    ],
)
def test_broken_framing_is_no_packet(payload: bytes) -> None:
    assert packet_samples(payload) == 0


def test_any_bytes_give_an_answer() -> None:
    choose = random.Random(1)
    for _ in range(20_000):
        payload = choose.randbytes(choose.randrange(12))
        assert 0 <= packet_samples(payload) <= 5_760
        assert packet_samples(payload) % 120 == 0


def test_silence_adds_up_and_uses_the_longest_packets() -> None:
    for samples in range(0, 6_000, 120):
        packets = silence(samples)
        assert sum(map(packet_samples, packets)) == samples
        assert len(packets) <= samples // 960 + 3
    assert silence(959) == [b"\xf0\xff\xfe", b"\xe8\xff\xfe", b"\xe0\xff\xfe"]


def test_silence_of_every_length_decodes_to_silence_of_that_length() -> None:
    decoder = av.CodecContext.create("opus", "r")
    assert isinstance(decoder, av.AudioCodecContext)
    for samples in (120, 240, 480, 960):
        (packet,) = silence(samples)
        (frame,) = decoder.decode(av.Packet(packet))
        assert frame.samples == samples
        assert np.abs(np.asarray(frame.to_ndarray())).max() < 1e-4


def test_concealment_is_one_frame_of_the_same_kind() -> None:
    assert concealment(0x7B) == b"\x78"
    assert packet_samples(concealment(0x19)) == 2_880
