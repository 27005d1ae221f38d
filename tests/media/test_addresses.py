"""Which addresses are bound and announced: the rules, and real sockets of both families."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from interview_peer.core import sdp
from interview_peer.errors import OutOfDescriptors
from interview_peer.media import addresses
from interview_peer.media.addresses import (
    Route,
    address_towards,
    announceable,
    default_address,
    towards_model,
)
from interview_peer.media.udp import UdpPort
from tests.media.legs import connected, packets_of, until
from tests.support.machine import lacking

OURS = {4: "198.51.100.7", 6: "2001:db8:7::7"}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}


def table(*, outside: str = "", loopback: str = "46") -> Route:
    """A routing table with a way out for these IP versions, and loopback for those."""

    def route(target: str) -> str | None:
        address = ipaddress.ip_address(target)
        ways, own = (loopback, LOOPBACK) if address.is_loopback else (outside, OURS)
        return own[address.version] if str(address.version) in ways else None

    return route


@pytest.mark.parametrize(
    ("bound", "outside", "announced"),
    [
        ("0.0.0.0", "46", (OURS[4],)),
        ("0.0.0.0", "6", ("127.0.0.1",)),
        ("0.0.0.0", "", ("127.0.0.1",)),
        ("::", "46", (OURS[4], OURS[6])),
        ("::", "4", (OURS[4],)),
        ("::", "6", (OURS[6],)),
        ("::", "", ("127.0.0.1", "::1")),
        ("10.0.0.5", "46", ("10.0.0.5",)),
        ("2001:db8::5", "46", ("2001:db8::5",)),
        ("127.0.0.1", "46", ("127.0.0.1",)),
    ],
)
def test_a_wildcard_is_announced_as_an_address_of_each_family_it_takes_in(
    bound: str, outside: str, announced: tuple[str, ...]
) -> None:
    assert announceable(bound, table(outside=outside)) == announced


def test_a_machine_without_ipv6_announces_no_ipv6() -> None:
    assert announceable("::", table(loopback="4")) == ("127.0.0.1",)


@pytest.mark.parametrize(("outside", "own"), [("46", OURS[4]), ("6", OURS[6]), ("", "127.0.0.1")])
def test_the_default_address_is_one_with_a_way_out(outside: str, own: str) -> None:
    assert default_address(table(outside=outside)) == own


PUBLIC = ("192.0.2.44", "2001:db8:1::44")


@pytest.mark.parametrize(
    ("hosts", "outside", "bound"),
    [
        # The service is on this machine.
        (("127.0.0.1",), "46", "127.0.0.1"),
        (("127.0.0.2",), "46", "127.0.0.2"),
        (("::1",), "46", "::1"),
        (("::1", "127.0.0.1"), "46", "127.0.0.1"),
        # It is not, whatever the browser port is bound to.
        (PUBLIC, "46", OURS[4]),
        (PUBLIC[::-1], "46", OURS[4]),
        (PUBLIC, "6", OURS[6]),
        (PUBLIC[1:], "46", OURS[4]),
        (("127.0.0.1", PUBLIC[0]), "46", OURS[4]),
        # Nobody knows where it is.
        ((), "46", OURS[4]),
        ((), "6", OURS[6]),
        ((), "", "127.0.0.1"),
    ],
)
def test_model_legs_are_bound_to_a_way_out_unless_the_service_is_here(
    hosts: tuple[str, ...], outside: str, bound: str
) -> None:
    def route(target: str) -> str | None:
        # What the loopback interface reaches is no way to anything else.
        return table(outside=outside, loopback="")(target)

    assert towards_model(hosts, route) == bound


def test_model_legs_are_bound_by_the_route_to_a_service_in_the_neighbourhood() -> None:
    def route(target: str) -> str | None:
        return "10.0.0.5" if target == "10.0.0.9" else OURS[4]

    assert towards_model(("10.0.0.9",), route) == "10.0.0.5"


def test_this_machine_reaches_itself_by_loopback() -> None:
    assert address_towards("127.0.0.1") == "127.0.0.1"


def test_a_family_that_the_machine_lacks_has_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking_it(family: int, kind: int) -> socket.socket:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", lacking_it)
    assert address_towards("2001:db8::1") is None


def test_a_want_of_descriptors_is_not_taken_for_a_want_of_routes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def exhausted(family: int, kind: int) -> socket.socket:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socket", exhausted)
    with pytest.raises(OutOfDescriptors):
        address_towards("192.0.2.1")


# -- with real sockets


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_port_on_every_address_is_reached_by_what_it_announces_in_either_family(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if address_towards(host) is None:
        lacking(f"this machine has no {host}")
    # As on a machine without a network: no address but loopback's.
    monkeypatch.setattr(addresses, "OUTSIDE", ())
    monkeypatch.setattr(addresses, "LOOPBACK", tuple(LOOPBACK.values()))
    port = await UdpPort.open("::")
    answers: list[str] = []

    def keep(answer: str) -> str:
        answers.append(answer)
        return answer

    try:
        async with connected(far_port=port, host=host, change_answer=keep) as ends:
            heard = packets_of(ends.far), packets_of(ends.near)
            ends.near.send_audio(1, 960, b"up")
            ends.far.send_audio(1, 960, b"down")
            await until(lambda: all(heard), "audio both ways")
            # The near end was told where to send by nobody else.
            assert ends.near.engine.remote == (host, port.address[1])
        candidates = {line.split()[4] for line in sdp.candidate_lines(answers[0])}
        assert candidates == {own for own in LOOPBACK.values() if address_towards(own)}
    finally:
        port.close()


async def test_a_port_on_every_ipv4_address_announces_ipv4_alone() -> None:
    port = await UdpPort.open("0.0.0.0")
    assert [ipaddress.ip_address(one).version for one in port.announced] == [4]
    port.close()
