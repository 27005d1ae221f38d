"""Interviews that begin over a bad network: a browser that is not ours, and a link that loses."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack

from interview_peer.app import Server
from tests.support.caller import Caller
from tests.support.lossy_link import LossyLink
from tests.support.waiting import eventually

WITHIN = 20.0
"""Seconds. DTLS sends again after 1, 2 and 4 s, SCTP after 3 and 6 s; clean links take 0.1 s."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("loss", [0.05, 0.15])
async def test_interview_connects_though_the_network_loses(
    local: Server, caller: Caller, loss: float, seed: int
) -> None:
    link = await LossyLink.open(local.browser_port.address, seed=seed)
    link.up.loss = link.down.loss = loss
    browser = RTCPeerConnection()
    heard = asyncio.Event()
    try:
        browser.addTrack(AudioStreamTrack())
        channel = browser.createDataChannel("oai-events")
        channel.on("message", lambda _: heard.set())
        await browser.setLocalDescription(await browser.createOffer())
        reply = await caller.post(
            "/api/sdp-exchange", json={"sdpOffer": browser.localDescription.sdp}
        )
        assert reply.status == 200, reply.text
        answer = reply.json()
        began = time.monotonic()
        await browser.setRemoteDescription(
            RTCSessionDescription(link.through(answer["sdpAnswer"]), "answer")
        )
        caller.session_id = answer["sessionId"]
        await eventually(
            caller.known_phase, within=WITHIN, what="live", good=lambda phase: phase == "live"
        )
        async with asyncio.timeout(began + WITHIN - time.monotonic()):
            # The model's first event: ICE, DTLS and SCTP stand on both legs.
            await heard.wait()
        assert channel.readyState == "open"

        async def lost() -> int:
            return link.up.lost + link.down.lost

        await eventually(lost, within=WITHIN, what="a loss: the link does lose")
    finally:
        await browser.close()
        link.close()
