"""Whether browsers reach the UDP port and the relays, and whether we reach receivers of notices."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import ipaddress
import secrets
import socket
import ssl
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from ..core import stun
from ..media.addresses import address_towards, announceable, default_address
from ..notices import ledger
from ..notices.guard import Guard, networks
from ..notices.names import Names
from ..notices.sender import Sender
from ..notices.types import Notice, WebhookTest, body_of
from ..settings import Settings
from ..state.look import Receiver
from ..state.schema import now_us
from .relays import Relay, Tried, Verdict, configured, try_relay
from .report import Row, Status, aside

UDP: Final = "udp"
TURN: Final = "turn"
WEBHOOKS: Final = "webhooks"

ARRIVE_SECONDS: Final = 1.5
HTTP_SECONDS: Final = 3.0
CONNECT_SECONDS: Final = 5.0
_MARK_BYTES: Final = 16

_FROM_OUTSIDE: Final = (
    "Let somebody in another network hold an interview; open the port in the firewall if they "
    "cannot."
)


async def udp(settings: Settings) -> list[Row]:
    """The port of the browsers' audio: free, and reached under the addresses that are announced."""
    host, port = settings.udp_host or default_address(), settings.udp_port
    try:
        sock = await aside(functools.partial(_bound, host, port))
    except OSError as error:
        return [await _not_bound(settings, host, port, error)]
    with sock:
        bound = sock.getsockname()
        try:
            announced = await _announced(settings.public_ips) or announceable(bound[0])
        except (OSError, UnicodeError):
            finding = "INTERVIEW_PUBLIC_IP names a host that has no address."
            return [Row(UDP, Status.FAIL, finding, "Correct INTERVIEW_PUBLIC_IP.")]
        rows = [await _reached(settings, sock, address, bound[1]) for address in announced]
    if port == 0 and not settings.simulation:
        finding = "INTERVIEW_UDP_PORT is 0: every start takes another port."
        rows.append(Row(UDP, Status.WARN, finding, "Set a port that the firewall lets through."))
    return rows


async def relays(settings: Settings) -> list[Row]:
    """A relay of each TURN server, an answer of each STUN server."""
    asked = configured(settings)
    if not asked:
        return [Row(TURN, Status.PASS, "No relay is configured, which most networks do without.")]
    try:
        announced = await _announced(settings.public_ips) or announceable(
            settings.udp_host or default_address()
        )
    except (OSError, ValueError):
        announced = ()
    peers = [(one, settings.udp_port or 9) for one in announced if ":" not in one]
    found = await asyncio.gather(*(try_relay(one, peers) for one in asked))
    return [_relay_row(one) for one in found]


async def webhooks(
    settings: Settings, receivers: Sequence[Receiver], *, send_test: bool
) -> list[Row]:
    """Every receiver is connected to; a notice is sent with ``send_test`` alone."""
    secret = settings.webhook_secret
    asked = [(one.url, ledger.in_force(one.secrets, now_us())) for one in receivers]
    if settings.webhook_url is not None and secret is not None:
        asked.insert(0, (settings.webhook_url, [secret.get_secret_value()]))
    if not asked:
        return [Row(WEBHOOKS, Status.PASS, "No receiver of notices is configured.")]
    guard = Guard(networks(settings.webhook_allow))
    # Whoever keeps very many receivers is told of the first.
    few = asyncio.Semaphore(8)

    async def one(url: str, keys: list[str]) -> Row:
        async with few:
            return await (_sent(guard, url, keys) if send_test else _connected(guard, url))

    return list(await asyncio.gather(*(one(url, keys) for url, keys in asked[:64])))


# -- the UDP port -------------------------------------------------------------------------------


def _bound(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


async def _announced(hosts: Sequence[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for host in hosts:
        answers = await aside(
            functools.partial(socket.getaddrinfo, host, None, type=socket.SOCK_DGRAM)
        )
        firsts: dict[int, str] = {}
        for family, _, _, _, address in answers:
            firsts.setdefault(family, str(address[0]))
        found.update(dict.fromkeys(firsts.values()))
    return tuple(found)


async def _not_bound(settings: Settings, host: str, port: int, error: OSError) -> Row:
    if error.errno != errno.EADDRINUSE:
        finding = f"INTERVIEW_UDP_HOST {host} is not an address of this machine."
        if error.errno in (errno.EACCES, errno.EPERM):
            finding = f"UDP port {port} may not be used by this user."
        cure = "Correct INTERVIEW_UDP_HOST or INTERVIEW_UDP_PORT, or leave them out."
        return Row(UDP, Status.FAIL, finding, cure)
    if await _server_answers(settings):
        finding = (
            f"UDP port {port} is taken while an interview_peer answers at PORT {settings.port}, "
            "as its own would be. Whether packets arrive was not tried."
        )
        return Row(UDP, Status.PASS, finding)
    finding = f"UDP port {port} on {host} is used by something that is no interview_peer."
    return Row(UDP, Status.FAIL, finding, "Stop it, or set INTERVIEW_UDP_PORT to another.")


async def _server_answers(settings: Settings) -> bool:
    """Whether an interview_peer answers where these settings put one."""
    host = settings.host
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_unspecified:
            host = "127.0.0.1" if ":" not in host else "::1"
    host = f"[{host}]" if ":" in host else host
    timeout = aiohttp.ClientTimeout(total=HTTP_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as http,
            http.get(f"http://{host}:{settings.port}/healthz", allow_redirects=False) as answer,
        ):
            told: Any = await answer.json(content_type=None)
            return isinstance(told, dict) and "media" in told and told.get("status") == "ok"
    except (aiohttp.ClientError, OSError, ValueError):
        return False


async def _reached(settings: Settings, sock: socket.socket, address: str, port: int) -> Row:
    """Send to the port under one address that is announced, from here and from a relay."""
    shown = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    ours = address_towards(address) == address
    here = await _arrives(sock, lambda mark: aside(lambda: _throw(mark, address, port)))
    if ":" not in address:
        for relay in configured(settings):
            if not (relay.place.relays and relay.place.over_udp and not relay.place.secure):
                continue
            thrown = functools.partial(_through, relay, (address, port))
            if await _arrives(sock, thrown):
                return Row(UDP, Status.PASS, f"{shown} is reached from the relay {relay.url}.")
    if ours and not here:
        finding = f"What is sent to {shown} does not arrive at the port that is bound."
        cure = "INTERVIEW_UDP_HOST must bind the address that INTERVIEW_PUBLIC_IP announces."
        return Row(UDP, Status.FAIL, finding, cure)
    if not ours and here:
        return Row(UDP, Status.PASS, f"{shown} is reached through that address.")
    if not ours:
        finding = f"{shown} is not reached from this machine, which many routers do not allow."
        return Row(UDP, Status.WARN, finding, _FROM_OUTSIDE)
    if settings.simulation or (settings.on_loopback and ipaddress.ip_address(address).is_loopback):
        return Row(UDP, Status.PASS, f"{shown} is free, and reached from this machine.")
    if not ipaddress.ip_address(address).is_global:
        finding = f"{shown} is announced, which browsers in other networks cannot reach."
        cure = "Set INTERVIEW_PUBLIC_IP to the address that they reach this machine under."
        return Row(UDP, Status.WARN, finding, cure)
    finding = f"{shown} is free; whether a firewall stands before it cannot be known from inside."
    return Row(UDP, Status.WARN, finding, _FROM_OUTSIDE)


async def _arrives(sock: socket.socket, throw: Any) -> bool:
    """Whether a datagram of ours arrives at the socket."""
    mark = secrets.token_bytes(_MARK_BYTES)
    loop = asyncio.get_running_loop()

    async def wait() -> bool:
        while mark not in await loop.sock_recv(sock, stun.MAX_BYTES):
            continue
        return True

    listening = asyncio.create_task(wait(), name="wait for our own datagram")
    try:
        if await throw(mark) is False:
            return False
        async with asyncio.timeout(ARRIVE_SECONDS):
            return await listening
    except OSError:
        # TimeoutError is one.
        return False
    finally:
        listening.cancel()
        await asyncio.wait([listening])


def _throw(mark: bytes, address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as thrower:
        for _ in range(3):
            thrower.sendto(mark, (address, port))


async def _through(relay: Relay, peer: stun.Address, mark: bytes) -> bool:
    return (await try_relay(relay, [peer], mark)).verdict is Verdict.WELL


# -- relays -------------------------------------------------------------------------------------


def _relay_row(tried: Tried) -> Row:
    url, code = tried.relay.url, f" (error {tried.code})" if tried.code is not None else ""
    match tried.verdict:
        case Verdict.WELL if tried.relay.place.relays:
            return Row(TURN, Status.PASS, f"{url} gives a relay.")
        case Verdict.WELL:
            return Row(TURN, Status.PASS, f"{url} answers.")
        case Verdict.NOT_TRIED:
            finding = f"{url} is TLS over UDP, which cannot be tried from here."
            return Row(TURN, Status.WARN, finding, "Try it with a browser, or name it over TCP.")
        case Verdict.NO_HOST:
            finding, cure = f"{url}: its host has no address.", "Correct INTERVIEW_ICE_SERVERS."
        case Verdict.SILENT:
            finding = f"{url}: nobody answers."
            cure = "Start the relay, open its port, or take it out of INTERVIEW_ICE_SERVERS."
        case Verdict.NOT_TRUSTED:
            finding = f"{url}: its certificate is not one that browsers take."
            cure = "Give the relay a certificate for that name, of a known authority."
        case Verdict.CREDENTIAL:
            finding = f"{url} refuses our credential{code}."
            cure = (
                "INTERVIEW_TURN_SECRET (or the credential in INTERVIEW_ICE_SERVERS) must be the "
                "relay's, and both clocks must be right."
            )
        case Verdict.NOT_ALLOWED:
            finding = f"{url} gives a relay that may not send to what we announce{code}."
            cure = "Allow that address at the relay (coturn: allowed-peer-ip)."
        case _:
            finding = f"{url} gives no relay{code}."
            cure = "The relay's log says why; its quota may be used up."
    return Row(TURN, Status.FAIL, finding, cure)


# -- receivers ----------------------------------------------------------------------------------


def _shown(url: str) -> str:
    """Where an address leads, without its path, which may hold a secret."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"


async def _connected(guard: Guard, url: str) -> Row:
    shown, parts = _shown(url), urlsplit(url)
    secure = parts.scheme == "https"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    names = Names(threads=1)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            found = await names.resolve(host, port, socket.AF_UNSPEC)
            addresses = [str(one["host"]) for one in found]
            allowed = [one for one in addresses if guard.permits(one, port, secure=secure)]
            if not allowed:
                finding = f"{shown} leads to an address or port that notices are not sent to."
                cure = "INTERVIEW_WEBHOOK_ALLOW lets networks be reached that are not public."
                return Row(WEBHOOKS, Status.FAIL, finding, cure)
            context = ssl.create_default_context() if secure else None
            _, writer = await asyncio.open_connection(
                allowed[0], port, ssl=context, server_hostname=host if context else None
            )
            writer.close()
    except (socket.gaierror, UnicodeError):
        return Row(WEBHOOKS, Status.FAIL, f"{shown}: the host has no address.", "Correct the URL.")
    except ssl.SSLError:
        finding = f"{shown}: the certificate does not hold."
        return Row(WEBHOOKS, Status.FAIL, finding, "Give the receiver a valid certificate.")
    except OSError:
        finding = f"{shown}: no connection can be made."
        return Row(WEBHOOKS, Status.FAIL, finding, "Start the receiver, or let traffic to it out.")
    finally:
        await names.close()
    return Row(WEBHOOKS, Status.PASS, f"{shown} can be connected to.")


async def _sent(guard: Guard, url: str, keys: list[str]) -> Row:
    shown, notice = _shown(url), Notice(None, WebhookTest())
    sender = Sender(guard, total_seconds=CONNECT_SECONDS * 2)
    try:
        body = body_of(notice, None).encode()
        attempt = await sender.send(url, notice.id, body, keys, now_us())
    finally:
        await sender.close()
    if attempt.status is not None and 200 <= attempt.status < 300:
        return Row(WEBHOOKS, Status.PASS, f"{shown} took a test in {attempt.milliseconds} ms.")
    why = attempt.error if attempt.status is None else f"status {attempt.status}"
    finding = f"{shown} did not take a test ({why})."
    return Row(WEBHOOKS, Status.FAIL, finding, "See docs/webhooks.md for what receivers answer.")
