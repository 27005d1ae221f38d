"""The simulator over HTTP: what it takes, what it refuses and how it says so."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from interview_peer.simulator.server import SimulatorSettings, start_simulator
from interview_peer.types import Json
from tests.support.waiting import eventually

from .caller import HEADERS, Caller

SESSION = '{"type":"realtime","model":"gpt-realtime-2.1"}'
FAKE_OFFER = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"


class Client:
    """Posts to one simulator."""

    def __init__(self, base_url: str, http: aiohttp.ClientSession) -> None:
        self.base_url = base_url
        self.calls_url = f"{base_url}/realtime/calls"
        self.secrets_url = f"{base_url}/realtime/client_secrets"
        self.http = http
        self.calls: Callable[[], int]

    async def open_calls(self) -> int:
        return self.calls()

    async def post(self, url: str, **request: Any) -> tuple[aiohttp.ClientResponse, str]:
        request.setdefault("headers", HEADERS)
        async with self.http.post(url, **request) as response:
            return response, await response.text()

    async def error(self, status: int, url: str, **request: Any) -> Json:
        """Post and return the error inside the body, which must have the service's shape."""
        response, text = await self.post(url, **request)
        assert response.status == status, text
        error: Json = json.loads(text)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error


@asynccontextmanager
async def simulator(**settings: Any) -> AsyncIterator[Client]:
    running = await start_simulator(SimulatorSettings(**settings))
    try:
        async with aiohttp.ClientSession() as http:
            client = Client(running.base_url, http)
            client.calls = lambda: running.calls
            yield client
    finally:
        await running.close()


@pytest.fixture
async def offer() -> AsyncIterator[str]:
    async with Caller("") as caller:
        yield await caller.leg.offer()


def form(sdp: str | io.BytesIO | None, session: str | None = SESSION, *, typed: bool = True) -> Any:
    data = aiohttp.FormData()
    if sdp is not None:
        data.add_field("sdp", sdp, content_type="application/sdp" if typed else None)
    if session is not None:
        data.add_field("session", session, content_type="application/json" if typed else None)
    # A form of untyped fields alone would not be sent as multipart.
    return data if typed else multipart(str(sdp), session)


def multipart(sdp: str, session: str | None) -> aiohttp.MultipartWriter:
    writer = aiohttp.MultipartWriter("form-data")
    for name, text in (("sdp", sdp), ("session", session)):
        if text is not None:
            part = writer.append(text.encode())
            part.headers.popall("Content-Type", None)
            part.set_content_disposition("form-data", name=name)
    return writer


async def bare_headers(client: Client, **session: Any) -> dict[str, str]:
    """Those of a request that is nothing but an offer: it needs an ephemeral key."""
    body = {"session": {"type": "realtime", "model": "gpt-realtime-2.1"} | session}
    _, text = await client.post(client.secrets_url, json=body)
    key = json.loads(text)["value"]
    return {"Authorization": f"Bearer {key}", "Content-Type": "application/sdp"}


@pytest.mark.parametrize("kind", ["typed parts", "plain parts", "no session", "bare"])
async def test_an_offer_is_answered_in_every_form(offer: str, kind: str) -> None:
    headers = dict(HEADERS)
    data: Any = form(offer)
    if kind == "plain parts":
        data = form(offer, typed=False)
    elif kind == "no session":
        data = form(offer, None)
    async with simulator(connect_seconds=30.0) as client:
        if kind == "bare":
            data = offer.encode()
            headers = await bare_headers(client)
        response, answer = await client.post(client.calls_url, data=data, headers=headers)
        assert response.status == 201, answer
        assert response.headers["Content-Type"] == "application/sdp"
        assert response.headers["Location"].startswith("/v1/realtime/calls/rtc_")
        assert answer.startswith("v=0\r\n")
        assert answer.endswith("\r\n")
        assert answer.count("\n") == answer.count("\r\n")
        assert answer.count("a=setup:active") == answer.count("m=") == 2
        assert client.calls() == 1


async def test_a_call_is_hung_up_once(offer: str) -> None:
    async with simulator() as client:
        response, _ = await client.post(client.calls_url, data=form(offer))
        url = client.base_url.removesuffix("/v1") + response.headers["Location"] + "/hangup"
        first, _ = await client.post(url)
        assert first.status == 200
        error = await client.error(404, url)
        assert error["code"] == "call_id_not_found"


async def test_an_unknown_call_cannot_be_hung_up() -> None:
    async with simulator() as client:
        await client.error(404, f"{client.calls_url}/rtc_none/hangup")


@pytest.mark.parametrize(
    "path",
    [
        "/realtime",
        "/realtime/sessions",
        "/realtime/transcription_sessions",
        "/realtime?model=gpt-realtime-2.1",
    ],
)
async def test_beta_paths_are_refused(path: str) -> None:
    async with simulator() as client:
        error = await client.error(400, client.base_url + path, data=b"v=0\r\n")
        assert error["code"] == "beta_api_shape_disabled"


async def test_the_beta_header_is_refused(offer: str) -> None:
    async with simulator() as client:
        headers = HEADERS | {"OpenAI-Beta": "realtime=v1"}
        error = await client.error(400, client.calls_url, data=form(offer), headers=headers)
        assert error["code"] == "beta_api_shape_disabled"


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer "}, {"Authorization": "Basic right"}],
    ids=["none", "empty", "basic"],
)
async def test_a_bearer_is_required(headers: dict[str, str]) -> None:
    async with simulator() as client:
        response, text = await client.post(client.calls_url, data=form("x"), headers=headers)
        assert response.status == 401
        assert response.content_type == "text/plain"
        assert json.loads(text)["error"]["code"] == "invalid_api_key"


async def test_only_the_set_key_is_taken_and_no_body_holds_it() -> None:
    async with simulator(api_key="sk-right") as client:
        wrong = {"Authorization": "Bearer sk-wrong"}
        error = await client.error(401, client.calls_url, data=form("x"), headers=wrong)
        assert "sk-" not in json.dumps(error)
        right = {"Authorization": "Bearer sk-right"}
        error = await client.error(400, client.calls_url, data=form("x"), headers=right)
        assert error["code"] == "invalid_offer"


async def test_keys_are_echoed_when_told_to() -> None:
    async with simulator(api_key="sk-right", echo_key=True) as client:
        for key in ("sk-wrong", "sk-right"):
            headers = {"Authorization": f"Bearer {key}"}
            _, text = await client.post(client.calls_url, data=form("x"), headers=headers)
            assert key in text
            assert "sk-right" in text


@pytest.mark.parametrize(
    "sdp",
    [
        "hello\r\n",
        "",
        "v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n",
        FAKE_OFFER,
        FAKE_OFFER.rstrip(),
    ],
    ids=["not SDP", "empty", "no audio", "nothing else", "no final newline"],
)
async def test_what_cannot_be_answered_is_an_invalid_offer(sdp: str) -> None:
    async with simulator() as client:
        error = await client.error(400, client.calls_url, data=form(sdp))
        assert (error["code"], error["param"]) == ("invalid_offer", None)
        assert "WHIP" in error["message"]


async def test_an_offer_in_no_known_encoding_is_invalid() -> None:
    async with simulator() as client:
        headers = await bare_headers(client)
        error = await client.error(400, client.calls_url, data=b"\xff\xfe", headers=headers)
        assert error["code"] == "invalid_offer"


@pytest.mark.parametrize(
    ("session", "status", "code", "param"),
    [
        ("not json", 400, "invalid_type", "session"),
        ("null", 400, "invalid_type", "session"),
        ("[]", 400, "invalid_type", "session"),
        ('{"model":"gpt-realtime-2.1"}', 400, "missing_required_parameter", "session.type"),
        ('{"type":"realtime","voice":"alloy"}', 400, "unknown_parameter", "session.voice"),
        ('{"type":"realtime","model":"gpt-9"}', 404, "model_not_found", None),
    ],
)
async def test_a_bad_session_part_is_named(
    offer: str, session: str, status: int, code: str, param: str | None
) -> None:
    async with simulator() as client:
        error = await client.error(status, client.calls_url, data=form(offer, session))
        assert (error["code"], error["param"]) == (code, param)


async def test_a_form_without_an_offer_or_with_more_is_refused(offer: str) -> None:
    async with simulator() as client:
        error = await client.error(400, client.calls_url, data=form(None))
        assert error["param"] == "sdp"
        data = form(offer)
        data.add_field("model", "x", content_type="text/plain")
        error = await client.error(400, client.calls_url, data=data)
        assert (error["code"], error["param"]) == ("unknown_parameter", "model")


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "multipart/form-data"])
async def test_another_or_a_broken_body_is_refused(kind: str) -> None:
    async with simulator() as client:
        headers = HEADERS | {"Content-Type": kind}
        error = await client.error(400, client.calls_url, data=b"{}", headers=headers)
        assert error["code"] == "invalid_value"


async def test_an_oversized_body_is_refused() -> None:
    async with simulator() as client:
        await client.error(413, client.calls_url, data=form(io.BytesIO(bytes(2_000_000))))


@pytest.mark.parametrize(
    ("status", "code", "told", "kind"),
    [
        (401, None, "invalid_api_key", "invalid_request_error"),
        (404, None, "model_not_found", "invalid_request_error"),
        (429, None, "insufficient_quota", "insufficient_quota"),
        (429, "rate_limit_exceeded", "rate_limit_exceeded", "invalid_request_error"),
        (500, None, "server_error", "server_error"),
        (503, None, "server_error", "server_error"),
    ],
)
async def test_it_can_be_told_to_refuse(
    offer: str, status: int, code: str | None, told: str, kind: str
) -> None:
    async with simulator(answer_status=status, answer_code=code) as client:
        error = await client.error(status, client.calls_url, data=form(offer))
        assert (error["code"], error["type"]) == (told, kind)
        assert client.calls() == 0


async def test_it_can_be_told_to_answer_garbage(offer: str) -> None:
    async with simulator(answer_garbage=True) as client:
        response, answer = await client.post(client.calls_url, data=form(offer))
        assert response.status == 201
        assert "v=0" not in answer


async def test_it_can_be_told_to_answer_late(offer: str) -> None:
    async with simulator(answer_delay=0.3) as client:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        response, _ = await client.post(client.calls_url, data=form(offer))
        assert response.status == 201
        assert loop.time() - begin >= 0.3


async def test_it_can_be_told_to_hang_and_still_be_closed(offer: str) -> None:
    async with simulator(hang=True) as client:
        with pytest.raises(TimeoutError):
            await client.post(
                client.calls_url, data=form(offer), timeout=aiohttp.ClientTimeout(total=0.2)
            )
        loop = asyncio.get_running_loop()
        begin = loop.time()
    assert loop.time() - begin < 3.0


async def test_calls_over_the_limit_are_refused(offer: str) -> None:
    async with simulator(max_calls=1) as client, Caller("") as other:
        response, _ = await client.post(client.calls_url, data=form(offer))
        assert response.status == 201
        second = await other.leg.offer()
        error = await client.error(429, client.calls_url, data=form(second))
        assert error["code"] == "rate_limit_exceeded"


async def test_a_call_nobody_connects_to_ends_by_itself(offer: str) -> None:
    async with simulator(connect_seconds=0.1) as client:
        response, _ = await client.post(client.calls_url, data=form(offer))
        assert response.status == 201
        await eventually(client.open_calls, within=5.0, what="no call", good=lambda n: n == 0)
