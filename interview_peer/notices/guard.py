"""Where notices may go: which URLs are taken, and which addresses are ever connected to.

The decision falls when a socket is made, on the very address that is about to be dialled: after
the name was looked up, for each of its addresses and each attempt. So neither a literal address
nor a name that changes its mind gets round it.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from aiohappyeyeballs import AddrInfoType
from aiohttp.abc import AbstractResolver

from ..errors import InvalidWebhookUrl

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

PORTS: Final = frozenset({443, 8443})
"""Ports of public receivers. A network that the operator allows may be reached on any."""

MAX_URL: Final = 2048

# Each of these can carry an IPv4 address behind a translator, and ``is_global`` says True for some.
_REFUSED: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",  # NAT64, local
        "2002::/16",  # 6to4
        "2001::/32",  # Teredo
        "::/96",  # IPv4-compatible
        "::ffff:0:0:0/96",  # IPv4-translated
        "fec0::/10",  # site-local
        "192.88.99.0/24",  # 6to4 relays
        # Not for the public, though not every Python of 3.11 to 3.13 says so:
        "192.0.0.0/24",  # protocol assignments
        "5f00::/16",  # segment routing
        "3fff::/20",  # documentation
        "168.63.129.16/32",  # Azure's own services, on a public address
    )
)
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")


class AddressRefused(OSError):
    """The address is not one that notices may be sent to."""

    def __init__(self, address: str) -> None:
        super().__init__(errno.EACCES, f"{address} is not a public address nor an allowed one")


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Networks of their CIDR texts; a single address is a network too. Raises ``ValueError``."""
    return tuple(ipaddress.ip_network(text.strip()) for text in texts)


def canonical(text: str) -> Address:
    """The address a host really connects to: a mapped IPv4 address is that IPv4 address."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


class Guard:
    """Judges addresses; ``allowed`` networks are the operator's exceptions."""

    def __init__(self, allowed: Iterable[Network] = ()) -> None:
        self.allowed = tuple(allowed)

    def permits(self, host: str, port: int, *, secure: bool = True) -> bool:
        """Whether an address may be connected to. Without TLS only allowed networks may."""
        try:
            address = canonical(host)
        except ValueError:
            return False
        if any(_within(address, network) for network in self.allowed):
            return True
        return (
            secure
            and port in PORTS
            and address.is_global
            and not address.is_multicast
            and not any(_within(address, network) for network in _REFUSED)
        )

    def make_socket(self, info: AddrInfoType, *, secure: bool) -> socket.socket:
        """A socket for an address that is permitted. Raises ``AddressRefused``."""
        family, kind, protocol, _, address = info
        host, port = str(address[0]), int(address[1])
        if not self.permits(host, port, secure=secure):
            raise AddressRefused(host)
        made = socket.socket(family=family, type=kind, proto=protocol)
        made.setblocking(False)
        return made

    def connector(
        self, *, secure: bool, limit: int, resolver: AbstractResolver | None = None
    ) -> aiohttp.TCPConnector:
        """A connector that cannot reach anything else."""
        return aiohttp.TCPConnector(
            socket_factory=lambda info: self.make_socket(info, secure=secure),
            limit=limit,
            resolver=resolver,
            # A name is looked up anew for each connection; what it said before proves nothing.
            use_dns_cache=False,
            keepalive_timeout=15,
            loop=asyncio.get_running_loop(),
        )

    def check_url(self, text: object) -> str:
        """The URL of a receiver, if it can be one. Raises ``InvalidWebhookUrl``.

        A literal address that would be refused is refused here already, for a clear answer; a
        name is judged by its addresses when it is connected to.
        """
        if not isinstance(text, str) or len(text) > MAX_URL or not _VISIBLE.fullmatch(text):
            raise InvalidWebhookUrl
        try:
            url = urlsplit(text)
            host, port = url.hostname, url.port
        except ValueError:
            raise InvalidWebhookUrl from None
        if not host or port == 0 or "@" in url.netloc or "#" in text or "\\" in text:
            raise InvalidWebhookUrl
        if url.scheme not in (("https", "http") if self.allowed else ("https",)):
            raise InvalidWebhookUrl
        try:
            canonical(host)
        except ValueError:
            # Digits, dots and 0x alone are an address in some old spelling, not a name.
            if re.fullmatch(
                r"(?:0[xX][0-9a-fA-F]*|[0-9]+)(?:\.(?:0[xX][0-9a-fA-F]*|[0-9]+))*\.?", host
            ):
                raise InvalidWebhookUrl(
                    "url names an address in a form that is not taken."
                ) from None
            return text
        secure = url.scheme == "https"
        if not self.permits(host, port or (443 if secure else 80), secure=secure):
            raise InvalidWebhookUrl("url names an address or a port that notices are not sent to.")
        return text


def _within(address: Address, network: Network) -> bool:
    return address.version == network.version and address in network
