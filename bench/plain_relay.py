"""The relay that aiortc's examples suggest, to compare with: each received track is added to the
other connection, so that every packet is decoded, buffered and encoded again.

``python -m bench.plain_relay FAR_END_URL`` prints its address when it is ready. It speaks the same
HTTP as our server, records nothing and passes events on as they are.
"""

from __future__ import annotations

import asyncio
import sys

import aiohttp
import aioice.ice
from aiohttp import web
from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamTrack
from aiortc.sdp import candidate_from_sdp

from interview_peer.core import sdp
from interview_peer.media.engine import guard_sctp

CONFIGURATION = RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)


def loopback(use_ipv4: bool, use_ipv6: bool) -> list[str]:
    """Stand in for aioice's list of addresses, which leaves loopback out."""
    return ["127.0.0.1"]


class PlainRelay:
    """All calls of the process."""

    def __init__(self, far_end: str, http: aiohttp.ClientSession) -> None:
        self._far_end = far_end
        self._http = http
        self._kept: list[RTCPeerConnection] = []

    async def create(self, request: web.Request) -> web.Response:
        """Answer a caller's offer, with a call of our own behind it."""
        caller, model = RTCPeerConnection(CONFIGURATION), RTCPeerConnection(CONFIGURATION)
        self._kept += [caller, model]
        tracks: list[MediaStreamTrack] = []
        caller.on("track", tracks.append)
        await caller.setRemoteDescription(RTCSessionDescription(await request.text(), "offer"))
        model.addTrack(tracks[0])
        behind = model.createDataChannel("oai-events")
        caller.on("datachannel", lambda channel: join(channel, behind))
        model.on("track", caller.addTrack)
        await model.setLocalDescription(await model.createOffer())
        form = aiohttp.FormData(default_to_multipart=True)
        form.add_field("sdp", model.localDescription.sdp, content_type="application/sdp")
        async with self._http.post(f"{self._far_end}/realtime/calls", data=form) as response:
            answer = await response.text()
        await model.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        for line in sdp.candidate_lines(answer):
            candidate = candidate_from_sdp(line.removeprefix("candidate:"))
            candidate.sdpMLineIndex = 0
            await model.addIceCandidate(candidate)
        await caller.setLocalDescription(await caller.createAnswer())
        return web.Response(
            status=201,
            text=caller.localDescription.sdp,
            content_type="application/sdp",
            headers={"Location": f"/v1/realtime/calls/{len(self._kept)}"},
        )


def join(front: RTCDataChannel, behind: RTCDataChannel) -> None:
    """Pass messages on, both ways."""
    front.on("message", behind.send)
    behind.on("message", front.send)


async def main(far_end: str) -> None:
    """Serve until the process is ended."""
    aioice.ice.get_host_addresses = loopback
    guard_sctp()
    async with aiohttp.ClientSession() as http:
        app = web.Application()
        app.router.add_post("/v1/realtime/calls", PlainRelay(far_end, http).create)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        sys.stdout.write(f"ready: http://127.0.0.1:{runner.addresses[0][1]}\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
