"""What is asked first: how often, then who, then how much; only then is a body looked at."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import MultipartReader, web

from interview_peer.core import sdp
from interview_peer.errors import InvalidJson, TooLarge
from interview_peer.settings import Settings
from interview_peer.types import Json
from interview_peer.web import calls_api, joining, messages, signalling
from interview_peer.web.limits import Limits
from interview_peer.web.origins import is_candidates
from tests.support.caller import Caller, Reply, calling
from tests.support.inprocess import live, serving
from tests.support.operator import KEY, Operator

from .offers import GOOD
from .test_doors import DOORS, IN, SECRET, bearing

EXCHANGE, CALLS = "/api/sdp-exchange", "/v1/realtime/calls"
SDP = {"Content-Type": "application/sdp"}
BAD = "v=0\r\n"
FORM = {"Content-Type": "multipart/form-data; boundary=b"}


def with_bodies() -> Iterator[tuple[str, str, str]]:
    """Row, method and path of every route that may come with a body."""
    for row in DOORS:
        method, _, path = row.partition(" ")
        if method != "GET":
            yield row, method, path.translate({ord(brace): None for brace in "{}"})


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths whose requests' bodies were asked for."""
    seen: list[str] = []
    for name in ("read", "multipart", "post"):
        real = getattr(web.BaseRequest, name)

        async def look(request: web.BaseRequest, *, real: Any = real) -> Any:
            seen.append(request.path)
            return await real(request)

        monkeypatch.setattr(web.BaseRequest, name, look)
    return seen


async def unreadable(caller: Caller, method: str, path: str) -> Reply:
    """A request whose body no parser takes."""
    kind = "application/sdp" if path == CALLS else "application/json"
    return await caller.request(method, path, data=b"\xff{", headers={"Content-Type": kind})


def code_of(reply: Reply) -> str:
    told = reply.json()
    error = told["error"] if isinstance(told["error"], dict) else told
    return str(error["code"])


async def refused(caller: Caller) -> Json:
    told: Json = (await caller.get("/healthz")).json()["refused"]
    return told


async def test_no_body_of_a_stranger_is_looked_at_where_a_credential_is_asked_for(
    tmp_path: Path, looked_at: list[str]
) -> None:
    closed = live("http://127.0.0.1:9/v1", allow_anonymous=False, join_secret=SECRET)
    async with (
        serving(tmp_path, **{**closed, "admin_key": KEY, "offers_per_minute": 1}) as server,
        calling(server.url) as caller,
    ):
        statuses = {
            row: (await unreadable(caller, method, path)).status
            for row, method, path in with_bodies()
            if DOORS[row].closed["none"] != IN
        }
        assert set(statuses.values()) == {401}, statuses
        assert looked_at == []
        # Nor does a stranger use up what those behind the same address need.
        assert (await refused(caller))["offers"] == 0
        # The one path that answers everybody takes little from anybody.
        reply = await caller.post("/api/generate-ephemeral-key", json={"x": "x" * 9_000})
        assert (reply.status, code_of(reply)) == (413, "TOO_LARGE")


async def test_no_body_is_looked_at_of_whoever_posts_too_often(
    tmp_path: Path, looked_at: list[str]
) -> None:
    async with serving(tmp_path, requests_per_minute=1) as server, calling(server.url) as caller:
        await caller.post("/api/generate-ephemeral-key", json={})
        looked_at.clear()
        replies = {
            row: await unreadable(caller, method, path)
            for row, method, path in with_bodies()
            if is_candidates(path)
        }
        assert len(replies) == 5, "every path of candidates that takes a body"
        for row, reply in replies.items():
            wanted = "rate_limit_exceeded" if "/v1/" in row else "RATE_LIMITED"
            assert (reply.status, code_of(reply)) == (429, wanted), row
            assert int(reply.headers["retry-after"]) > 0
        assert looked_at == []
        assert (await refused(caller))["requests"] == 5
        # What is only read is another matter.
        assert (await caller.get("/api/personas")).status == 200


async def test_what_operators_hang_up_does_not_count_and_guessing_their_keys_does(
    tmp_path: Path,
) -> None:
    closed = live("http://127.0.0.1:9/v1", allow_anonymous=False, join_secret=SECRET)
    async with (
        serving(tmp_path, **{**closed, "admin_key": KEY, "requests_per_minute": 3}) as server,
        calling(server.url) as caller,
    ):

        async def hang_up(key: str | None) -> int:
            headers = {} if key is None else bearing(key)
            path = "/v1/realtime/calls/rtc_none/hangup"
            return (await caller.post(path, headers=headers)).status

        kept = (await Operator(caller).ask("POST", "/api/keys", json={"name": "kept"})).json()
        # The second key is asked for by many at once before it is known.
        for key in (KEY, kept["key"]):
            assert await asyncio.gather(*(hang_up(key) for _ in range(20))) == [404] * 20
        assert (await refused(caller))["requests"] == 0
        assert [await hang_up(key) for key in (None, "ipk_wrong", "anything")] == [401] * 3
        assert [await hang_up(key) for key in (None, "ipk_wrong", "anything")] == [429] * 3
        assert (await refused(caller))["requests"] == 3
        assert [await hang_up(key) for key in (KEY, kept["key"])] == [404] * 2


async def test_refused_offers_count_and_beyond_their_number_none_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = 0

    def check(text: str) -> Any:
        nonlocal checked
        checked += 1
        return sdp.check_offer(text)

    monkeypatch.setattr(joining, "check_offer", check)
    monkeypatch.setattr(signalling, "check_offer", check)
    async with serving(tmp_path, offers_per_minute=3) as server, calling(server.url) as caller:
        bare = await caller.post(CALLS, data=BAD, headers=SDP)
        flat = await caller.post(EXCHANGE, json={"sdpOffer": BAD})
        await caller.open()
        await caller.send({"type": "sdp_offer", "offer": BAD})
        assert (bare.status, flat.status) == (400, 400)
        assert await caller.refusal() == "SDP_NO_AUDIO"
        assert checked == 3
        bare = await caller.post(CALLS, data=GOOD, headers=SDP)
        flat = await caller.post(EXCHANGE, json={"sdpOffer": GOOD})
        await caller.send({"type": "sdp_offer", "offer": GOOD})
        assert (bare.status, flat.status) == (429, 429)
        assert await caller.refusal() == "RATE_LIMITED"
        assert checked == 3
        assert (await refused(caller))["offers"] == 3
        assert len(server.interviews) == 1, "the one of the socket"


async def test_an_offer_that_is_answered_is_looked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = sdp.split

    def split(text: str) -> list[sdp.Section]:
        seen.append(text)
        return real(text)

    monkeypatch.setattr(sdp, "split", split)
    async with serving(tmp_path) as server, calling(server.url) as caller:
        reply = await caller.post(EXCHANGE, json={"sdpOffer": GOOD})
        assert reply.status == 200
    assert seen.count(GOOD) == 1


def test_a_class_may_begin_within_the_same_minute_behind_one_address() -> None:
    limits, address = Limits(Settings(simulation=True)), "192.0.2.1"
    for candidate in range(60):
        # A key, a consent, an offer, and a call hung up; a socket for those who use one.
        for _ in range(4):
            limits.request(address)
        limits.socket(address)
        limits.offer(address, GOOD)
        limits.offer_for(str(candidate))
    assert not any(limits.statistics().values())


async def test_a_form_of_too_many_lines_or_parts_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []

    def reader(*arguments: Any) -> Any:
        made.append(arguments)
        return MultipartReader(*arguments)

    monkeypatch.setattr(calls_api, "MultipartReader", reader)
    lines = "\r\n" * (calls_api.MAX_FORM_LINES + 1)
    part = '--b\r\nContent-Disposition: form-data; name="session"\r\n\r\n{}\r\n'
    async with serving(tmp_path) as server, calling(server.url) as caller:
        reply = await caller.post(CALLS, data=lines + part + "--b--\r\n", headers=FORM)
        assert (reply.status, code_of(reply)) == (413, "invalid_offer")
        assert made == []
        reply = await caller.post(CALLS, data=part * 2 + "rubbish", headers=FORM)
        assert (reply.status, code_of(reply)) == (400, "invalid_value")
        assert reply.json()["error"]["message"] == "The parts sdp and session may come once each."


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [' + "{}," * 85_000 + "{}]}",
        "[" * 100_000,
        '{"a": [' + "1," * 127_000 + "1]}",
        "{" + ",".join(f'"{n}":0' for n in range(5_000)) + "}",
    ],
    ids=["objects", "lists in lists", "numbers", "fields"],
)
def test_values_are_counted_before_any_is_made(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def loads(text: str) -> Any:
        raise AssertionError("it was parsed")

    monkeypatch.setattr(json, "loads", loads)
    with pytest.raises(InvalidJson):
        messages.of_socket(text, 1_000_000)


def test_a_message_may_be_as_long_as_it_needs_to_be() -> None:
    offer = {"type": "sdp_offer", "offer": {"type": "offer", "sdp": GOOD + "a=x:,[{" * 1_000}}
    text = json.dumps(offer)
    assert messages.of_socket(text, len(text)) == offer
    with pytest.raises(TooLarge):
        messages.of_socket(text, len(text) - 1)
    beginning = '{"type": "init", "x": "'
    text = beginning + "x" * (messages.SHORT_BYTES - len(beginning) - 2) + '"}'
    assert messages.of_socket(text, 100_000)["type"] == "init"
    with pytest.raises(TooLarge):
        messages.of_socket(text + " ", 100_000)


def test_a_session_with_the_schemas_of_many_tools_is_taken() -> None:
    fields = {f"field{n}": {"type": "string", "enum": ["a", "b", "c"]} for n in range(12)}
    schema = {"type": "object", "properties": fields, "required": [*fields]}
    tools = [{"type": "function", "name": f"f{n}", "parameters": schema} for n in range(30)]
    session = {"type": "realtime", "instructions": "First, second, " * 300, "tools": tools}
    assert messages.load(json.dumps(session)) == session
