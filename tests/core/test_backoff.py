"""When a notice is tried again, and when it may go out at all."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from interview_peer.core import backoff
from interview_peer.core.backoff import Before, Meaning

NOW = datetime(2026, 11, 20, 10, 0, tzinfo=UTC).timestamp()
SECOND = 1_000_000


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (None, Meaning.AGAIN),
        (200, Meaning.DELIVERED),
        (204, Meaning.DELIVERED),
        (299, Meaning.DELIVERED),
        (301, Meaning.AGAIN),
        (302, Meaning.AGAIN),
        (400, Meaning.AGAIN),
        (404, Meaning.AGAIN),
        (410, Meaning.GONE),
        (429, Meaning.SLOWER),
        (500, Meaning.AGAIN),
        (502, Meaning.SLOWER),
        (503, Meaning.SLOWER),
        (504, Meaning.SLOWER),
    ],
)
def test_a_status_means(status: int | None, expected: Meaning) -> None:
    assert backoff.meaning(status) is expected


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("9" * 400, backoff.MAX_RETRY_AFTER),
        ("Fri, 20 Nov 2026 10:02:00 GMT", 120.0),
        ("Fri, 20 Nov 2026 10:02:00 -0000", 120.0),
        ("Fri, 20 Nov 2026 09:00:00 GMT", 0.0),
        ("Fri, 20 Nov 2099 09:00:00 GMT", backoff.MAX_RETRY_AFTER),
        ("Fri, 99 Nov 2026 10:02:00 GMT", None),
        ("Fri, 20 Nov 99999 10:02:00 GMT", None),
    ],
)
def test_retry_after_is_read_in_both_forms(header: str | None, seconds: float | None) -> None:
    assert backoff.retry_after(header, NOW) == seconds


def test_the_schedule_lasts_about_three_days() -> None:
    middle = [backoff.pause(failures, 0.5) for failures in range(1, backoff.MAX_ATTEMPTS)]
    assert middle == pytest.approx(backoff.DELAYS)
    assert 72 * 3600 <= sum(backoff.DELAYS) <= 78 * 3600
    assert backoff.pause(backoff.MAX_ATTEMPTS, 0.5) is None


@pytest.mark.parametrize("failures", range(1, backoff.MAX_ATTEMPTS))
def test_a_pause_is_up_to_a_fifth_shorter_or_longer(failures: int) -> None:
    usual = backoff.DELAYS[failures - 1]
    assert backoff.pause(failures, 0.0) == pytest.approx(usual * 0.8)
    assert backoff.pause(failures, 1.0) == pytest.approx(usual * 1.2)


def test_a_receiver_can_lengthen_a_pause_but_not_shorten_it() -> None:
    assert backoff.pause(1, 0.5, 60.0) == 60.0
    assert backoff.pause(2, 0.5, 1.0) == pytest.approx(300.0)


def test_a_pause_needs_a_failure() -> None:
    with pytest.raises(ValueError, match="no failure"):
        backoff.pause(0, 0.5)


def test_a_destination_rests_longer_with_each_failure_in_a_row() -> None:
    rests = [backoff.rest(failures, False, None) for failures in range(1, 12)]
    assert rests[:6] == [0, 0, 1, 2, 4, 8]
    assert rests[-1] == backoff.LONGEST_REST
    assert backoff.rest(10**6, False, None) == backoff.LONGEST_REST


def test_a_destination_that_asks_for_peace_gets_it_at_once() -> None:
    assert backoff.rest(1, True, None) == backoff.SLOW_DOWN_REST
    assert backoff.rest(1, True, 1000.0) == 1000.0
    assert backoff.rest(1, False, 1000.0) == 0


def test_a_notice_with_nothing_before_it_may_go_at_once() -> None:
    assert backoff.free_at(5, Before(False, None)) == 5


def test_a_notice_waits_its_turn_behind_untried_ones() -> None:
    assert backoff.free_at(5, Before(True, None)) is None
    assert backoff.free_at(5, Before(True, 1)) is None


@pytest.mark.parametrize(("created", "failing", "free"), [(0, 100, 400), (100, 0, 400)])
def test_a_notice_waits_five_minutes_behind_a_failing_one(
    created: int, failing: int, free: int
) -> None:
    before = Before(False, failing * SECOND)
    assert backoff.free_at(created * SECOND, before) == free * SECOND
