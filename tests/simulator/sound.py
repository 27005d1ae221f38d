"""Samples and packets for the simulator's tests; the speech is the simulator's own."""

from __future__ import annotations

from collections.abc import Iterable

import av
import numpy as np
import numpy.typing as npt
from av.audio.codeccontext import AudioCodecContext

from interview_peer.simulator.library import Line, scripts

RATE = 48000
Samples = npt.NDArray[np.float32]


def spoken(script: int = 2, line: int = 1) -> Line:
    """A shipped line, by default one that the general interviewer never says."""
    return scripts()[script].lines[line]


def decoded(packets: Iterable[bytes]) -> Samples:
    """Mono samples at 48 kHz of consecutive Opus packets."""
    decoder = av.CodecContext.create("opus", "r")
    assert isinstance(decoder, AudioCodecContext)
    pieces = [
        frame.to_ndarray().mean(axis=0)
        for packet in packets
        for frame in decoder.decode(av.Packet(packet))
    ]
    return np.concatenate(pieces)


def silence(ms: int) -> Samples:
    """Digital silence."""
    return np.zeros(RATE * ms // 1000, np.float32)


def noise(ms: int, level_db: float) -> Samples:
    """White noise of a level relative to full scale, the same every time."""
    samples = np.random.default_rng(7).standard_normal(RATE * ms // 1000)
    return (samples * 10 ** (level_db / 20)).astype(np.float32)
