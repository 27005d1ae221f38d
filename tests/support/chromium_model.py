"""An interviewing model that is a real browser: a far end with a real jitter buffer and encoder.

The HTTP side takes calls as the voice service does, the page in a second Chromium answers them.
Nothing of the service's conversation is played: a call speaks a looped sound, keeps what it hears
and tells the counters of both.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from aiohttp import BodyPartReader, web

from interview_peer.types import Json

from . import chirps
from .chromium import Browser, browsing
from .waiting import eventually

HERE = Path(__file__).parent
RECORDER = HERE / "recorder.js"
SCRIPT = HERE / "chromium_model.js"

PAGE = "<!doctype html><title>model</title><body><script src='/model.js'></script>"


@dataclass(frozen=True, slots=True)
class Figures:
    """What a jitter buffer has counted; the difference of two is what a window of time had."""

    total_samples: int
    concealed_samples: int
    concealment_events: int
    packets: int
    lost: int
    """0 after holes of a second or more: a jitter buffer starts anew and forgets them."""
    fec_packets: int
    """Packets that came with redundancy for the one before."""
    buffer_seconds: float
    """Summed over ``emitted`` samples."""
    emitted: int

    @classmethod
    def of(cls, report: Json) -> Figures:
        """From an ``inbound-rtp`` report of ``getStats``."""
        return cls(
            report.get("totalSamplesReceived", 0),
            report.get("concealedSamples", 0),
            report.get("concealmentEvents", 0),
            report.get("packetsReceived", 0),
            report.get("packetsLost", 0),
            report.get("fecPacketsReceived", 0),
            report.get("jitterBufferDelay", 0.0),
            report.get("jitterBufferEmittedCount", 0),
        )

    def __sub__(self, other: Figures) -> Figures:
        return Figures(
            *(getattr(self, one.name) - getattr(other, one.name) for one in fields(Figures))
        )

    @property
    def concealed(self) -> float:
        """Share of what was played that had to be made up."""
        return self.concealed_samples / max(1, self.total_samples)

    @property
    def concealed_ms(self) -> float:
        """Milliseconds that had to be made up."""
        return self.concealed_samples / 48

    @property
    def buffer_ms(self) -> float:
        """How long a sample waited in the jitter buffer, on average."""
        return self.buffer_seconds / max(1, self.emitted) * 1000

    def __str__(self) -> str:
        return (
            f"concealed {self.concealed:.2%} ({self.concealed_ms:.0f} ms in "
            f"{self.concealment_events}), {self.packets} packets, {self.lost} lost, "
            f"{self.fec_packets} with FEC, buffer {self.buffer_ms:.0f} ms"
        )


class ChromiumModel:
    """The service and its page. ``calls`` are the ids of the calls taken, in order."""

    def __init__(self, browser: Browser, sounds: Sequence[Path]) -> None:
        self.browser = browser
        self.calls: list[str] = []
        self.hung_up: list[str] = []
        self.base_url = ""
        self._sounds = sounds
        self._runner = web.AppRunner(self._application(), access_log=None)

    async def start(self) -> None:
        """Listen on a free port and open the page."""
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        root = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self.base_url = f"{root}/v1"
        await self.browser.page.add_init_script(path=RECORDER)
        await self.browser.page.goto(root)

    async def close(self) -> None:
        """Stop listening; the page ends with its browser."""
        await self._runner.cleanup()

    async def figures(self, call: str) -> Figures:
        """What the model has heard of the candidate since the call began."""
        report: Json = await eventually(
            lambda: self._ask("(call) => model.figures(call)", call),
            within=5.0,
            what=f"sound in {call}",
        )
        return Figures.of(report)

    async def heard(self, call: str, since: float) -> chirps.Recording:
        """What the model heard from the wall time ``since`` (Unix seconds) on."""
        return await self._recording(f"{call}/heard", since)

    async def sent(self, call: str, since: float) -> chirps.Recording:
        """What the model said from the wall time ``since`` (Unix seconds) on."""
        return await self._recording(f"{call}/sent", since)

    async def say(self, call: str, event: Json) -> None:
        """Send an event to the candidate's side."""
        await self._ask("([call, event]) => model.say(call, event)", [call, event])

    async def event(self, call: str, kind: str, within: float = 5.0) -> Json:
        """Wait until an event of this type has come; the first of them."""

        async def look() -> list[Json]:
            events: list[Json] = await self._ask("(call) => model.events(call)", call)
            return [event for event in events if event.get("type") == kind]

        return (await eventually(look, within=within, what=f"{kind} at the model"))[0]

    async def _ask(self, function: str, argument: Any) -> Any:
        return await self.browser.page.evaluate(function, argument)

    async def _recording(self, name: str, since: float) -> chirps.Recording:
        taken = await self._ask(
            "([name, since]) => recorder.take(name, since)", [name, since * 1000]
        )
        assert taken is not None, f"the model's page has no track {name}"
        return await asyncio.to_thread(chirps.recording, taken)

    # -- what the server asks for ---------------------------------------------------------------

    def _application(self) -> web.Application:
        app = web.Application(client_max_size=1024 * 1024)
        app.router.add_get("/", self._page)
        app.router.add_get("/model.js", self._script)
        app.router.add_get("/sounds/{number}", self._sound)
        app.router.add_post("/v1/realtime/calls", self._create)
        app.router.add_post("/v1/realtime/calls/{call}/hangup", self._hang_up)
        return app

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    async def _script(self, request: web.Request) -> web.FileResponse:
        return web.FileResponse(SCRIPT)

    async def _sound(self, request: web.Request) -> web.FileResponse:
        return web.FileResponse(self._sounds[int(request.match_info["number"])])

    async def _create(self, request: web.Request) -> web.Response:
        parts: dict[str, str] = {}
        async for part in await request.multipart():
            assert isinstance(part, BodyPartReader) and part.name is not None
            parts[part.name] = await part.text()
        assert set(parts) == {"sdp", "session"}, set(parts)
        number = len(self.calls)
        call = f"rtc_{number}"
        self.calls.append(call)
        sound = f"/sounds/{number % len(self._sounds)}"
        answer = await self._ask(
            "([call, offer, sound]) => model.answer(call, offer, sound)",
            [call, parts["sdp"], sound],
        )
        return web.Response(
            status=201,
            text=answer,
            content_type="application/sdp",
            headers={"Location": f"/v1/realtime/calls/{call}"},
        )

    async def _hang_up(self, request: web.Request) -> web.Response:
        call = request.match_info["call"]
        self.hung_up.append(call)
        await self._ask("(call) => model.hangUp(call)", call)
        return web.Response(status=200)


@contextlib.asynccontextmanager
async def chromium_model(*sounds: Path) -> AsyncIterator[ChromiumModel]:
    """A model whose calls speak these WAV files in turn, each looped."""
    async with browsing(None) as browser:
        model = ChromiumModel(browser, sounds)
        await model.start()
        try:
            yield model
        finally:
            await model.close()
