"""How loud either speaker is over time: what a page draws before anything is played."""

from __future__ import annotations

import json
from typing import Final

import numpy as np

from ..core.opus import SAMPLE_RATE
from .facts import SPEAKERS
from .voices import Both

SCHEMA: Final = 1
PER_SECOND: Final = 20
FULL_SCALE: Final = 255

_BUCKET: Final = SAMPLE_RATE // PER_SECOND


class Waveform:
    """Collects the largest amplitude of each twentieth of a second."""

    def __init__(self) -> None:
        self._peaks: list[list[int]] = [[] for _ in SPEAKERS]
        self._rest = np.zeros((len(SPEAKERS), 0), np.float32)

    def add(self, block: Both) -> None:
        """Take the next block, ``(2, samples)``."""
        samples = np.concatenate((self._rest, block), axis=1) if self._rest.size else block
        whole = samples.shape[1] // _BUCKET
        self._rest = samples[:, whole * _BUCKET :].copy()
        self._take(samples[:, : whole * _BUCKET].reshape(len(SPEAKERS), whole, _BUCKET))

    def document(self) -> bytes:
        """What ``waveform.json`` holds; call it once, at the end."""
        if self._rest.shape[1]:
            self._take(self._rest[:, np.newaxis, :])
        voices = {
            speaker.value: peaks for speaker, peaks in zip(SPEAKERS, self._peaks, strict=True)
        }
        document = {
            "schema": SCHEMA,
            "per_second": PER_SECOND,
            "full_scale": FULL_SCALE,
            **voices,
        }
        return json.dumps(document, separators=(",", ":")).encode() + b"\n"

    def _take(self, buckets: np.ndarray[tuple[int, int, int], np.dtype[np.float32]]) -> None:
        loudest = np.clip(np.abs(buckets).max(axis=2, initial=0.0), 0.0, 1.0)
        for row, peaks in zip(np.ceil(loudest * FULL_SCALE), self._peaks, strict=True):
            peaks += [int(value) for value in row]
