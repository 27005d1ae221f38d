"""What the simulator hears: Opus packets in, detections of speech out.

The only place of the product that decodes live audio. It runs in the packet callback, without a
thread and without a jitter buffer: about 50 microseconds a packet. Like one that has a jitter
buffer it hears silence where packets are missing, so audio time follows the packets' own clock;
it stands still while nothing comes.
"""

from __future__ import annotations

from typing import Final

import av
import av.error
import numpy as np
from av.audio.codeccontext import AudioCodecContext

from ..types import Json
from .vad import Detection, VadSettings, VoiceDetector

LONGEST_GAP: Final = 10 * 48_000
"""A clock that jumps further ahead, in samples, is another clock: nothing was missed."""

SEMANTIC_SILENCE_MS = {"low": 1200, "medium": 800, "auto": 800, "high": 400}


class Ear:
    """Decodes one stream of RTP payloads and watches it for speech."""

    def __init__(self) -> None:
        decoder = av.CodecContext.create("opus", "r")
        assert isinstance(decoder, AudioCodecContext)
        self._decoder = decoder
        self._detector = VoiceDetector(VadSettings())
        self._last_sequence: int | None = None
        self._expected: int | None = None
        """RTP time at which the next packet begins if none is missing."""

    @property
    def heard_ms(self) -> int:
        """Milliseconds of audio heard, silence in place of what is missing included."""
        return self._detector.heard_ms

    def listen(self, turn_detection: Json | None) -> None:
        """Follow the session's ``turn_detection`` object; a turn under way is forgotten."""
        self._detector.configure(vad_settings(turn_detection))

    def hear(self, sequence: int, timestamp: int, payload: bytes) -> list[Detection]:
        """Take one packet. Repeated, late and undecodable ones are dropped."""
        # An empty packet would tell the decoder that the stream has ended.
        if not payload or not self._is_next(sequence):
            return []
        try:
            frames = self._decoder.decode(av.Packet(payload))
        except av.error.FFmpegError:
            return []
        missing = 0 if self._expected is None else (timestamp - self._expected) & 0xFFFFFFFF
        detections: list[Detection] = []
        if 0 < missing <= LONGEST_GAP:
            detections += self._detector.feed(np.zeros(missing, np.float32))
        heard = sum(frame.samples for frame in frames)
        self._expected = (timestamp + heard) & 0xFFFFFFFF
        for frame in frames:
            # Planar stereo, both sides alike for a mono source: the mean keeps either.
            detections += self._detector.feed(frame.to_ndarray().mean(axis=0))
        return detections

    def _is_next(self, sequence: int) -> bool:
        if self._last_sequence is not None:
            ahead = (sequence - self._last_sequence) & 0xFFFF
            if ahead == 0 or ahead >= 0x8000:
                return False
        self._last_sequence = sequence
        return True


def vad_settings(turn_detection: Json | None) -> VadSettings:
    """Read the energy detector's settings from a ``turn_detection`` object.

    ``semantic_vad`` gets a pause that fits its eagerness: words are not understood here.
    """
    if turn_detection is None:
        return VadSettings()
    if turn_detection["type"] == "semantic_vad":
        eagerness = turn_detection.get("eagerness", "auto")
        return VadSettings(silence_ms=SEMANTIC_SILENCE_MS[eagerness])
    return VadSettings(
        threshold=float(turn_detection["threshold"]),
        prefix_ms=int(turn_detection["prefix_padding_ms"]),
        silence_ms=int(turn_detection["silence_duration_ms"]),
    )
