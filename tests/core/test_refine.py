"""Turns' times go to where the voices are in the sound, and nowhere else."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest

from interview_peer.core.refine import REACH_MS, SILENT_DB, STEP_MS, Levels, refined
from interview_peer.types import Json

SECONDS = 60.0


def levels(*spoken: tuple[int, int], noise: float = -75.0, speech: float = -20.0) -> Levels:
    """A minute of noise with speech in these stretches (milliseconds), and pauses in it."""
    chance = np.random.default_rng(7)
    made = chance.normal(noise, 1.5, int(SECONDS * 1000) // STEP_MS)
    for start, end in spoken:
        made[start // STEP_MS : end // STEP_MS] = chance.normal(speech, 4, (end - start) // STEP_MS)
        for pause in range(start + 400, end - 400, 700):
            made[pause // STEP_MS : (pause + 120) // STEP_MS] = noise
    return np.maximum(made, SILENT_DB).astype(np.float32)


def turn(start: Any, end: Any, speaker: str = "candidate", kind: str = "speech") -> Json:
    return {
        "item_id": f"{start}",
        "speaker": speaker,
        "kind": kind,
        "text": "words",
        "start_ms": start,
        "end_ms": end,
    }


def document(*turns: Json, marks: list[Json] | None = None) -> Json:
    return {"schema": 2, "turns": [*turns], "marks": marks or []}


def times(made: Json) -> list[tuple[Any, Any]]:
    return [(one["start_ms"], one["end_ms"]) for one in made["turns"]]


@pytest.mark.parametrize("noise", [-90.0, -75.0, -50.0, -40.0])
@pytest.mark.parametrize("seed", range(5))
def test_edges_go_to_the_sound_of_their_own_speaker(noise: float, seed: int) -> None:
    chance = random.Random(seed)
    spoken = [(4_000, 9_000), (15_000, 15_400), (21_000, 30_000), (40_000, 52_000)]
    turns = [
        turn(start + chance.randint(-350, 350), end + chance.randint(-350, 350))
        for start, end in spoken
    ]
    sound = {"candidate": levels(*spoken, noise=noise), "interviewer": levels((3_900, 9_200))}
    made = refined(document(*turns), sound, SECONDS)
    for (start, end), (true_start, true_end) in zip(times(made), spoken, strict=True):
        assert abs(start - true_start) <= 30 and abs(end - true_end) <= 30
    again = copy.deepcopy(made)
    assert refined(made, sound, SECONDS) == again, "a second time changes nothing"


def test_what_is_not_heard_near_its_time_stays() -> None:
    sound = {"candidate": levels((10_000, 12_000)), "interviewer": levels()}
    turns = [
        turn(10_000 - REACH_MS - 50, 12_000 + REACH_MS + 50),
        turn(30_000, 31_000),
        turn(10_100, 11_900, kind="text"),
        turn(10_100, 11_900, speaker="interviewer"),
        turn(None, None),
    ]
    before = copy.deepcopy(turns)
    assert times(refined(document(*turns), sound, SECONDS)) == times(document(*before))
    assert turns == before, "the document that was given is left as it was"


@pytest.mark.parametrize("sound", [{}, {"candidate": np.zeros(0, np.float32)}])
def test_without_sound_nothing_moves(sound: dict[str, Levels]) -> None:
    told = document(turn(1_000, 2_000), turn(None, 9_000))
    assert times(refined(told, sound, SECONDS)) == [(1_000, 2_000), (None, 9_000)]


def test_digital_silence_and_constant_noise_are_no_speech() -> None:
    for level in (SILENT_DB, -30.0):
        sound = {"candidate": np.full(6_000, level, np.float32)}
        assert times(refined(document(turn(1_000, 2_000)), sound, SECONDS)) == [(1_000, 2_000)]


def test_a_click_is_no_edge() -> None:
    made = levels((10_000, 12_000))
    made[975] = -5.0
    sound = {"candidate": made}
    ((start, _),) = times(refined(document(turn(9_800, 12_000)), sound, SECONDS))
    assert abs(start - 10_000) <= 30


def test_silences_are_marked_anew_and_tool_calls_stay() -> None:
    call = {"kind": "tool_call", "after": None, "start_ms": 11_000, "end_ms": 11_000, "name": "x"}
    stale = {"kind": "silence", "after": None, "start_ms": 1, "end_ms": 9_000}
    sound = {"candidate": levels((10_000, 12_000))}
    made = refined(document(turn(9_900, 12_300), marks=[stale, call]), sound, SECONDS)
    ((start, end),) = times(made)
    assert made["marks"] == [
        {"kind": "silence", "after": None, "start_ms": 0, "end_ms": start},
        call,
        {"kind": "silence", "after": "9900", "start_ms": end, "end_ms": 60_000},
    ]
