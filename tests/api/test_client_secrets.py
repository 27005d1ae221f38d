"""Keys for candidates' SDKs, asked for with OpenAI's own Python client."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import openai
import pytest
from openai.types.realtime import realtime_audio_config_input, realtime_audio_config_output
from openai.types.realtime.audio_transcription import AudioTranscription
from openai.types.realtime.client_secret_create_response import ClientSecretCreateResponse
from openai.types.realtime.realtime_audio_config import RealtimeAudioConfig
from openai.types.realtime.realtime_session_create_request import RealtimeSessionCreateRequest
from openai.types.realtime.realtime_session_create_response import RealtimeSessionCreateResponse
from pydantic import BaseModel

from interview_peer.app import Server
from interview_peer.types import Json
from interview_peer.web.client_secrets import KNOWN, PATH
from tests.support import official
from tests.support.caller import Caller, calling
from tests.support.inprocess import serving
from tests.support.operator import KEY, Operator

SECRET = "a-join-secret-of-more-than-32-characters"
INSTRUCTIONS = "Ask about bridges, and about nothing else."


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(
        tmp_path, admin_key=KEY, join_secret=SECRET, require_consent="false"
    ) as server:
        yield server


@pytest.fixture
async def back_end(one: Server) -> AsyncIterator[openai.AsyncOpenAI]:
    """A back end written for OpenAI, with our address and our key."""
    async with openai.AsyncOpenAI(api_key=KEY, base_url=one.url + "/v1") as client:
        yield client


@pytest.fixture
async def operator(one: Server) -> AsyncIterator[Operator]:
    async with calling(one.url) as caller:
        yield Operator(caller)


@pytest.fixture
async def candidate(one: Server) -> AsyncIterator[Caller]:
    async with calling(one.url) as caller:
        yield caller


def interview_of(secret: ClientSecretCreateResponse) -> Json:
    assert secret.session.id is not None
    return {"id": secret.session.id.removeprefix("sess_")}


async def call(candidate: Caller, key: str) -> tuple[openai.AsyncOpenAI, str]:
    """Begin a call with OpenAI's client; it, and the call's id."""
    client = openai.AsyncOpenAI(api_key=key, base_url=candidate.url + "/v1", max_retries=0)
    reply = await client.realtime.calls.with_raw_response.create(sdp=await candidate.offer())
    answer = reply.http_response.text
    assert reply.http_response.status_code == 201
    await candidate.accept(answer)
    await candidate.ready()
    return client, reply.headers["location"].rpartition("/")[2]


async def test_a_back_end_gets_a_key_that_lets_one_candidate_into_its_interview(
    back_end: openai.AsyncOpenAI, operator: Operator, candidate: Caller
) -> None:
    secret = await back_end.realtime.client_secrets.create(
        expires_after={"anchor": "created_at", "seconds": 120},
        session={
            "type": "realtime",
            "model": "gpt-realtime-mini",
            "instructions": INSTRUCTIONS,
            "audio": {
                "input": {"transcription": {"language": "en"}},
                "output": {"voice": "verse"},
            },
        },
    )
    assert secret.value.startswith("ek_")
    assert 110 <= secret.expires_at - time.time() <= 121
    kept = await operator.show(interview_of(secret))
    assert kept["phase"] == "created" and kept["persona"] is None
    assert kept["plan"] == {
        "instructions": INSTRUCTIONS,
        "voice": "verse",
        "model": "gpt-realtime-mini",
        "language": "en",
        "tools": ["end_interview"],
    }

    client, call_id = await call(candidate, secret.value)
    assert call_id == f"rtc_{kept['id']}"
    session = (await candidate.event("session.created"))["session"]
    assert session["audio"]["output"]["voice"] == "verse"
    assert session["model"] == "gpt-realtime-mini"
    assert (await operator.show(kept))["phase"] == "live"
    # It was good for one start, and ends its own call.
    with pytest.raises(openai.AuthenticationError) as used:
        await client.realtime.calls.create(sdp=await candidate.offer())
    assert used.value.code == "invalid_api_key"
    await client.realtime.calls.hangup(call_id)
    with pytest.raises(openai.NotFoundError) as gone:
        await client.realtime.calls.hangup(call_id)
    assert gone.value.code == "call_id_not_found"
    await client.close()


async def test_the_answer_has_openais_shape_and_neither_instructions_nor_a_key_of_the_service(
    back_end: openai.AsyncOpenAI, one: Server
) -> None:
    reply = await back_end.realtime.client_secrets.with_raw_response.create(
        session={"type": "realtime", "instructions": INSTRUCTIONS}
    )
    text = reply.http_response.text
    body = reply.http_response.json()
    assert set(body) == {"value", "expires_at", "session"}
    assert official.secret_problems(body) == []
    assert 590 <= body["expires_at"] - time.time() <= 601
    session = body["session"]
    assert (session["type"], session["object"]) == ("realtime", "realtime.session")
    assert session["model"].startswith("gpt-realtime") and session["tools"] == []
    # Back ends hand the whole answer on to browsers.
    assert "bridges" not in text and "sk-" not in text and KEY not in text


async def test_without_instructions_a_persona_interviews_with_the_sessions_voice(
    back_end: openai.AsyncOpenAI, operator: Operator
) -> None:
    secret = await back_end.realtime.client_secrets.create(
        session={"type": "realtime", "audio": {"output": {"voice": "sage"}}},
        extra_body={
            "interview": {
                "persona": "engineer",
                "candidate_reference": "application-17",
                "metadata": {"a": 1},
                "limits": {"max_seconds": 60},
            }
        },
    )
    kept = await operator.show(interview_of(secret))
    assert (kept["persona"], kept["candidate_reference"]) == ("engineer", "application-17")
    assert kept["metadata"] == {"a": 1}
    assert kept["limits"]["max_seconds"] == 60
    told = secret.session
    assert isinstance(told, RealtimeSessionCreateResponse)
    assert told.audio is not None and told.audio.output is not None
    assert told.audio.output.voice == "sage"


@pytest.mark.parametrize("instructions", [{}, {"instructions": "Ask about bridges."}])
async def test_a_voice_made_for_the_operator_is_spoken_with(
    operator: Operator, candidate: Caller, instructions: Json
) -> None:
    voice = {"id": "voice_1234"}
    session = {**REALTIME, **instructions, "audio": {"output": {"voice": voice}}}
    reply = await operator.ask("POST", PATH, json={"session": session})
    assert reply.status == 200, reply
    secret = reply.json()
    assert secret["session"]["audio"]["output"]["voice"] == voice
    client, _ = await call(candidate, secret["value"])
    await client.close()
    told = (await candidate.event("session.created"))["session"]
    assert told["audio"]["output"]["voice"] == voice


async def test_nothing_needs_to_be_said(operator: Operator) -> None:
    for body in ({}, {"session": None, "expires_after": None}, {"session": {"type": "realtime"}}):
        reply = await operator.ask("POST", PATH, json=body)
        assert reply.status == 200, reply
        name = reply.json()["session"]["id"].removeprefix("sess_")
        assert (await operator.show({"id": name}))["persona"] == "default"


async def test_what_the_server_decides_is_taken_and_changes_nothing(operator: Operator) -> None:
    session = {
        "type": "realtime",
        "tools": [{"type": "function", "name": "f"}],
        "tool_choice": "none",
        "output_modalities": ["text"],
        "max_output_tokens": 5,
        "tracing": "auto",
        "audio": {
            "input": {"turn_detection": None, "transcription": {"model": "whisper-1"}},
            "output": {"speed": 1.5},
        },
    }
    told = (await operator.ask("POST", PATH, json={"session": session})).json()["session"]
    plain = (await operator.ask("POST", PATH, json={})).json()["session"]
    assert {**told, "id": ""} == {**plain, "id": ""}


def fields_of(model: type[BaseModel]) -> set[str]:
    return set(model.model_fields)


def test_the_known_fields_are_those_of_the_official_types() -> None:
    """A field that OpenAI adds is one that existing back ends will send."""
    assert {place: set(names) for place, names in KNOWN.items()} == {
        "session": fields_of(RealtimeSessionCreateRequest),
        "session.audio": fields_of(RealtimeAudioConfig),
        "session.audio.input": fields_of(realtime_audio_config_input.RealtimeAudioConfigInput),
        "session.audio.input.transcription": fields_of(AudioTranscription),
        "session.audio.output": fields_of(realtime_audio_config_output.RealtimeAudioConfigOutput),
    }


REALTIME: Json = {"type": "realtime"}
NO_VOICES: list[Any] = ["nobody", 5, [], {}, {"id": 5}, {"id": "a b"}, {"id": "v" * 65}]


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"sesion": {}}, "sesion", "unknown_parameter"),
        ({"expires_after": 600}, "expires_after", "invalid_value"),
        ({"expires_after": {"anchor": "now"}}, "expires_after.anchor", "invalid_value"),
        ({"expires_after": {"second": 1}}, "expires_after.second", "unknown_parameter"),
        *(
            ({"expires_after": {"seconds": seconds}}, "expires_after.seconds", "invalid_value")
            for seconds in (9, 7201, 60.5, "60", True, None)
        ),
        ({"session": []}, "session", "invalid_value"),
        ({"session": {"model": "gpt-realtime"}}, "session.type", "missing_required_parameter"),
        ({"session": {"type": "transcription"}}, "session.type", "invalid_value"),
        ({"session": {**REALTIME, "voice": "alloy"}}, "session.voice", "unknown_parameter"),
        ({"session": {**REALTIME, "model": "gpt-4o"}}, "session.model", "invalid_value"),
        ({"session": {**REALTIME, "model": 5}}, "session.model", "invalid_value"),
        ({"session": {**REALTIME, "instructions": ""}}, "session.instructions", "invalid_value"),
        (
            {"session": {**REALTIME, "instructions": "x" * 32_001}},
            "session.instructions",
            "invalid_value",
        ),
        ({"session": {**REALTIME, "audio": "loud"}}, "session.audio", "invalid_value"),
        (
            {"session": {**REALTIME, "audio": {"output": {"voices": 1}}}},
            "session.audio.output.voices",
            "unknown_parameter",
        ),
        *(
            (
                {"session": {**REALTIME, "audio": {"output": {"voice": voice}}}},
                "session.audio.output.voice",
                "invalid_value",
            )
            for voice in NO_VOICES
        ),
        (
            {"session": {**REALTIME, "audio": {"output": {"voice": {"id": "v", "x": 1}}}}},
            "session.audio.output.voice",
            "invalid_value",
        ),
        ({"<b>\r\n&": 1}, "?b????", "unknown_parameter"),
        ({"session": {**REALTIME, '"\n<i>': 1}}, "session.???i?", "unknown_parameter"),
        ({"interview": {"<i>\x1b\u2028": 1}}, "interview.?i???", "invalid_value"),
        (
            {"session": {**REALTIME, "audio": {"input": {"transcription": {"language": "?"}}}}},
            "session.audio.input.transcription.language",
            "invalid_value",
        ),
        ({"interview": 5}, "interview", "invalid_value"),
        ({"interview": {"plan": {}}}, "interview.plan", "invalid_value"),
        ({"interview": {"persona": "nobody"}}, "interview.persona", "invalid_value"),
        ({"interview": {"person": "x"}}, "interview.person", "invalid_value"),
        ({"interview": {"limits": 5}}, "interview.limits", "invalid_value"),
        (
            {"interview": {"limits": {"expires_in_seconds": 60}}},
            "interview.limits.expires_in_seconds",
            "invalid_value",
        ),
        (
            {"interview": {"limits": {"max_seconds": 1}}},
            "interview.limits.max_seconds",
            "invalid_value",
        ),
        (
            {"interview": {"callback": {"url": "http://169.254.169.254/"}}},
            "interview.callback.url",
            "invalid_value",
        ),
        (
            {
                "session": {**REALTIME, "instructions": "x"},
                "interview": {"persona": "engineer"},
            },
            "interview.persona",
            "invalid_value",
        ),
    ],
)
async def test_what_is_wrong_is_named_as_the_caller_wrote_it(
    operator: Operator, body: Json, param: str, code: str
) -> None:
    reply = await operator.ask("POST", PATH, json=body)
    error = reply.json()["error"]
    assert (reply.status, error["param"], error["code"]) == (400, param, code), reply
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith(f"{param}: ") and error["message"].endswith(".")
    assert await operator.ids() == []


async def test_a_repeated_request_gets_the_same_key(operator: Operator) -> None:
    async def ask(**body: Any) -> Any:
        return await operator.ask("POST", PATH, json=body, headers={"Idempotency-Key": "once"})

    first, again = await ask(), await ask()
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    other = await ask(session={"type": "realtime", "audio": {"output": {"voice": "ash"}}})
    assert (other.status, other.json()["error"]["code"]) == (409, "idempotency_conflict")
    assert len(await operator.ids()) == 1


async def test_only_operators_are_given_keys(one: Server, back_end: openai.AsyncOpenAI) -> None:
    secret = await back_end.realtime.client_secrets.create()
    for key in ("wrong", "ipk_wrong", secret.value, "sk-proj-1"):
        async with openai.AsyncOpenAI(api_key=key, base_url=one.url + "/v1") as stranger:
            with pytest.raises(openai.AuthenticationError) as refused:
                await stranger.realtime.client_secrets.create()
        assert refused.value.code == "invalid_api_key"


async def test_a_server_that_signs_no_tokens_makes_no_interview_either(tmp_path: Path) -> None:
    settings: Json = {"simulation": False, "openai_api_key": "sk-1", "admin_key": KEY}
    settings |= {"openai_base_url": "http://127.0.0.1:9/v1", "jwks_url": "http://127.0.0.1:9/"}
    async with serving(tmp_path, **settings) as server, calling(server.url) as caller:
        operator = Operator(caller)
        reply = await operator.ask("POST", PATH, json={})
        assert (reply.status, reply.json()["error"]["code"]) == (409, "tokens_elsewhere")
        assert await operator.ids() == []


async def test_a_candidate_of_an_sdk_is_asked_for_consent_unless_the_back_end_has_it(
    tmp_path: Path,
) -> None:
    async with (
        serving(tmp_path, admin_key=KEY, join_secret=SECRET) as server,
        openai.AsyncOpenAI(api_key=KEY, base_url=server.url + "/v1") as asks,
        calling(server.url) as page,
    ):
        secret = await asks.realtime.client_secrets.create()
        async with openai.AsyncOpenAI(api_key=secret.value, base_url=server.url + "/v1") as early:
            with pytest.raises(openai.PermissionDeniedError) as refused:
                await early.realtime.calls.create(sdp=await page.offer())
        assert refused.value.code == "consent_required"
        path = f"/api/consent/{interview_of(secret)['id']}"
        headers = {"Authorization": f"Bearer {secret.value}"}
        version = (await page.get(path, headers=headers)).json()["version"]
        await page.post(path, json={"agreed": True, "version": version}, headers=headers)
        await (await call(page, secret.value))[0].close()
        given = {"interview": {"consent": "given"}}
        secret = await asks.realtime.client_secrets.create(extra_body=given)
        await (await call(page, secret.value))[0].close()


async def test_a_trusted_interview_has_a_trusted_key(back_end: openai.AsyncOpenAI) -> None:
    for body, trusted in (({}, None), ({"interview": {"trusted": True}}, True)):
        secret = await back_end.realtime.client_secrets.create(extra_body=body)
        token = secret.value.removeprefix("ek_")
        claims = jwt.decode(token, SECRET, algorithms=["HS256"], audience="interview-peer")
        assert claims.get("trusted") is trusted
        assert claims["exp"] == secret.expires_at
