"""Planted sounds that say which they are, whose they are and when they came.

A melody is a row of short chirps, one every ``PERIOD``, in an order that repeats after ``STEPS``.
Each voice has a band of frequencies to itself, so that one heard in another's call is recognised.
Chirps are found by matched filter; the score is the normalised correlation, 1 for the very same
waveform, so it tells distortion as well as presence.
"""

from __future__ import annotations

import base64
import itertools
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import minimum_filter1d
from scipy.signal import fftconvolve

from interview_peer.types import Json

from .audio import RATE, at_rate

WAV_RATE: Final = 48_000
PERIOD: Final = 0.4
STEPS: Final = 8
LENGTH: Final = 0.16
AMPLITUDE: Final = 0.35

BANDS: Final = ((350.0, 1150.0), (1300.0, 2300.0), (2500.0, 3500.0), (3700.0, 4700.0))
"""In Hz, one for each voice: below what any coding keeps, and apart from each other."""

PRESENT: Final = 0.6
"""Scores above are this chirp; a codec leaves 0.9, any other chirp of the voice has below 0.4."""

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Recording:
    """A track as a page got it, at 16 kHz; ``clock`` is the wall time in seconds of each sample."""

    samples: Samples
    clock: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sighting:
    """One chirp that was found. ``at`` is the wall time in seconds of its beginning."""

    step: int
    at: float
    score: float


def melody(voice: int, seconds: float) -> Samples:
    """The voice's chirps for ``seconds`` at 48 kHz."""
    samples = np.zeros(round(seconds * WAV_RATE), np.float32)
    for count in range(int(seconds / PERIOD)):
        start = round(count * PERIOD * WAV_RATE)
        chirp = _chirp(voice, count % STEPS, WAV_RATE)[: len(samples) - start]
        samples[start : start + len(chirp)] = AMPLITUDE * chirp
    return samples


def write_wav(path: Path, samples: Samples) -> Path:
    """Write mono samples at 48 kHz; blocks the event loop for some milliseconds."""
    with wave.open(str(path), "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(WAV_RATE)
        writer.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def recording(taken: Json) -> Recording:
    """What ``recorder.take`` of recorder.js returned.

    A block is never early but may be handed over late, so the clock follows the promptest blocks.
    """
    pcm = np.frombuffer(base64.b64decode(taken["pcm"]), "<i2")
    samples = at_rate(np.asarray(pcm / 32768, np.float32), taken["rate"])
    if len(samples) == 0:
        return Recording(samples, np.zeros(0))
    times = np.array(taken["times"], np.float64)
    ends = np.cumsum(times[:, 1]) / taken["rate"]
    offsets = minimum_filter1d(times[:, 0] / 1000 - ends, 51, mode="nearest")
    positions = np.arange(len(samples)) / RATE
    return Recording(samples, positions + np.interp(positions, ends, offsets))


def found(heard: Recording, voice: int) -> list[Sighting]:
    """The voice's chirps in the order they came."""
    if len(heard.samples) < LENGTH * RATE:
        return []
    scores = np.stack([_scores(heard.samples, _chirp(voice, step, RATE)) for step in range(STEPS)])
    best = scores.max(axis=0)
    reach = round(PERIOD * 0.45 * RATE)
    sightings = []
    for at in np.flatnonzero(best > PRESENT):
        if best[at] == best[max(0, at - reach) : at + reach].max():
            step = int(scores[:, at].argmax())
            sightings.append(Sighting(step, float(heard.clock[at]), float(best[at])))
    return sightings


def out_of_order(sightings: Sequence[Sighting]) -> int:
    """How often a chirp was not followed by the next one of the melody."""
    return sum(
        (before.step + 1) % STEPS != after.step for before, after in itertools.pairwise(sightings)
    )


def delays(sent: Sequence[Sighting], heard: Sequence[Sighting]) -> list[float]:
    """Seconds from each chirp's sending to its hearing, for those that were heard."""
    found_delays = []
    for one in heard:
        candidates = [
            one.at - other.at
            for other in sent
            if other.step == one.step and -0.05 < one.at - other.at < STEPS * PERIOD * 0.9
        ]
        if candidates:
            found_delays.append(min(candidates))
    return found_delays


def typical_delay(sent: Sequence[Sighting], heard: Sequence[Sighting]) -> float:
    """The median of ``delays``."""
    found_delays = delays(sent, heard)
    assert found_delays, "no chirp that was sent was heard"
    return median(found_delays)


def _chirp(voice: int, step: int, rate: int) -> Samples:
    """Sweeps of three spans, up and down, over the voice's band."""
    low, high = BANDS[voice]
    width = high - low
    middle = low + width / 2
    spans = (
        (low, high),
        (high, low),
        (low, middle),
        (middle, low),
        (middle, high),
        (high, middle),
        (low + width * 0.3, high - width * 0.1),
        (high - width * 0.3, low + width * 0.1),
    )
    begin, end = spans[step]
    time = np.arange(round(LENGTH * rate)) / rate
    phase = 2 * np.pi * (begin * time + (end - begin) * time**2 / (2 * LENGTH))
    return np.asarray(np.sin(phase) * np.hanning(len(time)), np.float32)


def _scores(samples: Samples, chirp: Samples) -> npt.NDArray[np.float64]:
    """Normalised correlation at every position."""
    raw = fftconvolve(samples.astype(np.float64), chirp[::-1].astype(np.float64), "valid")
    energy = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
    window = energy[len(chirp) :] - energy[: -len(chirp)]
    norm = np.sqrt(window * float((chirp.astype(np.float64) ** 2).sum()))
    # Near silence every waveform looks alike: such windows count for nothing.
    quiet = window < len(chirp) * 1e-5
    return np.asarray(np.where(quiet, 0.0, raw / np.maximum(norm, 1e-9)))
