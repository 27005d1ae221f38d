"""Whose request it is, by what trusted proxies say and nobody else."""

from __future__ import annotations

import ipaddress

import pytest

from interview_peer.core.proxies import FORWARDED_FOR, MOST, caller_behind, may_be_proxy

TRUSTED = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]
FLY = "Fly-Client-IP"


@pytest.mark.parametrize(
    ("peer", "values", "caller"),
    [
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        # What stands before the last untrusted address is the caller's own making.
        ("10.0.0.1", ["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1", "198.51.100.1, 10.9.9.9"], "198.51.100.1"),
        ("10.0.0.1", ["1.1.1.1, nonsense, 10.9.9.9"], "10.9.9.9"),
        ("10.0.0.1", ["10.2.2.2, 10.3.3.3"], "10.2.2.2"),
        ("10.0.0.1", ["nonsense"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("::ffff:10.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("fd00::1", ["198.51.100.1, fd00::2"], "198.51.100.1"),
        ("10.0.0.1", [", ".join(["198.51.100.1"] + ["10.1.1.1"] * MOST)], "10.1.1.1"),
        (None, ["198.51.100.1"], None),
    ],
)
def test_the_last_address_that_no_trusted_proxy_has_is_the_caller(
    peer: str | None, values: list[str], caller: str | None
) -> None:
    assert caller_behind(peer, FORWARDED_FOR, values, TRUSTED) == caller


@pytest.mark.parametrize(
    ("peer", "values", "caller"),
    [
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", [" 2001:db8::1 "], "2001:db8::1"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1, 198.51.100.2"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1", "198.51.100.2"], "10.0.0.1"),
        ("10.0.0.1", ["nonsense"], "10.0.0.1"),
    ],
)
def test_a_header_of_one_address_is_taken_whole_or_not(
    peer: str, values: list[str], caller: str
) -> None:
    assert caller_behind(peer, FLY, values, TRUSTED) == caller


def test_without_a_trusted_proxy_no_header_is_believed() -> None:
    assert caller_behind("10.0.0.1", FORWARDED_FOR, ["198.51.100.1"], []) == "10.0.0.1"


def test_a_proxy_of_ones_own_is_near() -> None:
    near = ["127.0.0.1", "::1", "10.0.0.1", "172.31.81.3", "fd00::1", "::ffff:192.168.1.1"]
    assert [one for one in near if not may_be_proxy(one)] == []
    assert [one for one in ("8.8.8.8", "2600::1", "", None) if may_be_proxy(one)] == []
