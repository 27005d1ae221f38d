"""Watches idle sockets for 65 s of real time, and prints what it saw as one JSON object.

A program of its own, so that it runs beside the other tests instead of adding a minute to them;
``conftest.py`` starts it and ``test_idle_socket.py`` judges what it printed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

from interview_peer.types import Json
from tests.support.inprocess import serving

WATCHED_SECONDS = 65.0


async def watch(url: str, *, answers: bool) -> Json:
    """Sit on a socket that says nothing, answering pings or not, then ask it something."""
    pings: list[float] = []
    began = time.monotonic()
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(url.replace("http", "ws", 1) + "/ws", autoping=False) as socket,
    ):
        assert (await socket.receive_json())["type"] == "session"
        while (left := began + WATCHED_SECONDS - time.monotonic()) > 0:
            try:
                frame = await socket.receive(timeout=left)
            except TimeoutError:
                break
            if frame.type is not aiohttp.WSMsgType.PING:
                return {"pings": pings, "closed_after": time.monotonic() - began}
            pings.append(time.monotonic() - began)
            if answers:
                await socket.pong(frame.data)
        await socket.send_json({"type": "ice_candidate"})
        return {"pings": pings, "closed_after": None, "said": await socket.receive_json(timeout=5)}


async def main() -> None:
    """Watch one client that answers pings and one that does not."""
    with tempfile.TemporaryDirectory() as folder:
        async with serving(Path(folder)) as server:
            patient, deaf = await asyncio.gather(
                watch(server.url, answers=True), watch(server.url, answers=False)
            )
    sys.stdout.write(json.dumps({"patient": patient, "deaf": deaf}))


if __name__ == "__main__":
    asyncio.run(main())
