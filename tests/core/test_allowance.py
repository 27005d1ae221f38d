"""How often a caller may ask, and who counts as one caller."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from interview_peer.core.allowance import Allowance, Bucket, Turns, caller_of


def test_burst_is_allowed_and_then_the_rate() -> None:
    allowance = Allowance(per_second=2.0, burst=3)
    assert [allowance.take("a", 10.0) for _ in range(5)] == [True, True, True, False, False]
    assert [allowance.take("a", 10.5), allowance.take("a", 10.5)] == [True, False]
    # A long rest fills the bucket to its brim and no further.
    assert [allowance.take("a", 99.0) for _ in range(4)] == [True, True, True, False]


def test_a_seconds_worth_has_its_turn_at_once_and_others_wait_for_theirs() -> None:
    turns = Turns(per_second=4.0, most_seconds=1.0)
    waits = [turns.take("a", 10.0) for _ in range(10)]
    assert waits == [0.0, 0.0, 0.0, 0.0, 0.25, 0.5, 0.75, 1.0, None, None]
    assert turns.take("b", 10.0) == 0.0
    # Who was refused took nobody's turn; who rests has all of them again, and no more.
    assert [turns.take("a", 10.25), turns.take("a", 10.25)] == [1.0, None]
    assert [turns.take("a", 99.0) for _ in range(5)] == [0.0, 0.0, 0.0, 0.0, 0.25]


def test_nobody_is_remembered_whose_turns_are_past() -> None:
    turns = Turns(per_second=10.0, most_seconds=1.0, callers=50)
    for number in range(60):
        turns.take(f"{number}", 0.0)
    assert len(turns) == 50
    for _ in range(60):
        turns.take("late", 5.0)
    assert len(turns) == 1


def test_refused_requests_cost_nothing() -> None:
    allowance = Allowance(per_second=1.0, burst=1)
    assert allowance.take("a", 0.0)
    assert [allowance.take("a", 0.1 * step) for step in range(1, 10)] == [False] * 9
    assert allowance.take("a", 1.01)


def test_callers_do_not_share_a_bucket() -> None:
    allowance = Allowance(per_second=1.0, burst=1)
    assert allowance.take("a", 0.0)
    assert not allowance.take("a", 0.0)
    assert allowance.take("b", 0.0)


def test_table_stays_bounded_and_forgets_the_quietest() -> None:
    allowance = Allowance(per_second=1.0, burst=1, callers=2)
    for caller in ("a", "b", "a", "c"):
        allowance.take(caller, 0.0)
    assert len(allowance) == 2
    assert not allowance.take("a", 0.0)
    assert allowance.take("b", 0.0)


def test_who_has_rested_is_forgotten() -> None:
    allowance = Allowance(per_second=0.5, burst=10)
    for second in range(1000):
        assert allowance.take(f"interview {second}", float(second))
        # Two seconds fill what one request took.
        assert len(allowance) <= 3
    assert all(allowance.take("greedy", 1000.0) for _ in range(10))
    for second in range(1001, 1019):
        allowance.take(f"interview {second}", float(second))
    # Not so who has not rested yet: after 19 seconds half a token is missing.
    assert [allowance.take("greedy", 1019.0) for _ in range(11)] == [True] * 9 + [False] * 2


def test_forgetting_changes_no_answer() -> None:
    chance = random.Random(1)
    allowance = Allowance(per_second=0.25, burst=3)
    alone = {caller: Allowance(per_second=0.25, burst=3, callers=1) for caller in "abcdefgh"}
    now, seen = 0.0, Counter[bool]()
    for _ in range(5000):
        now += chance.expovariate(1.5)
        caller = chance.choice("aaabbcdefgh")
        allowed = allowance.take(caller, now)
        assert allowed == alone[caller].take(caller, now)
        seen[allowed] += 1
    assert min(seen.values()) > 500 and len(allowance) < 8


@pytest.mark.parametrize(
    ("address", "caller"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("a-socket-file", ""),
        (None, ""),
    ],
)
def test_one_caller_is_an_address_or_an_ipv6_network(address: str | None, caller: str) -> None:
    assert caller_of(address) == caller


def test_several_are_taken_together_or_none() -> None:
    allowance = Allowance(per_second=1.0, burst=5)
    assert allowance.take("a", 0.0, 4)
    assert not allowance.take("a", 0.0, 2)
    assert allowance.take("a", 0.0, 1)
    assert allowance.take("a", 3.0, 3)


def test_a_bucket_tells_how_much_too_early_bytes_came() -> None:
    bucket = Bucket(10.0, 100)
    assert bucket.take(100, 5.0) == 0
    assert bucket.take(20, 5.0) == 2.0
    assert bucket.take(0, 6.0) == 1.0
    assert bucket.take(0, 7.0) == 0
    # It is full again, and holds no more than that.
    assert bucket.take(110, 1000.0) == 1.0
