"""Endpoints and deliveries over HTTP, and from a terminal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from click.testing import CliRunner, Result
from pydantic import SecretStr
from standardwebhooks import Webhook

from interview_peer.cli_webhooks import webhooks
from interview_peer.errors import StateUnavailable, Unauthorized
from interview_peer.notices import replay
from interview_peer.notices.replay import Replay
from interview_peer.notices.service import Notices
from interview_peer.notices.types import FACTS
from interview_peer.settings import Settings
from interview_peer.state.database import Database
from interview_peer.types import Json
from interview_peer.web import forms
from interview_peer.web.access import Access
from interview_peer.web.limits import LIMITS, Limits
from interview_peer.web.origins import Origins
from interview_peer.web.webhooks_api import WebhooksApi

from .office import SECRET, Office
from .receiver import Receiver, ok, status

KEY = "operators-key"
ANCIENT = "2020-01-01T00:00:00Z"


@dataclass
class Api:
    """The paths of webhooks, served over a database with a worker that is not started."""

    client: TestClient[web.Request, web.Application]
    notices: Notices
    office: Office

    @property
    def url(self) -> str:
        """Where it is served."""
        return str(self.client.make_url("/")).rstrip("/")

    async def ask(self, method: str, path: str, expect: int = 200, **options: Any) -> Json:
        """One request by the operator; the answer's JSON."""
        headers = {"Authorization": f"Bearer {KEY}"}
        async with self.client.request(method, path, headers=headers, **options) as answer:
            text = await answer.text()
            assert answer.status == expect, text
            decoded: Json = json.loads(text) if text else {}
            return decoded

    async def refused(self, method: str, path: str, status: int, **options: Any) -> str:
        """The code of an error."""
        error = (await self.ask(method, path, status, **options))["error"]
        assert set(error) == {"code", "message"}
        return str(error["code"])

    async def made(self, url: str, **fields: Any) -> Json:
        """A new endpoint."""
        return await self.ask("POST", "/api/webhooks", 201, json={"url": url, **fields})


@pytest.fixture
async def api(database: Database) -> AsyncIterator[Api]:
    notices = Notices.open(database, allow=["127.0.0.0/8"])
    settings = Settings(simulation=True, admin_key=SecretStr(KEY))
    access = Access(settings, database)
    app = web.Application(middlewares=forms.middlewares(access, Origins(settings)))
    app[LIMITS] = Limits(settings)
    WebhooksApi(notices.desk, access.check_operator).add_to(app)
    office = Office(database)
    office.outbox = notices.outbox
    async with TestClient(TestServer(app)) as client:
        yield Api(client, notices, office)
    await notices.close()


async def test_every_path_needs_the_operators_key(api: Api) -> None:
    asked = 0
    for route in api.client.app.router.routes() if api.client.app else []:
        path = (route.resource.canonical if route.resource else "").replace("{id}", "x")
        if route.method == "HEAD":
            continue
        async with api.client.request(route.method, path) as answer:
            assert answer.status == 401, (route.method, path)
        asked += 1
    assert asked == 12
    wrong = {"Authorization": "Bearer wrong"}
    async with api.client.get("/api/webhooks", headers=wrong) as answer:
        assert answer.status == 401


async def test_an_endpoint_is_kept_and_its_secret_told_once(api: Api) -> None:
    made = await api.made("https://example.com/hook", events=["interview.ended"], description="x")
    assert made["secret"].startswith("whsec_")
    shown = {name: value for name, value in made.items() if name != "secret"}
    assert shown["events"] == ["interview.ended"]
    assert (shown["active"], shown["disabled_reason"], shown["description"]) == (True, None, "x")
    assert await api.ask("GET", "/api/webhooks") == {"webhooks": [shown]}
    one = await api.ask("GET", f"/api/webhooks/{made['id']}")
    states = {"due": 0, "paused": 0, "delivered": 0, "dead": 0}
    assert one == {**shown, "deliveries": states}


async def test_an_endpoint_can_bring_its_own_secret(api: Api) -> None:
    assert (await api.made("https://example.com/", secret=SECRET))["secret"] == SECRET


@pytest.mark.parametrize(
    ("code", "body"),
    [
        ("INVALID_WEBHOOK", {}),
        ("INVALID_WEBHOOK_URL", {"url": None}),
        ("INVALID_WEBHOOK_URL", {"url": "http://example.com:-1/"}),
        ("INVALID_WEBHOOK_URL", {"url": "https://10.0.0.1/"}),
        ("INVALID_WEBHOOK_URL", {"url": "https://\ud800.example/"}),
        ("INVALID_WEBHOOK", {"events": []}),
        ("INVALID_WEBHOOK", {"events": "interview.ended"}),
        ("INVALID_WEBHOOK", {"events": ["interview.sneezed"]}),
        ("INVALID_WEBHOOK", {"events": [1]}),
        ("INVALID_WEBHOOK", {"events": [["interview.ended"]]}),
        ("INVALID_WEBHOOK", {"description": 5}),
        ("INVALID_WEBHOOK", {"description": "x" * 501}),
        ("INVALID_WEBHOOK", {"description": "\0"}),
        ("INVALID_WEBHOOK", {"description": "\ud800"}),
        ("INVALID_WEBHOOK", {"secret": "hunter2"}),
        ("INVALID_WEBHOOK", {"secret": 5}),
        ("INVALID_WEBHOOK", {"active": True}),
        ("INVALID_WEBHOOK", {"colour": "red"}),
    ],
)
async def test_a_wrong_field_is_told(api: Api, code: str, body: Json) -> None:
    if body and "url" not in body:
        body = {"url": "https://example.com/", **body}
    assert await api.refused("POST", "/api/webhooks", 422, json=body) == code
    assert await api.ask("GET", "/api/webhooks") == {"webhooks": []}


async def test_an_endpoint_whose_commit_is_lost_on_the_way_back_is_kept_once(
    api: Api, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, lost = database._once, 0

    async def once(work: Any) -> Any:
        nonlocal lost
        done = await real(work)
        if not lost:
            lost += 1
            raise ConnectionResetError
        return done

    monkeypatch.setattr(database, "_once", once)
    made = await api.made("https://example.com/hook")
    assert lost == 1
    kept = (await api.ask("GET", "/api/webhooks"))["webhooks"]
    assert [one["id"] for one in kept] == [made["id"]]


async def test_an_endpoint_is_kept_once_by_its_key(api: Api) -> None:
    body = {"url": "https://example.com/hook", "events": ["interview.ended"]}
    key = {"Authorization": f"Bearer {KEY}", "Idempotency-Key": "of our tracker"}

    async def ask(body: Json) -> tuple[int, str | None, Json]:
        async with api.client.post("/api/webhooks", json=body, headers=key) as answer:
            replayed = answer.headers.get("Idempotent-Replayed")
            return answer.status, replayed, await answer.json()

    first, *others = await asyncio.gather(*(ask(body) for _ in range(4)))
    assert {one[0] for one in (first, *others)} == {201}
    assert len({json.dumps(one[2], sort_keys=True) for one in (first, *others)}) == 1
    assert sorted(str(one[1]) for one in (first, *others)) == ["None", "true", "true", "true"]
    assert len((await api.ask("GET", "/api/webhooks"))["webhooks"]) == 1
    status, _, refused = await ask({**body, "events": None})
    assert (status, refused["error"]["code"]) == (409, "IDEMPOTENCY_CONFLICT")
    key["Idempotency-Key"] = "x" * 256
    assert (await ask(body))[0] == 422


async def test_only_so_many_endpoints_are_kept(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interview_peer.notices.desk.MAX_ENDPOINTS", 2)
    for _ in range(2):
        await api.made("https://example.com/")
    body = {"url": "https://example.com/"}
    assert await api.refused("POST", "/api/webhooks", 409, json=body) == "TOO_MANY_WEBHOOKS"


@pytest.mark.parametrize("unknown", ["ep_x", "x" * 500, "%00", "%ED%A0%80"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate"), ("POST", "/test")],
)
async def test_an_unknown_endpoint_is_not_found(
    api: Api, method: str, path: str, unknown: str
) -> None:
    options: Json = {"json": {}} if method == "PATCH" else {}
    code = await api.refused(method, f"/api/webhooks/{unknown}{path}", 404, **options)
    assert code == "WEBHOOK_NOT_FOUND"


async def test_switched_off_it_keeps_notices_and_gets_them_when_on_again(
    api: Api, receiver: Receiver
) -> None:
    made = await api.made(receiver.url)
    path = f"/api/webhooks/{made['id']}"
    off = await api.ask("PATCH", path, json={"active": False})
    assert (off["active"], off["disabled_reason"]) == (False, "request")
    interview = await api.office.interview()
    ids = [await api.office.tell(interview) for _ in range(3)]
    assert await api.notices.worker.drain() is None
    assert receiver.got == []
    assert (await api.ask("GET", path))["deliveries"]["paused"] == 3
    assert await api.refused("POST", path + "/test", 422) == "INVALID_WEBHOOK"
    on = await api.ask("PATCH", path, json={"active": True})
    assert (on["active"], on["disabled_reason"]) == (True, None)
    assert await api.notices.worker.drain() is None
    assert receiver.ids == ids


async def test_url_and_events_can_be_changed(api: Api, receiver: Receiver) -> None:
    made = await api.made("https://example.com/", events=["interview.ended"])
    path = f"/api/webhooks/{made['id']}"
    changed = await api.ask("PATCH", path, json={"url": receiver.url, "events": None})
    assert (changed["url"], changed["events"]) == (receiver.url, None)
    assert await api.refused("PATCH", path, 422, json={"secret": SECRET}) == "INVALID_WEBHOOK"
    notice_id = await api.office.tell(await api.office.interview())
    await api.notices.worker.drain()
    assert receiver.ids == [notice_id]


async def test_a_removed_endpoint_gets_nothing(api: Api, receiver: Receiver) -> None:
    made = await api.made(receiver.url)
    await api.office.tell(await api.office.interview())
    await api.ask("DELETE", f"/api/webhooks/{made['id']}", 204)
    assert await api.refused("GET", f"/api/webhooks/{made['id']}", 404) == "WEBHOOK_NOT_FOUND"
    assert await api.notices.worker.drain() is None
    assert receiver.got == []


async def test_a_rotated_secret_signs_beside_the_old_one(api: Api, receiver: Receiver) -> None:
    made = await api.made(receiver.url)
    rotated = await api.ask("POST", f"/api/webhooks/{made['id']}/rotate")
    assert rotated["secrets_in_force"] == 2
    await api.office.tell(await api.office.interview())
    await api.notices.worker.drain()
    (got,) = receiver.got
    for secret in (made["secret"], rotated["secret"]):
        Webhook(secret).verify(got.body, got.headers)


async def test_a_test_notice_goes_to_that_endpoint_alone(api: Api, receiver: Receiver) -> None:
    made = await api.made(receiver.url, events=["interview.ended"])
    await api.made(f"{receiver.url}/other", events=["*"])
    sent = await api.ask("POST", f"/api/webhooks/{made['id']}/test", 202)
    assert (sent["type"], sent["state"], sent["interview_id"]) == ("webhook.test", "due", None)
    await api.notices.worker.drain()
    (got,) = receiver.got
    assert (got.path, got.id) == ("/hook", sent["notice_id"])
    assert got.notice["data"] == {"message": "It works."}
    shown = await api.ask("GET", f"/api/webhooks/deliveries/{sent['id']}")
    assert (shown["state"], shown["last_status"], shown["body"]) == (
        "delivered",
        204,
        got.body.decode(),
    )
    (tried,) = shown["tried"]
    assert (tried["status"], tried["error"]) == (204, None)


# -- deliveries


async def test_deliveries_are_listed_by_state_and_page(api: Api, receiver: Receiver) -> None:
    made = await api.made(receiver.url)
    interview, other = await api.office.interview(), await api.office.interview()
    for one in (interview, other, interview, other, interview):
        await api.office.tell(one)
    await api.notices.worker.drain()
    listed: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        query = {"limit": "2", "state": "delivered", "endpoint_id": made["id"], **cursor}
        page = await api.ask("GET", "/api/webhooks/deliveries", params=query)
        listed += [one["id"] for one in page["deliveries"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert len(listed) == 5
    assert listed == sorted(set(listed), reverse=True)
    path = f"/api/interviews/{interview}/deliveries"
    of_one = (await api.ask("GET", path))["deliveries"]
    assert [one["sequence"] for one in of_one] == [3, 2, 1]
    assert {one["interview_id"] for one in of_one} == {interview}
    assert (await api.ask("GET", "/api/webhooks/deliveries?state=dead"))["deliveries"] == []


async def test_deliveries_of_an_unknown_interview_are_not_found(api: Api) -> None:
    path = "/api/interviews/nobody/deliveries"
    assert await api.refused("GET", path, 404) == "SESSION_NOT_FOUND"


@pytest.mark.parametrize(
    "query", ["state=lost", "limit=0", "limit=201", "limit=x", "limit=-1", "cursor=%00", "limit="]
)
async def test_a_wrong_filter_is_told(api: Api, query: str) -> None:
    path = f"/api/webhooks/deliveries?{query}"
    assert await api.refused("GET", path, 422) == "INVALID_WEBHOOK"


async def dead_delivery(api: Api, receiver: Receiver) -> Json:
    """A delivery that was tried ten times."""
    await api.made(receiver.url)
    receiver.answer = status(500)
    await api.office.tell(await api.office.interview())
    worker = api.notices.worker
    clock = [worker._now()]
    real, worker._now = worker._now, lambda: clock[0]
    while (due := await worker.drain()) is not None:
        clock[0] = due
    worker._now = real
    worker._places.clear()
    (dead,) = (await api.ask("GET", "/api/webhooks/deliveries?state=dead"))["deliveries"]
    return dict(dead)


async def test_a_dead_delivery_is_sent_again_on_request(api: Api, receiver: Receiver) -> None:
    dead = await dead_delivery(api, receiver)
    path = f"/api/webhooks/deliveries/{dead['id']}"
    assert (dead["attempts"], dead["last_status"], dead["next_attempt_at"]) == (10, 500, None)
    again = await api.ask("POST", f"{path}/retry", 202)
    assert (again["state"], again["attempts"]) == ("due", 0)
    receiver.answer = ok
    await api.notices.worker.drain()
    assert (await api.ask("GET", path))["state"] == "delivered"
    assert len((await api.ask("GET", path))["tried"]) == 11
    assert set(receiver.ids) == {dead["notice_id"]}


@pytest.mark.parametrize("path", ["", "/retry"])
async def test_an_unknown_delivery_is_not_found(api: Api, path: str) -> None:
    method = "POST" if path else "GET"
    for unknown in ("dlv_x", "%00"):
        code = await api.refused(method, f"/api/webhooks/deliveries/{unknown}{path}", 404)
        assert code == "DELIVERY_NOT_FOUND"


def done(due: int) -> Json:
    return {"due": due, "next_cursor": None}


async def test_a_replay_sends_the_dead_of_its_time(api: Api, receiver: Receiver) -> None:
    await dead_delivery(api, receiver)
    path = "/api/webhooks/replay"
    body = {"since": ANCIENT, "until": "2021-01-01T00:00:00+00:00"}
    assert await api.ask("POST", path, 202, json=body) == done(0)
    assert await api.ask("POST", path, 202, json={"since": ANCIENT}) == done(1)
    receiver.answer = ok
    await api.notices.worker.drain()
    assert await api.ask("POST", path, 202, json={"since": ANCIENT}) == done(0)
    everything = {"since": ANCIENT, "all": True}
    assert await api.ask("POST", path, 202, json=everything) == done(1)


async def test_a_replay_of_everything_leaves_what_was_never_tried_in_its_order(
    api: Api, receiver: Receiver
) -> None:
    await api.made(receiver.url)
    ids = await api.office.tell_many([await api.office.interview()], 3)
    body = {"since": ANCIENT, "all": True}
    assert (await api.ask("POST", "/api/webhooks/replay", 202, json=body))["due"] == 0
    receiver.answer = status(500)
    await api.notices.worker.drain()
    assert receiver.ids == ids[:1]


async def test_a_replay_gives_a_new_endpoint_what_it_missed(api: Api, receiver: Receiver) -> None:
    interview = await api.office.interview()
    ids = [await api.office.tell(interview) for _ in range(3)]
    made = await api.made(receiver.url)
    await api.made(f"{receiver.url}/other")
    body = {"since": ANCIENT, "endpoint_id": made["id"]}
    assert await api.ask("POST", "/api/webhooks/replay", 202, json=body) == done(3)
    assert await api.ask("POST", "/api/webhooks/replay", 202, json=body) == done(0)
    await api.notices.worker.drain()
    assert receiver.ids == ids
    assert {got.path for got in receiver.got} == {"/hook"}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"since": "yesterday"},
        {"since": 5},
        {"since": "2026-01-01T00:00:00"},
        {"since": ANCIENT, "until": "never"},
        {"since": ANCIENT, "all": "yes"},
        {"since": ANCIENT, "endpoint_id": 5},
        {"since": ANCIENT, "state": "dead"},
        {"since": ANCIENT, "cursor": 5},
        {"since": ANCIENT, "cursor": "x"},
        {"since": ANCIENT, "cursor": "é"},
        {"since": ANCIENT, "cursor": "MS4yLgA"},
    ],
)
async def test_a_wrong_replay_is_told(api: Api, body: Json) -> None:
    code = await api.refused("POST", "/api/webhooks/replay", 422, json=body)
    assert code == "INVALID_WEBHOOK"


async def test_a_replay_of_many_goes_page_by_page_and_stops_in_time(
    api: Api, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "PAGE", 10)
    monkeypatch.setattr(replay, "AT_MOST", 30)
    interviews = [await api.office.interview() for _ in range(5)]
    ids = await api.office.tell_many(interviews, 14)
    made = await api.made(receiver.url)
    path, body = "/api/webhooks/replay", {"since": ANCIENT, "endpoint_id": made["id"]}
    first = await api.ask("POST", path, 202, json=body)
    assert first["due"] == 30
    # What is written meanwhile is delivered anyway.
    await api.office.tell(interviews[0])
    second = await api.ask("POST", path, 202, json={**body, "cursor": first["next_cursor"]})
    assert second["due"] == 30
    monkeypatch.setattr(replay, "SECONDS", 0.0)
    third = await api.ask("POST", path, 202, json={**body, "cursor": second["next_cursor"]})
    assert third["due"] == 10
    assert await api.ask("POST", path, 202, json={**body, "cursor": third["next_cursor"]}) == done(
        0
    )
    await api.notices.worker.drain()
    assert set(ids) < set(receiver.ids)
    assert len(receiver.ids) == 71


async def test_the_terminal_replays_all_pages(
    api: Api, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "PAGE", 2)
    monkeypatch.setattr(replay, "AT_MOST", 3)
    await api.office.tell_many([await api.office.interview()], 9)
    made = await api.made(receiver.url)
    done = await command(api, "replay", "--since", "2020-01-01", "--endpoint", made["id"])
    assert (done.exit_code, done.output) == (0, "9 deliveries are due again.\n")


async def test_a_replay_during_which_the_database_goes_away_tells_how_far_it_came(
    api: Api, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "PAGE", 2)
    await api.office.tell_many([await api.office.interview()], 5)
    made = await api.made(receiver.url)
    body = {"since": ANCIENT, "endpoint_id": made["id"]}
    real, pages = Replay._page, 0

    async def once(self: Replay, *given: Any, **options: Any) -> Any:
        nonlocal pages
        pages += 1
        if pages == 2:
            raise StateUnavailable
        return await real(self, *given, **options)

    monkeypatch.setattr(Replay, "_page", once)
    first = await api.ask("POST", "/api/webhooks/replay", 202, json=body)
    assert first["due"] == 2
    rest = {**body, "cursor": first["next_cursor"]}
    assert await api.ask("POST", "/api/webhooks/replay", 202, json=rest) == done(3)


# -- the terminal


async def command(api: Api, *arguments: str, key: str = KEY) -> Result:
    runner = CliRunner(env={"INTERVIEW_ADMIN_KEY": key})
    return await asyncio.to_thread(runner.invoke, webhooks, [*arguments, "--server", api.url])


async def test_the_terminal_lists_endpoints_and_deliveries(api: Api, receiver: Receiver) -> None:
    made = await api.made(receiver.url)
    await api.office.tell(await api.office.interview())
    listed = await command(api, "list")
    assert listed.exit_code == 0
    assert listed.output.split() == [made["id"], "true", "-", receiver.url, "-"]
    due = await command(api, "list", "--state", "due", "--json")
    (line,) = due.output.splitlines()
    assert json.loads(line)["endpoint_id"] == made["id"]


async def test_the_terminal_replays(api: Api, receiver: Receiver) -> None:
    dead = await dead_delivery(api, receiver)
    future = await command(api, "replay", "--since", datetime.now(UTC).isoformat())
    assert future.output == "0 deliveries are due again.\n"
    replayed = await command(api, "replay", "--since", "2020-01-01")
    assert (replayed.exit_code, replayed.output) == (0, "1 delivery is due again.\n")
    one = await command(api, "replay", "--delivery", dead["id"])
    assert one.output == "1 delivery is due again.\n"
    assert (await command(api, "replay")).exit_code == 2


async def test_the_terminal_says_how_a_test_went(api: Api, receiver: Receiver) -> None:
    made = await api.made(receiver.url)
    await api.notices.start()
    good = await command(api, "test", made["id"])
    assert good.exit_code == 0
    assert good.output.startswith("Delivered: status 204 after ")
    receiver.answer = status(500)
    bad = await command(api, "test", made["id"])
    assert (bad.exit_code, bad.output) == (1, "Error: Not delivered: status 500.\n")


async def test_the_terminal_tells_what_the_server_refuses(api: Api) -> None:
    unknown = await command(api, "test", "ep_x")
    assert unknown.output == "Error: There is no webhook endpoint of that id.\n"
    refused = await command(api, "list", key="wrong")
    said = f"Error: {Unauthorized.sentence} Set INTERVIEW_ADMIN_KEY to it.\n"
    assert (refused.exit_code, refused.output) == (1, said)


def test_the_terminal_says_when_no_server_answers() -> None:
    runner = CliRunner()
    nobody = runner.invoke(webhooks, ["list", "--server", "http://127.0.0.1:1"])
    assert nobody.exit_code == 1
    assert "No interview_peer answers" in nobody.output
    bare = runner.invoke(webhooks, ["list", "--server", "localhost:8080"])
    assert (bare.exit_code, "http://" in bare.output) == (2, True)


def test_every_type_can_be_asked_for() -> None:
    from interview_peer.notices.desk import event_names

    assert event_names([*FACTS, "*"]) == sorted([*FACTS, "*"])
