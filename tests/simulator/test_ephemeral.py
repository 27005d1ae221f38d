"""Ephemeral keys and models: what a client asks for before it calls."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from interview_peer.simulator.server import SimulatorSettings, start_simulator
from interview_peer.types import Json
from tests.support.official import model_problems, secret_problems

from .caller import HEADERS, Caller
from .test_server import Client, form, simulator

SESSION: Json = {"type": "realtime", "model": "gpt-realtime-2.1", "instructions": "Be brief."}


@pytest.fixture
async def offer() -> AsyncIterator[str]:
    async with Caller("") as caller:
        yield await caller.leg.offer()


async def mint(client: Client, body: Any = None) -> Json:
    request: Json = {} if body is None else {"json": body}
    response, text = await client.post(client.secrets_url, **request)
    assert response.status == 200, text
    made: Json = json.loads(text)
    return made


def with_key(made: Json) -> dict[str, str]:
    return {"Authorization": f"Bearer {made['value']}", "Content-Type": "application/sdp"}


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        {"session": SESSION},
        {"expires_after": {"anchor": "created_at", "seconds": 10}, "session": SESSION},
        {"session": SESSION | {"model": "gpt-realtime-1.5", "tools": []}},
    ],
    ids=str,
)
async def test_a_key_comes_with_its_session_in_the_official_form(body: Json | None) -> None:
    async with simulator() as client:
        made = await mint(client, body)
    assert secret_problems(made) == []
    assert made["value"].startswith("ek_")
    assert made["session"]["expires_at"] == 0
    assert made["session"]["id"].startswith("sess_")


async def test_a_key_is_good_for_as_long_as_it_was_asked_for(offer: str) -> None:
    now = 1_800_000_000.0
    running = await start_simulator(SimulatorSettings(), clock=lambda: now)
    try:
        async with aiohttp.ClientSession() as http:
            client = Client(running.base_url, http)
            made = await mint(client, {"expires_after": {"seconds": 30}})
            assert made["expires_at"] == 1_800_000_030
            assert (await mint(client))["expires_at"] == 1_800_000_600
            now += 29
            response, text = await client.post(
                client.calls_url, data=offer.encode(), headers=with_key(made)
            )
            assert response.status == 201, text
            now += 1
            error = await client.error(
                401, client.calls_url, data=offer.encode(), headers=with_key(made)
            )
            assert error["code"] == "invalid_api_key"
    finally:
        await running.close()


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ([], 400, "invalid_type", None),
        ({"ttl": 5}, 400, "unknown_parameter", "ttl"),
        ({"expires_after": {"seconds": 9}}, 400, "invalid_value", "expires_after.seconds"),
        ({"expires_after": {"seconds": 7201}}, 400, "invalid_value", "expires_after.seconds"),
        ({"expires_after": {"seconds": "60"}}, 400, "invalid_type", "expires_after.seconds"),
        ({"expires_after": {"anchor": "now"}}, 400, "invalid_value", "expires_after.anchor"),
        ({"session": {}}, 400, "missing_required_parameter", "session.type"),
        ({"session": SESSION | {"voice": "ash"}}, 400, "unknown_parameter", "session.voice"),
        ({"session": SESSION | {"model": "x"}}, 404, "model_not_found", None),
    ],
    ids=str,
)
async def test_a_wrong_wish_is_named(body: Any, status: int, code: str, param: str | None) -> None:
    async with simulator() as client:
        error = await client.error(status, client.secrets_url, json=body)
    assert (error["code"], error["param"]) == (code, param)


async def test_a_key_begins_calls_with_its_session_and_does_nothing_else(offer: str) -> None:
    async with simulator() as client:
        made = await mint(client, {"session": SESSION})
        bare = {"data": offer.encode(), "headers": with_key(made)}
        response, answer = await client.post(client.calls_url, **bare)
        assert response.status == 201, answer
        key = {"Authorization": f"Bearer {made['value']}"}
        error = await client.error(401, client.secrets_url, json={}, headers=key)
        assert error["code"] == "invalid_api_key"
        hangup = client.base_url.removesuffix("/v1") + response.headers["Location"] + "/hangup"
        await client.error(401, hangup, headers=key)
        error = await client.error(400, client.calls_url, data=form(offer), headers=key)
        assert (error["code"], error["param"]) == ("unknown_parameter", "session")


async def test_a_model_that_transcribes_holds_no_session() -> None:
    async with simulator() as client:
        session = SESSION | {"model": "gpt-transcribe"}
        error = await client.error(404, client.secrets_url, json={"session": session})
        assert error["code"] == "model_not_found"


async def test_a_key_nobody_made_is_refused(offer: str) -> None:
    async with simulator() as client:
        headers = {"Authorization": "Bearer ek_made_up", "Content-Type": "application/sdp"}
        error = await client.error(401, client.calls_url, data=offer.encode(), headers=headers)
        assert error["code"] == "invalid_api_key"


async def test_a_bare_offer_with_a_standard_key_has_no_session(offer: str) -> None:
    async with simulator() as client:
        headers = HEADERS | {"Content-Type": "application/sdp"}
        error = await client.error(400, client.calls_url, data=offer.encode(), headers=headers)
        assert (error["code"], error["param"]) == ("missing_required_parameter", "session")


@pytest.mark.parametrize(("single_use", "second"), [(True, 401), (False, 201)])
async def test_a_key_can_be_good_for_one_call_only(
    offer: str, single_use: bool, second: int
) -> None:
    async with simulator(single_use_secrets=single_use) as client:
        made = await mint(client)
        # A refused offer uses no key up.
        await client.error(400, client.calls_url, data=b"x", headers=with_key(made))
        for status in (201, second):
            response, text = await client.post(
                client.calls_url, data=offer.encode(), headers=with_key(made)
            )
            assert response.status == status, text


async def test_models_are_told_with_the_day_they_are_shut_down() -> None:
    async with simulator() as client:
        for model, day in (
            ("gpt-realtime-2.1", None),
            ("gpt-realtime", "2027-01-20"),
            ("gpt-transcribe", None),
            ("whisper-1", "2027-02-26"),
        ):
            url = f"{client.base_url}/models/{model}"
            async with client.http.get(url, headers=HEADERS) as response:
                told = await response.json()
            assert (told["id"], told["shutdown_date"]) == (model, day)
            assert model_problems(told) == []
        async with client.http.get(f"{client.base_url}/models", headers=HEADERS) as response:
            assert len((await response.json())["data"]) > 4
        url = f"{client.base_url}/models/gpt-9"
        async with client.http.get(url, headers=HEADERS) as response:
            assert response.status == 404
            assert json.loads(await response.text())["error"]["code"] == "model_not_found"
        async with client.http.get(url) as response:
            assert response.status == 401
