"""What the candidate says: sentences spoken by espeak-ng, laid out in time in a WAV file."""

from __future__ import annotations

import io
import subprocess
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

from .machine import program

RATE = 48_000
"""Of the WAV files: what Chromium's fake microphone wants."""

VOICE = ("-v", "en-us", "-p", "75", "-s", "150")
"""Unlike every voice of the simulated interviewer."""

PEAK = 0.5

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Utterance:
    """One sentence of the candidate's. ``at`` is seconds from the file's beginning."""

    at: float
    text: str
    samples: Samples

    @property
    def ends_at(self) -> float:
        """Seconds from the file's beginning to the end of the sentence."""
        return self.at + len(self.samples) / RATE


def say(text: str) -> Samples:
    """`text` as mono samples at 48 kHz, without silence around it."""
    command = [program("espeak-ng"), *VOICE, "--stdout", text]
    spoken = subprocess.run(command, check=True, capture_output=True, timeout=30).stdout
    with wave.open(io.BytesIO(spoken)) as reader:
        rate = reader.getframerate()
        # A WAV written to a pipe cannot know its length; read what there is.
        raw = reader.readframes(len(spoken) // 2)
    samples = np.frombuffer(raw, "<i2").astype(np.float32) / 32768
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    trimmed = samples[loud[0] : loud[-1] + 1]
    resampled = resample_poly(trimmed, RATE, rate)
    return np.asarray(resampled * (PEAK / np.abs(resampled).max()), np.float32)


def monologue(lines: Sequence[tuple[float, str]]) -> list[Utterance]:
    """Sentences, each after a pause in seconds from the end of the one before it."""
    spoken: list[Utterance] = []
    now = 0.0
    for pause, text in lines:
        utterance = Utterance(now + pause, text, say(text))
        spoken.append(utterance)
        now = utterance.ends_at
    return spoken


def write_wav(path: Path, utterances: Sequence[Utterance], tail: float) -> Path:
    """Write the sentences at their times, and `tail` seconds of silence after the last."""
    length = max((utterance.ends_at for utterance in utterances), default=0.0) + tail
    samples = np.zeros(round(length * RATE), np.float32)
    for utterance in utterances:
        start = round(utterance.at * RATE)
        samples[start : start + len(utterance.samples)] += utterance.samples
    with wave.open(str(path), "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE)
        writer.writeframes((samples * 32767).astype("<i2").tobytes())
    return path
