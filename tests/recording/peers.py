"""A browser and a voice service made of legs of ours, that say marks at times they write down.

Both speak through a ``LossyLink``. Truth is the schedule of the speaker alone, never what the
server counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import aiohttp
from aiohttp import BodyPartReader, web

from interview_peer.core import sdp
from interview_peer.media.leg import Leg
from interview_peer.media.udp import UdpPort
from tests.media.legs import Heard, until
from tests.storage.sound import MARK_FRAMES
from tests.support.lossy_link import LossyLink

FRAME = 960
FRAME_SECONDS = 0.02
RESTART_FRAMES = 25

SILENCE = b"\xf8\xff\xfe"


class Ledger:
    """Loses packets of one way of a link, and knows which it let pass.

    To be a link's ``drop``, in place of its own loss. RTP headers are in the clear.
    """

    def __init__(self, seed: int) -> None:
        self.loss = 0.0
        self.passed: set[int] = set()
        """Sequence numbers."""
        self._random = random.Random(seed)

    def __call__(self, data: bytes) -> bool:
        if not 128 <= data[0] < 192 or 192 <= data[1] <= 223:
            # Neither STUN nor DTLS nor RTCP is sound.
            return False
        if self._random.random() < self.loss:
            return True
        self.passed.add(int.from_bytes(data[2:4], "big"))
        return False


@dataclass
class Voice:
    """One speaker: sends its packets in order, each at its time by a clock of its own.

    ``ppm`` is how much slower than true time that clock runs. ``leg`` may be replaced while it
    speaks; what is said without one is lost.
    """

    packets: Sequence[bytes]
    ppm: float = 0.0
    leg: Leg | None = None
    ledger: Ledger | None = None
    """Of the way that its packets take."""
    sequence: int = 65_300
    timestamp: int = 0xFFFFFFFF - 300_000
    said_at: list[float] = field(default_factory=list)
    """When (monotonic) each packet was due, by its index."""
    sent: list[tuple[Ledger | None, int]] = field(default_factory=list)
    """The way that each took, and its sequence number there."""
    restarted: list[int] = field(default_factory=list)
    """Which packets were the first over another connection."""
    _due: float = 0.0

    def begin(self) -> None:
        """The first packet is due now."""
        self._due = time.monotonic()

    async def talk(self, seconds: float) -> None:
        """Send the next packets."""
        for _ in range(round(seconds / FRAME_SECONDS)):
            await self._wait()
            self._send(self.packets[len(self.said_at)])
            self.sent.append((self.ledger, self.sequence & 0xFFFF))
            self.said_at.append(self._due)
            self._next()

    async def hush(self, seconds: float) -> None:
        """Send digital silence, as a muted microphone or a model that never stops does."""
        for _ in range(round(seconds / FRAME_SECONDS)):
            await self._wait()
            self._send(SILENCE)
            self._next()

    async def stop(self, seconds: float, *, clock_stands: bool) -> None:
        """Send nothing; the RTP time goes on meanwhile, or stands still."""
        frames = round(seconds / FRAME_SECONDS)
        self._due += frames * self._period
        if not clock_stands:
            self.timestamp += frames * FRAME
        await self._wait()

    def restart(self, leg: Leg, ledger: Ledger) -> None:
        """Speak over another connection: another SSRC, other numbers."""
        self.leg, self.ledger = leg, ledger
        self.restarted.append(len(self.said_at))
        self.sequence, self.timestamp = 7, 123_456_789

    def whole(self, first: int) -> bool:
        """Whether the mark that begins with this packet was said without a break in it."""
        last = first + MARK_FRAMES
        if last >= len(self.said_at):
            return False
        return self.said_at[last] - self.said_at[first] < (MARK_FRAMES + 0.5) * FRAME_SECONDS

    def arrived(self, first: int) -> bool:
        """Whether every packet of the mark that begins with this one came through.

        Just after a restart the server may still be connecting, and its first packets get lost.
        """
        frames = range(first, first + MARK_FRAMES + 1)
        if any(0 <= first - restart < RESTART_FRAMES for restart in self.restarted):
            return False
        return all(
            ledger is not None and sequence in ledger.passed
            for ledger, sequence in (self.sent[frame] for frame in frames)
        )

    @property
    def _period(self) -> float:
        return FRAME_SECONDS * (1 + self.ppm * 1e-6)

    async def _wait(self) -> None:
        await asyncio.sleep(max(0.0, self._due - time.monotonic()))

    def _send(self, packet: bytes) -> None:
        if self.leg is not None and self.leg.connected:
            self.leg.send_audio(self.sequence & 0xFFFF, self.timestamp & 0xFFFFFFFF, packet)

    def _next(self) -> None:
        self.sequence += 1
        self.timestamp += FRAME
        self._due += self._period


class VoiceService:
    """Takes create calls as the real one does, and answers with a leg behind a link."""

    def __init__(self) -> None:
        self.leg: Leg | None = None
        self.link: LossyLink | None = None
        self.ledger = Ledger(seed=12)
        """Of what the model says."""
        self.base_url = ""

    async def create(self, request: web.Request) -> web.Response:
        """Answer the server's offer."""
        offer = ""
        async for part in await request.multipart():
            assert isinstance(part, BodyPartReader)
            if part.name == "sdp":
                offer = (await part.read()).decode()
        port = await UdpPort.open("127.0.0.1")
        self.leg = Leg("service", port, Heard(), own_port=True)
        answer = await self.leg.answer(sdp.check_offer(offer))
        self.link = await LossyLink.open(port.address, seed=2)
        self.link.down.drop = self.ledger
        return web.Response(
            status=201,
            text=self.link.through(answer),
            content_type="application/sdp",
            headers={"Location": "/v1/realtime/calls/rtc_marks"},
        )

    async def hang_up(self, request: web.Request) -> web.Response:
        """End the call."""
        return web.Response()

    async def close(self) -> None:
        """Leave nothing behind."""
        if self.leg is not None:
            await self.leg.close()
        if self.link is not None:
            self.link.close()


@contextlib.asynccontextmanager
async def voice_service() -> AsyncIterator[VoiceService]:
    """Run such a service on a free port."""
    service = VoiceService()
    app = web.Application()
    app.router.add_post("/v1/realtime/calls", service.create)
    app.router.add_post("/v1/realtime/calls/{id}/hangup", service.hang_up)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        service.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        yield service
    finally:
        await service.close()
        await runner.cleanup()


class Browser:
    """The candidate's end: one leg at a time, each behind a link of its own."""

    def __init__(self, url: str, server: tuple[str, int]) -> None:
        self.url = url
        self.session_id: str | None = None
        self.link: LossyLink | None = None
        self.ledger = Ledger(seed=11)
        """Of what the candidate says, over the newest connection."""
        self._server = server
        self._legs: list[Leg] = []
        self._links: list[LossyLink] = []

    async def connect(self) -> Leg:
        """Connect, or come back to the interview."""
        port = await UdpPort.open("127.0.0.1")
        leg = Leg("browser", port, Heard(), own_port=True)
        self._legs.append(leg)
        body = {"sdpOffer": await leg.offer()}
        if self.session_id is not None:
            body["sessionId"] = self.session_id
        connector = aiohttp.TCPConnector(force_close=True)
        async with (
            aiohttp.ClientSession(connector=connector) as http,
            http.post(f"{self.url}/api/sdp-exchange", json=body) as response,
        ):
            answer = await response.json()
        assert response.status == 200, answer
        self.session_id = answer["sessionId"]
        self.link = await LossyLink.open(self._server, seed=len(self._legs))
        self._links.append(self.link)
        self.link.up.drop = self.ledger = Ledger(seed=11 + len(self._legs))
        await leg.accept(self.link.through(answer["sdpAnswer"]))
        await until(lambda: leg.connected and leg.engine.ready, "the browser's leg")
        return leg

    async def close(self) -> None:
        """Leave nothing behind."""
        for leg in self._legs:
            await leg.close()
        for link in self._links:
            link.close()
