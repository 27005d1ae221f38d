"""What is a flood, and what no interview ever sends so much of."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from interview_peer.core import flood
from interview_peer.core.flood import Budget


def taken(take: Callable[[float], bool], per_second: float, seconds: float) -> float:
    """For how many seconds a steady stream is let through without a gap, at most so many."""
    for number in range(round(per_second * seconds)):
        if not take(number / per_second):
            return number / per_second
    return seconds


@pytest.mark.parametrize("per_second", [60, 300, 400])
def test_a_busy_channel_never_is_a_flood(per_second: float) -> None:
    assert taken(Budget().chunk, per_second, 120) == 120


def test_a_flood_of_chunks_is_told_within_a_second() -> None:
    assert 0.5 < taken(Budget().chunk, 2400, 10) <= 1.1
    assert taken(Budget().chunk, 10_000, 10) < 0.3


def test_the_longest_events_may_come_in_a_burst() -> None:
    budget = Budget()
    assert all(budget.chunk(5.0) for _ in range(30 * 57))


def test_who_comes_back_at_once_has_no_new_budget() -> None:
    budget = Budget()
    while budget.chunk(1.0):
        pass
    again = taken(lambda at: budget.chunk(2.0 + at), 2400, 10)
    assert again < 0.3, "the second it was away, and no more"


def test_acknowledgements_of_a_large_event_are_none_of_it() -> None:
    budget = Budget()
    size = 4_000_000
    budget.sent(size)
    assert all(budget.chunk(0.0, acknowledges=True) for _ in range(size // 1150))
    assert all(budget.chunk(0.0) for _ in range(flood.CHUNKS_AT_ONCE))


def test_acknowledgements_of_nothing_are() -> None:
    budget = Budget()
    assert taken(lambda at: budget.chunk(at, acknowledges=True), 2400, 10) < 1.1
    # However much is sent, no more of them are ever owed than of the largest event.
    budget = Budget()
    for _ in range(100):
        budget.sent(1_000_000)
    free = sum(budget.chunk(0.0, acknowledges=True) for _ in range(100_000))
    assert free == flood.MOST_ACKNOWLEDGEMENTS + flood.CHUNKS_AT_ONCE


def test_more_events_that_the_operator_allows_may_come() -> None:
    assert taken(Budget(500).chunk, 2400, 60) == 60
    assert taken(Budget(500).record, 8000, 60) == 60
    assert taken(Budget(1).chunk, 400, 60) == 60


def test_where_no_events_are_counted_no_chunk_is_but_all_else() -> None:
    budget = Budget(0)
    assert taken(budget.chunk, 10_000, 5) == 5
    assert taken(budget.record, 10_000, 5) == 5
    assert taken(budget.check, 1000, 5) < 1
    assert not budget.packets(100_000, 5.0)


@pytest.mark.parametrize("per_second", [50, 100, 400])
def test_audio_of_any_frame_length_is_no_flood(per_second: int) -> None:
    budget = Budget()
    assert all(budget.packets(per_second // 2, at / 2) for at in range(240))


def test_audio_that_a_stalled_network_lets_go_is_no_flood() -> None:
    budget = Budget()
    assert budget.packets(25, 0.0)
    assert budget.packets(425, 4.5)


def test_a_flood_of_audio_is_told_at_the_next_look() -> None:
    assert not Budget().packets(3000, 1.0)


def test_checks_and_reports_are_bounded_far_above_what_is_usual() -> None:
    budget = Budget()
    assert taken(budget.check, 50, 60) == 60
    assert taken(budget.report, 25, 60) == 60
    assert taken(budget.check, 2000, 60) < 0.1
    assert taken(budget.report, 2000, 60) < 0.1


def test_right_records_are_a_flood_before_any_is_dropped() -> None:
    for per_second in (2400, 5000, 20_000):
        budget = Budget()
        told = taken(budget.chunk, per_second, 60)
        assert told < taken(budget.record, per_second, 60)
