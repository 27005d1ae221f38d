"""Speech to test with: the simulated interviewer's own lines, as Opus packets and as samples."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import av
import numpy as np
import numpy.typing as npt
from av.audio.codeccontext import AudioCodecContext

from ..simulator.library import FRAME_MS, Line, scripts
from ..simulator.mouth import SILENCE

SAMPLE_RATE = 48_000


@dataclass(frozen=True)
class Speech:
    """Something spoken: its words and its mono Opus packets of 20 ms each."""

    text: str
    packets: tuple[bytes, ...]

    @property
    def duration_ms(self) -> int:
        """Its length in milliseconds."""
        return FRAME_MS * len(self.packets)

    @functools.cached_property
    def samples(self) -> npt.NDArray[np.int16]:
        """Mono samples of 16 bits at 48 kHz."""
        return _decoded(self.packets)


@functools.cache
def lines(script: str = "technical") -> tuple[Speech, ...]:
    """What one of the simulated interviewers says, in order: greeting, questions, closing.

    ``script`` is ``general`` (which is what sessions without instructions get), ``behavioural``
    or ``technical``. A candidate in a test may well speak an interviewer's words: nobody
    understands them. Raises KeyError for another name.
    """
    known: dict[str, tuple[Line, ...]] = {one.name: one.lines for one in scripts()}
    return tuple(Speech(line.text, line.packets) for line in known[script])


def silence_packet() -> bytes:
    """An Opus packet of 20 ms in which nothing is heard."""
    return SILENCE


def _decoded(packets: Iterable[bytes]) -> npt.NDArray[np.int16]:
    decoder = av.CodecContext.create("opus", "r")
    assert isinstance(decoder, AudioCodecContext)
    pieces = [
        # Planar stereo, both sides alike.
        frame.to_ndarray()[0]
        for packet in packets
        for frame in decoder.decode(av.Packet(packet))
    ]
    loud = np.concatenate(pieces) * 32767
    samples: npt.NDArray[np.int16] = np.clip(loud, -32768, 32767).astype(np.int16)
    return samples
