"""A client of the server without a browser: signalling by WebSocket or HTTP, and a leg of its own.

Everything that reaches it is kept: ``heard`` holds every frame, body, header and event as text, so
that a test can search all of it. Waiting is for something that arrives, with a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import aiohttp
import yarl

from interview_peer.media.leg import Leg
from interview_peer.media.udp import UdpPort
from interview_peer.simulator.library import scripts
from interview_peer.types import Json

T = TypeVar("T")

WITHIN: Final = 10.0
"""Seconds that a wait lasts at most, unless it says otherwise."""

SILENCE: Final = b"\xf8\xff\xfe"
"""20 ms of silence as an Opus packet."""

MERE_SILENCE: Final = 8
"""Bytes of a packet that holds no sound worth the name."""

FRAME_SECONDS: Final = 0.02
FRAME_SAMPLES: Final = 960


class Inbox(Generic[T]):
    """What arrived, in order; each item is handed out once."""

    def __init__(self, name: str) -> None:
        self.items: list[T] = []
        self.closed = asyncio.Event()
        self._name = name
        self._taken: set[int] = set()
        self._news = asyncio.Event()

    def put(self, item: T) -> None:
        """Add an item and wake whoever waits."""
        self.items.append(item)
        self._news.set()

    def close(self) -> None:
        """Nothing more will come."""
        self.closed.set()
        self._news.set()

    async def take(self, wanted: Callable[[T], bool], what: str, within: float = WITHIN) -> T:
        """The first item that is wanted and was not handed out yet.

        Raises AssertionError, naming ``what``, when none came in time or none can come any more.
        """
        try:
            async with asyncio.timeout(within):
                while True:
                    for index, item in enumerate(self.items):
                        if index not in self._taken and wanted(item):
                            self._taken.add(index)
                            return item
                    assert not self.closed.is_set(), f"{self._name} ended without {what}: {self}"
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"no {what} on {self._name} in {within} s: {self}") from None

    def __str__(self) -> str:
        return ", ".join(str(item)[:160] for item in self.items[-12:]) or "nothing came"


@dataclass(frozen=True)
class Reply:
    """A whole HTTP answer."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    text: str

    def json(self) -> Json:
        """The body as a JSON object."""
        assert self.headers["content-type"].startswith("application/json"), self.headers
        value = json.loads(self.text)
        assert isinstance(value, dict), value
        return value


class Caller:
    """One client: at most one socket and one leg at a time. Use ``calling`` to make one."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url = url
        self.heard: list[str] = []
        self.session_id = ""
        """As the greeting or an answer said."""
        self.messages: Inbox[Json] = Inbox("the socket")
        self.events: Inbox[Json] = Inbox("the event channel")
        self.audio: Inbox[bytes] = Inbox("the audio track")
        self.media_connected = asyncio.Event()
        self.media_lost = asyncio.Event()
        self.channel_opened = asyncio.Event()
        self.channel_closed = asyncio.Event()
        self.close_code: int | None = None
        """Of the socket, once the server closed it."""
        self._http = http
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._reader: asyncio.Task[None] | None = None
        self._port: UdpPort | None = None
        self._leg: Leg | None = None
        self._speaking: asyncio.Task[None] | None = None
        self._words: list[bytes | None] = []
        self.said_at: dict[bytes, float] = {}
        """When (Unix) each packet of speech was last sent."""
        self.heard_at: dict[bytes, float] = {}
        """When each packet that is not mere silence last came."""

    # -- signalling -----------------------------------------------------------------------------

    async def open(self, path: str = "/ws") -> Json:
        """Connect the socket; returns the greeting, which names the session."""
        await self.open_bare(path)
        greeting = await self.message("session")
        self.session_id = greeting["sessionId"]
        return greeting

    async def open_bare(self, path: str = "/ws") -> None:
        """Connect the socket and expect nothing."""
        self._socket = await self._http.ws_connect(self.url.replace("http", "ws", 1) + path)
        self.messages = Inbox("the socket")
        self._reader = asyncio.create_task(self._read(self._socket), name="read a caller's socket")

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for frame in socket:
            assert frame.type is aiohttp.WSMsgType.TEXT, frame
            self.heard.append(frame.data)
            self.messages.put(json.loads(frame.data))
        self.close_code = socket.close_code
        self.messages.close()

    async def send(self, message: Json | str | bytes) -> None:
        """Send one signalling message, or a raw frame."""
        assert self._socket is not None
        if isinstance(message, bytes):
            await self._socket.send_bytes(message)
        else:
            text = message if isinstance(message, str) else json.dumps(message)
            await self._socket.send_str(text)

    async def message(
        self, kind: str, within: float = WITHIN, where: Callable[[Json], bool] | None = None
    ) -> Json:
        """The next signalling message of this type."""
        return await self.messages.take(
            lambda one: one["type"] == kind and (where is None or where(one)), kind, within
        )

    async def phase(self, phase: str, within: float = WITHIN) -> Json:
        """The next ``state`` message with this phase."""
        return await self.messages.take(
            lambda one: one["type"] == "state" and one["phase"] == phase, f"phase {phase}", within
        )

    async def error(self, within: float = WITHIN) -> str:
        """The code of the next error message."""
        return str((await self.message("error", within))["code"])

    async def refusal(self, within: float = WITHIN) -> str:
        """Why the next offer is not answered: the precise code, behind the one for all of them."""
        message = await self.message("error", within)
        assert message["code"] == "SDP_EXCHANGE_FAILED", message
        return str(message["reason"])

    async def leave(self) -> None:
        """Close the socket; media go on."""
        if self._socket is not None:
            await self._socket.close()
        if self._reader is not None:
            await self._reader
        self._socket = self._reader = None

    async def socket_closed(self, within: float = WITHIN) -> None:
        """Wait until the server has closed the socket."""
        async with asyncio.timeout(within):
            await self.messages.closed.wait()

    # -- HTTP -----------------------------------------------------------------------------------

    async def request(self, method: str, path: str, **options: Any) -> Reply:
        """One HTTP exchange with this very path; ``options`` as aiohttp takes them."""
        url = yarl.URL(self.url + path, encoded=True)
        async with self._http.request(method, url, allow_redirects=False, **options) as response:
            body = (await response.read()).decode()
            headers = {name.lower(): value for name, value in response.headers.items()}
        self.heard += [f"{name}: {value}" for name, value in headers.items()]
        self.heard.append(body)
        return Reply(response.status, headers, body)

    async def get(self, path: str, **options: Any) -> Reply:
        """GET."""
        return await self.request("GET", path, **options)

    async def post(self, path: str, **options: Any) -> Reply:
        """POST."""
        return await self.request("POST", path, **options)

    async def known_phase(self) -> str:
        """What ``GET /api/sessions/{id}`` says of this caller's session; "unknown" after a 404."""
        reply = await self.get(f"/api/sessions/{self.session_id}")
        return str(reply.json()["phase"]) if reply.status == 200 else "unknown"

    # -- media ----------------------------------------------------------------------------------

    async def offer(self) -> str:
        """Make a fresh leg and its offer; an earlier leg is closed."""
        await self.drop()
        self.events, self.audio = Inbox("the event channel"), Inbox("the audio track")
        for mark in (
            self.media_connected,
            self.media_lost,
            self.channel_opened,
            self.channel_closed,
        ):
            mark.clear()
        self._port = await UdpPort.open("127.0.0.1")
        self._leg = Leg("caller", self._port, _Listener(self))
        self._leg.on_audio = self._hear
        return await self._leg.offer()

    async def accept(self, answer: str) -> None:
        """Apply the server's answer, and begin to send silence."""
        assert self._leg is not None
        self.heard.append(answer)
        await self._leg.accept(answer)
        self._speaking = asyncio.create_task(self._speak(self._leg), name="speak for a caller")

    async def connect(self, within: float = WITHIN, **offer: Any) -> None:
        """Offer over the socket and wait until the interview is live and events can be sent."""
        sdp = await self.offer()
        await self.send({"type": "sdp_offer", "offer": {"type": "offer", "sdp": sdp}, **offer})
        await self.accept((await self.message("sdp_answer", within))["answer"]["sdp"])
        await self.phase("live", within)
        await self.ready(within)

    async def connect_by_http(self, within: float = WITHIN, **fields: Any) -> Reply:
        """Offer by ``/api/sdp-exchange`` and wait until media and events flow."""
        reply = await self.post(
            "/api/sdp-exchange", json={"sdpOffer": await self.offer(), **fields}
        )
        assert reply.status == 200, reply
        self.session_id = reply.json()["sessionId"]
        await self.accept(reply.json()["sdpAnswer"])
        await self.ready(within)
        return reply

    async def ready(self, within: float = WITHIN) -> None:
        """Wait until audio can flow and events can be sent."""
        async with asyncio.timeout(within):
            await self.media_connected.wait()
            await self.channel_opened.wait()

    def speak(self, seconds: float = 60.0, line: int = 1) -> None:
        """Say a line of a script, or its first seconds, after what is being said."""
        self._words += scripts()[1].lines[line].packets[: round(seconds / FRAME_SECONDS)]

    def pause(self, seconds: float) -> None:
        """Send nothing for so long, after what is being said, as an encoder does in silence."""
        self._words += [None] * round(seconds / FRAME_SECONDS)

    async def sound(self, count: int = 1, within: float = WITHIN) -> None:
        """Wait until so many further audio packets have come that are not mere silence."""
        for _ in range(count):
            await self.audio.take(lambda packet: len(packet) > MERE_SILENCE, "sound", within)

    def say(self, event: Json | str | bytes) -> None:
        """Send one event, or a raw message."""
        assert self._leg is not None
        if isinstance(event, bytes):
            # A leg of ours sends text alone; a browser's channel takes both.
            assert self._leg._channel is not None
            self._leg._channel.send(event)
        else:
            self._leg.send_text(event if isinstance(event, str) else json.dumps(event))

    async def event(
        self, kind: str, within: float = WITHIN, where: Callable[[Json], bool] | None = None
    ) -> Json:
        """The next event of this type."""
        return await self.events.take(
            lambda one: one["type"] == kind and (where is None or where(one)), kind, within
        )

    async def drop(self) -> None:
        """Close the peer connection, as a page does that is closed."""
        if self._speaking is not None:
            self._speaking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._speaking
        if self._leg is not None:
            await self._leg.close()
        if self._port is not None:
            self._port.close()
        self._leg = self._port = self._speaking = None

    def vanish(self) -> None:
        """Stop sending and receiving without a word, as a killed browser does."""
        assert self._port is not None and self._speaking is not None
        self._port.close()
        self._speaking.cancel()

    async def close(self) -> None:
        """Leave nothing behind."""
        await self.leave()
        await self.drop()

    async def _speak(self, leg: Leg) -> None:
        """Send a packet every 20 ms, on one schedule from now on."""
        loop = asyncio.get_running_loop()
        await self.media_connected.wait()
        began = loop.time()
        sequence = frame = 0
        while True:
            packet = self._words.pop(0) if self._words else SILENCE
            if packet is not None:
                if packet is not SILENCE:
                    self.said_at[packet] = time.time()
                leg.send_audio(sequence, frame * FRAME_SAMPLES, packet)
                sequence += 1
            frame += 1
            await asyncio.sleep(began + frame * FRAME_SECONDS - loop.time())

    def _hear(self, at: float, sequence: int, timestamp: int, payload: bytes) -> None:
        self.audio.put(payload)
        if len(payload) > MERE_SILENCE:
            self.heard_at[payload] = time.time()


class _Listener:
    """Notes for a caller what its leg tells."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def leg_connected(self, leg: Leg) -> None:
        self._caller.media_connected.set()

    def leg_lost(self, leg: Leg, reason: str) -> None:
        self._caller.media_lost.set()

    def channel_opened(self, leg: Leg) -> None:
        self._caller.channel_opened.set()

    def channel_message(self, leg: Leg, data: str | bytes) -> None:
        text = data if isinstance(data, str) else data.decode(errors="replace")
        self._caller.heard.append(text)
        self._caller.events.put(json.loads(text))

    def channel_closed(self, leg: Leg) -> None:
        self._caller.channel_closed.set()


@contextlib.asynccontextmanager
async def calling(url: str) -> AsyncIterator[Caller]:
    """A caller of the server at ``url``, which is gone without a trace afterwards."""
    timeout = aiohttp.ClientTimeout(total=30)
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
        caller = Caller(url, http)
        try:
            yield caller
        finally:
            await caller.close()
