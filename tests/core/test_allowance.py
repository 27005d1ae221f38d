"""How often a caller may ask, and who counts as one caller."""

from __future__ import annotations

import pytest

from interview_peer.core.allowance import Allowance, caller_of


def test_burst_is_allowed_and_then_the_rate() -> None:
    allowance = Allowance(per_second=2.0, burst=3)
    assert [allowance.take("a", 10.0) for _ in range(5)] == [True, True, True, False, False]
    assert [allowance.take("a", 10.5), allowance.take("a", 10.5)] == [True, False]
    # A long rest fills the bucket to its brim and no further.
    assert [allowance.take("a", 99.0) for _ in range(4)] == [True, True, True, False]


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
