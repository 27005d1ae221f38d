"""Real legs, two by two in one process, for the tests of the media room."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from interview_peer.core.flood import Budget
from interview_peer.core.sdp import check_offer
from interview_peer.media.leg import Leg
from interview_peer.media.udp import UdpPort

CONNECT_SECONDS = 10.0


@dataclass(eq=False)
class Heard:
    """A listener that writes down what its leg tells, in order."""

    events: list[str] = field(default_factory=list)
    messages: list[str | bytes] = field(default_factory=list)
    fail: bool = False
    """Raise in the handler of each message."""

    def leg_connected(self, leg: Leg) -> None:
        self.events.append("connected")

    def leg_lost(self, leg: Leg, reason: str) -> None:
        self.events.append(f"lost: {reason}")

    def channel_opened(self, leg: Leg) -> None:
        self.events.append("channel opened")

    def channel_message(self, leg: Leg, data: str | bytes) -> None:
        self.messages.append(data)
        if self.fail:
            raise RuntimeError("a handler's mistake")

    def channel_closed(self, leg: Leg) -> None:
        self.events.append("channel closed")

    @property
    def lost(self) -> str | None:
        """The reason the leg was lost for, once it is."""
        return next((event[6:] for event in self.events if event.startswith("lost: ")), None)


@dataclass(frozen=True)
class Ends:
    """A connection's two legs: ``near`` offered, ``far`` answered as a server does."""

    near: Leg
    far: Leg
    near_heard: Heard
    far_heard: Heard

    @property
    def ready(self) -> bool:
        """Whether audio and events can flow both ways."""
        return all(
            leg.connected and leg.channel_open and leg.engine.ready for leg in (self.near, self.far)
        )


async def until(look: Callable[[], object], what: str, within: float = CONNECT_SECONDS) -> None:
    """Give the event loop turns until ``look()`` is true; AssertionError after ``within`` s."""
    deadline = asyncio.get_running_loop().time() + within
    while not look():
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {within} s: {what}")
        await asyncio.sleep(0.002)


async def own_port(host: str = "127.0.0.1") -> UdpPort:
    """A port for one leg."""
    return await UdpPort.open(host)


@contextlib.asynccontextmanager
async def connected(
    *,
    far_port: UdpPort | None = None,
    near_port: UdpPort | None = None,
    host: str = "127.0.0.1",
    change_answer: Callable[[str], str] | None = None,
    dtls_server: bool = True,
    srtp_profiles_reversed: bool = False,
    far_budget: Budget | None = None,
) -> AsyncIterator[Ends]:
    """Two connected legs with an open channel, closed at the end.

    Args:
        far_port: the shared port the answering leg lives on; otherwise it has its own.
        near_port: the offering leg's own port, closed with it.
        host: where the ports that are made here are bound.
        change_answer: rewrites the answer on its way back.
        dtls_server: the answering leg's role.
        srtp_profiles_reversed: the offering leg wants AES-CM with SHA-1 rather than AES-GCM.
        far_budget: what the answering leg takes from the other.
    """
    near_heard, far_heard = Heard(), Heard()
    near = Leg("near", near_port or await own_port(host), near_heard, own_port=True)
    far = Leg(
        "far",
        far_port or await own_port(host),
        far_heard,
        dtls_server=dtls_server,
        own_port=far_port is None,
        budget=far_budget,
    )
    ends = Ends(near, far, near_heard, far_heard)
    try:
        offer = await near.offer()
        if srtp_profiles_reversed:
            dtls = near.engine.pc.getTransceivers()[0].sender.transport
            dtls._srtp_profiles = dtls._srtp_profiles[::-1]
        answer = await far.answer(check_offer(offer))
        await near.accept(change_answer(answer) if change_answer else answer)
        await until(lambda: ends.ready, "both legs connected, channel open")
        yield ends
    finally:
        await near.close()
        await far.close()


def packets_of(leg: Leg) -> list[bytes]:
    """Collect every decrypted RTP packet that reaches ``leg`` from now on, header included."""
    packets: list[bytes] = []

    def keep(size: int, at: float) -> None:
        packets.append(bytes(leg.port.buffer[:size]))

    leg.engine.on_rtp = keep
    return packets
