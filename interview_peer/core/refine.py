"""Moves the times of turns to where the voices are in the sound.

The service's times are right to a tenth of a second or so; the recording shows where a voice
begins and ends. Each edge of a spoken turn goes to the nearest edge of sound of its own speaker, if
there is one in reach; the order, the words and everything else stay as they are. Pure: takes
levels, not files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from interview_peer.core.turns import TurnKind, in_time, silences
from interview_peer.types import Json

STEP_MS: Final = 10
"""One level stands for this long."""

REACH_MS: Final = 800
"""How far an edge may be moved: replies end in silence of up to half a second."""

SILENT_DB: Final = -90.0
"""The level of what has no sound at all; nothing is told apart below it."""

_OVER_NOISE_DB: Final = 9.0
_UNDER_SPEECH_DB: Final = 28.0
_LEAST_DB: Final = -60.0

_LONGEST_GAP: Final = 200 // STEP_MS
"""Pauses between words up to this long belong to the speech around them."""

_SHORTEST_RUN: Final = 40 // STEP_MS
"""Clicks are shorter."""

Levels = npt.NDArray[np.float32]
"""Loudness in dB below full scale, one value for each ``STEP_MS``."""

_Edges = npt.NDArray[np.int64]


def refined(document: Json, levels: Mapping[str, Levels], seconds: float) -> Json:
    """The document of a transcript with its times laid on the sound.

    ``levels`` are by speaker, ``seconds`` is the recording's length. Doing it again changes
    nothing.
    """
    sounds = {speaker: _voiced(values) for speaker, values in levels.items()}
    turns = [_moved(turn, sounds.get(turn["speaker"])) for turn in document["turns"]]
    calls = [mark for mark in document["marks"] if mark["kind"] != "silence"]
    marks = in_time([*calls, *silences(turns, round(seconds * 1000))])
    return {**document, "turns": turns, "marks": marks}


def _voiced(levels: Levels) -> tuple[_Edges, _Edges]:
    """Where each stretch of speech begins and ends, in milliseconds."""
    if not len(levels):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    noise, speech = np.percentile(np.maximum(levels, SILENT_DB), [10, 99])
    threshold = max(noise + _OVER_NOISE_DB, speech - _UNDER_SPEECH_DB, _LEAST_DB)
    edges = np.diff(np.concatenate(([False], levels > threshold, [False])).astype(np.int8))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    apart = starts[1:] - ends[:-1] > _LONGEST_GAP
    starts = starts[np.concatenate(([True], apart))[: len(starts)]]
    ends = ends[np.concatenate((apart, [True]))[-len(ends) :]] if len(ends) else ends
    long = ends - starts >= _SHORTEST_RUN
    return starts[long] * STEP_MS, ends[long] * STEP_MS


def _moved(turn: Json, sound: tuple[_Edges, _Edges] | None) -> Json:
    if sound is None or turn["kind"] != TurnKind.SPEECH.value:
        return turn
    starts, ends = sound
    start = _nearest(starts, turn["start_ms"])
    end = _nearest(ends[ends > start] if start is not None else ends, turn["end_ms"])
    if start is not None and end is not None and end <= start:
        # Nothing in reach makes sense together.
        return turn
    return {**turn, "start_ms": start, "end_ms": end}


def _nearest(edges: _Edges, told: Any) -> int | None:
    """The edge of sound that is nearest to what was told; that itself if none is in reach."""
    if told is None or not len(edges):
        return told if isinstance(told, int) else None
    nearest = int(edges[np.argmin(np.abs(edges - told))])
    return nearest if abs(nearest - told) <= REACH_MS else int(told)
