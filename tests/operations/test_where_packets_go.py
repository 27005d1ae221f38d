"""Where this process sends to when an offer names places of its own choosing: nowhere of them.

Python tells an audit hook of every datagram and every name that is looked up, whoever in the
process sends or asks; native forwarding, which it would not see, is off.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from interview_peer.types import Json
from tests.support.caller import Caller, calling
from tests.support.inprocess import serving
from tests.support.waiting import eventually

NAME: Final = "0a1b2c3d-4e5f-4a6b-8c7d-0e1f2a3b4c5d.local"
HOSTILE: Final = (
    "169.254.169.254",
    "10.0.0.1",
    "192.168.0.1",
    "127.0.0.53",
    "0.0.0.0",
    "255.255.255.255",
    "224.0.0.251",
    "198.51.100.9",
    "fdaa::3",
    "fe80::1",
    "::1",
    "::ffff:169.254.169.254",
    "ff02::fb",
    NAME,
    "metadata.internal",
)
KINDS: Final = ("host", "srflx raddr 0.0.0.0 rport 0", "relay raddr 10.0.0.1 rport 53")

_watched: list[tuple[str, Any]] | None = None


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is None:
        return
    if event in ("socket.sendto", "socket.sendmsg", "socket.connect"):
        _watched.append((event, arguments[1]))
    elif event == "socket.getaddrinfo":
        _watched.append((event, (arguments[0], arguments[1])))


@pytest.fixture
def watched() -> Iterator[list[tuple[str, Any]]]:
    """Whom this process turned to, from now on. A hook cannot be taken away again."""
    global _watched
    if not getattr(sys, "_heard_by_test", False):
        sys.addaudithook(_hear)
        sys._heard_by_test = True  # type: ignore[attr-defined]
    _watched = []
    yield _watched
    _watched = None


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Somebody on this machine who never asked for a packet."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
        heard.bind(("127.0.0.1", 0))
        heard.setblocking(False)
        yield heard


def candidates(port: int) -> list[str]:
    lines = [f"a=candidate:9 1 udp 2122260223 127.0.0.1 {port} typ host"]
    for number, place in enumerate(HOSTILE):
        about = f"a=candidate:{number} 1"
        lines.extend(f"{about} udp 2122260223 {place} 4444 typ {kind}" for kind in KINDS)
        lines.append(f"{about} tcp 1518280447 {place} 4444 typ host tcptype passive")
    lines.append(f"a=remote-candidates:1 169.254.169.254 {port}")
    return lines


def hostile(offer: str, port: int, *, at_end: bool) -> str:
    """The offer with these places as its own, in its first section or behind everything."""
    kept = [one for one in offer.splitlines() if not one.startswith("a=candidate")]
    place = len(kept) if at_end else next(n for n, one in enumerate(kept) if one.startswith("a="))
    lines = [*kept[:place], *candidates(port), *kept[place:]]
    return "\r\n".join([*lines, "a=end-of-candidates", ""])


async def by_socket(caller: Caller, offer: str) -> None:
    await caller.open()
    await caller.send({"type": "sdp_offer", "offer": {"type": "offer", "sdp": offer}})
    await caller.message("sdp_answer")
    for line in offer.splitlines():
        if line.startswith("a=candidate"):
            trickled: Json = {"candidate": line[2:], "sdpMid": "0", "sdpMLineIndex": 0}
            await caller.send({"type": "ice_candidate", "candidate": trickled})


async def by_http(caller: Caller, offer: str) -> None:
    reply = await caller.post("/api/sdp-exchange", json={"sdpOffer": offer})
    assert reply.status == 200, reply


async def by_openai(caller: Caller, offer: str) -> None:
    headers = {"Content-Type": "application/sdp"}
    reply = await caller.post("/v1/realtime/calls", data=offer, headers=headers)
    assert reply.status == 201, reply


@pytest.mark.parametrize("way", [by_socket, by_http, by_openai])
@pytest.mark.parametrize("at_end", [False, True], ids=["in front", "behind"])
async def test_no_packet_leaves_to_an_address_that_an_offer_names(
    way: Any,
    at_end: bool,
    tmp_path: Path,
    watched: list[tuple[str, Any]],
    listener: socket.socket,
) -> None:
    port = listener.getsockname()[1]
    settings: Json = {"forwarder": "python", "connect_seconds": 1.0}
    async with serving(tmp_path, **settings) as server, calling(server.url) as caller:
        offer = hostile(await caller.offer(), port, at_end=at_end)
        del watched[:]
        await way(caller, offer)

        async def given_up() -> int:
            return server.interviews.running

        # Until its time to connect is over, an ICE agent would have tried each of them.
        await eventually(given_up, within=15, what="an end", good=lambda running: running == 0)
    whom = [place for _, place in watched]
    # The model's leg was dialled, so what is sent is seen.
    assert any(event == "socket.sendto" for event, _ in watched)
    assert [place for place in whom if place[0] in HOSTILE or place[1] == port] == []
    assert not any(str(place[0]).endswith(".local") for place in whom)
    await asyncio.sleep(0)
    with pytest.raises(BlockingIOError):
        listener.recv(2048)
