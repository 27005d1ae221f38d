"""When a watched counter has stood still for too long, and when only the watcher did."""

from __future__ import annotations

from interview_peer.core.stillness import Stillness

LIMIT, STEP = 10.0, 0.5


def verdicts(*looks: tuple[int, float]) -> list[bool]:
    stillness = Stillness(LIMIT, STEP)
    return [stillness.look(beat, at) for beat, at in looks]


def every_step(beat: int, begin: float, seconds: float) -> list[tuple[int, float]]:
    return [(beat, begin + n * STEP) for n in range(int(seconds / STEP) + 1)]


def test_a_counter_that_moves_is_never_still() -> None:
    assert not any(verdicts(*((n, n * STEP) for n in range(100))))


def test_a_counter_is_still_from_the_limit_on_and_not_before() -> None:
    found = verdicts(*every_step(7, 100.0, LIMIT))
    assert found == [False] * (len(found) - 1) + [True]


def test_one_move_in_time_gives_the_whole_time_again() -> None:
    looks = [*every_step(1, 0.0, LIMIT - STEP), *every_step(2, LIMIT, LIMIT - STEP)]
    assert not any(verdicts(*looks))


def test_time_that_the_watcher_slept_through_does_not_count() -> None:
    looks = [
        *every_step(1, 0.0, LIMIT - STEP),
        # An hour of suspension: neither was there to see anything.
        *every_step(1, 3600.0, LIMIT - STEP),
    ]
    assert not any(verdicts(*looks))
    assert verdicts(*looks, (1, 3600.0 + LIMIT))[-1]


def test_looks_that_come_somewhat_late_count_whole() -> None:
    looks = [(1, n * 3 * STEP) for n in range(8)]
    assert verdicts(*looks)[-1]
