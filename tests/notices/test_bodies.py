"""Bodies of notices: their schemas, their size, what the documentation shows."""

from __future__ import annotations

import dataclasses
import json
import re
import types
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from interview_peer.notices import signing
from interview_peer.notices.types import (
    FACTS,
    MAX_BODY_BYTES,
    SCHEMAS,
    Fact,
    InterviewConsented,
    InterviewCreated,
    InterviewDeleted,
    InterviewEnded,
    InterviewFailed,
    InterviewReconnecting,
    InterviewStarted,
    Notice,
    RecordedFile,
    RecordingFailed,
    RecordingReady,
    TranscriptCompleted,
    TranscriptTurn,
    WebhookTest,
    body_of,
    without_candidate,
)
from interview_peer.types import Json, SessionId

AT = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
TEXT = (Path(__file__).resolve().parents[2] / "docs" / "webhooks.md").read_text(encoding="utf-8")

EXAMPLES: list[Fact] = [
    InterviewCreated("api", "engineer", "A-1", {"job": "x"}, AT),
    InterviewCreated("open"),
    InterviewConsented(AT, "2026-11", "0" * 64, "A-1", {"job": "x"}),
    InterviewConsented(AT),
    InterviewStarted(AT),
    InterviewReconnecting("browser_lost"),
    InterviewEnded("client_request", AT, AT, 12.5, {"total_tokens": 3}, "A-1", {"job": "x"}),
    InterviewEnded("idle", AT),
    InterviewFailed("upstream", AT),
    TranscriptTurn(0, "item", "candidate", "Grüße.", "complete", 0.5, 1.5, 400),
    TranscriptCompleted(1, {"turns": []}),
    TranscriptCompleted(1, None),
    RecordingReady(3.0, (RecordedFile("candidate.ogg", 5, "ab", 3.0),)),
    RecordingFailed("ENOSPC"),
    InterviewDeleted(),
    WebhookTest(),
]


def schema(kind: str) -> Json:
    read: Json = json.loads((SCHEMAS / f"{kind}.json").read_text(encoding="utf-8"))
    return read


def check(body: Any) -> None:
    jsonschema.validate(
        body, schema(body["type"]), format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )


def made(fact: Fact, base_url: str = "") -> Json:
    interview = None if isinstance(fact, WebhookTest) else SessionId("k3")
    body: Json = json.loads(body_of(Notice(interview, fact, AT), 7, base_url))
    return body


@pytest.mark.parametrize("fact", EXAMPLES, ids=lambda fact: fact.type)
def test_a_body_is_as_its_schema_says(fact: Fact) -> None:
    body = made(fact)
    check(body)
    described = schema(fact.type)["properties"]["data"]["properties"]
    assert set(body["data"]) == set(described)
    assert body["timestamp"] == "2026-11-20T10:00:00.000000Z"


def test_every_type_has_an_example_and_a_schema() -> None:
    assert {fact.type for fact in EXAMPLES} == set(FACTS)
    assert {file.stem for file in SCHEMAS.glob("*.json")} == set(FACTS)
    for kind in FACTS:
        jsonschema.Draft202012Validator.check_schema(schema(kind))


def test_a_schema_refuses_a_body_without_its_field() -> None:
    body = made(InterviewReconnecting("x"))
    del body["data"]["reason"]
    with pytest.raises(jsonschema.ValidationError):
        check(body)


def test_times_of_other_zones_are_told_in_utc() -> None:
    elsewhere = AT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert made(InterviewStarted(elsewhere))["data"]["started_at"] == "2026-11-20T10:00:00.000000Z"


def test_links_are_paths_or_begin_with_the_public_address() -> None:
    fact = TranscriptCompleted(1, None)
    assert made(fact)["data"]["transcript_url"] == "/api/interviews/k3/transcript"
    address = "https://example.com"
    link = made(fact, address)["data"]["transcript_url"]
    assert link == "https://example.com/api/interviews/k3/transcript"


@pytest.mark.parametrize(
    ("fact", "field", "left"),
    [
        (TranscriptCompleted(9, {"turns": ["x" * 30_000]}), "transcript", None),
        (RecordingReady(1.0, (RecordedFile("x" * 90, 1),) * 400), "files", []),
        (InterviewCreated("api", metadata={"x": "y" * 25_000}), "metadata", None),
        (InterviewEnded("x", AT, metadata={"x": "y" * 25_000}), "metadata", None),
        (InterviewConsented(AT, metadata={"x": "y" * 25_000}), "metadata", None),
    ],
)
def test_what_does_not_fit_is_left_out(fact: Fact, field: str, left: object) -> None:
    body = made(fact)
    check(body)
    assert body["data"][field] == left


@pytest.mark.parametrize("character", ["x", "ü", "\u4e2d", "\U0001f600", '"', "\x01"])
def test_a_long_turn_is_cut_between_characters(character: str) -> None:
    fact = TranscriptTurn(0, "item", "candidate", character * 40_000, "complete")
    text = body_of(Notice(SessionId("k3"), fact, AT), 1)
    assert len(text.encode()) <= MAX_BODY_BYTES
    data = json.loads(text)["data"]
    assert data["text_complete"] is False
    assert len(data["text"]) > 2_000
    assert set(data["text"]) == {character}


def test_a_transcript_that_fits_is_whole() -> None:
    document = {"turns": ["ü" * 9_000]}
    assert made(TranscriptCompleted(1, document))["data"]["transcript"] == document


def test_a_notice_that_cannot_be_made_small_is_refused() -> None:
    with pytest.raises(ValueError, match=r"interview\.reconnecting"):
        made(InterviewReconnecting("x" * 30_000))


def test_facts_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        EXAMPLES[0].origin = "x"  # type: ignore[misc, union-attr]


# -- the documentation


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_documented_bodies_are_as_their_schemas_say() -> None:
    bodies = [json.loads(line) for block in blocks("json") for line in block.splitlines()]
    for body in bodies:
        check(body)
        described = schema(body["type"])["properties"]["data"]["properties"]
        assert set(body["data"]) == set(described), body["type"]
    assert {body["type"] for body in bodies} == set(FACTS)


def test_the_table_of_types_is_complete() -> None:
    listed = re.findall(r"^\| `([a-z]+\.[a-z]+)` \|", TEXT, re.MULTILINE)
    assert listed == list(FACTS)


async def test_the_documented_receiver_takes_what_is_signed_and_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (source,) = blocks("python receiver")
    module = types.ModuleType("receiver")
    exec(compile(source, "docs/webhooks.md", "exec"), module.__dict__)
    secret = signing.new_secret()
    app: web.Application = module.make_app(secret)
    body = body_of(Notice(SessionId("k3"), InterviewReconnecting("x"), AT), 1).encode()
    now = int(datetime.now(UTC).timestamp())
    good = signing.headers("msg_1", body, [secret], now)
    async with TestClient(TestServer(app)) as client:

        async def post(body: bytes, headers: dict[str, str]) -> int:
            return (await client.post("/notices", data=body, headers=headers)).status

        assert await post(body, good) == 204
        assert await post(body, good) == 204
        assert await post(body + b" ", good) == 400
        assert await post(body, signing.headers("msg_1", body, [secret], now - 3600)) == 400
        other = signing.headers("msg_1", body, [signing.new_secret()], now)
        assert await post(body, other) == 400
        assert await post(body, {**good, "webhook-signature": "nonsense"}) == 400
        assert await post(body, {}) == 400
    assert capsys.readouterr().out == "interview.reconnecting k3\n"


@pytest.mark.parametrize("fact", EXAMPLES, ids=lambda fact: fact.type)
def test_a_body_without_its_candidate_fits_its_schema_and_tells_all_else(fact: Fact) -> None:
    interview = None if isinstance(fact, WebhookTest) else SessionId("k3")
    body = body_of(Notice(interview, fact, AT), 7)
    left = json.loads(without_candidate(body))
    check(left)
    whole = json.loads(body)
    for name in ("candidate_reference", "metadata"):
        assert left["data"].get(name) is None
        whole["data"] |= {name: None} if name in whole["data"] else {}
    assert left == whole
