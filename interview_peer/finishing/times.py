"""Lays the transcript's times on the sound, by how loud either voice is."""

from __future__ import annotations

import json
from typing import Final

import numpy as np

from ..core.opus import SAMPLE_RATE
from ..core.refine import SILENT_DB, STEP_MS, Levels, refined
from ..storage.folder import InterviewFolder
from .facts import SPEAKERS
from .names import TRANSCRIPT_NAME
from .voices import Both

_STEP: Final = SAMPLE_RATE * STEP_MS // 1000


class Loudness:
    """Collects each voice's level, one value for each ``STEP_MS``."""

    def __init__(self) -> None:
        self._pieces: list[np.ndarray[tuple[int, int], np.dtype[np.float32]]] = []
        self._rest = np.zeros((len(SPEAKERS), 0), np.float32)

    def add(self, block: Both) -> None:
        """Take the next block, ``(2, samples)``."""
        samples = np.concatenate((self._rest, block), axis=1) if self._rest.size else block
        whole = samples.shape[1] // _STEP
        self._rest = samples[:, whole * _STEP :].copy()
        frames = samples[:, : whole * _STEP].reshape(len(SPEAKERS), whole, _STEP)
        powers = np.mean(np.square(frames, dtype=np.float32), axis=2)
        levels = 10 * np.log10(np.maximum(powers, 10 ** (SILENT_DB / 10)))
        self._pieces.append(levels.astype(np.float32))

    def levels(self) -> dict[str, Levels]:
        """Of each speaker by name; less than ``STEP_MS`` at the end is left out."""
        whole = np.concatenate(self._pieces, axis=1) if self._pieces else self._rest[:, :0]
        return {speaker.value: row for speaker, row in zip(SPEAKERS, whole, strict=True)}


def refine(folder: InterviewFolder, loudness: Loudness, seconds: float) -> None:
    """Write the transcript anew with the sound's times; one that cannot be read stays as it is.

    Raises ``OSError`` if the disk refuses.
    """
    try:
        document = json.loads((folder.path / TRANSCRIPT_NAME).read_bytes())
        better = refined(document, loudness.levels(), seconds)
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return
    if better != document:
        folder.write_json(TRANSCRIPT_NAME, better)
