"""A voice service that fails on demand, with a simulator behind it for when it does not."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp import web

from interview_peer.simulator.server import RunningSimulator, SimulatorSettings, start_simulator

KEY = "sk-marked-KEY-4711"
"""The only key it takes."""

CALLS = "/v1/realtime/calls"

MODELS = "/v1/models/"

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class VoiceService:
    """Answers create calls as ``answer`` says, everything else as the simulator does."""

    def __init__(self, simulator: RunningSimulator, http: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self.answer: Answer | None = None
        """What answers create calls; None hands them on to the simulator."""
        self.asked: list[str] = []
        """The path of every request about a call, in order."""
        self.base_url = ""
        self._http = http

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        if not request.path.startswith(MODELS):
            # Asked for beside the start, at any time.
            self.asked.append(request.path)
        body = await request.read()
        if self.answer is not None and request.path == CALLS:
            return await self.answer(request)
        url = self.simulator.base_url.removesuffix("/v1") + request.path
        wanted = ("Authorization", "Content-Type")
        headers = {name: request.headers[name] for name in wanted if name in request.headers}
        async with self._http.request(request.method, url, data=body, headers=headers) as response:
            kept = ("Content-Type", "Location")
            return web.Response(
                status=response.status,
                body=await response.read(),
                headers={name: response.headers[name] for name in kept if name in response.headers},
            )


@contextlib.asynccontextmanager
async def voice_service(**settings: Any) -> AsyncIterator[VoiceService]:
    """Run such a service; its ``base_url`` is what a live server is given.

    ``settings`` are the simulator's.
    """
    async with contextlib.AsyncExitStack() as stack:
        simulator = await start_simulator(SimulatorSettings(api_key=KEY, **settings))
        stack.push_async_callback(simulator.close)
        connector = aiohttp.TCPConnector(force_close=True)
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        service = VoiceService(simulator, http)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", service.handle)
        runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        service.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        yield service
