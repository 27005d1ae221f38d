"""What the simulator hears: Opus packets in, detections of speech out.

The only place of the product that decodes live audio. It runs in the packet callback, without a
thread and without a jitter buffer: about 50 microseconds a packet.
"""

from __future__ import annotations

import av
import av.error
from av.audio.codeccontext import AudioCodecContext

from ..types import Json
from .vad import Detection, VadSettings, VoiceDetector

DEFAULT_SILENCE_MS = 500
SEMANTIC_SILENCE_MS = {"low": 1200, "medium": 800, "auto": 800, "high": 400}


class Ear:
    """Decodes one stream of RTP payloads and watches it for speech."""

    def __init__(self) -> None:
        decoder = av.CodecContext.create("opus", "r")
        assert isinstance(decoder, AudioCodecContext)
        self._decoder = decoder
        self._detector = VoiceDetector(VadSettings())
        self._last_sequence: int | None = None
        self.undecodable = 0

    @property
    def heard_ms(self) -> int:
        """Milliseconds of audio received; lost packets add nothing."""
        return self._detector.heard_ms

    def listen(self, turn_detection: Json | None) -> None:
        """Follow the session's ``turn_detection`` object; a turn under way is forgotten."""
        self._detector.configure(vad_settings(turn_detection))

    def hear(self, sequence: int, payload: bytes) -> list[Detection]:
        """Take one packet. Repeated, late and undecodable ones are dropped."""
        # An empty packet would tell the decoder that the stream has ended.
        if not payload or not self._is_next(sequence):
            return []
        try:
            frames = self._decoder.decode(av.Packet(payload))
        except av.error.FFmpegError:
            self.undecodable += 1
            return []
        detections: list[Detection] = []
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
