"""Relays for browsers that cannot reach us: how they are written down, and what a browser is told.

A TURN relay that shares a secret with us takes credentials which anyone with the secret can make
and which expire by themselves: the user name is a time and a label, the password its signature.
So a browser gets a pair of its own for every connection, and the secret stays here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import SecretStr

from ..types import Json

MAX_SERVERS: Final = 16
MAX_URLS: Final = 16
"""Addresses of one server."""
MAX_URL_CHARACTERS: Final = 300
MAX_USERNAME_BYTES: Final = 508
"""A STUN user name must be shorter than 509 bytes."""
MAX_CREDENTIAL_CHARACTERS: Final = 512

_URL = re.compile(
    r"(?P<scheme>stuns?|turns?):"
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}))"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<transport>\?transport=(?:udp|tcp))?",
    re.IGNORECASE,
)
_FIELDS: Final = {"urls", "username", "credential"}
_PORT: Final = 3478
_TLS_PORT: Final = 5349


@dataclass(frozen=True, slots=True)
class IceServer:
    """One STUN or TURN server under its addresses; the credential is its own, if it has one."""

    urls: tuple[str, ...]
    username: str | None = None
    credential: SecretStr | None = None

    @property
    def relays(self) -> bool:
        """Whether one of the addresses is a relay's, which wants a credential."""
        return any(url.startswith("turn") for url in self.urls)

    @property
    def needs_credential(self) -> bool:
        """Whether it relays and has no credential of its own."""
        return self.relays and self.credential is None


@dataclass(frozen=True, slots=True)
class Place:
    """Where one address of a server leads."""

    host: str
    port: int
    relays: bool
    secure: bool
    over_udp: bool


def place_of(url: str) -> Place:
    """Host, port and transport of an address that ``read_servers`` took, defaults filled in."""
    parts = _URL.fullmatch(url)
    if parts is None:
        raise ValueError("not a stun: or turn: address")
    secure = parts["scheme"].lower().endswith("s")
    transport = (parts["transport"] or "").lower()
    return Place(
        host=parts["six"] or parts["host"],
        port=int(parts["port"] or (_TLS_PORT if secure else _PORT)),
        relays=parts["scheme"].lower().startswith("turn"),
        secure=secure,
        over_udp=transport.endswith("udp") or not (transport or secure),
    )


def read_servers(value: object) -> tuple[IceServer, ...]:
    """The servers of a JSON array of ``RTCIceServer`` objects, or of addresses and commas.

    A sequence of such objects (as dicts, or read already) is taken as well. Raises ValueError; its
    text never holds what was given.
    """
    if isinstance(value, str):
        text = value.strip()
        if not text.startswith("["):
            urls = tuple(_url(part) for part in text.split(",") if part.strip())
            return _few(tuple(IceServer((url,)) for url in dict.fromkeys(urls)))
        value = _json(text)
    if not isinstance(value, list | tuple):
        raise ValueError("not a list of servers")
    return _few(tuple(one if isinstance(one, IceServer) else _server(one) for one in value))


def for_browser(
    servers: Iterable[IceServer], secret: str | None, ttl: int, now: float, label: str
) -> list[Json]:
    """The servers as ``RTCPeerConnection`` takes them, with all credentials filled in.

    Relays without a credential of their own share one that ``secret`` signs and that is good for
    ``ttl`` seconds from ``now`` (Unix time). ``label`` tells this browser's pair from others' and
    must mean nothing to whoever runs the relay.
    """
    told: list[Json] = []
    for server in servers:
        entry: Json = {"urls": list(server.urls)}
        if server.credential is not None:
            entry["username"] = server.username
            entry["credential"] = server.credential.get_secret_value()
        elif server.relays and secret is not None:
            username = f"{int(now) + ttl}:{label}"
            entry["username"] = username
            entry["credential"] = signed(secret, username)
        told.append(entry)
    return told


def signed(secret: str, username: str) -> str:
    """The password that a relay with the same secret expects of ``username``."""
    digest = hmac.new(secret.encode(), username.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode("ascii")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        # Not chained: the error would show the text, and with it a credential.
        pass
    raise ValueError("not JSON")


def _server(value: object) -> IceServer:
    if not isinstance(value, dict) or not set(value) <= _FIELDS:
        raise ValueError("not an RTCIceServer")
    urls = value.get("urls")
    if isinstance(urls, str):
        urls = [urls]
    if not isinstance(urls, list | tuple) or not 0 < len(urls) <= MAX_URLS:
        raise ValueError("no list of addresses")
    username, credential = value.get("username"), value.get("credential")
    if isinstance(credential, SecretStr):
        credential = credential.get_secret_value()
    if username is None and credential is None:
        return IceServer(tuple(map(_url, urls)))
    if not isinstance(username, str) or not isinstance(credential, str):
        raise ValueError("one of user name and credential alone")
    if not 0 < len(username.encode()) <= MAX_USERNAME_BYTES or not username.isprintable():
        raise ValueError("not a user name")
    if not 0 < len(credential) <= MAX_CREDENTIAL_CHARACTERS or not credential.isprintable():
        raise ValueError("not a credential")
    return IceServer(tuple(map(_url, urls)), username, SecretStr(credential))


def _url(value: object) -> str:
    """The address with its scheme in lower case. Browsers refuse all servers for one bad one."""
    if not isinstance(value, str) or len(value) > MAX_URL_CHARACTERS:
        raise ValueError("not an address")
    parts = _URL.fullmatch(value.strip())
    if parts is None or (parts["transport"] and not parts["scheme"].lower().startswith("turn")):
        raise ValueError("not a stun: or turn: address")
    if parts["six"]:
        ipaddress.IPv6Address(parts["six"])
    elif re.fullmatch(r"[0-9.]+", parts["host"]):
        ipaddress.IPv4Address(parts["host"])
    if parts["port"] and not 0 < int(parts["port"]) < 65536:
        raise ValueError("not a port")
    scheme, _, rest = value.strip().partition(":")
    return f"{scheme.lower()}:{rest}"


def _few(servers: tuple[IceServer, ...]) -> tuple[IceServer, ...]:
    if len(servers) > MAX_SERVERS:
        raise ValueError("too many servers")
    return servers
