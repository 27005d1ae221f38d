"""How often and how much: what one address, one interview and one connection may ask of us.

All figures are settings; what is refused is counted. Callers are told apart as
``core.allowance.caller_of`` does it, so that a household's many addresses count as one.
"""

from __future__ import annotations

import ipaddress
import time
from collections import Counter
from typing import Final

from aiohttp import web

from ..core.allowance import Allowance, Bucket, Turns, caller_of
from ..core.proxies import within
from ..errors import RateLimited, SdpTooLarge
from ..settings import Settings
from ..types import Json
from .places import Addresses, Sockets

MESSAGES_AT_ONCE = 5
"""A connection may send as much as it may in so many seconds at once."""

LEAST_AT_ONCE: Final = 256 * 1024
"""Bytes that a connection may send at once, or two of the longest messages if that is more."""
REFILL_SECONDS: Final = 4
"""In so many seconds it may send as much again."""
MESSAGE_BYTES: Final = 1024
"""What a message of those that are counted by the second has room for, at least."""
UNKNOWN_BYTES: Final = 32 * 1024
"""What a WebSocket may send, framing and all, before it has shown the token it needs."""

TURN_SECONDS: Final = 5.0
"""The longest that a request waits for its turn; others are refused."""

REFUSED = (
    *("requests", "offers", "sockets", "messages", "connections"),
    *("slow", "chunks", "unread"),
)
"""What is counted.

``slow`` are heads and bodies of requests that did not arrive in time, ``chunks`` are bodies that
came in too small pieces, ``unread`` are connections whose other end did not take what it was sent.
"""


class Limits:
    """Of one server."""

    def __init__(self, settings: Settings) -> None:
        self._sdp_bytes = settings.max_sdp_kb * 1024
        self.message_bytes = settings.max_message_kb * 1024
        """Longest message of a WebSocket."""
        self._at_once = max(LEAST_AT_ONCE, 2 * self.message_bytes, 2 * settings.max_body_kb * 1024)
        self.request_seconds = settings.request_seconds
        """How long the head of a request may take to arrive, and again its body; and how long the
        other end may take nothing of what it is sent."""
        self.connections = settings.max_connections
        """Connections open at once."""
        self.sockets = Sockets(settings.max_connections)
        self.addresses = Addresses(settings.connections_per_address)
        self._proxies = [ipaddress.ip_network(one) for one in settings.trusted_proxies]
        rate = settings.requests_per_second
        self._turns = Turns(rate, TURN_SECONDS) if rate else None
        self._requests = _per_minute(settings.requests_per_minute)
        self._offers = _per_minute(settings.offers_per_minute)
        self._offers_of_one = _per_minute(settings.offers_per_interview)
        self._sockets = _per_minute(settings.sockets_per_minute)
        self._messages_per_second = settings.messages_per_second
        self.refused: Counter[str] = Counter()
        """What was not let through, by what it was."""

    def turn(self, address: str | None, *, probes: bool = False) -> float:
        """Seconds that a request, of whatever sort, has to wait before anything is done for it.

        To refuse it would cost as much as to answer. What ``probes`` whether the server is well has
        turns of its own: it may come by the same address as others, and a supervisor that hears
        nothing starts the server again. Raises ``RateLimited`` where too many wait.
        """
        if self._turns is None:
            return 0.0
        caller = caller_of(address)
        wait = self._turns.take(f"probes {caller}" if probes else caller, time.monotonic())
        if wait is None:
            self.refused["requests"] += 1
            raise RateLimited
        return wait

    def request(self, address: str | None) -> None:
        """Let a candidate's request be looked at, before anything of its body is.

        Raises ``RateLimited``.
        """
        self._take(self._requests, caller_of(address), "requests")

    def offer(self, address: str | None, offer: str) -> None:
        """Let an offer be looked at, which counts whatever becomes of it.

        Raises:
            RateLimited: this address has sent enough of them lately.
            SdpTooLarge: it is longer than is taken.
        """
        self._take(self._offers, caller_of(address), "offers")
        if len(offer.encode("utf-8", "surrogatepass")) > self._sdp_bytes:
            raise SdpTooLarge

    def offer_for(self, interview_id: str) -> None:
        """Let an offer be answered for an interview. Raises ``RateLimited``."""
        self._take(self._offers_of_one, interview_id, "offers")

    def socket(self, address: str | None) -> None:
        """Let a WebSocket be opened. Raises ``RateLimited``."""
        self._take(self._sockets, caller_of(address), "sockets")

    def enter(self, peer: str | None) -> str | None:
        """Let a connection of an address be opened; returns who is to ``leave``, None for nobody.

        Trusted proxies carry everyone's, and are not counted. Raises ``RateLimited``.
        """
        if self.trusts(peer):
            return None
        caller = caller_of(peer)
        if not self.addresses.enter(caller):
            raise RateLimited
        return caller

    def trusts(self, peer: str | None) -> bool:
        """Whether an address is a trusted proxy's."""
        return within(peer, self._proxies)

    def messages(self) -> Pace:
        """For one WebSocket."""
        return Pace(self._messages_per_second, self.refused)

    def intake(self) -> Bucket:
        """The bytes that one connection may send."""
        return Bucket(self._at_once / REFILL_SECONDS, self._at_once)

    def socket_intake(self, *, known: bool) -> Bucket | None:
        """The same of one WebSocket: of frames that are no messages there is no end otherwise.

        ``known`` has shown the token it needs. None where messages are not counted either.
        """
        if not self._messages_per_second:
            return None
        if not known:
            return Bucket(1.0, UNKNOWN_BYTES)
        paced = self._messages_per_second * MESSAGE_BYTES
        return Bucket(max(self._at_once / REFILL_SECONDS, paced), self._at_once)

    def statistics(self) -> Json:
        """Figures for operators: what was refused since the start."""
        return {name: self.refused[name] for name in REFUSED}

    def _take(self, allowance: Allowance | None, who: str, what: str) -> None:
        if allowance is not None and not allowance.take(who, time.monotonic()):
            self.refused[what] += 1
            raise RateLimited


class Pace:
    """How fast one connection may send messages."""

    def __init__(self, per_second: int, refused: Counter[str]) -> None:
        self._allowance = (
            Allowance(per_second, per_second * MESSAGES_AT_ONCE, callers=1) if per_second else None
        )
        self._refused = refused

    def take(self) -> None:
        """Let a message be read. Raises ``RateLimited``: the connection is not worth keeping."""
        if self._allowance is not None and not self._allowance.take("", time.monotonic()):
            raise self.exceeded()

    def exceeded(self) -> RateLimited:
        """What is said of a connection that sends more than it may, which is counted."""
        self._refused["messages"] += 1
        return RateLimited()


LIMITS = web.AppKey("limits", Limits)
"""Where an application has them."""


def _per_minute(most: int) -> Allowance | None:
    return Allowance(most / 60, most) if most else None
