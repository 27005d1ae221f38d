"""The answer's text: line by line what the real service writes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from aiortc import RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack

from interview_peer.core import sdp
from interview_peer.simulator.answer import routing_ufrag, without_message_limit

from .caller import HEADERS, Caller
from .test_server import form, simulator


async def answer_to(offer: str, **settings: Any) -> tuple[str, list[sdp.Section]]:
    async with simulator(**settings) as client:
        response, answer = await client.post(client.calls_url, data=form(offer))
        assert response.status == 201, answer
        return answer, sdp.split(answer)


@pytest.fixture
async def offer() -> str:
    async with Caller("") as caller:
        return await caller.leg.offer()


async def test_the_answer_is_in_the_service_s_form(offer: str) -> None:
    text, (session, audio, channel) = await answer_to(offer)
    assert text.endswith("\r\n") and text.count("\n") == text.count("\r\n")
    assert text.count("a=fingerprint:") == 1
    (fingerprint,) = session.values("fingerprint")
    assert fingerprint.startswith("sha-256 ")
    assert "a=ice-lite" in session.lines
    assert list(session.values("group")) == ["BUNDLE 0 1"]
    ufrags = {*audio.values("ice-ufrag"), *channel.values("ice-ufrag")}
    passwords = {*audio.values("ice-pwd"), *channel.values("ice-pwd")}
    assert len(ufrags) == len(passwords) == 1
    assert "/" in next(iter(ufrags))
    for section in (audio, channel):
        assert list(section.values("setup")) == ["active"]
    assert list(channel.values("max-message-size")) == ["1073741823"]
    for absent in ("end-of-candidates", "extmap:", "rtcp-fb", "rtx", "stereo", "usedtx"):
        assert absent not in text


async def test_the_answer_carries_one_stream_and_one_codec(offer: str) -> None:
    kind = sdp.opus_payload_type(offer)
    _, (_, audio, _) = await answer_to(offer)
    assert audio.lines[0] == f"m=audio 9 UDP/TLS/RTP/SAVPF {kind}"
    assert list(audio.values("rtpmap")) == [f"{kind} opus/48000/2"]
    assert list(audio.values("fmtp")) == [f"{kind} minptime=10;useinbandfec=1"]
    assert list(audio.values("msid")) == ["realtimeapi audio"]
    assert {value.split(" ")[0] for value in audio.values("ssrc")} == {
        next(audio.values("ssrc")).split(" ")[0]
    }
    assert any(value.endswith("cname:realtimeapi") for value in audio.values("ssrc"))


async def test_each_candidate_has_one_for_tcp_beside_it_and_the_fragment_behind(offer: str) -> None:
    text, (_, audio, channel) = await answer_to(offer)
    ufrag = next(audio.values("ice-ufrag"))
    candidates = [value.split(" ") for value in audio.values("candidate")]
    assert [candidate[2] for candidate in candidates] == ["udp", "tcp"]
    assert candidates[1][5] == "443" and "passive" in candidates[1]
    assert all(candidate[-2:] == ["ufrag", ufrag] for candidate in candidates)
    assert not list(channel.values("candidate"))
    assert len(sdp.candidate_lines(text)) == 1


async def test_ice_lite_can_be_left_out(offer: str) -> None:
    text, _ = await answer_to(offer, ice_lite=False)
    assert "ice-lite" not in text


def test_no_two_fragments_are_the_same() -> None:
    made = {routing_ufrag() for _ in range(50)}
    assert len(made) == 50
    assert all(20 <= len(ufrag) <= 256 and "/" in ufrag for ufrag in made)


def test_a_limit_of_messages_is_taken_out_of_an_offer() -> None:
    text = "v=0\r\nm=application 9 x y\r\na=max-message-size:262144\r\n"
    assert "a=max-message-size:1073741823\r\n" in without_message_limit(text)


def bare(offer: str, *dropped: str) -> str:
    """An offer without these lines."""
    return sdp.join([line for line in offer.splitlines() if not line.startswith(dropped)])


@pytest.mark.parametrize("ice_lite", [True, False])
async def test_an_offer_without_candidates_connects_and_the_last_channel_counts(
    ice_lite: bool,
) -> None:
    """A plain client of another stack, as browsers post their offers: straight away."""
    peer = RTCPeerConnection()
    peer.addTrack(AudioStreamTrack())
    channels: list[RTCDataChannel] = []
    opened: asyncio.Queue[str] = asyncio.Queue()

    @peer.on("datachannel")
    def never(channel: RTCDataChannel) -> None:
        channels.append(channel)

    def make(name: str) -> RTCDataChannel:
        channel = peer.createDataChannel("oai-events")
        channel.on("message", lambda message: opened.put_nowait(f"{name} {message}"))
        return channel

    try:
        make("first")
        await peer.setLocalDescription(await peer.createOffer())
        without = bare(peer.localDescription.sdp, "a=candidate:", "a=end-of-candidates")
        assert "candidate" not in without
        async with simulator(greet=False, ice_lite=ice_lite) as client:
            _, answer = await client.post(client.calls_url, data=form(without))
            await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
            async with asyncio.timeout(10):
                assert "session.created" in await opened.get()
                second = make("second")
                second.on("open", lambda: second.send('{"type":"input_audio_buffer.clear"}'))
                while not (said := await opened.get()).startswith("second"):
                    assert "cleared" not in said
            assert channels == []
    finally:
        await peer.close()


async def test_offers_beyond_the_two_sections_wanted_are_refused(offer: str) -> None:
    async with simulator() as client:
        no_audio = sdp.join([*sdp.split(offer)[0].lines, *sdp.split(offer)[2].lines])
        error = await client.error(400, client.calls_url, data=form(no_audio))
        assert error["code"] == "invalid_offer"


async def test_pages_may_call_and_read_where(offer: str) -> None:
    async with simulator() as client, aiohttp.ClientSession() as http:
        headers = {
            "Origin": "https://app.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type, x-openai-agents-sdk",
        }
        async with http.options(client.calls_url, headers=headers) as reply:
            assert reply.status == 204
            allowed = reply.headers["Access-Control-Allow-Headers"]
            assert "x-openai-agents-sdk" in allowed
            assert reply.headers["Access-Control-Allow-Origin"] == "*"
        headers = HEADERS | {"Origin": "https://app.example"}
        for data, status in ((form(offer), 201), (form("x"), 400)):
            response, _ = await client.post(client.calls_url, data=data, headers=headers)
            assert response.status == status
            assert response.headers["Access-Control-Allow-Origin"] == "*"
            assert response.headers["Access-Control-Expose-Headers"] == "Location"
            assert response.headers["x-request-id"].startswith("req_")
            assert json.loads(response.headers["openai-processing-ms"]) >= 0
