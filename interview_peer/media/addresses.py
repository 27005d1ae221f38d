"""Which of this machine's addresses media sockets bind and announce.

Asked of the routing table, which knows what a packet would leave with. Not responsible for the
sockets that media flows through.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import Final

from ..errors import OutOfDescriptors
from .descriptors import ran_out

Route = Callable[[str], str | None]
"""Gives the address this machine would reach another from, or None where no way leads there."""

# Documentation addresses (RFC 5737, RFC 3849): never assigned, so only a default route fits.
OUTSIDE: Final = ("192.0.2.1", "2001:db8::1")
LOOPBACK: Final = ("127.0.0.1", "::1")


def address_towards(target: str) -> str | None:
    """This machine's address towards an IP address, or None.

    Connects a UDP socket, which sends nothing.

    Raises:
        OutOfDescriptors: no socket can be opened.
    """
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            return str(probe.getsockname()[0])
    except OSError as error:
        if ran_out(error):
            raise OutOfDescriptors from None
        return None


def default_address(route: Route = address_towards) -> str:
    """This machine's address towards others, or loopback where there is no way out."""
    return _first(route, *OUTSIDE) or LOOPBACK[0]


def announceable(bound: str, route: Route = address_towards) -> tuple[str, ...]:
    """The addresses under which a socket bound to ``bound`` can be reached.

    A wildcard is no address to send to: the machine's own stand for it, of each family that it
    takes in; those of loopback only where the machine has no others.
    """
    address = ipaddress.ip_address(bound)
    if not address.is_unspecified:
        return (bound,)
    families = slice(1) if address.version == 4 else slice(2)
    for targets in (OUTSIDE[families], LOOPBACK[families]):
        own = tuple(found for target in targets if (found := route(target)) is not None)
        if own:
            return own
    return (LOOPBACK[0],)


def towards_model(hosts: Sequence[str], route: Route = address_towards) -> str:
    """The address that a model leg binds.

    Args:
        hosts: the IP addresses of the service's base URL; none where they are not known. The
            service's media comes from elsewhere, so a way out is what counts, unless the service
            runs on this very machine.
        route: the routing table.
    """
    at_home = [host for host in hosts if ipaddress.ip_address(host).is_loopback]
    if at_home and len(at_home) == len(hosts):
        return next((host for host in at_home if ":" not in host), at_home[0])
    # IPv4 first: a service need not offer its media under every address that its API has.
    ipv4 = [host for host in hosts if ":" not in host]
    ipv6 = [host for host in hosts if ":" in host]
    return _first(route, *ipv4, OUTSIDE[0], *ipv6, OUTSIDE[1]) or LOOPBACK[0]


def _first(route: Route, *targets: str) -> str | None:
    return next((own for target in targets if (own := route(target)) is not None), None)
