"""A whole call between two Chromiums with the server in the middle, over a network to be spoilt.

The interview page is the near end, the model's page the far end; between the page and the server's
one UDP port lies a ``LossyLink`` for each connection that the page makes. "Up" is what the model
hears of the candidate, "down" what the page hears of the interviewer.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import av
import numpy as np

from interview_peer.simulator.library import SPEECH_FOLDER, scripts
from interview_peer.types import Json
from tests.support import chirps
from tests.support.chirps import Recording
from tests.support.chromium import Browser, browsing
from tests.support.chromium_model import RECORDER, ChromiumModel, Figures, chromium_model
from tests.support.server import ServerProcess, running_server
from tests.support.waiting import eventually

from .spoilt import Network

KEY = "sk-test-of-no-worth"
WAY_MS = 60.0
"""Longest way without the jitter buffer: microphone, encoder, two hops, server, capture.

Measured 16 to 37 ms on a loaded machine of two cores. A server that holds audio back in a jitter
buffer of its own adds 80 ms."""

GROWTH_MS = 250.0
"""By how much a call's whole delay may grow. Jitter buffers remember for most of a minute that a
busy machine held everything back, by up to 200 ms; audio that queues up stays for good."""

SOUND_SECONDS = 120.0
"""How long a microphone's sound lasts: longer than any test listens."""

ADMIN_KEY = "operators-key-of-no-worth"
CANDIDATE_PAGE = Path(chirps.__file__).with_name("candidate_page.js")


async def listen(seconds: float) -> None:
    """Let real time pass while both ends play: what is measured is a stretch of time."""
    await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Both:
    """The same figures for both directions."""

    up: Figures
    down: Figures

    def __sub__(self, other: Both) -> Both:
        return Both(self.up - other.up, self.down - other.down)

    def __str__(self) -> str:
        return f"up: {self.up}; down: {self.down}"


@dataclass(frozen=True, slots=True)
class Chirping:
    """What became of one voice's chirps in a stretch of time."""

    sent: list[chirps.Sighting]
    heard: list[chirps.Sighting]
    figures: Figures
    """Of the end that heard them."""

    @property
    def delay_ms(self) -> float:
        """From the sending page's samples to the hearing page's."""
        return chirps.typical_delay(self.sent, self.heard) * 1000

    @property
    def way_ms(self) -> float:
        """The delay without the far end's jitter buffer: microphone, encoder, network, server.

        A busy machine makes jitter buffers long; it adds little to the rest.
        """
        return self.delay_ms - self.figures.buffer_ms

    @property
    def out_of_order(self) -> int:
        """How often a chirp was missing, doubled or in the wrong place."""
        return chirps.out_of_order(self.heard)

    @property
    def lowest_score(self) -> float:
        """How like the planted chirp the worst of those heard is."""
        return min((one.score for one in self.heard), default=0.0)

    def __str__(self) -> str:
        delay = f"{self.delay_ms:.0f} ms" if self.heard else "unknown"
        return (
            f"{len(self.heard)} chirps, {self.out_of_order} out of order, lowest score "
            f"{self.lowest_score:.2f}, delay {delay}, {self.figures}"
        )


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of time of a call in which both ends chirp."""

    up: Chirping
    down: Chirping

    @property
    def both(self) -> tuple[Chirping, Chirping]:
        """Up and down."""
        return self.up, self.down

    def __str__(self) -> str:
        return f"up: {self.up}; down: {self.down}"


class Call:
    """One interview: its page, its network, and its call at the model."""

    def __init__(
        self, server: ServerProcess, model: ChromiumModel, browser: Browser, network: Network
    ) -> None:
        self.server = server
        self.model = model
        self.browser = browser
        self.network = network
        self.model_call = ""
        self.session_id = ""
        self.fresh: Stretch | None = None
        """The first seconds, if they were measured."""

    async def connect(self) -> None:
        """Open the page and press its button; afterwards audio and events flow."""
        page = self.browser.page
        await page.add_init_script(path=RECORDER)
        await page.add_init_script(path=CANDIDATE_PAGE)
        await page.route_web_socket(re.compile("/ws"), self.network.relay)
        await page.goto(self.server.url)
        await page.get_by_role("button", name="Connect", exact=True).click()
        await self.browser.until("interviewPeer.state.phase === 'live'", within=25)
        await self.browser.until("interviewPeer.state.channelOpen", within=25)
        self.session_id = await self.browser.ask("interviewPeer.state.sessionId")
        self.model_call = self.model.calls[-1]

    async def figures(self) -> Both:
        """What both jitter buffers have counted so far."""
        up = await self.model.figures(self.model_call)
        report = await self.browser.until("recorder.figures(interviewPeer.peerConnection)")
        return Both(up, Figures.of(report))

    async def measured(self, seconds: float) -> Both:
        """What both jitter buffers count in so many seconds from now on."""
        before = await self.figures()
        await listen(seconds)
        return await self.figures() - before

    async def steady(self) -> None:
        """Let jitter buffers and encoders find their level."""
        await listen(2.0)

    async def stretch(self, seconds: float, up_voice: int = 0, down_voice: int = 1) -> Stretch:
        """Everything about so many seconds from now on."""
        since = now()
        both = await self.measured(seconds)
        call, model = self.model_call, self.model
        spoken, heard = await self._page_track("sent", since), await model.heard(call, since)
        asked, answered = await model.sent(call, since), await self._page_track("heard", since)
        return Stretch(
            await _chirping(spoken, heard, up_voice, both.up),
            await _chirping(asked, answered, down_voice, both.down),
        )

    async def best(
        self, seconds: float, good: Callable[[Stretch], bool], *, windows: int = 4
    ) -> Stretch:
        """The first stretch that is good, or the last of so many.

        A busy machine holds threads back, which sounds like a bad network. That passes; what
        the server does wrong it does in every stretch.
        """
        for _ in range(windows - 1):
            stretch = await self.stretch(seconds)
            if good(stretch):
                return stretch
        return await self.stretch(seconds)

    async def goes_on(self) -> Stretch:
        """Fail unless both ends hear each other as they did when the call was new."""
        assert self.fresh is not None
        delays = [one.delay_ms for one in self.fresh.both]

        def as_before(stretch: Stretch) -> bool:
            return all(
                one.out_of_order == 0
                and len(one.heard) >= 7
                and one.way_ms < WAY_MS
                and one.delay_ms < delay + GROWTH_MS
                for one, delay in zip(stretch.both, delays, strict=True)
            )

        stretch = await self.best(4.0, as_before)
        assert as_before(stretch), f"before: {self.fresh}\nnow: {stretch}"
        await self.is_live()
        return stretch

    async def best_figures(
        self, seconds: float, good: Callable[[Both], bool], *, windows: int = 4
    ) -> Both:
        """The same without chirps."""
        for _ in range(windows - 1):
            both = await self.measured(seconds)
            if good(both):
                return both
        return await self.measured(seconds)

    async def voices_heard(self, since: float) -> tuple[list[int], list[int]]:
        """How many chirps of each voice model and page heard from the wall time ``since`` on."""
        up = await self.model.heard(self.model_call, since)
        down = await self._page_track("heard", since)

        def count(heard: Recording) -> list[int]:
            return [len(chirps.found(heard, voice)) for voice in range(len(chirps.BANDS))]

        return await asyncio.to_thread(count, up), await asyncio.to_thread(count, down)

    async def _page_track(self, name: str, since: float) -> Recording:
        taken = await self.browser.page.evaluate(
            "([name, since]) => recorder.take(name, since)", [name, since * 1000]
        )
        assert taken is not None, f"the page has no track {name}"
        return await asyncio.to_thread(chirps.recording, taken)

    async def statistics(self) -> Json:
        """What the server says of both legs and both directions."""
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {ADMIN_KEY}"}) as http,
            http.get(f"{self.server.url}/api/interviews/{self.session_id}") as response,
        ):
            body = await response.json()
        assert response.status == 200, body
        statistics: Json = body["statistics"]
        return statistics

    async def dropped(self) -> Json:
        """What the server's browser port has dropped, by reason."""
        _, body = await self.server.get("/healthz")
        counts: Json = body["media"]["dropped"]
        return counts

    async def is_live(self) -> None:
        """Fail unless the interview goes on and both ends know it."""
        assert await self.server.phase(self.session_id) == "live", self.server.tail()
        assert await self.browser.ask("interviewPeer.state.stage") == "live"

    async def until_phase(self, phase: str, within: float) -> None:
        """Wait until the server has the interview in this phase."""
        await eventually(
            lambda: self.server.phase(self.session_id),
            within=within,
            what=phase,
            good=lambda now: now == phase,
        )


async def _chirping(sent: Recording, heard: Recording, voice: int, figures: Figures) -> Chirping:
    return Chirping(
        await asyncio.to_thread(chirps.found, sent, voice),
        await asyncio.to_thread(chirps.found, heard, voice),
        figures,
    )


def write_speech(path: Path, script: int, seconds: float) -> Path:
    """One of the interviewer's scripts without pauses, again and again: speech at 48 kHz.

    Forward error correction exists for speech alone; chirps are coded in a mode without it.
    """
    pieces: list[chirps.Samples] = []
    for line in scripts()[script].lines:
        with av.open(str(SPEECH_FOLDER / line.file)) as container:
            resampler = av.AudioResampler(format="flt", layout="mono", rate=chirps.WAV_RATE)
            for frame in container.decode(audio=0):
                pieces += [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
    said = np.concatenate(pieces)
    said *= 0.5 / np.abs(said).max()
    return chirps.write_wav(path, np.resize(said, round(seconds * chirps.WAV_RATE)))


@contextlib.asynccontextmanager
async def serving(
    folder: Path, *sounds: Path, **settings: str
) -> AsyncIterator[tuple[ServerProcess, ChromiumModel]]:
    """A live server whose voice service is a Chromium that speaks ``sounds``."""
    async with (
        chromium_model(*sounds) as model,
        running_server(
            folder,
            SIMULATION_MODE="false",
            OPENAI_API_KEY=KEY,
            OPENAI_BASE_URL=model.base_url,
            INTERVIEW_ADMIN_KEY=ADMIN_KEY,
            **settings,
        ) as server,
    ):
        yield server, model


@contextlib.asynccontextmanager
async def calling(
    server: ServerProcess, model: ChromiumModel, microphone: Path, *, seed: int = 1, **options: Any
) -> AsyncIterator[Call]:
    """One connected call; ``options`` as ``browsing`` takes them."""
    network = Network(seed)
    try:
        async with browsing(microphone, **options) as browser:
            call = Call(server, model, browser, network)
            await call.connect()
            yield call
    finally:
        await network.close()


@contextlib.asynccontextmanager
async def chirping_call(
    folder: Path, *, seed: int = 1, may_die: bool = False
) -> AsyncIterator[Call]:
    """One connected call in which both ends chirp: the candidate voice 0, the model voice 1."""
    async with (
        serving(folder, write_chirps(folder, 1)) as (server, model),
        calling(server, model, write_chirps(folder, 0), seed=seed, may_die=may_die) as call,
    ):
        call.fresh = await call.stretch(2.5)
        yield call


@contextlib.asynccontextmanager
async def speaking_call(folder: Path, *, seed: int = 1) -> AsyncIterator[Call]:
    """One connected call in which both ends speak without a pause."""
    microphone = write_speech(folder / "candidate.wav", 1, SOUND_SECONDS)
    interviewer = write_speech(folder / "interviewer.wav", 0, SOUND_SECONDS / 4)
    async with (
        serving(folder, interviewer) as (server, model),
        calling(server, model, microphone, seed=seed) as call,
    ):
        await call.steady()
        yield call


def write_chirps(folder: Path, voice: int) -> Path:
    """A voice's melody, long enough for a test, whole rounds of it."""
    rounds = int(SOUND_SECONDS / (chirps.PERIOD * chirps.STEPS))
    melody = chirps.melody(voice, rounds * chirps.PERIOD * chirps.STEPS)
    return chirps.write_wav(folder / f"voice-{voice}.wav", melody)


def growth(before: Json, after: Json) -> dict[str, int]:
    """By how much each counter has grown."""
    return {name: after[name] - before[name] for name in after}


def now() -> float:
    """The wall clock, in seconds: what recordings of both pages are laid along."""
    return time.time()
