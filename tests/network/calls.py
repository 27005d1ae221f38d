"""A whole call between two Chromiums with the server in the middle, over a network to be spoilt.

The interview page is the near end, the model's page the far end; between the page and the server's
one UDP port lies a ``LossyLink`` for each connection that the page makes. "Up" is what the model
hears of the candidate, "down" what the page hears of the interviewer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import av
import numpy as np
from playwright.async_api import WebSocketRoute

from interview_peer.simulator.library import SPEECH_FOLDER, scripts
from interview_peer.types import Json
from tests.support import chirps
from tests.support.chirps import Recording
from tests.support.chromium import Browser, browsing
from tests.support.chromium_model import RECORDER, ChromiumModel, Figures, chromium_model
from tests.support.lossy_link import Address, Impairment, LossyLink
from tests.support.server import ServerProcess, running_server
from tests.support.waiting import eventually

T = TypeVar("T")

KEY = "sk-test-of-no-worth"
SOUND_SECONDS = 120.0
"""How long a microphone's sound lasts: longer than any test listens."""

ADMIN_KEY = "operators-key-of-no-worth"
CANDIDATE_PAGE = Path(chirps.__file__).with_name("candidate_page.js")

_UDP_CANDIDATE = re.compile(r"(?mi)^a=candidate:\S+ \d+ udp \d+ (\S+) (\d+)")


async def listen(seconds: float) -> None:
    """Let real time pass while both ends play: what is measured is a stretch of time."""
    await asyncio.sleep(seconds)


class Network:
    """What lies between one page and the server; how it is spoilt outlives a connection.

    Each answer that the server gives gets a link of its own, as each new socket of a browser gets
    a mapping of its own in a NAT. The links run in a thread of their own, so that the work of
    the test does not hold the datagrams up.
    """

    def __init__(self, seed: int) -> None:
        self.up = Impairment()
        self.down = Impairment()
        self.links: list[LossyLink] = []
        self._seed = seed
        self._signalling: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="network")
        self._thread.start()

    async def close(self) -> None:
        """Close every link and end the thread."""
        for task in self._signalling:
            task.cancel()
        await asyncio.gather(*self._signalling, return_exceptions=True)
        for link in self.links:
            self._loop.call_soon_threadsafe(link.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        self._loop.run_forever()
        # One more round, for what closing a socket leaves to it.
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def spoil(
        self,
        *,
        loss: float = 0.0,
        delay: float = 0.0,
        jitter: float = 0.0,
        reorder: bool = False,
        outage: bool = False,
    ) -> None:
        """Do this to both directions, and nothing else."""
        for way in (self.up, self.down):
            way.loss, way.delay, way.jitter = loss, delay, jitter
            way.reorder, way.outage = reorder, outage

    async def rebind(self) -> None:
        """Give the newest connection a new source port towards the server."""
        await self._do(self.links[-1].rebind())

    @property
    def server(self) -> Address:
        """The server's one UDP port."""
        return self.links[-1].target

    def relay(self, socket: WebSocketRoute) -> None:
        """Pass signalling on, with a link's address in place of the server's."""
        server = socket.connect_to_server()
        order = asyncio.Lock()

        async def deliver(text: str | bytes) -> None:
            async with order:
                message = json.loads(text)
                if message.get("type") == "sdp_answer":
                    message["answer"]["sdp"] = await self._through(message["answer"]["sdp"])
                socket.send(json.dumps(message))

        def told(text: str | bytes) -> None:
            task = asyncio.create_task(deliver(text), name="pass on signalling")
            self._signalling.add(task)
            task.add_done_callback(self._signalling.discard)

        server.on_message(told)

    async def _through(self, sdp: str) -> str:
        found = _UDP_CANDIDATE.search(sdp)
        assert found is not None, sdp
        seed = self._seed + len(self.links)
        link = await self._do(LossyLink.open((found[1], int(found[2])), seed=seed))
        link.up, link.down = self.up, self.down
        self.links.append(link)
        return link.through(sdp)

    async def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))


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


@dataclass(frozen=True, slots=True)
class Counted:
    """A count for each direction."""

    up: int
    down: int


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
        """Wait until both jitter buffers have found their level after the call's beginning."""
        await self.measured(2.0)

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

    async def best_figures(
        self, seconds: float, good: Callable[[Both], bool], *, windows: int = 4
    ) -> Both:
        """The same without chirps."""
        for _ in range(windows - 1):
            both = await self.measured(seconds)
            if good(both):
                return both
        return await self.measured(seconds)

    async def voices_heard(self, voice: int, since: float) -> Counted:
        """How many chirps of a voice either end heard from the wall time ``since`` on."""
        up = await self.model.heard(self.model_call, since)
        down = await self._page_track("heard", since)
        return Counted(
            len(await asyncio.to_thread(chirps.found, up, voice)),
            len(await asyncio.to_thread(chirps.found, down, voice)),
        )

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
        await call.steady()
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
