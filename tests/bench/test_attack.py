"""What the measurement of an attack takes for harm, and how it tells."""

from __future__ import annotations

import pytest

from bench import attack

UNHARMED = {"p99_ms": attack.P99_GOAL_MS, "lost": 0}


def test_an_attack_that_is_hardly_felt_reaches_every_goal() -> None:
    found = attack.goals(UNHARMED, 0)
    assert all(one.reached for one in found)
    told = attack.page(20, [], found)
    assert "**3 of 3 goals reached.**" in told and "MISSED" not in told


@pytest.mark.parametrize(
    ("changes", "legs", "missed"),
    [
        ({"p99_ms": attack.P99_GOAL_MS + 0.01}, 0, "added delay p99, ms"),
        ({"lost": 1}, 0, "packets lost"),
        ({}, 1, "connections lost"),
    ],
)
def test_what_an_attack_harms_is_named(changes: dict[str, float], legs: int, missed: str) -> None:
    found = attack.goals({**UNHARMED, **changes}, legs)
    assert [one.name for one in found if not one.reached] == [missed]
    told = attack.page(20, [], found)
    assert f"1 MISSED: {missed}." in told and told.count("| MISSED |") == 1
