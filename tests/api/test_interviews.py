"""Interviews over the API: made, listed, shown, ended and erased, on both engines."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from interview_peer.app import Server
from interview_peer.errors import StateUnavailable
from interview_peer.finishing.job import finish
from interview_peer.state.database import Transaction
from interview_peer.state.happenings import Happening
from interview_peer.state.records import Records
from interview_peer.state.schema import deliveries, interviews, notices, now_us, turns
from interview_peer.storage.folder import InterviewFolder
from interview_peer.types import Json, SessionId
from interview_peer.web.interview_store import InterviewStore
from tests.recording.folders import ignore, record
from tests.support.caller import Caller, calling
from tests.support.inprocess import serving
from tests.support.operator import KEY, PATH, Operator

SECRET = "whsec_" + "A" * 43 + "="
UNKNOWN = "00000000-0000-4000-8000-000000000000"


async def told(server: Server, interview: Json) -> list[str]:
    """Types of the notices of an interview, in order."""

    async def look(tx: Transaction) -> list[str]:
        query = select(notices.c.type).where(notices.c.interview_id == interview["id"])
        return [*(await tx.execute(query.order_by(notices.c.sequence))).scalars()]

    await server.state.chronicle.drained()
    return await server.state.database.run(look)


async def join(candidate: Caller, interview: Json) -> None:
    await candidate.open()
    token = interview["join_token"]
    await candidate.send({"type": "init", "sessionId": interview["id"], "token": token})
    await candidate.connect()


# -- made


async def test_an_interview_is_made_with_a_link_for_its_candidate(operator: Operator) -> None:
    made = await operator.make(
        persona="engineer",
        candidate_reference="application-17",
        metadata={"job": "wéb", "rounds": [1, 2.5, None, True]},
        limits={"max_seconds": 600, "expires_in_seconds": 3600},
        callback={
            "url": "https://tracker.example.org/hook",
            "secret": SECRET,
            "events": ["interview.ended"],
        },
    )
    token = made["join_token"]
    assert made["join_url"].endswith(f"/i/{made['id']}#t={token}")
    assert made["sdk_key"] == f"ek_{token}"
    assert (made["phase"], made["origin"], made["persona"]) == ("created", "api", "engineer")
    assert made["limits"] == {"max_seconds": 600, "expires_in_seconds": 3600}
    assert made["callback"] == {
        "url": "https://tracker.example.org/hook",
        "events": ["interview.ended"],
    }
    created, expires = (datetime.fromisoformat(made[at]) for at in ("created_at", "expires_at"))
    assert made["created_at"].endswith("Z")
    assert expires - created == timedelta(hours=1)
    shown = await operator.show(made)
    assert shown["metadata"] == {"job": "wéb", "rounds": [1, 2.5, None, True]}
    assert shown["candidate_reference"] == "application-17"
    assert "join_token" not in shown and token not in json.dumps(shown)


async def test_an_empty_request_takes_the_default_interviewer(operator: Operator) -> None:
    made = await operator.make()
    assert (made["persona"], made["plan"], made["callback"]) == ("default", None, None)


async def test_a_callbacks_secret_is_never_told(operator: Operator) -> None:
    made = await operator.make(callback={"url": "https://r.example.org/", "secret": SECRET})
    assert SECRET not in json.dumps([made, await operator.show(made)])


async def test_a_callback_that_nothing_could_be_signed_for_is_refused(
    operator: Operator, tmp_path: Path
) -> None:
    body = {"callback": {"url": "https://r.example.org/"}}
    reply = await operator.ask("POST", PATH, json=body)
    error = reply.json()["error"]
    assert (reply.status, error["code"]) == (422, "CALLBACK_SECRET_REQUIRED")
    assert error["field"] == "callback.secret"
    # The server's own secret signs for those that bring none.
    settings: Json = {
        "admin_key": KEY,
        "webhook_url": "https://r.example.org/all",
        "webhook_secret": SECRET,
    }
    async with serving(tmp_path / "other", **settings) as server, calling(server.url) as caller:
        assert (await Operator(caller).ask("POST", PATH, json=body)).status == 201


async def test_being_made_is_told_in_the_same_transaction(
    served: Server, operator: Operator
) -> None:
    made = await operator.make(callback={"url": "https://r.example.org/hook", "secret": SECRET})
    assert await told(served, made) == ["interview.created"]

    async def look(tx: Transaction) -> list[str | None]:
        query = select(deliveries.c.url).where(deliveries.c.interview_id == made["id"])
        return [*(await tx.execute(query)).scalars()]

    assert await served.state.database.run(look) == ["https://r.example.org/hook"]


@pytest.mark.parametrize("where", ["header", "field"])
async def test_the_same_request_with_the_same_key_makes_one_interview(
    operator: Operator, where: str
) -> None:
    body: Json = {"candidate_reference": "a"}
    options: Json = {"headers": {"Idempotency-Key": "k-1"}}
    if where == "field":
        body, options = {**body, "idempotency_key": "k-1"}, {}
    replies = await asyncio.gather(
        *(operator.ask("POST", PATH, json=body, **options) for _ in range(5))
    )
    assert {reply.status for reply in replies} == {201}
    first = replies[0].json()
    assert [reply.json() for reply in replies] == [first] * 5
    assert sum("idempotent-replayed" in reply.headers for reply in replies) == 4
    assert await operator.ids() == [first["id"]]


async def test_the_same_key_with_another_body_is_a_conflict(operator: Operator) -> None:
    await operator.make(candidate_reference="a", idempotency_key="k")
    reply = await operator.ask(
        "POST", PATH, json={"candidate_reference": "b", "idempotency_key": "k"}
    )
    assert (reply.status, reply.json()["error"]["code"]) == (409, "IDEMPOTENCY_CONFLICT")


async def test_an_erased_interview_is_not_made_again_by_its_key(operator: Operator) -> None:
    made = await operator.make(idempotency_key="k")
    await operator.ask("DELETE", f"{PATH}/{made['id']}")
    body = {"idempotency_key": "k", "consent": "given"}
    reply = await operator.ask("POST", PATH, json=body)
    assert (reply.status, reply.json()["error"]["code"]) == (409, "IDEMPOTENCY_CONFLICT")


PLAN = {"instructions": "Ask about bridges."}


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"candidate": 1}, "INVALID_FIELD", "candidate"),
        ({"persona": 1}, "INVALID_FIELD", "persona"),
        ({"persona": "nobody"}, "UNKNOWN_PERSONA", "persona"),
        ({"persona": "engineer", "plan": PLAN}, "INVALID_FIELD", "plan"),
        ({"plan": {}}, "INVALID_FIELD", "plan.instructions"),
        ({"plan": {"instructions": "  "}}, "INVALID_FIELD", "plan.instructions"),
        ({"plan": {"instructions": "x" * 32_001}}, "INVALID_FIELD", "plan.instructions"),
        ({"plan": {**PLAN, "voice": "darth"}}, "INVALID_FIELD", "plan.voice"),
        ({"plan": {**PLAN, "model": "gpt-4"}}, "INVALID_FIELD", "plan.model"),
        ({"plan": {**PLAN, "tools": ["no_such"]}}, "INVALID_FIELD", "plan.tools"),
        ({"plan": {**PLAN, "tools": ["end_interview"] * 2}}, "INVALID_FIELD", "plan.tools"),
        ({"plan": {**PLAN, "language": "Klingon"}}, "INVALID_FIELD", "plan.language"),
        ({"plan": {**PLAN, "temperature": 1}}, "INVALID_FIELD", "plan.temperature"),
        ({"candidate_reference": "x" * 201}, "INVALID_FIELD", "candidate_reference"),
        ({"candidate_reference": "a\x00b"}, "INVALID_FIELD", "candidate_reference"),
        ({"metadata": []}, "INVALID_FIELD", "metadata"),
        ({"metadata": {"a": "x" * 4096}}, "LIMIT_EXCEEDED", "metadata"),
        ({"metadata": {"a": ["b\x00"]}}, "INVALID_FIELD", "metadata"),
        ({"metadata": {"a": 10**200}}, "INVALID_FIELD", "metadata"),
        ({"limits": {"max_seconds": 3601}}, "LIMIT_EXCEEDED", "limits.max_seconds"),
        ({"limits": {"max_seconds": 9}}, "INVALID_FIELD", "limits.max_seconds"),
        ({"limits": {"max_seconds": "60"}}, "INVALID_FIELD", "limits.max_seconds"),
        ({"limits": {"max_seconds": True}}, "INVALID_FIELD", "limits.max_seconds"),
        (
            {"limits": {"expires_in_seconds": 31 * 86400}},
            "LIMIT_EXCEEDED",
            "limits.expires_in_seconds",
        ),
        ({"callback": {}}, "INVALID_FIELD", "callback.url"),
        ({"callback": {"url": "http://a.example.org/"}}, "INVALID_WEBHOOK_URL", "callback.url"),
        ({"callback": {"url": "https://10.0.0.1/"}}, "INVALID_WEBHOOK_URL", "callback.url"),
        ({"callback": {"url": "https://me@a.example.org"}}, "INVALID_WEBHOOK_URL", "callback.url"),
        (
            {"callback": {"url": "https://a.example.org", "secret": "s"}},
            "INVALID_FIELD",
            "callback.secret",
        ),
        (
            {"callback": {"url": "https://a.example.org", "events": ["interview.exploded"]}},
            "INVALID_FIELD",
            "callback.events.0",
        ),
        ({"idempotency_key": ""}, "INVALID_FIELD", "idempotency_key"),
        ({"idempotency_key": "x" * 256}, "INVALID_FIELD", "idempotency_key"),
    ],
)
async def test_what_cannot_be_used_is_refused_by_its_field(
    plain: Operator, body: Json, code: str, field: str
) -> None:
    reply = await plain.ask("POST", PATH, json=body)
    error = reply.json()["error"]
    assert (reply.status, error["code"], error["field"]) == (422, code, field)
    # In words of JSON, not of the library that checks it.
    for word in ("dictionary", "instance", "Extra inputs", "Field required"):
        assert word not in error["message"]
    assert await plain.ids() == []


@pytest.mark.parametrize(
    ("data", "kind", "status", "code"),
    [
        (b"{", "application/json", 400, "INVALID_JSON"),
        (b"[]", "application/json", 400, "INVALID_JSON"),
        (b'"\xff"', "application/json", 400, "INVALID_JSON"),
        (b"{}", "text/plain", 415, "UNSUPPORTED_CONTENT_TYPE"),
        (b'{"a": "' + b"x" * 300_000 + b'"}', "application/json", 413, "TOO_LARGE"),
        (b'{"metadata": {"a": NaN}}', "application/json", 422, "INVALID_FIELD"),
        (b'{"metadata": {"a": 1e999}}', "application/json", 422, "INVALID_FIELD"),
        (b'{"metadata": {"a": "\\ud800"}}', "application/json", 422, "INVALID_FIELD"),
        (b'{"\\ud800": 1}', "application/json", 422, "INVALID_FIELD"),
        (
            b'{"metadata": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
            "application/json",
            422,
            "LIMIT_EXCEEDED",
        ),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused(
    plain: Operator, data: bytes, kind: str, status: int, code: str
) -> None:
    reply = await plain.ask("POST", PATH, data=data, headers={"Content-Type": kind})
    assert (reply.status, reply.json()["error"]["code"]) == (status, code)


# -- listed


async def test_pages_hold_every_interview_once_newest_first(operator: Operator) -> None:
    made = [(await operator.make())["id"] for _ in range(7)]
    seen: list[str] = []
    query = "?limit=3"
    for _ in range(3):
        reply = (await operator.ask("GET", PATH + query)).json()
        seen += [one["id"] for one in reply["interviews"]]
        query = f"?limit=3&cursor={reply['next_cursor']}"
    assert seen == made[::-1]
    assert reply["next_cursor"] is None


async def test_interviews_are_found_by_reference_phase_and_time(operator: Operator) -> None:
    first = await operator.make(candidate_reference="a b")
    second = await operator.make(candidate_reference="b")
    await operator.ask("POST", f"{PATH}/{second['id']}/end")
    between = second["created_at"]
    assert await operator.ids("?candidate_reference=a%20b") == [first["id"]]
    assert await operator.ids("?phase=ended") == [second["id"]]
    assert await operator.ids("?phase=created") == [first["id"]]
    assert await operator.ids(f"?created_after={between}") == [second["id"]]
    assert await operator.ids(f"?created_before={between}") == [first["id"]]
    assert await operator.ids("?created_after=2100-01-01") == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=many", "limit"),
        ("limit=%D9%A1", "limit"),
        ("limit=1&limit=2", "limit"),
        ("phase=sleeping", "phase"),
        ("created_after=yesterday", "created_after"),
        ("created_before=10000-01-01", "created_before"),
        ("cursor=!", "cursor"),
        ("cursor=YQ", "cursor"),
        ("cursor=%F0%9F%98%80", "cursor"),
        ("candidate_reference=%00", "candidate_reference"),
        ("sort=up", "query"),
    ],
)
async def test_a_filter_that_cannot_be_used_is_refused_by_its_name(
    plain: Operator, query: str, field: str
) -> None:
    reply = await plain.ask("GET", f"{PATH}?{query}")
    error = reply.json()["error"]
    assert (reply.status, error["code"], error["field"]) == (422, "INVALID_FIELD", field)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize(
    ("name", "status", "code"),
    [(UNKNOWN, 404, "SESSION_NOT_FOUND"), ("a%00b", 400, "INVALID_SESSION_ID")],
)
async def test_an_interview_that_is_not_there_is_told_so(
    plain: Operator, method: str, name: str, status: int, code: str
) -> None:
    paths = [f"{PATH}/{name}"]
    if method == "GET":
        paths += [f"{PATH}/{name}/transcript", f"{PATH}/{name}/transcript.vtt"]
    for path in paths:
        reply = await plain.ask(method, path)
        assert (reply.status, reply.json()["error"]["code"]) == (status, code), path


# -- ended and erased


async def test_an_unused_interview_is_ended_and_can_no_longer_be_joined(
    served: Server, operator: Operator, candidate: Caller
) -> None:
    made = await operator.make()
    for _ in range(2):
        reply = await operator.ask("POST", f"{PATH}/{made['id']}/end")
        assert (reply.status, reply.json()["phase"]) == (200, "ended")
    assert reply.json()["reason"] == "operator_request"
    assert await told(served, made) == ["interview.created", "interview.ended"]
    await candidate.open()
    await candidate.send({"type": "init", "token": made["join_token"]})
    assert await candidate.error() == "SESSION_ENDED"


async def test_a_running_interview_is_ended_and_written_down(
    served: Server, operator: Operator, candidate: Caller
) -> None:
    made = await operator.make(candidate_reference="c")
    await join(candidate, made)
    assert (await operator.show(made))["phase"] == "live"
    reply = await operator.ask("POST", f"{PATH}/{made['id']}/end")
    ended = reply.json()
    assert (ended["phase"], ended["reason"]) == ("ended", "operator_request")
    await candidate.message("session_ended")
    assert {"candidate.ogg", "transcript.json"} <= set(ended["files"])
    assert ended["started_at"] and ended["ended_at"] and ended["seconds"] > 0
    types = await told(served, made)
    assert types[:3] == ["interview.created", "interview.started", "interview.ended"]
    transcript = await operator.ask("GET", f"{PATH}/{made['id']}/transcript")
    assert transcript.json()["session_id"] == made["id"]


async def test_the_transcript_survives_the_loss_of_its_file(
    served: Server, operator: Operator, candidate: Caller, tmp_path: Path
) -> None:
    made = await operator.make()
    await join(candidate, made)
    await candidate.event("response.done")
    await operator.ask("POST", f"{PATH}/{made['id']}/end")
    path = f"{PATH}/{made['id']}/transcript"
    file = (await operator.ask("GET", path)).json()
    (tmp_path / "interviews" / made["id"] / "transcript.json").unlink()
    kept = (await operator.ask("GET", path)).json()
    assert kept["turns"] == file["turns"] != []


async def test_erasing_leaves_nothing_of_what_was_said_or_known(
    served: Server, operator: Operator, candidate: Caller, tmp_path: Path
) -> None:
    made = await operator.make(candidate_reference="mark-1", metadata={"name": "mark-2"})
    await join(candidate, made)
    await candidate.event("response.done")
    reply = await operator.ask("DELETE", f"{PATH}/{made['id']}?end=true")
    assert reply.status == 200, reply
    first = reply.json()
    assert "transcript.json" in first["files"] and first["turns"] > 0
    again = (await operator.ask("DELETE", f"{PATH}/{made['id']}")).json()
    assert again == {**first, "files": [], "turns": 0}
    left = tmp_path / "interviews" / made["id"]
    assert [file.name for file in left.iterdir()] == ["erased.json"]
    for suffix, status in (("", 404), ("/transcript", 410), ("/recording", 410)):
        assert (await operator.ask("GET", f"{PATH}/{made['id']}{suffix}")).status == status
    assert await operator.ids() == []
    types = await told(served, made)
    assert types[-1] == "interview.deleted"
    assert "transcript.completed" not in types

    async def look(tx: Transaction) -> tuple[Any, list[Any]]:
        row = (await tx.execute(select(interviews).where(interviews.c.id == made["id"]))).one()
        said = await tx.execute(select(turns).where(turns.c.interview_id == made["id"]))
        return row, [*said]

    row, said = await served.state.database.run(look)
    assert said == []
    assert (row.metadata, row.candidate_reference, row.plan) == (None, None, None)


async def test_an_open_clients_interview_is_listed_and_erased_too(
    served: Server, operator: Operator, candidate: Caller
) -> None:
    await candidate.open()
    await candidate.connect()
    await served.state.chronicle.drained()
    (name,) = await operator.ids("?phase=live")
    assert name == candidate.session_id
    refused = await operator.ask("DELETE", f"{PATH}/{name}")
    assert (refused.status, refused.json()["error"]["code"]) == (409, "INTERVIEW_RUNNING")
    assert (await operator.ask("DELETE", f"{PATH}/{name}?end=true")).status == 200
    await candidate.media_lost.wait()
    assert await operator.ids() == []


async def test_an_interview_that_nobody_joined_expires(served: Server, operator: Operator) -> None:
    made, good = await operator.make(), await operator.make()

    async def age(tx: Transaction) -> None:
        past = now_us() - 120 * 1_000_000
        where = interviews.c.id == made["id"]
        await tx.execute(update(interviews).where(where).values(expires_at=past))

    await served.state.database.run(age)
    store = InterviewStore(served.interviews, served.archive, served.state)
    assert await store.expire(now_us()) == 1
    assert await store.expire(now_us()) == 0
    shown = await operator.show(made)
    assert (shown["phase"], shown["reason"]) == ("ended", "expired")
    assert (await operator.show(good))["phase"] == "created"
    assert (await told(served, made))[-1] == "interview.ended"


async def aged(server: Server, made: Json, **values: Any) -> None:
    """Its time to join is long over."""

    async def age(tx: Transaction) -> None:
        past = now_us() - 120 * 1_000_000
        where = interviews.c.id == made["id"]
        await tx.execute(update(interviews).where(where).values(expires_at=past, **values))

    await server.state.database.run(age)


async def test_an_interview_that_runs_does_not_expire_though_it_is_not_written_down(
    served: Server, operator: Operator, candidate: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await operator.make()
    gate = asyncio.Event()
    real = Records.write

    async def late(self: Records, tx: Transaction, happening: Happening) -> bool:
        if not gate.is_set():
            raise StateUnavailable
        return await real(self, tx, happening)

    monkeypatch.setattr(Records, "write", late)
    await join(candidate, made)
    await aged(served, made)
    store = InterviewStore(served.interviews, served.archive, served.state)
    assert await store.expire(now_us()) == 0
    assert (await operator.show(made))["phase"] == "live"
    gate.set()
    await served.state.chronicle.drained()
    await operator.ask("POST", f"{PATH}/{made['id']}/end")
    assert (await operator.show(made))["reason"] == "operator_request"


async def test_an_interview_with_a_folder_to_be_told_of_does_not_expire(
    served: Server, operator: Operator, tmp_path: Path
) -> None:
    made = await operator.make()
    folder = InterviewFolder(tmp_path, SessionId(made["id"]))
    folder.create()
    folder.mark_untold("another")
    await aged(served, made)
    store = InterviewStore(served.interviews, served.archive, served.state)
    assert await store.expire(now_us()) == 0
    folder.mark_told()
    assert await store.expire(now_us()) == 1


async def test_an_interview_that_begins_on_another_node_does_not_expire(
    served: Server, operator: Operator
) -> None:
    made = await operator.make()
    await aged(served, made, node_id="another", claim="its")
    store = InterviewStore(served.interviews, served.archive, served.state)
    # On SQLite there are no others: that one is gone.
    alone = served.state.heartbeat is None
    assert await store.expire(now_us()) == int(alone)


async def test_late_interviews_expire_whatever_stands_before_them(
    served: Server, operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interview_peer.web.interview_store.AT_ONCE", 2)
    made = [await operator.make() for _ in range(5)]
    for one in made:
        await aged(served, one)
    for one in sorted(made, key=lambda one: str(one["id"]))[:3]:
        folder = InterviewFolder(tmp_path, SessionId(one["id"]))
        folder.create()
        folder.mark_untold("another")
    store = InterviewStore(served.interviews, served.archive, served.state)
    assert await store.expire(now_us()) == 2


@pytest.mark.parametrize("limit", ["0" * 10 + "19", "9" * 400, "0", "201", "-1", "1e2"])
async def test_a_limit_is_read_whole(operator: Operator, limit: str) -> None:
    reply = await operator.ask("GET", f"{PATH}?limit={limit}")
    assert (reply.status, reply.json()["error"]["field"]) == (422, "limit")


async def test_a_number_too_large_to_keep_is_the_callers_fault(operator: Operator) -> None:
    reply = await operator.ask("POST", PATH, json={"metadata": {"n": 10**400}})
    assert reply.status == 422


async def test_interview_that_the_database_never_had_is_told_by_its_manifest(
    operator: Operator, tmp_path: Path
) -> None:
    for name, close in (("ended-before", True), ("crashed-before", False)):
        folder = await asyncio.to_thread(record, tmp_path, name, until=1.0, close=close)
        await asyncio.to_thread(finish, folder, ignore)
    ended = await operator.show({"id": "ended-before"})
    assert (ended["phase"], ended["reason"]) == ("ended", "client_request")
    crashed = await operator.show({"id": "crashed-before"})
    assert (crashed["phase"], crashed["reason"]) == ("ended", "recovered")
