"""The HTTP paths that front ends and operators use: success shapes, headers, who may ask."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from interview_peer.app import Server
from interview_peer.state.database import Transaction
from interview_peer.state.happenings import Happening
from interview_peer.state.records import Records
from interview_peer.types import Json
from interview_peer.web.openapi import document
from tests.support.caller import Caller, calling
from tests.support.inprocess import live, serving
from tests.support.waiting import eventually

KEY_PATH = "/api/generate-ephemeral-key"


# -- offers over HTTP


async def test_an_offer_over_http_is_answered_in_both_spellings(caller: Caller) -> None:
    reply = await caller.post("/api/sdp-exchange", json={"sdpOffer": await caller.offer()})
    assert reply.status == 200
    body = reply.json()
    assert set(body) == {"sessionId", "sdpAnswer", "answer"}
    assert body["answer"] == {"type": "answer", "sdp": body["sdpAnswer"]}
    await caller.accept(body["sdpAnswer"])
    await caller.ready()
    await caller.sound()
    caller.session_id = body["sessionId"]
    assert await caller.known_phase() == "live"


async def test_an_offer_over_http_may_name_session_and_persona(caller: Caller) -> None:
    reply = await caller.connect_by_http(sessionId="chosen-1", aiPersona="ash")
    assert reply.json()["sessionId"] == "chosen-1"
    session = (await caller.event("session.created"))["session"]
    assert session["audio"]["output"]["voice"] == "ash"


async def test_an_offer_over_http_for_a_greeted_session_is_told_on_its_socket(
    caller: Caller,
) -> None:
    await caller.open()
    await caller.connect_by_http(sessionId=caller.session_id)
    await caller.phase("connecting")
    await caller.phase("live")


async def test_an_interview_begun_over_http_can_be_joined_and_ended_by_socket(
    caller: Caller,
) -> None:
    await caller.connect_by_http()
    await caller.open(f"/ws/{caller.session_id}")
    await caller.send({"type": "disconnect"})
    await caller.message("session_ended")


async def test_an_offer_over_http_for_an_ended_session_is_a_conflict(caller: Caller) -> None:
    await caller.open()
    await caller.connect()
    await caller.send({"type": "end_session"})
    await caller.message("session_ended")
    reply = await caller.post(
        "/api/sdp-exchange",
        json={"sdpOffer": await caller.offer(), "sessionId": caller.session_id},
    )
    assert (reply.status, reply.json()["code"]) == (409, "SESSION_ENDED")


# -- the key that stays here


async def test_a_key_request_is_answered_without_a_secret(caller: Caller) -> None:
    await caller.open()
    reply = await caller.post(
        KEY_PATH, json={"sessionId": caller.session_id, "voice": "echo", "model": "gpt-realtime"}
    )
    assert reply.status == 200
    body = reply.json()
    expires = body["client_secret"].pop("expires_at")
    assert body == {
        "success": True,
        "expires_in": 60,
        "client_secret": {"value": "held-by-server"},
    }
    assert isinstance(expires, int) and 50 <= expires - time.time() <= 61


async def test_voice_and_model_of_a_key_request_reach_the_model(caller: Caller) -> None:
    await caller.open()
    await caller.post(
        KEY_PATH,
        json={"sessionId": caller.session_id, "voice": "Echo", "model": "gpt-realtime"},
    )
    await caller.connect()
    session = (await caller.event("session.created"))["session"]
    assert session["audio"]["output"]["voice"] == "echo"
    assert session["model"] == "gpt-realtime"


async def test_a_model_of_the_beta_is_left_out(caller: Caller) -> None:
    await caller.open()
    await caller.post(
        KEY_PATH,
        json={"sessionId": caller.session_id, "model": "gpt-4o-realtime-preview-2024-12-17"},
    )
    await caller.connect()
    session = (await caller.event("session.created"))["session"]
    assert session["model"] == "gpt-realtime-2.1"


async def test_a_key_request_for_a_live_session_changes_nothing_of_it(caller: Caller) -> None:
    await caller.open()
    await caller.connect()
    reply = await caller.post(KEY_PATH, json={"sessionId": caller.session_id, "voice": "echo"})
    assert reply.status == 200
    caller.say({"type": "session.update", "session": {"type": "realtime"}})
    updated = await caller.event("session.updated")
    assert updated["session"]["audio"]["output"]["voice"] == "marin"


@pytest.mark.parametrize("session_id", ["made-up-by-the-hook", "../odd", None, ""])
async def test_a_key_request_for_an_unknown_session_is_stored_nowhere(
    local: Server, caller: Caller, session_id: str | None, tmp_path: Path
) -> None:
    before = len(local.interviews)
    reply = await caller.post(KEY_PATH, json={"sessionId": session_id, "voice": "alloy"})
    assert (reply.status, reply.json()["success"]) == (200, True)
    assert len(local.interviews) == before
    assert (await caller.get("/api/sessions/made-up-by-the-hook")).status == 404
    assert [*(tmp_path / "interviews").iterdir()] == []


# -- what can be asked


async def test_a_session_is_told_in_the_fields_that_are_known(caller: Caller) -> None:
    began = time.time() * 1000
    await caller.open()
    before = (await caller.get(f"/api/sessions/{caller.session_id}")).json()
    assert set(before) == {
        "sessionId",
        "connected",
        "lastActivity",
        "hasEphemeralKey",
        "keyValid",
        "phase",
        "reason",
    }
    assert before["sessionId"] == caller.session_id
    assert (before["hasEphemeralKey"], before["keyValid"]) == (False, False)
    assert (before["phase"], before["reason"]) == ("created", None)
    for name in ("connected", "lastActivity"):
        assert isinstance(before[name], int)
        assert began - 1000 <= before[name] <= time.time() * 1000 + 1000

    await caller.post(KEY_PATH, json={"sessionId": caller.session_id})
    await caller.connect()
    after = (await caller.get(f"/api/sessions/{caller.session_id}")).json()
    assert (after["hasEphemeralKey"], after["keyValid"], after["phase"]) == (True, True, "live")
    assert after["lastActivity"] >= before["lastActivity"]

    await caller.send({"type": "end_session"})
    await caller.message("session_ended")
    ended = (await caller.get(f"/api/sessions/{caller.session_id}")).json()
    assert (ended["phase"], ended["reason"]) == ("ended", "client_request")


async def test_health_is_two_fields(caller: Caller) -> None:
    reply = await caller.get("/health")
    assert reply.status == 200
    body = reply.json()
    assert set(body) == {"status", "timestamp"}
    assert body["status"] == "ok"
    assert body["timestamp"].endswith("Z")


async def test_healthz_counts_sessions_and_interviews(local: Server, caller: Caller) -> None:
    empty = (await caller.get("/healthz")).json()
    # The port in use, though the setting was 0.
    assert empty["env"]["port"] == local.port != 0
    told = document()["paths"]["/healthz"]["get"]["responses"]["200"]["content"]
    assert set(empty) == set(told["application/json"]["schema"]["properties"])
    assert set(empty["env"]) == {"node_env", "mode", "port", "has_openai_key"}
    assert (empty["sessions"], empty["interviews"]) == (0, 0)
    assert (empty["env"]["mode"], empty["env"]["has_openai_key"]) == ("simulation", False)
    await caller.open()
    greeted = (await caller.get("/healthz")).json()
    assert (greeted["sessions"], greeted["interviews"]) == (1, 0)
    await caller.connect()
    running = (await caller.get("/healthz")).json()
    assert (running["sessions"], running["interviews"]) == (1, 1)
    assert running["uptime"] >= empty["uptime"] >= 0


async def test_healthz_follows_a_recording(local: Server, caller: Caller) -> None:
    await caller.open()
    await caller.connect()
    during = (await caller.get("/healthz")).json()["recordings"]
    assert (during["writing"]["recorders"], during["writing"]["bytes"]) == (1, 0)
    assert 0 <= during["writing"]["flush_age_seconds"] < 30
    await caller.send({"type": "end_session"})
    await caller.message("session_ended")

    async def over() -> Json:
        return dict((await caller.get("/healthz")).json()["recordings"])

    after = await eventually(
        over, within=60, what="a finished folder", good=lambda one: one["finishing"]["finished"]
    )
    assert after["writing"]["recorders"] == after["writing"]["flush_age_seconds"] == 0
    assert after["writing"]["bytes"] > 1_000
    assert after["finishing"] == {
        **dict.fromkeys(("waiting", "running", "held", "failed", "failures"), 0),
        "finished": 1,
    }
    assert set(after["keeping"]) == {"waiting", "uploaded", "retries", "damaged", "erased"}


async def test_healthz_tells_what_waits_for_the_database_and_why(
    local: Server, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = (await caller.get("/healthz")).json()["chronicle"]
    assert (figures["waiting"], figures["lost"], figures["last_error"]) == (0, 0, None)
    real = Records.write
    away = True

    async def write(self: Records, tx: Transaction, happening: Happening) -> bool:
        if away:
            raise ConnectionResetError("with a secret in its text")
        return await real(self, tx, happening)

    monkeypatch.setattr(Records, "write", write)
    await caller.open()
    await caller.connect()

    async def look() -> Json:
        chronicle: Json = (await caller.get("/healthz")).json()["chronicle"]
        return chronicle

    figures = await eventually(
        look, within=5, what="that it is away", good=lambda now: now["away_seconds"] > 0
    )
    assert figures["waiting"] >= 2
    assert figures["last_error"] == "ConnectionResetError"
    away = False
    figures = await eventually(
        look, within=10, what="it is back", good=lambda one: not one["waiting"]
    )
    assert figures["away_seconds"] == 0 and figures["written"] >= 2


async def test_every_persona_can_be_chosen_from(caller: Caller) -> None:
    body = (await caller.get("/api/personas")).json()
    assert body["default"] == body["personas"][0]["name"] == "default"
    for persona in body["personas"]:
        assert set(persona) == {"name", "title", "description", "voice"}


# -- headers


@pytest.mark.parametrize(
    ("path", "open_to_others"),
    [
        ("/health", True),
        ("/api/personas", True),
        ("/api/sessions/none", True),
        ("/v1/nothing", False),
        ("/healthz", False),
        ("/", False),
        ("/api/interviews/none", False),
        ("/nothing", False),
    ],
)
async def test_only_what_front_ends_call_is_open_to_other_origins(
    caller: Caller, path: str, open_to_others: bool
) -> None:
    reply = await caller.get(path, headers={"Origin": "https://elsewhere.example"})
    assert ("access-control-allow-origin" in reply.headers) is open_to_others
    assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/v1/realtime/calls", "/v1/realtime/calls/rtc_x/hangup", "/api/sdp-exchange", KEY_PATH]
)
async def test_a_preflight_is_answered_as_browsers_need_it(caller: Caller, path: str) -> None:
    reply = await caller.request(
        "OPTIONS",
        path,
        headers={
            "Origin": "https://elsewhere.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-openai-agents-sdk",
        },
    )
    assert reply.status == 204
    assert reply.headers["access-control-allow-origin"] == "*"
    assert "POST" in reply.headers["access-control-allow-methods"]
    allowed = reply.headers["access-control-allow-headers"].replace(" ", "").split(",")
    assert {"authorization", "content-type", "x-openai-agents-sdk"} <= set(allowed)


# -- the operator's door

OPERATOR = ["/api/interviews/none", "/api/interviews/none/transcript"]


@pytest.mark.parametrize("path", OPERATOR)
async def test_without_a_key_set_a_simulating_loopback_server_asks_nobody(
    caller: Caller, path: str
) -> None:
    reply = await caller.get(path)
    assert reply.status == 404
    assert set(reply.json()["error"]) == {"code", "message"}


@pytest.mark.parametrize("path", OPERATOR)
@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        "Basic the-operators-key",
        "the-operators-key",
        "Bearer \u00e9",
    ],
)
async def test_with_a_key_set_nobody_else_learns_whether_an_interview_exists(
    tmp_path: Path, path: str, header: str | None
) -> None:
    (tmp_path / "interviews" / "held").mkdir(parents=True)
    headers = {} if header is None else {"Authorization": header}
    async with (
        serving(tmp_path, admin_key="the-operators-key") as server,
        calling(server.url) as caller,
    ):
        replies = [
            await caller.get(path.replace("none", name), headers=headers)
            for name in ("none", "held", "not%20a%20name")
        ]
    for reply in replies:
        assert reply.status == 401
        assert reply.headers["www-authenticate"] == "Bearer"
        assert reply.text == replies[0].text
        assert reply.json()["error"]["code"] == "UNAUTHORIZED"
        assert "the-operators-key" not in reply.text


async def test_the_operator_reads_phase_files_and_transcript(tmp_path: Path) -> None:
    key = {"headers": {"Authorization": "Bearer the-operators-key"}}
    async with (
        serving(tmp_path, admin_key="the-operators-key") as server,
        calling(server.url) as caller,
    ):
        await caller.open()
        path = f"/api/interviews/{caller.session_id}"
        await caller.connect()
        running = await caller.get(path, **key)
        assert running.status == 200
        assert running.json()["phase"] == "live"
        assert (await caller.get(path + "/transcript", **key)).json()["final"] is False
        await caller.event("response.output_audio_transcript.delta")
        await caller.send({"type": "end_session"})
        await caller.message("session_ended")
        ended = (await caller.get(path, **key)).json()
        assert (ended["id"], ended["phase"]) == (caller.session_id, "ended")
        assert ended["files"] == [
            "candidate.ogg",
            "events.jsonl",
            "interviewer.ogg",
            "transcript.json",
        ]
        transcript = (await caller.get(path + "/transcript", **key)).json()
        assert transcript["turns"][0]["speaker"] == "interviewer"


async def test_a_live_server_without_an_operators_key_answers_nobody(tmp_path: Path) -> None:
    settings = live("http://127.0.0.1:9/v1", key="sk-the-standard-key")
    async with serving(tmp_path, **settings) as server, calling(server.url) as caller:
        for header in ("", "Bearer sk-the-standard-key", "Bearer "):
            for path in OPERATOR:
                reply = await caller.get(path, headers={"Authorization": header})
                assert (reply.status, reply.json()["error"]["code"]) == (401, "UNAUTHORIZED")
