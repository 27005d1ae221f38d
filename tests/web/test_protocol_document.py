"""Executes what docs/protocol.md says: each example is sent, each answer has the shape told there.

In an example ``{}`` and ``[]`` stand for any object and any list, and ``null`` for a value that may
be missing; every other object has exactly the fields of the example, of the same types.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from interview_peer.app import Server
from interview_peer.core.lifecycle import Phase, Reason
from interview_peer.settings import Settings
from interview_peer.types import Json
from interview_peer.web.api import make_app
from tests.support.caller import Caller, Reply, calling
from tests.support.inprocess import serving
from tests.support.server import ROOT

DOCUMENT = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Block:
    """One fenced example: the words behind the fence, and what is in it."""

    kind: str
    text: str


BLOCKS = [
    Block(kind, text)
    for kind, text in re.findall(r"^```(\w[\w ]*)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
]


def examples(kind: str) -> list[Json]:
    found = [json.loads(block.text) for block in BLOCKS if block.kind == f"json {kind}"]
    assert found
    return found


def exchanges() -> list[tuple[str, str]]:
    blocks = [block.text for block in BLOCKS if block.kind == "http"]
    assert blocks and len(blocks) % 2 == 0
    return list(zip(blocks[::2], blocks[1::2], strict=True))


def differs(example: Any, value: Any, place: str = "") -> str:
    """Where the shape of a value is not that of the example; empty if nowhere."""
    if example is None or example in ({}, []):
        fits = value is None or isinstance(value, str) if example is None else True
        return "" if fits and (example is None or type(value) is type(example)) else place or "top"
    if isinstance(example, dict) and isinstance(value, dict):
        if set(example) != set(value):
            return f"{place}: fields {sorted(set(example) ^ set(value))}"
        inner = (differs(example[key], value[key], f"{place}.{key}") for key in example)
        return next(filter(None, inner), "")
    if isinstance(example, list) and isinstance(value, list):
        inner = (differs(example[0], one, f"{place}[]") for one in value)
        return next(filter(None, inner), "")
    number = (int, float)
    if type(example) in number and type(value) in number:
        return ""
    return "" if type(example) is type(value) else f"{place}: {value!r}"


def filled(text: str, places: dict[str, str]) -> str:
    """An example with its placeholders replaced; within JSON, escaped as JSON wants it."""
    for name, value in places.items():
        text = text.replace(f'"<{name}>"', json.dumps(value)).replace(f"<{name}>", value)
    assert not re.search(r"<[a-z]+>", text.partition("\n\n")[0]), text
    return text


@pytest.mark.parametrize(
    ("example", "value", "fits"),
    [
        ({"a": 1}, {"a": 2.5}, True),
        ({"a": 1}, {"a": "1"}, False),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {}, False),
        ({"a": 1}, {"a": 1, "b": 1}, False),
        ({"a": {}}, {"a": {"b": 1}}, True),
        ({"a": {}}, {"a": []}, False),
        ({"a": None}, {"a": "x"}, True),
        ({"a": None}, {"a": 1}, False),
        ({"a": [{"b": 1}]}, {"a": [{"b": 1}, {"b": ""}]}, False),
    ],
)
def test_shapes_are_compared(example: Json, value: Json, fits: bool) -> None:
    assert (differs(example, value) == "") is fits


# -- the WebSocket


async def ended_session(url: str) -> str:
    async with calling(url) as caller:
        await caller.open()
        await caller.connect()
        await caller.send({"type": "end_session"})
        await caller.message("session_ended")
        return caller.session_id


def check_messages(caller: Caller) -> set[str]:
    """Compare all that a caller was told with the examples; returns the types it was told."""
    shapes: dict[str, list[Json]] = {}
    for example in examples("server"):
        shapes.setdefault(example["type"], []).append(example)
    for message in caller.messages.items:
        assert message["type"] in shapes, message
        wrong = [differs(example, message) for example in shapes[message["type"]]]
        assert "" in wrong, (message, wrong)
    return {message["type"] for message in caller.messages.items}


@pytest.mark.parametrize(
    "number", range(len(examples("client"))), ids=lambda n: str(examples("client")[n]["type"])
)
async def test_each_client_message_is_taken(caller: Caller, number: int) -> None:
    await caller.open()
    places = {"session": caller.session_id, "offer": await caller.offer()}
    message = json.loads(filled(json.dumps(examples("client")[number]), places))
    await caller.send(message)
    match message["type"]:
        case "init":
            assert (await caller.message("session"))["sessionId"] == message["sessionId"]
        case "sdp_offer":
            await caller.accept((await caller.message("sdp_answer"))["answer"]["sdp"])
            await caller.phase("live")
        case "ice_candidate":
            await caller.message("ice_status")
        case "consent":
            await caller.message("consent")
        case _:
            await caller.message("session_ended")
            await caller.socket_closed()
    assert "error" not in check_messages(caller)


async def test_every_server_message_has_the_shape_of_its_example(
    local: Server, caller: Caller, tmp_path: Path
) -> None:
    async with serving(tmp_path / "asking", require_consent="true") as asking:
        told: set[str] = set()
        for agreed in (True, False):
            async with calling(asking.url) as candidate:
                greeting = await candidate.open()
                assert greeting["consentRequired"] is True
                version = (await candidate.message("consent_required"))["version"]
                await candidate.send({"type": "consent", "agreed": agreed, "version": version})
                assert (await candidate.message("consent"))["agreed"] is agreed
                told |= check_messages(candidate)
    await caller.open()
    await caller.connect()
    await caller.send({"type": "nonsense"})
    await caller.send({"type": "sdp_offer", "offer": "nonsense"})
    await caller.send({"type": "ice_candidate"})
    interview = local.interviews.find(caller.session_id)
    interview.max_seconds = 100
    interview.keep_limits(time.monotonic() + 85 - interview.seconds)
    await caller.message("warning")
    await caller.drop()
    await caller.phase("detached")
    await caller.connect()
    await caller.send({"type": "end_session"})
    await caller.socket_closed()
    told |= check_messages(caller)
    assert told == {example["type"] for example in examples("server")}


async def test_events_are_taken_or_refused_as_told(caller: Caller) -> None:
    await caller.open()
    await caller.connect()
    for event in examples("event"):
        caller.say(event)
    updated = await caller.event("session.updated")
    assert updated["session"]["instructions"] == "Be brief."
    await caller.event("conversation.item.done", where=lambda one: one["item"]["role"] == "user")
    assert "error" not in [event["type"] for event in caller.events.items]
    for event in examples("refused"):
        caller.say({**event, "event_id": "at-fault"})
        assert (await caller.event("error"))["error"]["event_id"] == "at-fault"


# -- HTTP


def split(text: str) -> tuple[str, dict[str, str], str]:
    """First line, headers in lower case, body."""
    head, _, body = text.partition("\n\n")
    first, *lines = head.strip().splitlines()
    pairs = (line.split(": ", 1) for line in lines)
    return first.strip(), {name.lower(): value for name, value in pairs}, body.strip()


@pytest.fixture
async def told(local: Server, caller: Caller) -> AsyncIterator[Caller]:
    """A caller with a live interview, which asked for a key before."""
    await caller.open()
    await caller.post("/api/generate-ephemeral-key", json={"sessionId": caller.session_id})
    await caller.connect()
    yield caller


async def test_every_http_example_is_answered_as_told(local: Server, told: Caller) -> None:
    async with calling(local.url) as caller:
        places = {
            "offer": await caller.offer(),
            "session": told.session_id,
            "ended": await ended_session(local.url),
        }
        for request, answer in exchanges():
            first, headers, body = split(filled(request, places))
            method, path = first.split(" ")
            # A bare description ends in a line break, as a JSON text holds it too.
            data = body + "\r\n" if headers.get("content-type") == "application/sdp" else body
            reply = await caller.request(method, path, data=data.encode(), headers=headers)
            check_answer(answer, reply, places, request)


def check_answer(answer: str, reply: Reply, places: dict[str, str], request: str) -> None:
    status, headers, body = split(answer)
    assert reply.status == int(status), (request, reply)
    if "location" in headers:
        places["call"] = reply.headers["location"].removeprefix("/v1/realtime/calls/")
        assert filled(headers["location"], places) == reply.headers["location"]
    if "content-type" in headers:
        assert reply.headers["content-type"].split(";")[0] == headers["content-type"]
    if headers.get("content-type") == "application/json":
        example = json.loads(body)
        assert differs(example, reply.json()) == "", (request, reply)
        if "error" in example:
            assert reply.json() == example
    elif body == "<answer>":
        assert reply.text.startswith("v=0\r\n")
    else:
        assert reply.text == body == ""


# -- that nothing is left out


def listed(heading: str) -> list[str]:
    """The first column of the table under this heading, without back ticks."""
    table = DOCUMENT.partition(f"| {heading} | meaning |\n")[2].partition("\n\n")[0]
    return [line.split("|")[1].strip().strip("`") for line in table.splitlines()[1:]]


def test_every_phase_and_reason_is_explained() -> None:
    assert listed("phase") == [phase.value for phase in Phase]
    assert sorted(listed("reason")) == sorted(reason.value for reason in Reason)


def test_every_path_is_told(tmp_path: Path, local: Server) -> None:
    settings = Settings(simulation=True, data_dir=tmp_path)
    app = make_app(settings, local.interviews, dict, local.state, local.archive, local.drain)
    routes = {
        f"{route.method} {route.resource.canonical}"
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    headings = set(re.findall(r"^### `((?:GET|POST) .+)`$", DOCUMENT, re.MULTILINE))
    elsewhere = {"GET /", "GET /ws", "GET /ws/{session_id}", "GET /static/{path}"}
    # Operators' paths are told in docs/api.md and docs/webhooks.md, and by the OpenAPI document.
    operators = (
        *("/api/interviews", "/api/keys", "/api/webhooks", "/api/drain", "/api/audit"),
        *("/api/openapi.json", "/i/"),
    )
    clients = {route for route in routes if not route.split(" ")[1].startswith(operators)}
    assert clients - elsewhere == headings


def test_links_lead_somewhere() -> None:
    anchors = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", DOCUMENT, re.MULTILINE)
    }
    links = re.findall(r"\]\(([^)]+)\)", DOCUMENT)
    assert links
    for link in links:
        if link.startswith("#"):
            assert link[1:] in anchors, link
        else:
            assert (ROOT / "docs" / link.partition("#")[0]).is_file(), link


def test_examples_are_all_of_a_kind_that_is_executed() -> None:
    kinds = {block.kind for block in BLOCKS}
    assert kinds == {"json client", "json server", "json event", "json refused", "http"}
    assert DOCUMENT.count("```") == 2 * len(BLOCKS)
