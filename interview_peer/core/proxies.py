"""Whose request it is, where a proxy stands before the server.

What a header says of the caller is believed only of a proxy that the operator trusts: anybody
can send such a header.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

FORWARDED_FOR: Final = "X-Forwarded-For"
"""Each proxy adds the address it was called from at the end; others hold one address alone."""
FORWARDED: Final = "Forwarded"
"""Of RFC 7239: a language of its own, which is not read."""
FORWARDED_PROTO: Final = "X-Forwarded-Proto"
"""Tells by which scheme the proxy was called."""

MARKS: Final = (FORWARDED, FORWARDED_FOR, FORWARDED_PROTO, "X-Real-IP", "Via")
"""One of these is in whatever a proxy that is set up for it sends on."""

MOST: Final = 32
"""Addresses read of a list, from its end; a caller may have begun it with anything."""


def caller_behind(
    peer: str | None, header: str, values: Sequence[str], trusted: Sequence[Network]
) -> str | None:
    """The caller's address: ``peer``, or what trusted proxies say of it.

    Args:
        peer: the other end of the connection.
        header: the name of the header in which proxies tell the caller.
        values: what came under that name, in order.
        trusted: networks of the proxies that are believed.
    """
    if not values or not within(peer, trusted):
        return peer
    if header.lower() != FORWARDED_FOR.lower():
        # Two of them: one is the caller's own making.
        told = values[0].strip() if len(values) == 1 else ""
        return told if _address(told) is not None else peer
    nearest = peer
    for told in reversed(",".join(values).split(",")[-MOST:]):
        name = _bare(told)
        if _address(name) is None:
            break
        nearest = name
        if not within(name, trusted):
            break
    return nearest


def may_be_proxy(peer: str | None) -> bool:
    """Whether an address is near enough for a proxy of one's own: anybody else makes headers up."""
    address = _address(peer)
    return address is not None and address.is_private


def is_secure_behind(peer: str | None, values: Sequence[str], trusted: Sequence[Network]) -> bool:
    """Whether a trusted proxy says that it was called over TLS.

    Args:
        peer: the other end of the connection.
        values: what came as ``X-Forwarded-Proto``, in order; the nearest proxy's is the last.
        trusted: networks of the proxies that are believed.
    """
    if not values or not within(peer, trusted):
        return False
    return values[-1].rpartition(",")[2].strip().lower() == "https"


def _bare(told: str) -> str:
    """An address without the port that some proxies add."""
    text = told.strip()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def _address(text: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        known = ipaddress.ip_address((text or "").partition("%")[0])
    except ValueError:
        return None
    mapped = known.ipv4_mapped if isinstance(known, ipaddress.IPv6Address) else None
    return mapped or known


def within(text: str | None, networks: Sequence[Network]) -> bool:
    """Whether an address lies in one of the networks; what is no address does not."""
    address = _address(text)
    return address is not None and any(address in network for network in networks)
