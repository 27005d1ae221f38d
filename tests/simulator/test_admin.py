"""The admin path: settings and calls over HTTP, and who may come there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from interview_peer.simulator.server import RunningSimulator, SimulatorSettings, start_simulator
from interview_peer.types import Json
from tests.support.waiting import eventually

from .caller import Caller

SESSION: Json = {"type": "realtime", "model": "gpt-realtime-2.1"}


class Operator:
    """Asks one simulator's admin path."""

    def __init__(self, simulator: RunningSimulator, http: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self.url = simulator.base_url.removesuffix("/v1") + "/_simulator"
        self.http = http

    async def ask(self, method: str, path: str, **request: Any) -> tuple[int, Json]:
        async with self.http.request(method, self.url + path, **request) as response:
            return response.status, json.loads(await response.text())

    async def error(self, status: int, method: str, path: str, **request: Any) -> Json:
        found, body = await self.ask(method, path, **request)
        assert found == status, body
        error: Json = body["error"]
        return error


@pytest.fixture
async def operator() -> AsyncIterator[Operator]:
    simulator = await start_simulator(SimulatorSettings(seed=7))
    try:
        async with aiohttp.ClientSession() as http:
            yield Operator(simulator, http)
    finally:
        await simulator.close()


async def test_settings_are_told_without_what_is_fixed(operator: Operator) -> None:
    status, body = await operator.ask("GET", "/settings")
    assert status == 200
    assert (body["seed"], body["greet"]) == (7, True)
    assert "api_key" not in body
    _, schema = await operator.ask("GET", "/schema")
    assert set(schema) == set(body)
    assert schema["seed"]["default"] == 1
    assert all(one["description"] and one["group"] for one in schema.values())


async def test_a_patch_changes_what_it_names_and_a_put_everything(operator: Operator) -> None:
    status, body = await operator.ask("PATCH", "/settings", json={"greet": False})
    assert (status, body["greet"], body["seed"]) == (200, False, 7)
    assert operator.simulator.settings.greet is False
    status, body = await operator.ask("PUT", "/settings", json={"answer_delay": 2})
    assert (status, body["greet"], body["seed"], body["answer_delay"]) == (200, True, 1, 2.0)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"answer_status": 99}, "invalid_value", "answer_status"),
        ({"greet": "no"}, "invalid_value", "greet"),
        ({"made_up": 1}, "unknown_parameter", "made_up"),
        ({"api_key": "sk-new"}, "invalid_parameter", "api_key"),
        ({"udp_host": "0.0.0.0"}, "invalid_parameter", "udp_host"),
        ({"reply_failure_share": 1, "reply_incomplete_share": 1}, "invalid_value", None),
        ([1], "invalid_type", None),
        (None, "invalid_type", None),
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_wrong_settings_are_named_and_nothing_changes(
    operator: Operator, method: str, body: Any, code: str, param: str | None
) -> None:
    before = operator.simulator.settings
    error = await operator.error(400, method, "/settings", json=body)
    assert (error["code"], error["param"]) == (code, param)
    assert operator.simulator.settings is before


async def test_a_body_that_is_no_json_is_refused(operator: Operator) -> None:
    error = await operator.error(400, "PUT", "/settings", data=b"{")
    assert error["code"] == "invalid_json"


async def test_calls_are_listed_with_how_they_are_and_how_they_ended(operator: Operator) -> None:
    async with Caller(operator.simulator.base_url) as caller:
        await caller.call(SESSION)
        _, body = await operator.ask("GET", "/calls")
        (call,) = body["calls"]
        assert caller.location.endswith(call["id"])
        assert (call["phase"], call["lines_said"]) == ("open", 0)
        assert call["events"]["sent"] >= 1
        await operator.ask("POST", f"/calls/{call['id']}/hangup")
        _, body = await operator.ask("GET", "/calls")
    assert body["calls"] == []
    assert body["ended"] == [{"id": call["id"], "reason": "hung up by the admin path"}]


async def test_a_running_call_is_acted_upon_at_once(operator: Operator) -> None:
    async with Caller(operator.simulator.base_url) as caller:
        await caller.call(SESSION)
        (call_id,) = operator.simulator.running_calls
        act = f"/calls/{call_id}"
        status, _ = await operator.ask("POST", f"{act}/error", json={"code": "rate_limit_exceeded"})
        assert status == 200
        assert (await caller.event("error"))["error"]["code"] == "rate_limit_exceeded"
        event = '{"type":"made.up","event_id":"event_1"}'
        await operator.ask("POST", f"{act}/send", json={"message": event})
        await caller.event("made.up")
        await operator.ask("POST", f"{act}/send", json={"message": event, "binary": True})
        await operator.ask("POST", f"{act}/binary")
        await operator.ask("POST", f"{act}/malformed")
        await caller.until(lambda: len(caller.unreadable) == 7)
        assert caller.unreadable[0] == event.encode()
        await operator.ask("POST", f"{act}/expire", json={"silently": True})
        await caller.until(lambda: caller.lost is not None, within=3.0)
        assert caller.types().count("error") == 1


@pytest.mark.parametrize(
    ("action", "body", "status", "code"),
    [
        ("dance", None, 404, "unknown_action"),
        ("expire", {"silently": "yes"}, 400, "invalid_value"),
        ("expire", {"loudly": True}, 400, "unknown_parameter"),
        ("send", {}, 400, "missing_required_parameter"),
        ("send", [], 400, "invalid_type"),
    ],
)
async def test_a_wrong_action_is_named(
    operator: Operator, action: str, body: Any, status: int, code: str
) -> None:
    async with Caller(operator.simulator.base_url) as caller:
        await caller.call(SESSION)
        (call_id,) = operator.simulator.running_calls
        error = await operator.error(status, "POST", f"/calls/{call_id}/{action}", json=body)
        assert error["code"] == code
        assert caller.lost is None


async def test_an_unknown_call_cannot_be_acted_upon(operator: Operator) -> None:
    error = await operator.error(404, "POST", "/calls/rtc_none/drop")
    assert error["code"] == "call_id_not_found"


async def test_a_call_without_a_channel_can_be_sent_nothing(operator: Operator) -> None:
    async with Caller(operator.simulator.base_url) as caller:
        await caller.post(SESSION)
        (call_id,) = operator.simulator.running_calls
        error = await operator.error(409, "POST", f"/calls/{call_id}/malformed")
        assert error["code"] == "channel_not_open"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://localhost:3000"},
        {"X-Forwarded-For": "203.0.113.9"},
        {"Forwarded": "for=203.0.113.9"},
        {"Host": "attacker.example"},
    ],
    ids=str,
)
async def test_pages_proxies_and_other_names_are_kept_out(
    operator: Operator, headers: dict[str, str]
) -> None:
    error = await operator.error(403, "GET", "/settings", headers=headers)
    assert error["code"] == "not_allowed"


async def test_with_a_key_the_key_opens_it_and_nothing_else() -> None:
    simulator = await start_simulator(SimulatorSettings(api_key="sk-right"))
    try:
        async with aiohttp.ClientSession() as http:
            operator = Operator(simulator, http)
            for headers in ({}, {"Authorization": "Bearer sk-wrong"}):
                error = await operator.error(401, "GET", "/settings", headers=headers)
                assert error["code"] == "invalid_api_key"
            right = {"Authorization": "Bearer sk-right", "X-Forwarded-For": "203.0.113.9"}
            status, body = await operator.ask("GET", "/settings", headers=right)
            assert status == 200
            assert "sk-right" not in json.dumps(body)
    finally:
        await simulator.close()


async def test_it_can_be_left_out() -> None:
    simulator = await start_simulator(SimulatorSettings(), admin=False)
    try:
        async with aiohttp.ClientSession() as http:
            await Operator(simulator, http).error(404, "GET", "/settings")
    finally:
        await simulator.close()


async def test_a_dropped_call_is_told_and_ends_by_itself(operator: Operator) -> None:
    async with Caller(operator.simulator.base_url) as caller:
        await caller.call(SESSION)
        caller.unmute()
        await caller.event("response.created")
        (call_id,) = operator.simulator.running_calls
        _, body = await operator.ask("POST", f"/calls/{call_id}/drop")
        assert body["phase"] == "dropped"
        heard = len(caller.heard)
        await caller.until(lambda: caller.lost == "silent", within=8.0)
        # What was on its way may still arrive; a second of media may not.
        assert len(caller.heard) < heard + 10
        assert not caller.channel_is_closed

        async def ended() -> bool:
            return not operator.simulator.running_calls

        await eventually(ended, within=8.0, what="the call ends there too")
