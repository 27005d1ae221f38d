"""Who did what, and when: one row for each act of an operator, whatever becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from sqlalchemy import select

from interview_peer.app import Server
from interview_peer.core import acts as core
from interview_peer.core.acts import Act, Outcome
from interview_peer.errors import InterviewNotLive
from interview_peer.session.archive import Archive
from interview_peer.session.control import Control
from interview_peer.state.database import FILE, Transaction
from interview_peer.state.schema import acts
from interview_peer.types import Json
from interview_peer.web import acts as web_acts
from interview_peer.web import events_api
from interview_peer.web.acts import ROUTES, Kind, Recorded
from tests.notices.office import SECRET
from tests.recording.folders import finished
from tests.support.caller import Caller, calling
from tests.support.inprocess import serving
from tests.support.operator import KEY, PATH, Operator
from tests.support.waiting import eventually

from .test_cli import command
from .test_interviews import UNKNOWN, join

AUDIT = "/api/audit"


async def audit(server: Server, operator: Operator, query: str = "") -> list[Json]:
    """What is written down by now, newest first."""
    await server.state.chronicle.drained()
    reply = await operator.ask("GET", AUDIT + query)
    assert reply.status == 200, reply
    return list(reply.json()["acts"])


def short(rows: list[Json]) -> list[tuple[str, str | None]]:
    """Acts and what became of them, in the order in which they were done."""
    return [(row["act"], row["code"] or row["outcome"]) for row in reversed(rows)]


async def test_the_life_of_an_interview_can_be_told_from_its_acts(
    served: Server, operator: Operator, candidate: Caller
) -> None:
    made = await operator.make(candidate_reference="mark-reference", metadata={"n": "mark-name"})
    here = f"{PATH}/{made['id']}"
    await join(candidate, made)
    await candidate.event("output_audio_buffer.started")
    asked: tuple[tuple[str, str, Json], ...] = (
        ("POST", f"{here}/instruct", {"json": {"text": "mark-words"}}),
        ("POST", f"{here}/say", {"json": {"text": "mark-words", "interrupt": True}}),
        ("GET", f"{here}/transcript", {}),
        ("GET", f"{here}/transcript.txt", {}),
        ("GET", here, {}),
        ("POST", f"{here}/end", {}),
        ("DELETE", here, {}),
    )
    for method, path, options in asked:
        assert (await operator.ask(method, path, **options)).status == 200, path
    assert (await operator.ask("GET", f"{here}/transcript")).status == 410
    rows = await audit(served, operator, f"?interview={made['id']}")
    assert short(rows) == [
        ("interview.made", "done"),
        ("interview.instructed", "done"),
        ("interview.said", "done"),
        ("transcript.read", "done"),
        ("interview.ended", "done"),
        ("interview.erased", "done"),
        ("transcript.read", "RECORDING_ERASED"),
    ]
    for row in rows:
        assert (row["key_id"], row["address"]) == ("environment", "127.0.0.1")
    text = json.dumps(rows)
    assert "mark-" not in text and KEY not in text and made["join_token"] not in text


async def test_acts_of_a_key_name_it_and_what_was_acted_upon(
    served: Server, operator: Operator
) -> None:
    made = (await operator.ask("POST", "/api/keys", json={"name": "tracker"})).json()
    tracker = Operator(operator._caller, made["key"])
    wanted = {"url": "https://receiver.example.org/", "secret": SECRET}
    hook = (await tracker.ask("POST", "/api/webhooks", json=wanted)).json()["id"]
    for method, path, options in (
        ("PATCH", f"/api/webhooks/{hook}", {"json": {"active": False}}),
        ("POST", f"/api/webhooks/{hook}/rotate", {}),
        ("POST", f"/api/webhooks/{hook}/test", {}),
        ("DELETE", f"/api/webhooks/{hook}", {}),
    ):
        await tracker.ask(method, path, **options)
    await operator.ask("DELETE", f"/api/keys/{made['id']}")
    rows = await audit(served, operator)
    assert [(row["key_id"], row["object_id"]) for row in reversed(rows)] == [
        ("environment", made["id"]),
        *[(made["id"], hook)] * 5,
        ("environment", made["id"]),
    ]
    assert short(rows)[1:6] == [
        ("webhook.made", "done"),
        ("webhook.changed", "done"),
        ("webhook.rotated", "done"),
        ("webhook.tested", "INVALID_WEBHOOK"),
        ("webhook.deleted", "done"),
    ]
    assert {row["key_name"] for row in rows} == {"INTERVIEW_ADMIN_KEY", "tracker"}
    text = json.dumps(rows)
    assert made["key"] not in text and SECRET not in text and "receiver.example" not in text


async def test_every_route_of_operators_leaves_what_the_table_says(served: Server) -> None:
    async with calling(served.url) as caller:
        operator = Operator(caller)
        # These two are below: one empties the server, one asks for a key only of an invited call.
        routes = [route for route in ROUTES if "drain" not in route and "hangup" not in route]
        for route in routes:
            method, _, path = route.partition(" ")
            for place in ("{interview_id}", "{id}", "{which}"):
                path = path.replace(place, UNKNOWN)
            path = path.replace("{key_id}", "0" * 16)
            if "/events" in path:
                # It would go on for as long as the server; refused by the id alone.
                path = path.replace(UNKNOWN, "no%20such")
            before = {row["id"] for row in await audit(served, operator)}
            reply = await operator.ask(method, path, **({} if method == "GET" else {"json": {}}))
            assert reply.status < 500, (route, reply)
            new = [row for row in await audit(served, operator) if row["id"] not in before]
            entry = ROUTES[route]
            if not isinstance(entry, Recorded):
                assert new == [], route
                continue
            again = {one for one in routes[: routes.index(route)] if ROUTES[one] == entry}
            if entry.kind is Kind.READING and again:
                # The same reading by another path is the same act.
                assert new == [], route
                continue
            (row,) = new
            assert row["act"] == entry.act.value, route
            refused = reply.status >= 400
            assert row["outcome"] == ("refused" if refused else "done"), route
            assert bool(row["code"]) == refused, route


async def test_what_a_key_has_no_scope_for_is_refused_and_written_down_once(
    served: Server, operator: Operator
) -> None:
    made = await operator.make()
    wanted = {"name": "maker", "scopes": ["interviews"]}
    held = (await operator.ask("POST", "/api/keys", json=wanted)).json()
    maker = Operator(operator._caller, held["key"])
    here = f"{PATH}/{made['id']}"
    for _ in range(3):
        for method, path in (
            ("GET", f"{here}/transcript"),
            ("DELETE", here),
            ("GET", AUDIT),
        ):
            assert (await maker.ask(method, path)).status == 403, path
    rows = await audit(served, operator, f"?key={held['id']}")
    assert short(rows) == [
        ("transcript.read", "INSUFFICIENT_SCOPE"),
        ("interview.erased", "INSUFFICIENT_SCOPE"),
    ]
    assert {row["interview_id"] for row in rows} == {made["id"]}


async def test_refusals_beyond_their_rate_are_counted_and_nothing_that_was_done_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "REFUSALS_AT_ONCE", 3)
    monkeypatch.setattr(core, "REFUSALS_PER_SECOND", 1e-6)
    monkeypatch.setattr(web_acts, "SUM_SECONDS", 0.01)
    async with serving(tmp_path, admin_key=KEY) as server, calling(server.url) as caller:
        operator = Operator(caller)
        held = (
            await operator.ask("POST", "/api/keys", json={"name": "a", "scopes": ["webhooks"]})
        ).json()
        other = Operator(caller, held["key"])
        made = []
        for number in range(5):
            for method, path, options in (
                ("POST", PATH, {"json": {"nonsense": True}}),
                ("POST", f"{PATH}/none-{number}/end", {}),
                ("GET", f"{PATH}/none-{number}/transcript", {}),
                ("DELETE", f"{PATH}/none-{number}", {}),
            ):
                reply = await operator.ask(method, path, **options)
                assert reply.status in (404, 422), reply
                # Of what is refused to one key, another's rows are none.
                assert (await other.ask(method, path, **options)).status == 403
            made.append((await operator.make())["id"])

        async def told(key_id: str) -> tuple[list[Json], int]:
            rows = await audit(server, operator, f"?key={key_id}&limit=200")
            sums = [row for row in rows if row["act"] == Act.REFUSALS_LEFT_OUT]
            assert all((row["outcome"], row["code"]) == ("refused", None) for row in sums)
            count = sum(int(row["object_id"]) for row in sums)
            return [row for row in rows if row not in sums], count

        # Those that name nothing are one of a kind to a key that may not make any: folded.
        for key_id, refused in (("environment", 20), (held["id"], 16)):

            async def left_out(key_id: str = key_id) -> int:
                return (await told(key_id))[1]

            def all_but_three(count: int, refused: int = refused) -> bool:
                return count == refused - 3

            await eventually(left_out, within=10, what="the sum", good=all_but_three)
            rows, _ = await told(key_id)
            assert [row["outcome"] for row in rows].count("refused") == 3
        rows, _ = await told("environment")
        done = [row for row in rows if row["outcome"] == "done"]
        assert [row["interview_id"] for row in done] == [*reversed(made), None]
        assert len(rows) == len(done) + 3


async def test_a_refusal_that_may_have_had_an_effect_is_never_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "REFUSALS_AT_ONCE", 0)

    async def gone(self: Control, **options: Any) -> str:
        raise InterviewNotLive

    monkeypatch.setattr(Control, "respond", gone)
    async with (
        serving(tmp_path, admin_key=KEY) as server,
        calling(server.url) as caller,
        calling(server.url) as candidate,
    ):
        operator = Operator(caller)
        await candidate.open()
        await candidate.connect()
        await candidate.event("response.done")
        path = f"{PATH}/{candidate.session_id}/instruct"
        # The model was told it, and then did not answer.
        asked = await operator.ask("POST", path, json={"text": "Go on.", "respond": True})
        assert asked.status == 409
        assert (await operator.ask("POST", path, json={"text": ""})).status == 422
        rows = await audit(server, operator, f"?interview={candidate.session_id}")
        assert short(rows) == [("interview.instructed", "INTERVIEW_NOT_LIVE")]
    # What was counted is told at the end at the latest.
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as database:
        query = "SELECT act, object_id FROM acts WHERE key_id = 'environment' ORDER BY id"
        assert database.execute(query).fetchall()[1:] == [("refusals.left_out", "1")]


async def test_a_key_that_asks_for_more_than_it_may_give_is_refused_each_time(
    served: Server, operator: Operator
) -> None:
    held = (
        await operator.ask("POST", "/api/keys", json={"name": "a", "scopes": ["operate"]})
    ).json()
    narrow = Operator(operator._caller, held["key"])
    for _ in range(2):
        asked = await narrow.ask("POST", "/api/keys", json={"name": "b", "scopes": ["all"]})
        assert asked.status == 403
    rows = await audit(served, operator, f"?key={held['id']}")
    assert short(rows) == [("key.made", "INSUFFICIENT_SCOPE")] * 2


async def test_a_secret_in_the_place_of_an_id_is_not_kept(
    served: Server, operator: Operator
) -> None:
    made = await key(operator, "a")
    secrets = (made["key"], SECRET, KEY)
    places: tuple[tuple[str, str, int], ...] = (
        ("DELETE", "/api/keys/{}", 3),
        ("GET", PATH + "/{}/transcript", 2),
        ("POST", "/api/webhooks/{}/test", 2),
    )
    for method, place, count in places:
        for secret in secrets[:count]:
            path = place.format(quote(secret, safe=""))
            assert (await operator.ask(method, path)).status in (400, 404, 422), path
    rows = (await audit(served, operator))[:-1]
    assert len(rows) == 3 + 2 + 2
    assert {(row["outcome"], row["interview_id"], row["object_id"]) for row in rows} == {
        ("refused", None, None)
    }


async def test_a_reading_that_broke_off_was_one_all_the_same(
    served: Server, operator: Operator, candidate: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await candidate.open()
    await candidate.connect()
    await served.state.chronicle.drained()
    begun = asyncio.Event()

    async def breaks(response: object, text: str) -> None:
        begun.set()
        raise RuntimeError("in the middle")

    monkeypatch.setattr(events_api, "_send", breaks)
    with contextlib.suppress(aiohttp.ClientError):
        await operator.ask("GET", f"{PATH}/{candidate.session_id}/events")
    assert begun.is_set()
    assert short(await audit(served, operator)) == [("interview.followed", "done")]


async def test_a_drain_is_an_act(tmp_path: Path) -> None:
    async with serving(tmp_path, admin_key=KEY) as server, calling(server.url) as caller:
        operator = Operator(caller)
        assert (await operator.ask("POST", "/api/drain", json={"seconds": 0})).status == 202
        assert short(await audit(server, operator)) == [("drain.begun", "done")]


async def test_a_call_that_is_hung_up_is_an_act_only_if_an_operator_does_it(
    served: Server, operator: Operator
) -> None:
    for headers in ({"Authorization": f"Bearer {KEY}"}, {}):
        async with calling(served.url) as candidate:
            made = await operator.make()
            await join(candidate, made)
            own = headers or {"Authorization": f"Bearer {made['join_token']}"}
            path = f"/v1/realtime/calls/rtc_{made['id']}/hangup"
            assert (await candidate.post(path, headers=own)).status == 200
            rows = await audit(served, operator, f"?interview={made['id']}")
            ended = [row for row in rows if row["act"] == Act.INTERVIEW_ENDED]
            assert len(ended) == bool(headers)


async def test_an_erasure_is_written_down_before_anything_is_erased(
    served: Server, operator: Operator, candidate: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await operator.make()
    await join(candidate, made)
    await candidate.event("response.done")
    await operator.ask("POST", f"{PATH}/{made['id']}/end")
    seen: list[str] = []
    real = Archive.erase

    async def erase(self: Archive, name: str) -> Any:
        async def look(tx: Transaction) -> list[str]:
            query = select(acts.c.outcome).where(acts.c.act == Act.INTERVIEW_ERASED.value)
            return [*(await tx.execute(query)).scalars()]

        seen.extend(await served.state.database.run(look))
        return await real(self, name)

    monkeypatch.setattr(Archive, "erase", erase)
    assert (await operator.ask("DELETE", f"{PATH}/{made['id']}")).status == 200
    assert seen == [Outcome.BEGUN.value]
    rows = await audit(served, operator, f"?act={Act.INTERVIEW_ERASED}")
    assert short(rows) == [("interview.erased", "done")]


async def test_pieces_of_one_recording_are_one_act_for_each_key(tmp_path: Path) -> None:
    await asyncio.to_thread(finished, tmp_path, "one")
    async with serving(tmp_path, admin_key=KEY) as server, calling(server.url) as caller:
        operator = Operator(caller)
        made, unused = await key(operator, "other"), await key(operator, "unused")
        for secret in (KEY, made["key"]):
            parts = [
                sound(server, secret, Range=f"bytes={at}-{at + 99}") for at in range(0, 1000, 100)
            ]
            assert {status for status, _ in await asyncio.gather(*parts)} == {206}
        _, tag = await sound(server, KEY)
        # Nothing goes out by these.
        assert (await sound(server, unused["key"], "HEAD"))[0] == 200
        assert (await sound(server, unused["key"], If_None_Match=tag))[0] == 304
        rows = await audit(server, operator, "?interview=one")
        assert short(rows) == [("recording.read", "done")] * 2
        assert {row["key_id"] for row in rows} == {"environment", made["id"]}


async def sound(
    server: Server, secret: str, method: str = "GET", **headers: str
) -> tuple[int, str]:
    """Status and tag of an answer that holds, or would hold, a part of what was recorded."""
    url = f"{server.url}{PATH}/one/recording/candidate"
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named["Authorization"] = f"Bearer {secret}"
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, url, headers=named) as answer,
    ):
        await answer.read()
        return answer.status, answer.headers["ETag"]


async def key(operator: Operator, name: str) -> Json:
    return (await operator.ask("POST", "/api/keys", json={"name": name})).json()


@pytest.mark.timeout(60)
async def test_nothing_that_was_said_goes_out_unwritten_and_what_runs_can_be_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(finished, tmp_path, "one")
    async with (
        serving(tmp_path, admin_key=KEY) as server,
        calling(server.url) as caller,
        calling(server.url) as candidate,
    ):
        operator = Operator(caller)
        monkeypatch.setattr(server.state.database, "patience", 0.3)
        await candidate.open()
        await candidate.connect()
        await candidate.event("response.done")
        await server.state.chronicle.drained()
        here = f"{PATH}/{candidate.session_id}"
        with contextlib.closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for method, path in (
                ("GET", f"{PATH}/one/recording/candidate"),
                ("GET", f"{PATH}/one/transcript"),
                ("GET", f"{here}/transcript"),
                ("GET", f"{here}/events"),
                ("DELETE", f"{PATH}/one"),
            ):
                reply = await operator.ask(method, path)
                assert (reply.status, reply.json()["error"]["code"]) == (503, "STATE_UNAVAILABLE")
            assert (tmp_path / "interviews" / "one" / "candidate.ogg").exists()
            told = await operator.ask("POST", f"{here}/instruct", json={"text": "Be brief."})
            assert told.status == 200
            other.execute("ROLLBACK")
        rows = await audit(server, operator)
        assert ("interview.instructed", "done") in short(rows)
        assert ("recording.read", "STATE_UNAVAILABLE") in short(rows)
        assert ("interview.erased", "STATE_UNAVAILABLE") in short(rows)
        assert (await sound(server, KEY))[0] == 200
        assert ("recording.read", "done") in short(await audit(server, operator))


async def test_the_address_is_the_callers_where_a_trusted_proxy_tells_it(tmp_path: Path) -> None:
    settings = {"admin_key": KEY, "trusted_proxies": ("127.0.0.0/8",)}
    async with serving(tmp_path, **settings) as server, calling(server.url) as caller:
        operator = Operator(caller)
        told = {"X-Forwarded-For": "203.0.113.9"}
        await operator.ask("POST", "/api/keys", json={"name": "a"}, headers=told)
        assert [row["address"] for row in await audit(server, operator)] == ["203.0.113.9"]


async def test_acts_are_had_a_page_at_a_time(served: Server, operator: Operator) -> None:
    made = [await key(operator, f"k{number}") for number in range(5)]
    seen: list[str] = []
    cursor = ""
    while True:
        reply = await operator.ask("GET", f"{AUDIT}?limit=2{cursor}")
        page = reply.json()
        seen += [row["object_id"] for row in page["acts"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == [one["id"] for one in reversed(made)]
    first, last = made[0]["created_at"], made[-1]["created_at"]
    within = await audit(served, operator, f"?since={first[:-1]}Z&until={last[:-1]}Z")
    # Each act begins just before the key is made.
    assert [row["object_id"] for row in within] == [one["id"] for one in reversed(made[1:])]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("act=interview.watched", "act"),
        ("interview=%00", "interview"),
        ("key=a%20b", "key"),
        ("cursor=", "cursor"),
        ("since=yesterday", "since"),
        ("until=1", "until"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=1&limit=2", "limit"),
        ("other=1", "query"),
    ],
)
async def test_a_question_that_cannot_be_answered_is_refused(
    plain: Operator, query: str, field: str
) -> None:
    reply = await plain.ask("GET", f"{AUDIT}?{query}")
    assert (reply.status, reply.json()["error"]["field"]) == (422, field), reply


async def test_acts_are_listed_on_a_terminal(served: Server, operator: Operator) -> None:
    made = await operator.make()
    await operator.ask("DELETE", f"{PATH}/{UNKNOWN}")
    await served.state.chronicle.drained()
    lines = (await command(served.url, "audit")).stdout.splitlines()
    assert [line.split("  ")[1:] for line in lines] == [
        ["interview.erased", "refused:SESSION_NOT_FOUND", "environment", *rest(UNKNOWN)],
        ["interview.made", "done", "environment", *rest(made["id"])],
    ]
    told = await command(served.url, "audit", "--json", "--act", "interview.made", "--limit", "1")
    assert json.loads(told.stdout)["interview_id"] == made["id"]
    none = await command(served.url, "audit", "--until", "2020-01-01T00:00:00Z")
    assert (none.exit_code, none.stdout) == (0, "")


def rest(name: str) -> list[str]:
    return ["INTERVIEW_ADMIN_KEY", name, "127.0.0.1"]
