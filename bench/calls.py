"""Calls from the outside: a browser's leg, the model's leg behind the relay, and how both meet.

``Router`` sets calls up through whatever is being measured: our server, the plain relay (both
speak the service's HTTP), Janus' echo, or nothing at all. One call is set up at a time, which is
how the two ends of a call are told to belong together.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp import BodyPartReader, web

from interview_peer.core.sdp import check_offer
from interview_peer.media.leg import Leg
from interview_peer.types import Json

from .pump import TO_BROWSER, TO_MODEL, EventSource, Pump, Stream, SweptPort

CONNECT_SECONDS: Final = 20.0
SHARED_BATCH: Final = 256


class SetUpFailed(Exception):
    """A call did not come up; the sentence says how far it got."""


class Ear:
    """Listens to one leg: when it connected, when its channel opened, what events came."""

    def __init__(self, pump: Pump) -> None:
        self.connected = asyncio.Event()
        self.opened = asyncio.Event()
        self.connected_at = 0.0
        self.lost: str | None = None
        self._pump = pump

    def leg_connected(self, leg: Leg) -> None:
        """Note the time."""
        self.connected_at = time.monotonic()
        self.connected.set()

    def leg_lost(self, leg: Leg, reason: str) -> None:
        """Note the reason."""
        self.lost = reason

    def channel_opened(self, leg: Leg) -> None:
        """Events can flow."""
        self.opened.set()

    def channel_message(self, leg: Leg, data: str | bytes) -> None:
        """Time an event."""
        self._pump.event_arrived(data)

    def channel_closed(self, leg: Leg) -> None:
        """Nothing to do: the leg is closed as well."""


@dataclass
class End:
    """One leg and what was heard of it."""

    leg: Leg
    ear: Ear
    port: SweptPort

    async def wait(self, *, channel: bool) -> None:
        """Wait until it is connected, and its channel open."""
        await self.ear.connected.wait()
        if channel:
            await self.ear.opened.wait()


@dataclass
class Call:
    """A call that is up."""

    caller: End
    far: End | None
    """The model's end; None where the server itself sends the audio back."""
    hang_up: Callable[[], Awaitable[None]]
    seconds: float
    """From the offer until both ends were connected."""


class FarEnd:
    """The voice service: answers each call with a leg on one shared port, and says nothing."""

    def __init__(self, pump: Pump, port: SweptPort) -> None:
        self.url = ""
        self._pump = pump
        self._port = port
        self._calls: dict[str, End] = {}
        self._numbers = itertools.count(1)
        self._waiting: asyncio.Queue[End] = asyncio.Queue()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port of loopback."""
        app = web.Application()
        app.router.add_post("/v1/realtime/calls", self._create)
        app.router.add_post("/v1/realtime/calls/{call_id}/hangup", self._hang_up)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def answer(self, offer: str) -> tuple[str, str]:
        """Make a leg for an offer; returns the call's id and the answer."""
        ear = Ear(self._pump)
        leg = Leg("far end", self._port, ear)
        answer = await leg.answer(check_offer(offer))
        call_id = f"rtc_bench{next(self._numbers):06d}"
        end = End(leg, ear, self._port)
        self._calls[call_id] = end
        self._waiting.put_nowait(end)
        return call_id, answer

    async def newest(self) -> End:
        """The end of the call that is being set up."""
        return await self._waiting.get()

    def forget_waiting(self) -> None:
        """Drop the ends of calls that never came up."""
        while not self._waiting.empty():
            self._waiting.get_nowait()

    async def _create(self, request: web.Request) -> web.Response:
        offer = ""
        async for part in await request.multipart():
            if isinstance(part, BodyPartReader) and part.name == "sdp":
                offer = (await part.read(decode=True)).decode()
        call_id, answer = await self.answer(offer)
        return web.Response(
            status=201,
            text=answer,
            content_type="application/sdp",
            headers={"Location": f"/v1/realtime/calls/{call_id}"},
        )

    async def _hang_up(self, request: web.Request) -> web.Response:
        end = self._calls.pop(request.match_info["call_id"], None)
        if end is None:
            raise web.HTTPNotFound
        await end.leg.close()
        return web.Response(status=200)


class Janus:
    """Janus' WebSocket API, as far as its echo test needs it. One session holds all handles."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self._url = url
        self._http = http
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._session = 0
        self._numbers = itertools.count(1)

    async def echo(self, offer: str) -> tuple[int, str]:
        """Have the echo test answer an offer; returns the handle and the answer."""
        if self._socket is None:
            self._socket = await self._http.ws_connect(self._url, protocols=["janus-protocol"])
            self._session = (await self._ask({"janus": "create"}))["data"]["id"]
        attached = await self._ask({"janus": "attach", "plugin": "janus.plugin.echotest"})
        handle = int(attached["data"]["id"])
        reply = await self._ask(
            {
                "janus": "message",
                "handle_id": handle,
                "body": {"audio": True, "video": False},
                "jsep": {"type": "offer", "sdp": offer},
            },
            final="event",
        )
        return handle, str(reply["jsep"]["sdp"])

    async def detach(self, handle: int) -> None:
        """End one echo."""
        await self._ask({"janus": "detach", "handle_id": handle})

    async def _ask(self, message: Json, final: str = "success") -> Json:
        assert self._socket is not None
        transaction = f"bench{next(self._numbers)}"
        message = {**message, "transaction": transaction}
        if self._session:
            message["session_id"] = self._session
        await self._socket.send_json(message)
        while True:
            reply: Json = await self._socket.receive_json(timeout=CONNECT_SECONDS)
            if reply.get("transaction") != transaction:
                continue
            if reply["janus"] == "error":
                raise SetUpFailed(f"Janus refused: {reply['error'].get('reason')}")
            if reply["janus"] == final:
                return reply


class Router:
    """Sets calls up through one kind of subject.

    Kinds: ``relay``, ``transcoder`` (the same, but what comes out is not what went in), ``janus``
    and ``direct``.
    """

    def __init__(self, kind: str, pump: Pump, caller_host: str) -> None:
        self.kind = kind
        self.url = ""
        """Where the subject takes offers."""
        self.pump = pump
        self.calls: list[Call] = []
        self.far_end: FarEnd | None = None
        self._caller_host = caller_host
        self._http: aiohttp.ClientSession | None = None
        self._janus: Janus | None = None
        self._numbers = itertools.count()

    async def start(self) -> None:
        """Open what all calls share."""
        self._http = aiohttp.ClientSession()
        if self.kind != "janus":
            port = await SweptPort.open("127.0.0.1")
            assert isinstance(port, SweptPort)
            port.batch = SHARED_BATCH
            self.pump.add_port(port)
            self.far_end = FarEnd(self.pump, port)
            await self.far_end.start()

    async def close(self) -> None:
        """Close what the process would otherwise complain about; sockets die with it."""
        if self._http is not None:
            await self._http.close()
        if self.far_end is not None:
            await self.far_end.close()

    async def set_up(self, *, keep: bool = True) -> Call:
        """Set one call up and wait until both its ends are connected, channels open.

        Raises:
            SetUpFailed: it did not come up in time.
        """
        port = await SweptPort.open(self._caller_host)
        assert isinstance(port, SweptPort)
        ear = Ear(self.pump)
        leg = Leg("caller", port, ear, own_port=True)
        caller = End(leg, ear, port)
        if self.far_end is not None:
            self.far_end.forget_waiting()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                call = await self._connect(caller)
        except TimeoutError:
            raise SetUpFailed(
                f"no connection in {CONNECT_SECONDS:.0f} s (caller {ear.connected.is_set()}, "
                f"lost {ear.lost})"
            ) from None
        if keep:
            self._keep(call)
        return call

    def _keep(self, call: Call) -> None:
        caller, far = call.caller, call.far
        self.calls.append(call)
        self.pump.add_port(caller.port)
        number = next(self._numbers)
        sink = far if far is not None else caller
        bursts = self.kind == "transcoder"
        make = functools.partial(Stream, self.pump, bursts=bursts)
        streams = [make(TO_MODEL, 2 * number, caller.leg, sink.leg)]
        if far is not None:
            streams.append(make(TO_BROWSER, 2 * number + 1, far.leg, caller.leg))
            self.pump.event_sources.append(EventSource(self.pump, number, far.leg))
        self.pump.streams += streams

    async def _connect(self, caller: End) -> Call:
        offer = await caller.leg.offer()
        began = time.monotonic()
        match self.kind:
            case "janus":
                assert self._http is not None
                self._janus = self._janus or Janus(self.url, self._http)
                janus = self._janus
                handle, answer = await janus.echo(offer)
                await caller.leg.accept(answer)
                await caller.wait(channel=False)
                seconds = caller.ear.connected_at - began
                return Call(caller, None, lambda: janus.detach(handle), seconds)
            case "direct":
                assert self.far_end is not None
                _, answer = await self.far_end.answer(offer)
                location = ""
            case _:
                location, answer = await self._post(offer)
        assert self.far_end is not None
        await caller.leg.accept(answer)
        far = await self.far_end.newest()
        await asyncio.gather(caller.wait(channel=True), far.wait(channel=True))
        connected = max(caller.ear.connected_at, far.ear.connected_at)
        return Call(caller, far, lambda: self._delete(location), connected - began)

    async def _post(self, offer: str) -> tuple[str, str]:
        assert self._http is not None
        async with self._http.post(
            f"{self.url}/v1/realtime/calls",
            data=offer,
            headers={"Content-Type": "application/sdp"},
        ) as response:
            body = await response.text()
            if response.status != 201:
                raise SetUpFailed(f"the subject answered {response.status}: {body[:200]}")
            return response.headers["Location"], body

    async def _delete(self, location: str) -> None:
        assert self._http is not None
        if location:
            async with self._http.post(f"{self.url}{location}/hangup") as response:
                await response.read()
