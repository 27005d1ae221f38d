"""What lies between two readings of a server's own lateness."""

from __future__ import annotations

import math

import pytest

from bench import health
from interview_peer.media.meters import LAG_BOUNDS
from interview_peer.types import Json


def reading(*, lag: float = 0.0, late: int = 0, sampled: int = 0, **held: int) -> Json:
    """As ``/healthz`` has it; ``over_5=2`` is two holds longer than 5 ms."""
    bounds = [f"{bound * 1000:g}" for bound in LAG_BOUNDS]
    side = {"late": late, "sampled": sampled}
    return {
        "loop": {
            "lag_ms": lag,
            "held_over_ms": {bound: held.get(f"over_{bound}", 0) for bound in bounds},
        },
        "to_model": dict(side),
        "to_browser": dict(side),
    }


def test_counts_of_a_window_are_what_came_in_between() -> None:
    before = reading(late=5, sampled=100, over_1=7, over_2=1)
    after = reading(late=8, sampled=140, over_1=9, over_2=1, lag=1.7)
    found = health.between(before, after, 3.0)
    assert found["late"] == [3, 3]
    assert found["sampled"] == [40, 40]
    assert found["held_over_ms"]["1"] == 2
    assert found["lag_ms"] == 1.7


@pytest.mark.parametrize(
    ("held", "remembered", "seconds", "longest"),
    [
        ({}, 300.0, 3.0, 1.0),
        ({"over_1": 1}, 300.0, 3.0, 2.0),
        ({"over_1": 1, "over_2": 1, "over_5": 1}, 7.5, 3.0, 7.5),
        ({"over_1": 1, "over_2": 1, "over_5": 1}, 7.5, 30.0, 10.0),
        (dict.fromkeys(["over_1", "over_200", "over_500"], 1), 900.0, 3.0, 900.0),
        (dict.fromkeys(["over_1", "over_200", "over_500"], 1), 0.0, 30.0, math.inf),
    ],
)
def test_longest_hold_is_exact_where_it_is_remembered_and_never_too_small(
    held: dict[str, int], remembered: float, seconds: float, longest: float
) -> None:
    after = reading(sampled=1, lag=remembered, **held)
    assert health.between(reading(), after, seconds)["lag_ms"] == longest


@pytest.mark.parametrize("side", ["to_model", "to_browser"])
def test_meter_that_stood_still_is_told(side: str) -> None:
    after = reading(sampled=9)
    after[side]["sampled"] = 0
    with pytest.raises(health.NotFed, match=side):
        health.between(reading(), after, 3.0)
