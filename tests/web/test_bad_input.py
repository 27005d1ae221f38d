"""What bad input gets: one error in the right form, nothing repeated, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from interview_peer.app import Server
from interview_peer.simulator.server import SimulatorSettings, start_simulator
from interview_peer.types import Json
from tests.support.caller import Caller, Inbox, Reply, calling
from tests.support.inprocess import live, nothing_left, recorded, serving, traces
from tests.support.waiting import eventually

from .offers import GOOD, MARK, SPOILT

EXCHANGE = "/api/sdp-exchange"
KEY = "/api/generate-ephemeral-key"
CALLS = "/v1/realtime/calls"
OVERSIZED = "x" * 300_000
DEEP = "[" * 3_000
CROWDED = json.dumps({"a": [{}] * 2_000})
"""More values than a message has."""
NO_OFFERS: list[Any] = [None, 7, [], {}, "", "  ", {"type": "offer"}, {"type": "offer", "sdp": 7}]

STATUS = {
    "SDP_TOO_LARGE": 413,
    "TOO_LARGE": 413,
    "UNSUPPORTED_CONTENT_TYPE": 415,
    "EXPECTATION_FAILED": 417,
    "SESSION_NOT_FOUND": 404,
    "NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
}
"""Codes that are not told as 400."""


@dataclass(frozen=True)
class Frame:
    """One bad WebSocket frame and the code it gets."""

    name: str
    frame: Json | str | bytes
    code: str


@dataclass(frozen=True)
class Request:
    """One bad request, the status and the code it gets."""

    name: str
    method: str
    path: str
    status: int
    code: str
    options: dict[str, Any] = field(default_factory=dict)


def frames() -> Iterator[Frame]:
    for name, (offer, code) in SPOILT.items():
        yield Frame(f"offer: {name}", {"type": "sdp_offer", "offer": offer}, code)
        described = {"type": "offer", "sdp": offer}
        yield Frame(f"offer object: {name}", {"type": "sdp_offer", "offer": described}, code)
    for value in NO_OFFERS:
        yield Frame(f"offer {value!r}", {"type": "sdp_offer", "offer": value}, "INVALID_SDP")
    answer = {"type": "sdp_offer", "offer": {"type": "answer", "sdp": GOOD}}
    yield Frame("an answer for an offer", answer, "INVALID_SDP")
    yield Frame("no offer", {"type": "sdp_offer"}, "INVALID_SDP")
    for text in (
        "",
        "{",
        "nonsense " + MARK,
        '{"type": "init",}',
        DEEP,
        CROWDED,
        "NaN",
        "[]",
        "7",
        "null",
    ):
        yield Frame(f"text {text[:20]!r}", text, "INVALID_JSON")
    yield Frame("a binary frame", json.dumps({"type": "init"}).encode(), "INVALID_JSON")
    yield Frame("no type", {"sessionId": MARK}, "INVALID_MESSAGE")
    for value in (None, 7, True, ["init"], {"type": "init"}):
        yield Frame(f"type {value!r}", {"type": value}, "INVALID_MESSAGE")
    for kind in ("", "INIT", "sdp_answer", "session", MARK):
        yield Frame(f"type {kind!r}", {"type": kind}, "UNKNOWN_MESSAGE_TYPE")
    for value in (7, True, [MARK], {"id": MARK}):
        yield Frame(f"sessionId {value!r}", {"type": "init", "sessionId": value}, "INVALID_MESSAGE")
        yield Frame(f"aiPersona {value!r}", {"type": "init", "aiPersona": value}, "INVALID_MESSAGE")
        end = {"type": "disconnect", "sessionId": value}
        yield Frame(f"end of {value!r}", end, "INVALID_MESSAGE")
    yield Frame("an id that is none", {"type": "init", "sessionId": "a/b"}, "INVALID_SESSION_ID")
    yield Frame("a persona", {"type": "init", "aiPersona": MARK}, "PERSONA_NOT_FOUND")
    yield Frame("end another", {"type": "end_session", "sessionId": MARK}, "SESSION_NOT_FOUND")
    yield Frame("a large frame", {"type": "init", "x": OVERSIZED}, "TOO_LARGE")
    yield Frame("large, and no offer", {"type": "init", "x": "x" * 9_000}, "TOO_LARGE")


def exchange(name: str, body: Any, code: str, path: str = EXCHANGE) -> Request:
    return Request(name, "POST", path, STATUS.get(code, 400), code, {"json": body})


def raw_body(
    name: str, path: str, kind: str | None, body: str | bytes, status: int, code: str
) -> Request:
    data = body.encode() if isinstance(body, str) else body
    headers = {"Content-Type": kind} if kind else {}
    options: dict[str, Any] = {"data": data, "headers": headers}
    if kind is None:
        options["skip_auto_headers"] = ["Content-Type"]
    return Request(name, "POST", path, status, code, options)


def odd_headers(path: str, kind: str, body: str) -> Iterator[Request]:
    """Requests that are good but for one header."""
    openai = path == CALLS
    for name, header, value, status, code in [
        ("rubbish as gzip", "Content-Encoding", "gzip", 415, "UNSUPPORTED_CONTENT_TYPE"),
        ("rubbish as deflate", "Content-Encoding", "deflate", 415, "UNSUPPORTED_CONTENT_TYPE"),
        ("rubbish as brotli", "Content-Encoding", "br", 415, "UNSUPPORTED_CONTENT_TYPE"),
        ("rubbish as zstd", "Content-Encoding", "zstd", 415, "UNSUPPORTED_CONTENT_TYPE"),
        ("an unknown encoding", "Content-Encoding", MARK, 415, "UNSUPPORTED_CONTENT_TYPE"),
        ("an expectation", "Expect", MARK, 417, "EXPECTATION_FAILED"),
    ]:
        options = {"data": body.encode(), "headers": {"Content-Type": kind, header: value}}
        yield Request(name, "POST", path, status, code.lower() if openai else code, options)


def seeds_requests() -> Iterator[Request]:
    for name, (offer, code) in SPOILT.items():
        yield exchange(name, {"sdpOffer": offer}, code)
    for value in (*NO_OFFERS, {"type": "answer", "sdp": GOOD}):
        yield exchange(f"offer {value!r}", {"sdpOffer": value}, "INVALID_SDP")
    yield exchange("no offer", {}, "INVALID_SDP")
    for value in (7, [MARK]):
        fields = {"sdpOffer": GOOD}
        yield exchange(f"id {value!r}", {**fields, "sessionId": value}, "INVALID_MESSAGE")
        yield exchange(f"persona {value!r}", {**fields, "aiPersona": value}, "INVALID_MESSAGE")
        yield exchange(f"voice {value!r}", {"voice": value}, "INVALID_MESSAGE", KEY)
        yield exchange(f"key id {value!r}", {"sessionId": value}, "INVALID_MESSAGE", KEY)
        yield exchange(f"model {value!r}", {"model": value}, "INVALID_MESSAGE", KEY)
    good = {"sdpOffer": GOOD}
    yield exchange("an id that is none", {**good, "sessionId": "a/b"}, "INVALID_SESSION_ID")
    yield exchange("an unknown persona", {**good, "aiPersona": MARK}, "PERSONA_NOT_FOUND")
    yield exchange("a long body", {"x": "x" * 9_000}, "TOO_LARGE", KEY)
    yield exchange("an unknown voice", {"voice": MARK}, "INVALID_MESSAGE", KEY)
    for path in (EXCHANGE, KEY):
        kind = "application/json"
        for body in ("{", MARK, "[]", "null", DEEP, "", b"\xff\xfe{}"):
            yield raw_body(f"body {body[:20]!r}", path, kind, body, 400, "INVALID_JSON")
        yield raw_body("a large body", path, kind, f'"{OVERSIZED}"', 413, "TOO_LARGE")
        crowded = CROWDED if path == EXCHANGE else json.dumps([0] * 2_500)
        yield raw_body("many values", path, kind, crowded, 400, "INVALID_JSON")
        for other in ("text/plain", "application/sdp", "multipart/form-data", None):
            yield raw_body(f"type {other}", path, other, "{}", 415, "UNSUPPORTED_CONTENT_TYPE")
        yield Request("method", "GET", path, 405, "METHOD_NOT_ALLOWED")
        yield from odd_headers(path, kind, json.dumps({"sdpOffer": GOOD}))
    unknown = f"/api/sessions/{MARK}"
    yield Request("unknown session", "GET", unknown, 404, "SESSION_NOT_FOUND")
    yield Request("an odd id", "GET", "/api/sessions/%2e%2e%2fx", 404, "SESSION_NOT_FOUND")
    yield Request("method", "DELETE", unknown, 405, "METHOD_NOT_ALLOWED")
    yield Request("no id", "GET", "/api/sessions/", 404, "NOT_FOUND")


def form_body(**parts: str) -> str:
    return (
        "".join(
            f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in parts.items()
        )
        + "--b--\r\n"
    )


def openai_requests() -> Iterator[Request]:
    for name, (offer, code) in SPOILT.items():
        status = STATUS.get(code, 400)
        yield raw_body(name, CALLS, "application/sdp", offer, status, "invalid_offer")
        form = form_body(sdp=offer)
        kind = "multipart/form-data; boundary=b"
        yield raw_body(f"form: {name}", CALLS, kind, form, status, "invalid_offer")
    for body in ("", "  \r\n"):
        yield raw_body("nothing", CALLS, "application/sdp", body, 400, "invalid_offer")
    yield raw_body("no text", CALLS, "application/sdp", b"\xff\xfe", 400, "invalid_json")
    yield raw_body("large", CALLS, "application/sdp", OVERSIZED, 413, "too_large")
    for other in ("application/json", "text/plain", None):
        yield raw_body(f"type {other}", CALLS, other, GOOD, 415, "unsupported_content_type")
    kind = "multipart/form-data; boundary=b"
    for name, form, code in [
        ("a form without an offer", form_body(session="{}"), "invalid_offer"),
        ("a form with another part", form_body(sdp=GOOD, **{MARK: "1"}), "invalid_value"),
        ("a session that is no JSON", form_body(sdp=GOOD, session=MARK), "invalid_value"),
        ("a session that is no object", form_body(sdp=GOOD, session="[]"), "invalid_value"),
        ("a session too deep", form_body(sdp=GOOD, session=DEEP), "invalid_value"),
        ("a session of many values", form_body(sdp=GOOD, session=CROWDED), "invalid_value"),
        (
            "an offer twice",
            form_body(sdp=GOOD).replace("--b--\r\n", form_body(sdp=GOOD)),
            "invalid_value",
        ),
        ("a form cut off", form_body(sdp=GOOD)[:200], "invalid_value"),
        ("a form that is none", MARK, "invalid_value"),
        ("an empty form", "", "invalid_value"),
    ]:
        yield raw_body(name, CALLS, kind, form, 400, code)
    for header, value, status, code in [
        ("Content-Transfer-Encoding", MARK, 400, "invalid_value"),
        ("Content-Transfer-Encoding", "base64", 400, "invalid_value"),
        ("Content-Encoding", MARK, 415, "unsupported_content_type"),
        ("Content-Encoding", "gzip", 415, "unsupported_content_type"),
    ]:
        form = form_body(sdp=GOOD).replace("\r\n\r\n", f"\r\n{header}: {value}\r\n\r\n", 1)
        yield raw_body(f"a part with {header} {value}", CALLS, kind, form, status, code)
    yield from odd_headers(CALLS, "application/sdp", GOOD)
    yield raw_body("no boundary", CALLS, "multipart/form-data", "x", 400, "invalid_value")
    large = form_body(sdp=GOOD, session=f'{{"x": "{OVERSIZED}"}}')
    yield raw_body("a large form", CALLS, kind, large, 413, "too_large")
    yield Request("method", "GET", CALLS, 405, "method_not_allowed")
    yield Request("method", "GET", f"{CALLS}/rtc_x/hangup", 405, "method_not_allowed")
    yield Request("unknown call", "POST", f"{CALLS}/rtc_{MARK}/hangup", 404, "call_id_not_found")
    yield Request("unknown path", "POST", f"/v1/{MARK}", 404, "not_found")
    yield Request("no path", "GET", "/v1/", 404, "not_found")


def house_requests() -> Iterator[Request]:
    yield Request("unknown path", "GET", f"/{MARK}", 404, "NOT_FOUND")
    yield Request("unknown path of the API", "GET", f"/api/{MARK}", 404, "NOT_FOUND")
    yield Request("a page that is none", "GET", f"/static/{MARK}", 404, "NOT_FOUND")
    for odd in ("app.css%2f", "app.css/", "./app.css", "x/%2e%2e/app.css", "/app.css", ""):
        yield Request("no page's name", "GET", f"/static/{odd}", 404, "NOT_FOUND")
    yield Request("out of the pages", "GET", "/static/%2e%2e/README.md", 404, "NOT_FOUND")
    for name in ("x" * 300, "x/" * 2_100):
        yield Request("longer than any file's name", "GET", f"/static/{name}", 404, "NOT_FOUND")
    yield Request("method", "POST", "/health", 405, "METHOD_NOT_ALLOWED")
    yield Request("method", "PUT", "/", 405, "METHOD_NOT_ALLOWED")
    yield Request("no socket", "GET", f"/ws/{MARK}", 400, "BAD_REQUEST")
    folder = f"/api/interviews/{MARK}"
    yield Request("unknown interview", "GET", folder, 404, "SESSION_NOT_FOUND")
    yield Request("no transcript", "GET", f"{folder}/transcript", 404, "SESSION_NOT_FOUND")
    yield Request("method", "POST", folder, 405, "METHOD_NOT_ALLOWED")
    expecting: dict[str, Any] = {"headers": {"Expect": MARK}}
    yield Request("an expectation", "GET", "/health", 417, "EXPECTATION_FAILED", expecting)
    yield Request("an expectation", "GET", f"/{MARK}", 417, "EXPECTATION_FAILED", expecting)
    long: dict[str, Any] = {"headers": {"X-Long": "x" * 9_000}}
    yield Request("a long header", "GET", "/health", 400, "BAD_REQUEST", long)
    for odd in ("%2e%2e", "a%2fb", "a%00b", "x" * 65):
        path = f"/api/interviews/{odd}"
        yield Request("an odd interview", "GET", path, 400, "INVALID_SESSION_ID")


def error_of(path: str, reply: Reply) -> tuple[str, str]:
    """Code and sentence, after checking that they stand in the form this path's callers read."""
    body = reply.json()
    if path.startswith("/v1/"):
        assert set(body) == {"error"}
        assert set(body["error"]) == {"message", "type", "param", "code"}
        assert body["error"]["type"] == "invalid_request_error"
        return body["error"]["code"], body["error"]["message"]
    if path.startswith((EXCHANGE, KEY, "/api/sessions")):
        assert set(body) == {"error", "message", "code"}
        assert body["error"] == body["message"]
        return body["code"], body["message"]
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message"}
    return body["error"]["code"], body["error"]["message"]


def check_sentence(text: str) -> None:
    # A sentence may begin with the name of a field.
    assert re.fullmatch(r"(?:[A-Z]|sessionId|aiPersona|voice|model)[^\r\n]{5,160}\.", text), text


async def check_request(caller: Caller, request: Request) -> None:
    reply = await caller.request(request.method, request.path, **request.options)
    assert reply.status == request.status, reply
    code, sentence = error_of(request.path, reply)
    assert code == request.code, reply
    check_sentence(sentence)
    if request.status == 405:
        assert reply.headers["allow"]


async def check_frame(caller: Caller, frame: Frame) -> None:
    await caller.send(frame.frame)
    error = await caller.message("error")
    if isinstance(frame.frame, dict) and frame.frame.get("type") == "sdp_offer":
        # The code that front ends wait for; which failure it was stands beside it.
        assert error.pop("code") == "SDP_EXCHANGE_FAILED"
        error["code"] = error.pop("reason")
    assert set(error) == {"type", "message", "code"}
    assert error["code"] == frame.code, error
    check_sentence(error["message"])


async def test_every_bad_input_gets_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    complaints: list[str] = []
    async with serving(tmp_path) as server, calling(server.url) as bystander:
        await bystander.open()
        await bystander.connect()
        await recorded(server, bystander)
        sessions, before = len(server.interviews), traces()

        async with calling(server.url) as caller:
            await caller.open()
            for frame in frames():
                try:
                    await check_frame(caller, frame)
                except AssertionError as wrong:
                    complaints.append(f"frame: {frame.name}: {wrong}")
            errors = [one for one in caller.messages.items if one["type"] == "error"]
            assert len(errors) == len(list(frames()))
            # After all of that the socket still leads to an interview.
            await caller.connect()
            await caller.send({"type": "disconnect"})
            await caller.message("session_ended")

            for request in (*seeds_requests(), *openai_requests(), *house_requests()):
                try:
                    await check_request(caller, request)
                except AssertionError as wrong:
                    complaints.append(f"{request.method} {request.path} {request.name}: {wrong}")
            complaints += [f"repeated: {text[:300]}" for text in caller.heard if MARK in text]
        assert complaints == []

        assert len(server.interviews) == sessions + 1
        folders = sorted(os.listdir(tmp_path / "interviews"))
        assert folders == sorted([bystander.session_id, caller.session_id])
        await nothing_left(before)
        # The interview alongside never noticed.
        assert await bystander.known_phase() == "live"
        assert not bystander.media_lost.is_set()
        bystander.audio = Inbox("the audio track, again")
        # On a slow machine the greeting is over by now; then it is silence that comes.
        await bystander.audio.take(lambda packet: True, "packet")
        bystander.say({"type": "session.update", "session": {"type": "realtime"}})
        await bystander.event("session.updated")


async def test_a_frame_beyond_all_measure_closes_the_socket_and_not_the_media(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server, calling(server.url) as caller:
        await caller.open()
        await caller.connect()
        await recorded(server, caller)
        before = traces()
        with contextlib.suppress(ConnectionError):
            await caller.send("x" * 5_000_000)
        await caller.socket_closed()
        assert caller.close_code == 1009
        assert await caller.known_phase() == "live"
        await caller.sound()
        await nothing_left(before)


HEAD = "POST /api/sdp-exchange HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        f"{HEAD}X-Long: {'x' * 9_000}\r\n\r\n",
        f"GET /{'x' * 9_000} HTTP/1.1\r\nHost: x\r\n\r\n",
        f"{MARK}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: x\r\n{MARK} {MARK}\r\n\r\n",
        f"{HEAD}Transfer-Encoding: chunked\r\n\r\n{MARK}\r\n",
        f"{HEAD}Content-Length: {MARK}\r\n\r\n",
        f"GET /health HTTP/1.1\r\nHost: {MARK} /\x01\r\n\r\n",
    ],
    ids=["a header", "a line", "no HTTP", "no header", "no chunk", "no length", "no host"],
)
async def test_what_is_no_request_is_the_callers_fault_and_not_one_for_the_log(
    local: Server, caplog: pytest.LogCaptureFixture, sent: str
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", local.port)
    try:
        writer.write(sent.encode())
        async with asyncio.timeout(10):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = re.search(r"^Content-Length: (\d+)\r$", head, re.MULTILINE)
            assert length is not None, head
            body = (await reader.readexactly(int(length.group(1)))).decode()
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    assert head.startswith("HTTP/1.1 400 ") or head.startswith("HTTP/1.0 400 "), head
    assert "\r\nContent-Type: application/json" in head
    check_guarded(head)
    told = json.loads(body)
    code = told["code"] if "code" in told else told["error"]["code"]
    check_sentence(told["message"] if "message" in told else told["error"]["message"])
    assert code == "BAD_REQUEST"
    assert MARK not in head + body
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


def check_guarded(head: str) -> None:
    """Answers that no application made have the headers of all answers."""
    for line in (
        "Server: interview_peer\r\n",
        "X-Content-Type-Options: nosniff",
        "Referrer-Policy: no-referrer",
        "Content-Security-Policy: default-src 'none'; ",
        "Cache-Control: no-store",
    ):
        assert f"\r\n{line}" in head


async def test_a_refused_expectation_has_the_headers_of_all_answers(local: Server) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", local.port)
    writer.write(f"{HEAD}Expect: {MARK}\r\n\r\n".encode())
    async with asyncio.timeout(10):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    writer.close()
    assert head.startswith("HTTP/1.1 417 ")
    check_guarded(head)


EVENTS: list[tuple[str, str | bytes, str]] = [
    ("binary", b'{"type": "response.create"}', "invalid_event"),
    ("no JSON", "nonsense " + MARK, "invalid_json"),
    ("no object", "[]", "invalid_json"),
    ("too deep", "[" * 5_000, "invalid_json"),
    ("no type", "{}", "invalid_value"),
    ("a type that is no text", '{"type": 7}', "invalid_value"),
    ("an unknown type", json.dumps({"type": MARK}), "invalid_value"),
    ("an event of the server's", '{"type": "session.created"}', "invalid_value"),
    ("sound", '{"type": "input_audio_buffer.append", "audio": ""}', "invalid_event_for_transport"),
    ("too large", json.dumps({"type": "response.create", "x": "y" * 70_000}), "too_large"),
    ("no session", '{"type": "session.update"}', "missing_required_parameter"),
    ("a session that is none", '{"type": "session.update", "session": []}', "invalid_type"),
]


async def test_bad_events_are_answered_on_the_channel_and_end_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, calling(server.url) as caller:
        await caller.open()
        await caller.connect()
        for name, event, code in EVENTS:
            caller.say(event)
            error = (await caller.event("error"))["error"]
            assert error["code"] == code, (name, error)
            check_sentence(error["message"])
        assert not [text for text in caller.heard if MARK in text]
        caller.say({"type": "session.update", "session": {"type": "realtime"}})
        await caller.event("session.updated")
        assert await caller.known_phase() == "live"


# -- chance

VALID: list[Json] = [
    {"type": "init", "sessionId": "fuzz-1", "aiPersona": "alloy"},
    {"type": "init", "aiPersona": "engineer"},
    {"type": "sdp_offer", "offer": {"type": "offer", "sdp": GOOD}},
    {"type": "sdp_offer", "offer": GOOD},
    {
        "type": "ice_candidate",
        "candidate": {"candidate": "candidate:1 1 udp 1 10.0.0.1 9 typ host"},
    },
    {"type": "end_session", "sessionId": "fuzz-1"},
    {"type": "disconnect"},
]
VALUES: list[Any] = [None, True, -1, 1e308, "", "\ud800", "\x00", [], {}, [[]], {"a": None}, GOOD]


def mutated(chance: random.Random) -> str | bytes:
    """A valid message with a few things done to it."""
    message: Json = json.loads(json.dumps(chance.choice(VALID)))
    if chance.random() < 0.4:
        message[chance.choice(list(message))] = chance.choice(VALUES)
    text = json.dumps(message)
    for _ in range(chance.choice([0, 1, 1, 2, 5])):
        at, end = sorted(chance.sample(range(len(text) + 1), 2))
        piece = text[at : min(end, at + 40)]
        new = chance.choice(["", piece * 2, chr(chance.randrange(1, 0x3000)), '"', "\\", "{", "9"])
        text = text[:at] + new + text[at + len(piece) :]
        if len(text) < 2:
            break
    return text.encode() if chance.random() < 0.03 else text


async def test_chance_finds_no_message_that_breaks_the_socket(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(20261120)
    async with contextlib.AsyncExitStack() as stack:
        # A call whose caller went away while it was made is the far end's to forget.
        upstream = await start_simulator(SimulatorSettings(connect_seconds=4))
        stack.push_async_callback(upstream.close)
        server = await stack.enter_async_context(
            serving(tmp_path, **live(upstream.base_url, connect_seconds=8, max_interviews=500))
        )
        async with calling(server.url) as first:
            await first.connect_by_http()
        before = traces()
        async with asyncio.timeout(30), calling(server.url) as caller:
            await caller.open()
            for _ in range(600):
                with contextlib.suppress(ConnectionError):
                    await caller.send(mutated(chance))
                    # Once this is answered all before it was taken; or the session is over.
                    await caller.send({"type": "ice_candidate"})
                done = await caller.messages.take(
                    lambda one: one["type"] in ("ice_status", "session_ended"), "an answer"
                )
                if done["type"] == "session_ended":
                    await caller.leave()
                    await caller.open()
            told = {one.get("code") for one in caller.messages.items if one["type"] == "error"}
        assert "INTERNAL" not in told
        await server.interviews.close()

        async def finishing() -> int:
            async with calling(server.url) as operator:
                told = (await operator.get("/healthz")).json()["recordings"]["finishing"]
            return int(told["waiting"]) + int(told["running"])

        # Finishing takes a process for each, and those a while on a machine that is busy.
        await eventually(finishing, within=60, what="all finished", good=lambda count: not count)
        await nothing_left(before)
    faults = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert faults == []
