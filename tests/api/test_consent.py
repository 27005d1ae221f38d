"""Nothing is recorded or sent to the voice service before the candidate has agreed to it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from interview_peer.app import Server
from interview_peer.state.database import Transaction
from interview_peer.state.schema import notices, now_us
from interview_peer.types import Json
from interview_peer.web.interview_store import InterviewStore
from tests.support.begun import Begun, counting
from tests.support.caller import Caller, Reply, calling
from tests.support.inprocess import serving
from tests.support.operator import KEY, PATH, Operator

JOIN_SECRET = "a-join-secret-of-more-than-32-characters"
REQUIRED = {"consent": "required"}


def bearer(interview: Json) -> Json:
    return {"headers": {"Authorization": f"Bearer {interview['join_token']}"}}


async def greeted(candidate: Caller, interview: Json) -> Json:
    """Come in by the token; the greeting."""
    await candidate.open_bare()
    await candidate.send(
        {"type": "init", "sessionId": interview["id"], "token": interview["join_token"]}
    )
    greeting = await candidate.message(
        "session", where=lambda one: one["sessionId"] == interview["id"]
    )
    candidate.session_id = greeting["sessionId"]
    return greeting


async def asked(candidate: Caller, interview: Json) -> Json:
    """Come in; the text that must be agreed to."""
    assert (await greeted(candidate, interview))["consentRequired"] is True
    return await candidate.message("consent_required")


async def decide(candidate: Caller, interview: Json, **said: Any) -> Reply:
    """The same by HTTP."""
    return await candidate.post(f"/api/consent/{interview['id']}", json=said, **bearer(interview))


async def told(server: Server, interview: Json) -> list[str]:
    """Types of the interview's notices, in order."""
    await server.state.chronicle.drained()

    async def look(tx: Transaction) -> list[str]:
        query = select(notices.c.type).where(notices.c.interview_id == interview["id"])
        return [*(await tx.execute(query.order_by(notices.c.sequence))).scalars()]

    return await server.state.database.run(look)


async def ended(operator: Operator, server: Server, candidate: Caller, interview: Json) -> Json:
    """End it, and wait until its recording is finished; the manifest."""
    await operator.ask("POST", f"{PATH}/{interview['id']}/end")
    folder = server.interviews._around.data_dir / "interviews" / interview["id"]
    while not (folder / "manifest.json").exists():  # noqa: ASYNC110 (files set no event)
        await asyncio.sleep(0.02)
    manifest: Json = json.loads((folder / "manifest.json").read_text())
    return manifest


def traces_of(interview: Json, data_dir: Path) -> list[str]:
    """Files and folders of this interview."""
    return [str(one) for one in data_dir.rglob("*") if interview["id"] in one.name]


@pytest.fixture
def begun() -> Iterator[Begun]:
    """What the server begins in this test."""
    with counting() as begun:
        yield begun


async def test_an_invited_interview_waits_for_consent_and_then_runs(
    begun: Begun, served: Server, operator: Operator, candidate: Caller
) -> None:
    made = await operator.make(candidate_reference="c-7", **REQUIRED)
    assert made["phase"] == "consent"
    assert made["consent"] == {"policy": "required", "at": None, "version": None, "sha256": None}
    required = await asked(candidate, made)
    await candidate.phase("consent")
    await candidate.send({"type": "sdp_offer", "offer": await candidate.offer()})
    assert await candidate.refusal() == "CONSENT_REQUIRED"
    assert begun.nothing

    await candidate.send({"type": "consent", "agreed": True, "version": required["version"]})
    confirmed = await candidate.message("consent")
    assert confirmed["agreed"] is True
    await candidate.phase("created")
    assert begun.nothing
    # Again, and by the other way: the first one stays.
    await candidate.send({"type": "consent", "agreed": True, "version": required["version"]})
    assert await candidate.message("consent") == confirmed
    again = await decide(candidate, made, agreed=True, version=required["version"])
    assert (again.status, again.json()["at"]) == (200, confirmed["at"])

    await candidate.connect()
    assert (begun.legs, begun.calls) == (2, 1)
    digest = hashlib.sha256(required["text"].encode()).hexdigest()
    kept = {"version": required["version"], "sha256": digest}
    shown = (await operator.show(made))["consent"]
    assert shown["at"][:23] + "Z" == confirmed["at"]
    assert shown == {"policy": "required", "at": shown["at"], **kept}
    manifest = await ended(operator, served, candidate, made)
    agreement = {"by": "candidate", "at": confirmed["at"], **kept}
    assert manifest["consent"] == agreement
    folder = served.interviews._around.data_dir / "interviews" / made["id"]
    first = json.loads((folder / "events.jsonl").read_text().partition("\n")[0])
    assert first["event"]["consent"] == agreement
    listing = await operator.ask("GET", f"{PATH}/{made['id']}/recording")
    assert listing.json()["consent"] == agreement
    types = await told(served, made)
    assert types[:3] == ["interview.created", "interview.consented", "interview.started"]


async def test_agreeing_uses_up_no_token_and_survives_a_reload(
    served: Server, operator: Operator, candidate: Caller
) -> None:
    made = await operator.make(**REQUIRED)
    required = await asked(candidate, made)
    await candidate.send({"type": "consent", "agreed": True, "version": required["version"]})
    await candidate.message("consent")
    await candidate.leave()
    async with calling(served.url) as reloaded:
        assert (await greeted(reloaded, made))["consentRequired"] is False
        await reloaded.connect()
        assert "consent_required" not in [one["type"] for one in reloaded.messages.items]


async def test_agreeing_survives_a_restart_of_the_server(
    tmp_path: Path, migrated_url: str | None
) -> None:
    options = {"database_url": migrated_url, "admin_key": KEY, "join_secret": JOIN_SECRET}
    async with serving(tmp_path, **options) as server, calling(server.url) as candidate:
        made = await Operator(candidate).make(**REQUIRED)
        waits = await Operator(candidate).make(**REQUIRED)
        version = (await asked(candidate, made))["version"]
        agreed = await decide(candidate, made, agreed=True, version=version)
    # Another setting is for interviews that are made from now on.
    async with (
        serving(tmp_path, **options, require_consent="false") as server,
        calling(server.url) as candidate,
    ):
        assert (await greeted(candidate, made))["consentRequired"] is False
        await candidate.connect()
        shown = await Operator(candidate).show(made)
        assert shown["consent"]["at"][:23] + "Z" == agreed.json()["at"]
        async with calling(server.url) as other:
            assert await asked(other, waits)


async def test_what_was_agreed_to_on_another_node_counts_here(
    tmp_path: Path, postgres_url_migrated: str, begun: Begun
) -> None:
    options = {"database_url": postgres_url_migrated, "admin_key": KEY, "join_secret": JOIN_SECRET}
    async with (
        serving(tmp_path / "one", **options) as one,
        serving(tmp_path / "two", **options) as two,
        calling(one.url) as here,
        calling(two.url) as there,
    ):
        made, refused = [await Operator(here).make(**REQUIRED) for _ in range(2)]
        version = (await asked(there, made))["version"]
        assert (await decide(here, made, agreed=True, version=version)).json()["agreed"] is True
        await there.connect()
        # Too late to refuse: it runs elsewhere, and soon it is known that the token was used.
        late = await decide(here, made, agreed=False)
        assert late.json()["error"]["code"] in ("INTERVIEW_ELSEWHERE", "TOKEN_USED")
        assert (await Operator(there).show(made))["phase"] == "live"
        before = begun.calls
        await there.leave()
        await asked(there, refused)
        assert (await decide(here, refused, agreed=False)).status == 200
        await one.state.chronicle.drained()
        await there.send({"type": "sdp_offer", "offer": await there.offer()})
        assert await there.refusal() == "SESSION_ENDED"
        assert begun.calls == before


async def test_refusing_ends_the_interview_and_leaves_nothing_on_disk(
    begun: Begun, served: Server, operator: Operator, candidate: Caller, tmp_path: Path
) -> None:
    made = await operator.make(**REQUIRED)
    await asked(candidate, made)
    await candidate.send({"type": "consent", "agreed": False})
    over = await candidate.message("session_ended")
    assert over["reason"] == "consent_refused"
    await candidate.socket_closed()
    assert begun.nothing
    assert await told(served, made) == ["interview.created", "interview.ended"]
    shown = await operator.show(made)
    assert (shown["phase"], shown["reason"], shown["files"]) == ("ended", "consent_refused", [])
    assert shown["consent"]["at"] is None
    assert not traces_of(made, tmp_path)
    again = await decide(candidate, made, agreed=True, version="2026-11")
    assert (again.status, again.json()["error"]["code"]) == (409, "SESSION_ENDED")


async def test_another_version_is_refused_and_the_text_comes_along(
    served: Server, operator: Operator, candidate: Caller
) -> None:
    made = await operator.make(**REQUIRED)
    required = await asked(candidate, made)
    await candidate.send({"type": "consent", "agreed": True, "version": "2001-01"})
    assert await candidate.error() == "CONSENT_OUTDATED"
    assert await candidate.message("consent_required") == required
    reply = await decide(candidate, made, agreed=True, version="2001-01")
    body = reply.json()
    assert (reply.status, body["error"]["code"]) == (409, "CONSENT_OUTDATED")
    assert body["consent"]["text"] == required["text"]
    assert body["consent"]["required"] is True
    assert (await operator.show(made))["phase"] == "consent"


@pytest.fixture
async def postgres_url_migrated(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    server = request.getfixturevalue("postgres")
    url = server.create(request.getfixturevalue("postgres_template"))
    yield url
    server.drop(url)


@contextlib.asynccontextmanager
async def simulating(tmp_path: Path, **settings: Any) -> AsyncIterator[tuple[Server, Caller]]:
    options = {"admin_key": KEY, "join_secret": JOIN_SECRET, **settings}
    async with serving(tmp_path, **options) as server, calling(server.url) as caller:
        yield server, caller


async def test_every_way_in_refuses_an_offer_before_the_consent(
    tmp_path: Path, begun: Begun
) -> None:
    async with simulating(tmp_path) as (server, caller):
        made = await Operator(caller).make(**REQUIRED)
        text = await caller.get(f"/api/consent/{made['id']}", **bearer(made))
        assert text.json()["required"] is True and text.json()["agreed"] is False
        by_http = await caller.post(
            "/api/sdp-exchange", json={"sdpOffer": await caller.offer()}, **bearer(made)
        )
        assert (by_http.status, by_http.json()["code"]) == (403, "CONSENT_REQUIRED")
        assert isinstance(by_http.json()["error"], str)
        key = {"Authorization": f"Bearer {made['sdk_key']}", "Content-Type": "application/sdp"}
        by_sdk = await caller.post("/v1/realtime/calls", data=await caller.offer(), headers=key)
        assert by_sdk.status == 403
        assert by_sdk.json()["error"]["code"] == "consent_required"
        assert by_sdk.json()["error"]["type"] == "invalid_request_error"
        assert begun.nothing
        assert not traces_of(made, tmp_path)
        await decide(caller, made, agreed=True, version=text.json()["version"])
        by_sdk = await caller.post("/v1/realtime/calls", data=await caller.offer(), headers=key)
        assert by_sdk.status == 201
        assert begun.calls == 1


NO_AGREEMENT: list[tuple[Json, str]] = [
    ({}, "INVALID_MESSAGE"),
    ({"agreed": "yes", "version": "2026-11"}, "INVALID_MESSAGE"),
    ({"agreed": 1, "version": "2026-11"}, "INVALID_MESSAGE"),
    ({"agreed": None}, "INVALID_MESSAGE"),
    ({"agreed": True}, "INVALID_MESSAGE"),
    ({"agreed": True, "version": ""}, "INVALID_MESSAGE"),
    ({"agreed": True, "version": 7}, "INVALID_MESSAGE"),
    ({"agreed": True, "version": ["2026-11"]}, "INVALID_MESSAGE"),
    ({"agreed": True, "version": "2026-11\x00"}, "CONSENT_OUTDATED"),
]


async def test_what_is_no_agreement_changes_nothing(plain: Operator, begun: Begun) -> None:
    made = await plain.make(**REQUIRED)
    candidate = plain._caller
    await asked(candidate, made)
    for said, code in NO_AGREEMENT:
        reply = await decide(candidate, made, **said)
        assert reply.json()["error"]["code"] == code, said
        await candidate.send({"type": "consent", **said})
        assert await candidate.error() == code, said
    assert (await plain.show(made))["phase"] == "consent"
    assert begun.nothing


async def test_only_who_has_the_token_may_agree(plain: Operator) -> None:
    caller = plain._caller
    made, other = await plain.make(**REQUIRED), await plain.make(**REQUIRED)
    path, said = f"/api/consent/{made['id']}", {"agreed": True, "version": "2026-11"}
    for headers, status, code in (
        ({}, 401, "TOKEN_REQUIRED"),
        (bearer(other)["headers"], 401, "TOKEN_INVALID"),
    ):
        for method in ("GET", "POST"):
            reply = await caller.request(method, path, json=said, headers=headers)
            assert (reply.status, reply.json()["error"]["code"]) == (status, code)
    unknown = await caller.get("/api/consent/nobody")
    assert (unknown.status, unknown.json()["error"]["code"]) == (404, "SESSION_NOT_FOUND")
    assert (await plain.show(made))["phase"] == "consent"


async def test_an_integrator_who_has_the_consent_already_says_so(plain: Operator) -> None:
    made = await plain.make(consent="given")
    assert made["phase"] == "created"
    assert made["consent"]["policy"] == "given"
    assert made["consent"]["at"] == made["created_at"]
    caller = plain._caller
    assert (await greeted(caller, made))["consentRequired"] is False
    # Saying it nevertheless changes nothing.
    await caller.send({"type": "consent", "agreed": True, "version": "2026-11"})
    assert (await caller.message("consent"))["agreed"] is True
    assert (await plain.show(made))["consent"] == made["consent"]
    wrong = await plain.ask("POST", PATH, json={"consent": "maybe"})
    assert (wrong.status, wrong.json()["error"]["field"]) == (422, "consent")


async def test_the_setting_says_who_is_asked(tmp_path: Path) -> None:
    async with simulating(tmp_path / "auto") as (_, caller):
        made = (await Operator(caller).ask("POST", PATH, json={})).json()
        assert (made["phase"], made["consent"]["policy"]) == ("consent", "required")
        assert (await caller.open())["consentRequired"] is False
        assert (await caller.get("/api/personas")).json()["consentRequired"] is False
    async with simulating(tmp_path / "false", require_consent="false") as (_, caller):
        made = (await Operator(caller).ask("POST", PATH, json={})).json()
        assert (made["phase"], made["consent"]["policy"]) == ("created", "off")
        made = await Operator(caller).make(consent="required")
        assert made["phase"] == "consent"


async def test_everybody_can_be_asked_with_the_text_of_their_interviewer(
    tmp_path: Path, begun: Begun
) -> None:
    folder = tmp_path / "personas"
    folder.mkdir()
    (folder / "own.toml").write_text(
        'title = "t"\ndescription = "d"\ninstructions = "i"\n'
        '[consent]\nversion = "7"\ntext = "For {organisation} alone."\n'
    )
    settings: Json = {
        "require_consent": "true",
        "personas_dir": folder,
        "organisation": "Acme",
    }
    async with simulating(tmp_path / "data", **settings) as (server, caller):
        assert (await caller.get("/api/personas")).json()["consentRequired"] is True
        assert (await caller.open())["consentRequired"] is True
        assert "Acme" in (await caller.message("consent_required"))["text"]
        await caller.send({"type": "init", "aiPersona": "own"})
        required = await caller.message("consent_required")
        assert (required["version"], required["text"]) == ("7", "For Acme alone.")
        await caller.send({"type": "sdp_offer", "offer": await caller.offer()})
        assert await caller.refusal() == "CONSENT_REQUIRED"
        assert begun.nothing
        await caller.send({"type": "consent", "agreed": True, "version": "7"})
        await caller.message("consent")
        # What was agreed to was this interviewer's text.
        await caller.send({"type": "init", "aiPersona": "engineer"})
        await caller.connect()
        assert server.interviews.find(caller.session_id).persona.name == "own"
        made = {"id": caller.session_id}
        assert (await told(server, made))[:2] == ["interview.created", "interview.consented"]
        shown = (await Operator(caller).show(made))["consent"]
        assert (shown["policy"], shown["version"]) == ("required", "7")

        # Without a socket: an id of one's own, agreed for, then offered for.
        async with calling(server.url) as other:
            offer = {"sdpOffer": await other.offer(), "sessionId": "mine"}
            refused = await other.post("/api/sdp-exchange", json=offer)
            assert (refused.status, refused.json()["code"]) == (403, "CONSENT_REQUIRED")
            outdated = await other.post("/api/consent/mine", json={"agreed": True, "version": "?"})
            version = outdated.json()["consent"]["version"]
            await other.post("/api/consent/mine", json={"agreed": True, "version": version})
            await other.connect_by_http(sessionId="mine")
            late = await other.post("/api/consent/mine", json={"agreed": False})
            assert (late.status, late.json()["error"]["code"]) == (409, "INTERVIEW_RUNNING")


async def test_interviews_that_wait_for_consent_are_ended_erased_and_expired_as_others(
    served: Server, operator: Operator
) -> None:
    made = [await operator.make(**REQUIRED) for _ in range(3)]
    reply = await operator.ask("POST", f"{PATH}/{made[0]['id']}/end")
    assert (reply.json()["phase"], reply.json()["reason"]) == ("ended", "operator_request")
    assert (await operator.ask("DELETE", f"{PATH}/{made[1]['id']}")).status == 200
    assert await operator.ids("?phase=consent") == [made[2]["id"]]
    store = _store(served)
    assert await store.expire(now_us() + 8 * 24 * 3600 * 1_000_000) == 1
    assert (await operator.show(made[2]))["reason"] == "expired"


def _store(server: Server) -> InterviewStore:
    return InterviewStore(server.interviews, server.archive, server.state)


async def test_the_record_of_an_agreement_outlives_an_erasure(
    served: Server, operator: Operator, candidate: Caller
) -> None:
    made = await operator.make(**REQUIRED)
    required = await asked(candidate, made)
    await candidate.send({"type": "consent", "agreed": True, "version": required["version"]})
    await candidate.message("consent")
    await operator.ask("DELETE", f"{PATH}/{made['id']}?end=true")
    row = await _store(served).find(made["id"])
    assert row is not None and row.deleted_at is not None and row.plan is None
    assert row.consent_sha256 == hashlib.sha256(required["text"].encode()).hexdigest()
