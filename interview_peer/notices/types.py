"""What is told: one frozen class for each type of notice, and the JSON body made of it.

The bodies are a promise to receivers: ``schemas/<type>.json`` describes each, and ``VERSION`` grows
when one changes in a way that an old receiver could not read. Where a notice goes is decided in
``outbox``.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Final

from ..types import Json, SessionId

VERSION: Final = 1
MAX_BODY_BYTES: Final = 20_000
"""What the specification advises as the most; the transcript of a long interview is a link."""

SCHEMAS: Final = Path(__file__).with_name("schemas")


@dataclass(frozen=True, slots=True)
class InterviewCreated:
    """An interview can be joined from now on."""

    type: ClassVar[str] = "interview.created"
    origin: str
    """``api`` or ``open``: made by an integrator, or by an open client that just came."""
    persona: str | None = None
    candidate_reference: str | None = None
    metadata: Json | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class InterviewConsented:
    """The candidate agreed to being recorded; nothing was recorded before."""

    type: ClassVar[str] = "interview.consented"
    agreed_at: datetime
    text_version: str | None = None
    text_sha256: str | None = None
    """Of the text that was shown, in UTF-8, as hexadecimal digits."""
    candidate_reference: str | None = None
    metadata: Json | None = None


@dataclass(frozen=True, slots=True)
class InterviewStarted:
    """Candidate and interviewer hear each other."""

    type: ClassVar[str] = "interview.started"
    started_at: datetime
    candidate_reference: str | None = None
    metadata: Json | None = None


@dataclass(frozen=True, slots=True)
class InterviewReconnecting:
    """A connection was lost; the interview waits for it."""

    type: ClassVar[str] = "interview.reconnecting"
    reason: str


@dataclass(frozen=True, slots=True)
class InterviewEnded:
    """The interview is over. Transcript and recording have notices of their own."""

    type: ClassVar[str] = "interview.ended"
    reason: str
    ended_at: datetime
    started_at: datetime | None = None
    seconds: float | None = None
    """From the start to the end; None if it never started."""
    usage: Json | None = None
    """What the voice service counted: tokens by kind."""
    candidate_reference: str | None = None
    metadata: Json | None = None


@dataclass(frozen=True, slots=True)
class InterviewFailed:
    """The interview could not go on, or never began."""

    type: ClassVar[str] = "interview.failed"
    reason: str
    ended_at: datetime
    started_at: datetime | None = None
    seconds: float | None = None
    usage: Json | None = None
    candidate_reference: str | None = None
    metadata: Json | None = None


@dataclass(frozen=True, slots=True)
class TranscriptTurn:
    """One stretch of speech is written down. Sent only to who names this type."""

    type: ClassVar[str] = "transcript.turn"
    position: int
    """Place in the conversation, from 0; a late turn can move those after it."""
    item_id: str
    speaker: str
    text: str
    status: str
    started_at: float | None = None
    """Seconds since the interview's start, as ``ended_at``."""
    ended_at: float | None = None
    heard_ms: int | None = None
    kind: str = "speech"
    heard_text: str | None = None
    """What was heard of an interrupted reply, cut in proportion to time."""
    text_complete: bool = True
    """False when the text was cut off because it did not fit; the transcript has it whole."""


@dataclass(frozen=True, slots=True)
class TranscriptCompleted:
    """The transcript is finished."""

    type: ClassVar[str] = "transcript.completed"
    turns: int
    transcript: Json | None
    """The document that ``GET /api/interviews/{id}/transcript`` gives; None if it does not fit."""


@dataclass(frozen=True, slots=True)
class RecordedFile:
    """One file of a recording."""

    name: str
    bytes: int
    sha256: str | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class RecordingReady:
    """The recording is finished and can be fetched."""

    type: ClassVar[str] = "recording.ready"
    seconds: float | None
    files: tuple[RecordedFile, ...]


@dataclass(frozen=True, slots=True)
class RecordingFailed:
    """The recording, or a part of it, is missing."""

    type: ClassVar[str] = "recording.failed"
    reason: str


@dataclass(frozen=True, slots=True)
class InterviewDeleted:
    """Transcript and recording are erased. Carries none of what was erased."""

    type: ClassVar[str] = "interview.deleted"
    reason: str = "request"
    """``request`` or ``retention``."""


@dataclass(frozen=True, slots=True)
class WebhookTest:
    """Somebody tries whether notices arrive. Of no interview, so without a sequence."""

    type: ClassVar[str] = "webhook.test"
    message: str = "It works."


Fact = (
    InterviewCreated
    | InterviewConsented
    | InterviewStarted
    | InterviewReconnecting
    | InterviewEnded
    | InterviewFailed
    | TranscriptTurn
    | TranscriptCompleted
    | RecordingReady
    | RecordingFailed
    | InterviewDeleted
    | WebhookTest
)

FACTS: Final[Mapping[str, type[Fact]]] = {
    fact.type: fact
    for fact in (
        InterviewCreated,
        InterviewConsented,
        InterviewStarted,
        InterviewReconnecting,
        InterviewEnded,
        InterviewFailed,
        TranscriptTurn,
        TranscriptCompleted,
        RecordingReady,
        RecordingFailed,
        InterviewDeleted,
        WebhookTest,
    )
}
"""Every type of notice by its name."""

ONLY_BY_NAME: Final = frozenset({TranscriptTurn.type, WebhookTest.type})
"""Types that go only to who asked for them; without a list of events one gets all others."""

WITH_CONTENT: Final = frozenset({TranscriptTurn.type, TranscriptCompleted.type})
"""Types whose bodies hold what was said, and so go when an interview is erased."""

_OF_CANDIDATE: Final = frozenset({"candidate_reference", "metadata"})

WITH_CANDIDATE: Final = frozenset(
    name
    for name, fact in FACTS.items()
    if _OF_CANDIDATE & {one.name for one in dataclasses.fields(fact)}
)
"""Types whose bodies hold what the integrator told of the candidate: when an interview is erased
they stay, without it."""

_LINKS: Final = {
    TranscriptCompleted.type: ("transcript_url", "transcript"),
    RecordingReady.type: ("recording_url", "recording"),
}


def new_id(prefix: str) -> str:
    """A random id whose text sorts by when it was made."""
    return f"{prefix}_{time.time_ns() // 1000:014x}{secrets.token_hex(8)}"


@dataclass(frozen=True, slots=True)
class Notice:
    """One happening, with the id that it keeps over every attempt."""

    interview_id: SessionId | None
    fact: Fact
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    """When it happened, with a zone."""
    id: str = field(default_factory=lambda: new_id("msg"))


def body_of(notice: Notice, sequence: int | None, base_url: str = "") -> str:
    """The exact JSON text that is kept, signed and sent; at most ``MAX_BODY_BYTES`` in UTF-8.

    What does not fit is left out, largest first: the transcript, the file list, metadata, the end
    of a turn's text. ``base_url`` is where receivers reach this server; without it links are paths.
    """
    fact = notice.fact
    while True:
        text = _json(notice, fact, sequence, base_url)
        size = len(text.encode())
        if size <= MAX_BODY_BYTES:
            return text
        fact = _smaller(fact, size - MAX_BODY_BYTES)


def _json(notice: Notice, fact: Fact, sequence: int | None, base_url: str) -> str:
    data: Json = {}
    if notice.interview_id is not None:
        data = {"interview_id": notice.interview_id, "sequence": sequence}
    data |= {one.name: _plain(getattr(fact, one.name)) for one in dataclasses.fields(fact)}
    if fact.type in _LINKS:
        name, last = _LINKS[fact.type]
        data[name] = f"{base_url}/api/interviews/{notice.interview_id}/{last}"
    told = {
        "type": fact.type,
        "version": VERSION,
        "timestamp": _plain(notice.at),
        "data": data,
    }
    return _text(told)


def without_candidate(body: str) -> str:
    """The same body without what it tells of the candidate; it still fits its schema."""
    told: Json = json.loads(body)
    told["data"] |= {name: None for name in told["data"] if name in _OF_CANDIDATE}
    return _text(told)


def _text(told: Json) -> str:
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        moment = value.astimezone(UTC)
        return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(value, tuple):
        return [dataclasses.asdict(one) for one in value]
    return value


def _smaller(fact: Fact, excess: int) -> Fact:
    """The same fact with its largest dispensable part left out or cut by ``excess`` bytes."""
    match fact:
        case TranscriptCompleted(transcript=dict()):
            return dataclasses.replace(fact, transcript=None)
        case RecordingReady(files=(_, *_)):
            return dataclasses.replace(fact, files=())
        case TranscriptTurn(text=text) if text:
            # A character is up to four bytes, or six as an escape; never cut within one.
            keep = max(0, min(len(text) - 1, len(text) - -(-excess // 6)))
            # What was heard is the text's beginning.
            heard = None if fact.heard_text is None else fact.heard_text[:keep]
            return dataclasses.replace(
                fact, text=text[:keep], heard_text=heard, text_complete=False
            )
        case (
            InterviewCreated()
            | InterviewConsented()
            | InterviewStarted()
            | InterviewEnded()
            | InterviewFailed()
        ):
            if fact.metadata is not None:
                return dataclasses.replace(fact, metadata=None)
    raise ValueError(f"a notice of type {fact.type} is too large")
