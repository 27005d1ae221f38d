"""The test kit as others use it: a plain aiortc client, and nothing of ours but ``testing``."""

from __future__ import annotations

import ast
import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from pydantic import ValidationError

from interview_peer.testing import (
    Microphone,
    SimulatedService,
    SimulatorSettings,
    Speech,
    lines,
    silence_packet,
    simulator,
)

SESSION = {
    "type": "realtime",
    "model": "gpt-realtime-2.1",
    "audio": {
        "input": {
            "transcription": {"model": "gpt-transcribe"},
            "turn_detection": {"type": "server_vad", "silence_duration_ms": 500},
        }
    },
}


class Client:
    """A client of the Realtime API, written from its documentation alone."""

    def __init__(self) -> None:
        self.peer = RTCPeerConnection()
        self.microphone = Microphone()
        self.peer.addTrack(self.microphone)
        self.channel = self.peer.createDataChannel("oai-events")
        self.events: list[dict[str, Any]] = []
        self.loudest = 0
        self._changed = asyncio.Event()
        self._ear: asyncio.Task[None] | None = None
        self.closed = asyncio.Event()
        self.channel.on("message", self._message)
        self.channel.on("close", self.closed.set)
        self.peer.on("track", self._track)

    async def connect(self, service: SimulatedService, key: str = "sk-anything") -> str:
        await self.peer.setLocalDescription(await self.peer.createOffer())
        form = aiohttp.FormData()
        form.add_field("sdp", self.peer.localDescription.sdp, content_type="application/sdp")
        form.add_field("session", json.dumps(SESSION), content_type="application/json")
        headers = {"Authorization": f"Bearer {key}"}
        async with (
            aiohttp.ClientSession() as http,
            http.post(service.calls_url, data=form, headers=headers) as reply,
        ):
            answer = await reply.text()
            assert reply.status == 201, answer
            location = reply.headers["Location"]
        await self.peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        await self.event("session.created")
        return location.rpartition("/")[2]

    async def event(self, kind: str, within: float = 15.0) -> dict[str, Any]:
        """The first event of a type, waited for."""
        async with asyncio.timeout(within):
            while True:
                for event in self.events:
                    if event["type"] == kind:
                        return event
                self._changed.clear()
                await self._changed.wait()

    async def close(self) -> None:
        if self._ear is not None:
            self._ear.cancel()
            await asyncio.gather(self._ear, return_exceptions=True)
        await self.peer.close()

    def _message(self, message: str) -> None:
        self.events.append(json.loads(message))
        self._changed.set()

    def _track(self, track: MediaStreamTrack) -> None:
        self._ear = asyncio.create_task(self._listen(track), name="the client's ear")

    async def _listen(self, track: MediaStreamTrack) -> None:
        try:
            while True:
                frame: Any = await track.recv()
                self.loudest = max(self.loudest, int(np.abs(frame.to_ndarray()).max()))
        except MediaStreamError:
            return


@pytest.fixture(scope="module")
def speech() -> Speech:
    return lines()[1]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    client = Client()
    yield client
    await client.close()


async def test_a_plain_client_is_greeted_answers_and_is_asked_on(
    client: Client, speech: Speech
) -> None:
    async with simulator(generation_speed=20.0, transcription_delay=0.1) as service:
        call_id = await client.connect(service)
        (call,) = service.calls
        assert call.id == call_id
        greeting = await client.event("response.output_audio_transcript.done")
        assert greeting["transcript"] == lines("general")[0].text
        client.microphone.say(speech)
        await client.microphone.said()
        await client.event("conversation.item.input_audio_transcription.completed")
        assert client.loudest > 1000
        client.channel.send('{"type":"conversation.item.delete","item_id":"x","event_id":"mine"}')
        error = (await client.event("error"))["error"]
        assert (error["code"], error["event_id"]) == ("item_delete_invalid_item_id", "mine")
        assert call.received_events[-1]["event_id"] == "mine"
        assert call.status["phase"] == "open"
        call.expire()
        await asyncio.wait_for(client.closed.wait(), 5)
        codes = [event["error"]["code"] for event in client.events if event["type"] == "error"]
        assert codes[-1] == "session_expired"
    assert service.calls == []


async def test_a_call_is_told_what_the_test_says(client: Client) -> None:
    async with simulator(greet=False) as service:
        await client.connect(service)
        (call,) = service.calls
        call.error("rate_limit_exceeded")
        assert (await client.event("error"))["error"]["code"] == "rate_limit_exceeded"
        call.send({"type": "made.up", "event_id": "event_1"})
        await client.event("made.up")
        call.hang_up()
        assert service.calls == []
        assert service.ended_calls == [{"id": call.id, "reason": "hung up by the test"}]


async def test_settings_count_from_the_next_request_on() -> None:
    async with simulator(SimulatorSettings(seed=3), api_key="sk-right") as service:
        assert service.settings.seed == 3
        service.change(answer_status=429)
        headers = {"Authorization": "Bearer sk-right"}
        async with (
            aiohttp.ClientSession() as http,
            http.post(service.calls_url, data={"sdp": "v=0\r\n"}, headers=headers) as reply,
        ):
            # A form of a browser's kind without a boundary is no offer; a fault that is set
            # comes after the reading of the request.
            assert reply.status == 400
        with pytest.raises(ValidationError):
            service.change(answer_status=200)
        assert service.settings.answer_status == 429


async def test_a_wrong_setting_starts_nothing() -> None:
    with pytest.raises(ValidationError):
        async with simulator(made_up=True):
            raise AssertionError("it started")


def test_speech_has_words_packets_and_samples(speech: Speech) -> None:
    assert speech.text
    assert len(speech.samples) == pytest.approx(48 * speech.duration_ms, abs=960)
    assert int(np.abs(speech.samples).max()) > 1000
    assert silence_packet()
    with pytest.raises(KeyError):
        lines("nobody")


async def test_a_microphone_is_silent_says_its_speech_and_can_be_hushed(speech: Speech) -> None:
    microphone = Microphone()
    first = (await microphone.recv()).to_ndarray()
    assert not first.any() and first.size == 960
    microphone.say(speech)
    loud = 0
    for _ in range(40):
        spoken = (await microphone.recv()).to_ndarray()
        loud = max(loud, int(np.abs(spoken).max()))
    assert loud > 1000
    microphone.hush()
    await asyncio.wait_for(microphone.said(), 1)
    assert not (await microphone.recv()).to_ndarray().any()
    microphone.stop()
    with pytest.raises(MediaStreamError):
        await microphone.recv()


def test_these_tests_use_nothing_of_ours_but_the_kit() -> None:
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    ours = {
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("interview_peer")
    }
    assert ours == {"interview_peer.testing"}
