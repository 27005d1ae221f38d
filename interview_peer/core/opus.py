"""What an Opus packet says about itself: how long it lasts, and packets that stand for silence.

Only the framing of RFC 6716 §3 is read; nothing is decoded. Durations are samples at 48 kHz.
"""

from __future__ import annotations

SAMPLE_RATE = 48_000
"""Opus counts time in samples at this rate, whatever the sender captured."""

SHORTEST = 120
"""Samples in the shortest frame, 2.5 ms. Every duration is a multiple of it."""

_LONGEST = 5_760
"""Samples in the longest packet, 120 ms."""

_MAX_FRAME_BYTES = 1_275

_MAX_PACKET_BYTES = 61_440
"""What RFC 7845 §6 asks every reader to take. Only padding makes a packet larger."""

_SILK = (480, 960, 1_920, 2_880)
_HYBRID = (480, 960)
_CELT = (120, 240, 480, 960)

_FRAME_BY_CONFIGURATION = _SILK * 3 + _HYBRID * 2 + _CELT * 4

FRAME_SAMPLES = tuple(_FRAME_BY_CONFIGURATION[toc >> 3] for toc in range(256))
"""Samples of one frame, by the packet's first byte."""

_SILENCE = (
    # Full-band CELT, mono. The two bytes make the decoder read the "silence" flag as set.
    (960, b"\xf8\xff\xfe"),
    (480, b"\xf0\xff\xfe"),
    (240, b"\xe8\xff\xfe"),
    (120, b"\xe0\xff\xfe"),
)

SILENCE_20_MS = _SILENCE[0][1]
"""One packet of 20 ms of coded digital silence."""


def packet_samples(payload: bytes) -> int:
    """Return how many samples at 48 kHz the packet lasts, 0 when it is not an Opus packet.

    A packet whose frame lengths contradict its size counts as no packet: a decoder skips it, and
    everything after it in the file would be early.
    """
    size = len(payload)
    if not size:
        return 0
    toc = payload[0]
    if not toc & 3:
        return FRAME_SAMPLES[toc] if size <= _MAX_FRAME_BYTES + 1 else 0
    frames = _frame_count(payload)
    samples = frames * FRAME_SAMPLES[toc]
    return samples if samples <= _LONGEST else 0


def concealment(toc: int) -> bytes:
    """Return a packet of one frame without data: the decoder conceals as it would a lost frame."""
    return _TOC_ONLY[toc]


def silence(samples: int) -> list[bytes]:
    """Return packets of digital silence that last ``samples``, rounded down to 2.5 ms."""
    packets: list[bytes] = []
    for length, packet in _SILENCE:
        count, samples = divmod(samples, length)
        packets += [packet] * count
    return packets


# The two lowest bits say how many frames follow; zero means one.
_TOC_ONLY = tuple(bytes((toc & 0xFC,)) for toc in range(256))


def _frame_count(payload: bytes) -> int:
    """Count the frames of a packet that holds several; 0 when its framing is broken."""
    code = payload[0] & 3
    if code == 1:
        rest = len(payload) - 1
        return 2 if rest % 2 == 0 and rest <= 2 * _MAX_FRAME_BYTES else 0
    if code == 2:
        length, at = _frame_length(payload, 1)
        rest = len(payload) - at - length
        return 2 if 0 <= rest <= _MAX_FRAME_BYTES and length >= 0 else 0
    return _frame_count_of_code_3(payload)


def _frame_count_of_code_3(payload: bytes) -> int:
    if not 2 <= len(payload) <= _MAX_PACKET_BYTES:
        return 0
    variable, padded, frames = payload[1] & 0x80, payload[1] & 0x40, payload[1] & 0x3F
    at = 2
    padding = 0
    while padded:
        if at >= len(payload):
            return 0
        step = payload[at]
        at += 1
        padding += 254 if step == 255 else step
        if step != 255:
            break
    end = len(payload) - padding
    if not variable:
        rest = end - at
        fits = frames and rest >= 0 and rest % frames == 0 and rest // frames <= _MAX_FRAME_BYTES
        return frames if fits else 0
    total = 0
    for _ in range(frames - 1):
        length, at = _frame_length(payload, at)
        if length < 0:
            return 0
        total += length
    last = end - at - total
    return frames if frames and 0 <= last <= _MAX_FRAME_BYTES else 0


def _frame_length(payload: bytes, at: int) -> tuple[int, int]:
    """Read a frame length of one or two bytes. Returns it (-1 when cut off) and what follows."""
    if at >= len(payload):
        return -1, at
    first = payload[at]
    if first < 252:
        return first, at + 1
    if at + 1 >= len(payload):
        return -1, at
    return payload[at + 1] * 4 + first, at + 2
