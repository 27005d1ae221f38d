"""A client of the simulator: our own leg as offerer, with a paced microphone and open ears."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence

import aiohttp

from interview_peer.media.leg import Leg
from interview_peer.media.udp import UdpPort
from interview_peer.simulator.mouth import SILENCE
from interview_peer.types import Json

HEADERS = {"Authorization": "Bearer sk-test"}


class Caller:
    """Calls a simulator and collects what it says; use as an async context manager."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._changed = asyncio.Event()
        self._microphone: asyncio.Task[None] | None = None
        self._to_say: list[bytes] = []
        self.leg: Leg
        self.location = ""
        self.events: list[Json] = []
        self.unreadable: list[str | bytes] = []
        self.heard: list[tuple[float, bytes]] = []
        self.lost: str | None = None
        self.channel_is_closed = False

    async def __aenter__(self) -> Caller:
        port = await UdpPort.open("127.0.0.1")
        self.leg = Leg("caller", port, self, own_port=True)
        self.leg.on_audio = self._audio
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._microphone is not None:
            self._microphone.cancel()
            await asyncio.gather(self._microphone, return_exceptions=True)
        await self.leg.close()

    async def call(self, session: Json) -> Caller:
        """Post a multipart offer, take the answer and wait until the session is there."""
        await self.post_and_accept(session)
        await self.event("session.created")
        return self

    async def post_and_accept(self, session: Json) -> None:
        """The same without waiting for anything."""
        await self.leg.accept(await self.post(session))

    async def post(self, session: Json) -> str:
        """Post a multipart offer; the answer, not yet taken."""
        form = aiohttp.FormData()
        form.add_field("sdp", await self.leg.offer(), content_type="application/sdp")
        form.add_field("session", json.dumps(session), content_type="application/json")
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{self._base_url}/realtime/calls", data=form, headers=HEADERS) as response,
        ):
            answer = await response.text()
            assert response.status == 201, answer
            self.location = response.headers["Location"]
        return answer

    async def hang_up(self) -> int:
        """Hang the call up by HTTP; the reply's status."""
        url = self._base_url.removesuffix("/v1") + self.location + "/hangup"
        async with aiohttp.ClientSession() as http, http.post(url, headers=HEADERS) as response:
            return response.status

    def unmute(self) -> None:
        """Start the microphone: silence, and what ``say`` puts in."""
        self._microphone = asyncio.create_task(self._send_audio(), name="caller's microphone")

    def say(self, packets: Sequence[bytes]) -> None:
        """Speak these Opus packets after those still to be said."""
        self._to_say += packets

    def types(self) -> list[str]:
        """Types of all events so far."""
        return [event["type"] for event in self.events]

    async def event(self, kind: str, count: int = 1, within: float = 10.0) -> Json:
        """Wait for the ``count``-th event of a type."""

        def found() -> list[Json]:
            return [event for event in self.events if event["type"] == kind]

        await self.until(lambda: len(found()) >= count, within)
        return found()[count - 1]

    async def until(self, condition: Callable[[], bool], within: float = 10.0) -> None:
        """Wait until something that came in makes the condition true."""
        try:
            async with asyncio.timeout(within):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {within} s; events: {self.types()}") from None

    def leg_connected(self, leg: Leg) -> None:
        """Nothing to do: the session's creation is waited for."""

    def leg_lost(self, leg: Leg, reason: str) -> None:
        """Remember why."""
        self.lost = reason
        self._changed.set()

    def channel_opened(self, leg: Leg) -> None:
        """Nothing to do: the simulator speaks first."""

    def channel_message(self, leg: Leg, data: str | bytes) -> None:
        """Keep the event, or what is none."""
        event = None
        if isinstance(data, str):
            with contextlib.suppress(ValueError):
                event = json.loads(data)
        if isinstance(event, dict) and "type" in event:
            self.events.append(event)
        else:
            self.unreadable.append(data)
        self._changed.set()

    def channel_closed(self, leg: Leg) -> None:
        """Remember it."""
        self.channel_is_closed = True
        self._changed.set()

    def _audio(self, at: float, sequence: int, timestamp: int, payload: bytes) -> None:
        self.heard.append((at, payload))
        self._changed.set()

    async def _send_audio(self) -> None:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        number = 0
        while True:
            payload = self._to_say.pop(0) if self._to_say else SILENCE
            self.leg.send_audio(number & 0xFFFF, number * 960, payload)
            number += 1
            await asyncio.sleep(max(0.0, begin + number * 0.02 - loop.time()))
