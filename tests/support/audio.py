"""Says whether a sound is in a recording, and where.

Speech that went through an encoder, a network and a jitter buffer is no longer the same waveform:
a codec keeps no phase above a few kHz and a jitter buffer stretches time. What remains is how the
energy moves through the bands. So sounds are compared as prints: the level in decibels of each of
20 bands, every 20 ms, less the band's own mean; and in pieces of about a second that may slip
against each other by up to 120 ms, since a jitter buffer stretches and drops time when the machine
is busy. The score is the mean of the pieces' normalised correlations, 1 for the same.

Measured with the shipped speech: a sentence in its own recording scores above 0.92, and the best of
all positions against any other sentence stays below 0.47 (both are speech, with the same formants
and pauses, hence not 0). `SAME` lies between, nearer to the others: echo cancelling, noise
suppression and lost packets take from the first, nothing adds to the second.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

RATE = 16_000
"""Sample rate of everything that is compared."""

SAME = 0.65
"""Scores above are the same sentence; scores below are another one."""

QUIET = 0.01
"""Level (of 1) below which nobody is speaking; the voices of the tests have about 0.1."""

HOP = RATE // 50
_PIECE = 60
_SLIP = 6
_WINDOW = 2 * HOP
_BANDS = 20
_LOWEST, _HIGHEST = 120.0, 5_000.0
_FLOOR_DB = 45.0

Samples = npt.NDArray[np.float32]
Print = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Match:
    """Where a sound fits best. ``at`` is seconds into the recording; score is at most 1."""

    score: float
    at: float


def decode(path: Path) -> Samples:
    """The whole file as mono samples at 16 kHz."""
    pieces: list[Samples] = []
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
        for frame in container.decode(audio=0):
            pieces += [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
        pieces += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def at_rate(samples: Samples, rate: int) -> Samples:
    """`samples` of any whole rate, at 16 kHz."""
    if rate == RATE:
        return samples
    return np.asarray(resample_poly(samples, RATE, rate), np.float32)


def levels(samples: Samples) -> npt.NDArray[np.float64]:
    """Root mean square of every 20 ms."""
    whole = samples[: len(samples) // HOP * HOP].reshape(-1, HOP).astype(np.float64)
    return np.asarray(np.sqrt((whole**2).mean(axis=1)))


def find(sound: Samples, recording: Samples) -> Match:
    """The best place of `sound` in `recording`; score 0 if the recording is shorter."""
    needle, hay = _print(sound), _print(recording)
    pieces = _pieces(needle)
    if not pieces or len(hay) < len(needle):
        return Match(0.0, 0.0)
    # fits[t]: the best sum of scores of the pieces so far, the newest of them beginning at t;
    # begins[t]: where the first of them lies then.
    fits, begins = _scores_at(pieces[0], hay), np.arange(len(hay))
    for before, piece in itertools.pairwise(pieces):
        own = _scores_at(piece, hay)
        chained = np.full(len(hay), -np.inf)
        origins = np.zeros(len(hay), np.int64)
        for slip in range(-_SLIP, _SLIP + 1):
            step = len(before) + slip
            earlier = fits[: len(hay) - step]
            better = earlier > chained[step:]
            chained[step:][better] = earlier[better]
            origins[step:][better] = begins[: len(hay) - step][better]
        fits, begins = own + chained, origins
    end = int(fits.argmax())
    return Match(float(fits[end]) / len(pieces), int(begins[end]) * HOP / RATE)


def scores(sounds: Sequence[Samples], recording: Samples) -> list[float]:
    """The best score of each sound in the recording."""
    return [find(sound, recording).score for sound in sounds]


def _pieces(needle: Print) -> list[Print]:
    """Cut into parts of about a second, of equal length but for the last."""
    count = max(1, len(needle) // _PIECE)
    cuts = [0, *(_PIECE * number for number in range(1, count)), len(needle)]
    parts = [needle[start:end] for start, end in itertools.pairwise(cuts)]
    return [part for part in parts if len(part)]


def _scores_at(piece: Print, hay: Print) -> npt.NDArray[np.float64]:
    """The score of `piece` at every place; minus infinity where it would reach past the end."""
    piece = piece - piece.mean(axis=0)
    norm = float(np.sqrt((piece**2).sum()))
    found = np.full(len(hay), -np.inf)
    for start in range(len(hay) - len(piece) + 1):
        window = hay[start : start + len(piece)]
        window = window - window.mean(axis=0)
        scale = float(np.sqrt((window**2).sum())) * norm
        found[start] = float((window * piece).sum()) / scale if scale > 0 else 0.0
    return found


def _print(samples: Samples) -> Print:
    if len(samples) < _WINDOW:
        return np.zeros((0, _BANDS))
    frames = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(_WINDOW), axis=1)) ** 2
    hertz = np.fft.rfftfreq(_WINDOW, 1 / RATE)
    edges = np.geomspace(_LOWEST, _HIGHEST, _BANDS + 1)
    bands = np.stack(
        [
            power[:, (hertz >= low) & (hertz < max(high, low + 26))].sum(axis=1)
            for low, high in zip(edges[:-1], edges[1:], strict=True)
        ],
        axis=1,
    )
    decibels = 10 * np.log10(bands + 1e-12)
    # Silence is one level, not the codec's noise: everything far below the peak counts the same.
    return np.asarray(np.maximum(decibels, decibels.max() - _FLOOR_DB))
