"""Tries the configured STUN and TURN servers as a browser would: over UDP, TCP or TLS.

A relay is really asked for, with the credential that a browser would get, and given back. Used by
``interview-peer doctor`` and by the start of a live server.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
import secrets
import socket
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ..core import stun
from ..core.turn import IceServer, Place, for_browser, place_of
from ..errors import ConfigurationError
from ..settings import Settings
from .report import aside

_Info = tuple[Any, Any, int, str, tuple[Any, ...]]
"""One address of a name, as ``socket.getaddrinfo`` gives it."""

MOST_ADDRESSES: Final = 4
ANSWER_SECONDS: Final = 3.0
"""How long a server may take over everything that one attempt asks of it."""
_AGAIN_SECONDS: Final = 0.5
_TTL_SECONDS: Final = 120
_CLOSE_SECONDS: Final = 0.5


class Verdict(enum.Enum):
    """How a server took it."""

    WELL = "well"
    NO_HOST = "no_host"
    """Its name has no address."""
    SILENT = "silent"
    """Nobody answers there."""
    NOT_TRUSTED = "not_trusted"
    """Its certificate is not one that browsers take."""
    CREDENTIAL = "credential"
    """It does not take the credential."""
    NO_RELAY = "no_relay"
    """It takes the credential, or none, and gives no relay."""
    NOT_ALLOWED = "not_allowed"
    """It gives a relay that may not send to us."""
    NOT_TRIED = "not_tried"
    """This way of reaching it cannot be tried from here."""


_BEST_FIRST: Final = (
    Verdict.WELL,
    Verdict.NOT_ALLOWED,
    Verdict.NO_RELAY,
    Verdict.CREDENTIAL,
    Verdict.NOT_TRUSTED,
    Verdict.SILENT,
)
"""What counts of a server with several addresses."""


@dataclass(frozen=True, slots=True)
class Relay:
    """One address of a server, with what a browser would show there."""

    url: str
    place: Place
    username: str | None = None
    credential: str | None = None


@dataclass(frozen=True, slots=True)
class Tried:
    """What one attempt found."""

    relay: Relay
    verdict: Verdict
    code: int | None = None
    """STUN's error code, where the server refused with one."""
    mapped: stun.Address | None = None
    """The address that the server saw us come from."""


def relays_of(servers: Sequence[IceServer], secret: str | None, now: float) -> list[Relay]:
    """Every address of every server, with credentials of our own making for this one attempt."""
    label = secrets.token_urlsafe(9)
    return [
        Relay(url, place_of(url), entry.get("username"), entry.get("credential"))
        for entry in for_browser(servers, secret, _TTL_SECONDS, now, label)
        for url in entry["urls"]
    ]


def configured(settings: Settings) -> list[Relay]:
    """The servers that these settings name."""
    secret = settings.turn_secret
    return relays_of(
        settings.ice_servers, None if secret is None else secret.get_secret_value(), time.time()
    )


async def try_relay(
    relay: Relay,
    peers: Sequence[stun.Address] = (),
    data: bytes | None = None,
    *,
    seconds: float | None = None,
    trust: ssl.SSLContext | None = None,
) -> Tried:
    """Ask for a relay, or a STUN server for our address; never raises for what comes back.

    Args:
        relay: what to try.
        peers: addresses that the relay must be allowed to send to; IPv4 alone, as the relay is.
        data: is sent to each of them by the relay, three times.
        seconds: for everything together; ``ANSWER_SECONDS`` if not given.
        trust: whose certificates are taken; None is this machine's list.
    """
    seconds = ANSWER_SECONDS if seconds is None else seconds
    place = relay.place
    if place.secure and place.over_udp:
        return Tried(relay, Verdict.NOT_TRIED)
    kind = socket.SOCK_DGRAM if place.over_udp else socket.SOCK_STREAM
    began = time.monotonic()
    try:
        async with asyncio.timeout(seconds):
            look_up = functools.partial(socket.getaddrinfo, place.host, place.port, type=kind)
            infos = (await aside(look_up))[:MOST_ADDRESSES]
    except UnicodeError:
        # No host name at all.
        return Tried(relay, Verdict.NO_HOST)
    except OSError as error:
        # A name server that is away says nothing of the name.
        known = isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN
        return Tried(relay, Verdict.NO_HOST if known else Verdict.SILENT)
    left = seconds - (time.monotonic() - began)

    async def attempt(info: _Info) -> Tried:
        try:
            async with asyncio.timeout(left), _line(place, info, trust) as line:
                if place.relays:
                    return await _relay(line, relay, peers, data)
                answer = await _binding(line)
                return Tried(relay, Verdict.WELL, mapped=answer.mapped)
        except ssl.SSLError:
            return Tried(relay, Verdict.NOT_TRUSTED)
        except (OSError, EOFError, ValueError):
            # TimeoutError is an OSError, IncompleteReadError an EOFError.
            return Tried(relay, Verdict.SILENT)

    # Of all addresses at once, as a browser does: one that answers is enough.
    found = await asyncio.gather(*(attempt(info) for info in infos))
    return min(found, key=lambda one: _BEST_FIRST.index(one.verdict))


async def require(settings: Settings) -> list[Tried]:
    """Try all relays before a start; what was found of those that no start is refused for.

    Raises:
        ConfigurationError: a name leads nowhere, a credential is refused, or no relay answers.
    """
    relays = [one for one in configured(settings) if one.place.relays]
    if not relays:
        return []
    found = await asyncio.gather(*(try_relay(one) for one in relays))
    for one in found:
        if one.verdict in (Verdict.NO_HOST, Verdict.CREDENTIAL):
            raise ConfigurationError(refusal(one))
    if all(one.verdict is Verdict.SILENT for one in found):
        raise ConfigurationError(refusal(found[0]))
    return [one for one in found if one.verdict not in (Verdict.WELL, Verdict.NOT_TRIED)]


def refusal(tried: Tried) -> str:
    """Why a live server does not start, with the setting and the cure."""
    url = tried.relay.url
    match tried.verdict:
        case Verdict.NO_HOST:
            return (
                f"INTERVIEW_ICE_SERVERS names {url}, whose host has no address: correct it, or "
                "leave the server out."
            )
        case Verdict.CREDENTIAL:
            return (
                f"INTERVIEW_ICE_SERVERS names {url}, which refuses our credential: "
                "INTERVIEW_TURN_SECRET, or the credential beside it, must be the relay's own, "
                "and the clocks must agree."
            )
        case _:
            return (
                f"INTERVIEW_ICE_SERVERS names {url}, where no relay answers: start the relay, "
                "correct the address, or leave the server out to start without it."
            )


class _Line(Protocol):
    async def ask(self, request: bytes, transaction: bytes) -> stun.Answer: ...

    async def tell(self, message: bytes) -> None: ...


class _Datagrams:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()

    async def ask(self, request: bytes, transaction: bytes) -> stun.Answer:
        while True:
            await self.tell(request)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_SECONDS):
                    return await self._answer(transaction)

    async def _answer(self, transaction: bytes) -> stun.Answer:
        while True:
            data = await self._loop.sock_recv(self._sock, stun.MAX_BYTES)
            with contextlib.suppress(ValueError):
                answer = stun.read(data)
                if answer.transaction == transaction:
                    return answer

    async def tell(self, message: bytes) -> None:
        await self._loop.sock_sendall(self._sock, message)


class _Stream:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, request: bytes, transaction: bytes) -> stun.Answer:
        await self.tell(request)
        while True:
            head = await self._reader.readexactly(stun.HEADER_BYTES)
            rest = stun.length_of(head) - stun.HEADER_BYTES
            answer = stun.read(head + await self._reader.readexactly(rest))
            if answer.transaction == transaction:
                return answer

    async def tell(self, message: bytes) -> None:
        self._writer.write(message)
        await self._writer.drain()


@contextlib.asynccontextmanager
async def _line(place: Place, info: _Info, trust: ssl.SSLContext | None) -> AsyncIterator[_Line]:
    family, kind, _, _, address = info
    if place.over_udp:
        with socket.socket(family, kind) as sock:
            sock.setblocking(False)
            sock.connect(address)
            yield _Datagrams(sock)
        return
    context = (trust or ssl.create_default_context()) if place.secure else None
    reader, writer = await asyncio.open_connection(
        str(address[0]),
        place.port,
        ssl=context,
        server_hostname=place.host if context is not None else None,
    )
    try:
        yield _Stream(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await writer.wait_closed()


async def _binding(line: _Line) -> stun.Answer:
    transaction = stun.new_transaction()
    return await line.ask(stun.binding(transaction), transaction)


async def _relay(
    line: _Line, relay: Relay, peers: Sequence[stun.Address], data: bytes | None
) -> Tried:
    credential: stun.Credential | None = None
    # Without a credential first, which tells what it is for; a nonce may run out on the way.
    for _ in range(3):
        transaction = stun.new_transaction()
        answer = await line.ask(stun.allocate(transaction, credential), transaction)
        realm, nonce = answer.realm, answer.nonce
        stale = credential is None or answer.error == stun.STALE_NONCE
        asked = answer.error in (stun.UNAUTHORIZED, stun.STALE_NONCE) and stale
        if not asked or realm is None or nonce is None or relay.credential is None:
            break
        credential = stun.Credential(relay.username or "", relay.credential, realm, nonce)
    if not answer.is_success:
        refused = answer.error == stun.UNAUTHORIZED
        return Tried(relay, Verdict.CREDENTIAL if refused else Verdict.NO_RELAY, answer.error)
    if credential is None:
        # It gives relays to anybody, and nothing can be signed.
        return Tried(relay, Verdict.WELL, mapped=answer.mapped)
    try:
        for peer in peers:
            transaction = stun.new_transaction()
            permitted = await line.ask(stun.permit(transaction, peer, credential), transaction)
            if not permitted.is_success:
                return Tried(relay, Verdict.NOT_ALLOWED, permitted.error, answer.mapped)
            for _ in range(3 if data is not None else 0):
                await line.tell(stun.send(stun.new_transaction(), peer, data or b""))
    finally:
        # Told, not asked: where it is lost, the relay ends by itself.
        await line.tell(stun.give_back(stun.new_transaction(), credential))
    return Tried(relay, Verdict.WELL, mapped=answer.mapped)
