"""What the measurement of an attack takes for harm, and how it tells."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from bench import attack
from bench.subjects import BenchFailed

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


# -- a measurement without an attack is none


def test_an_attacker_that_ends_by_itself_is_no_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.Popen

    def dies(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        return real([sys.executable, "-c", "print('ready')"], stdout=subprocess.PIPE)

    monkeypatch.setattr(subprocess, "Popen", dies)
    with pytest.raises(BenchFailed, match="ended before it was to"), attack.attacking("url", 0):
        pass


@pytest.mark.parametrize("name", attack.FLOODS)
def test_a_flood_that_came_to_nothing_is_named(name: str) -> None:
    done = Counter(attack.FLOODS)
    attack.check(done)
    del done[name]
    with pytest.raises(BenchFailed, match=f"nothing came of: {name}$"):
        attack.check(done)
