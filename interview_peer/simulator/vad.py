"""Finds speech in samples by their energy: plain numpy, no clock, no I/O.

Time is audio time: it advances by the samples that were fed and by nothing else, so a lost packet
or a muted microphone that sends none stops it. A voice is *on* when the last 200 ms hold 100 ms
above the level; it is *off* after ``silence_ms`` in a row below a level 6 dB lower.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FRAME_MS = 10
WINDOW_FRAMES = 20
ONSET_FRAMES = 10
HYSTERESIS_DB = 6.0


@dataclass(frozen=True, slots=True)
class VadSettings:
    """``threshold`` 0 to 1 as in ``server_vad``: 0.5 is -42 dB below full scale, 1.0 is -24 dB."""

    threshold: float = 0.5
    prefix_ms: int = 300
    silence_ms: int = 500

    @property
    def level_db(self) -> float:
        """Level, in dB relative to full scale, above which a frame counts as voiced."""
        return -60.0 + 36.0 * self.threshold


@dataclass(frozen=True, slots=True)
class SpeechStart:
    """A voice is on. ``at_ms`` is its beginning less the prefix; ``detected_ms`` is now."""

    at_ms: int
    detected_ms: int


@dataclass(frozen=True, slots=True)
class SpeechStop:
    """A voice is off. ``at_ms`` includes the silence waited for; ``voiced_ms`` does not."""

    at_ms: int
    voiced_ms: int


Detection = SpeechStart | SpeechStop


class VoiceDetector:
    """Detects the candidate's turns in mono samples that arrive in pieces of any length."""

    def __init__(self, settings: VadSettings, sample_rate: int = 48000) -> None:
        self._frame = sample_rate * FRAME_MS // 1000
        self._rest: npt.NDArray[np.float32] = np.zeros(0, np.float32)
        self._frames = 0
        self.configure(settings)

    @property
    def heard_ms(self) -> int:
        """Audio time so far, in milliseconds."""
        return self._frames * FRAME_MS

    def configure(self, settings: VadSettings) -> None:
        """Take other settings; a turn under way is forgotten, audio time goes on."""
        self._settings = settings
        self._start_power = 10.0 ** (settings.level_db / 10.0)
        self._stop_power = 10.0 ** ((settings.level_db - HYSTERESIS_DB) / 10.0)
        self._window: deque[bool] = deque(maxlen=WINDOW_FRAMES)
        self._onset_ms: int | None = None
        self._last_voiced_ms = 0

    def feed(self, samples: npt.NDArray[np.float32]) -> list[Detection]:
        """Take samples in -1 to 1 and return what was detected in them, oldest first."""
        if self._rest.size:
            samples = np.concatenate((self._rest, samples))
        whole = len(samples) // self._frame
        self._rest = samples[whole * self._frame :]
        if whole == 0:
            return []
        frames = samples[: whole * self._frame].reshape(whole, self._frame)
        powers = np.mean(np.square(frames, dtype=np.float64), axis=1)
        return [
            detection for power in powers.tolist() if (detection := self._step(power)) is not None
        ]

    def _step(self, power: float) -> Detection | None:
        self._frames += 1
        now = self.heard_ms
        if self._onset_ms is None:
            self._window.append(power > self._start_power)
            if sum(self._window) < ONSET_FRAMES:
                return None
            onset = now - FRAME_MS * (len(self._window) - self._window.index(True))
            self._onset_ms = onset
            self._last_voiced_ms = now
            self._window.clear()
            return SpeechStart(max(0, onset - self._settings.prefix_ms), now)
        if power > self._stop_power:
            self._last_voiced_ms = now
            return None
        if now - self._last_voiced_ms < self._settings.silence_ms:
            return None
        voiced = self._last_voiced_ms - self._onset_ms
        self._onset_ms = None
        return SpeechStop(now, voiced)
