"""What must hold of any text, event or description, however odd: found by chance, shrunk to its
smallest.

Each property takes about a second; ``--hypothesis-seed`` and the printed example repeat a find.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interview_peer.core import beta, realtime, sdp
from interview_peer.core.transcript import Transcript
from interview_peer.errors import CallerError, InvalidJson, InvalidMessage, InvalidSdp, TooLarge
from interview_peer.types import Json
from interview_peer.web import messages
from tests.core.test_sdp import BROWSER_OFFER

bounded = settings(
    max_examples=150,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

longer = settings(bounded, max_examples=40)
"""For what takes a list of events."""

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=30)
    | st.sampled_from(["", "session.update", "item_1", "resp_1", "v=0\r\n", "realtime", "audio"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=12,
)
"""Anything JSON can hold, and the numbers that only Python's reader takes."""

FIELDS = (
    *("item_id", "previous_item_id", "response_id", "event_id", "delta", "transcript", "text"),
    *("item", "response", "session", "error", "role", "status", "audio_start_ms", "audio_end_ms"),
    *("content", "content_index", "output", "usage", "type", "id", "sdp", "offer", "code"),
)
KINDS = sorted(
    {kind for kind in vars(realtime).values() if isinstance(kind, str) and "." in kind}
    | {
        *("session.created", "session.updated", "error", "response.created", "response.done"),
        *("conversation.item.added", "conversation.item.done", "conversation.item.deleted"),
        *("conversation.item.truncated", "input_audio_buffer.committed"),
        *("input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"),
        *("response.output_item.added", "response.output_audio_transcript.delta"),
        *("response.output_audio_transcript.done", "response.output_text.delta"),
        *("conversation.item.input_audio_transcription.delta",),
        *("conversation.item.input_audio_transcription.completed",),
        *("conversation.item.input_audio_transcription.failed",),
        *("output_audio_buffer.started", "output_audio_buffer.stopped"),
        *("output_audio_buffer.cleared", "session.update", "response.cancel"),
    }
)
BODIES = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), VALUES, max_size=6)
EVENTS = st.builds(
    lambda kind, body: {**body, "type": kind},
    st.sampled_from(KINDS) | st.text(min_size=1, max_size=20),
    BODIES,
)


# -- texts that clients send


@bounded
@given(st.text(max_size=300) | VALUES.map(lambda value: json.dumps(value)))
def test_any_text_on_the_socket_is_a_message_or_is_refused(text: str) -> None:
    try:
        assert isinstance(messages.of_socket(text, 200), dict)
    except (InvalidJson, TooLarge):
        pass


@bounded
@given(VALUES | st.fixed_dictionaries({"type": st.just("offer"), "sdp": VALUES}))
def test_any_description_of_an_offer_is_a_text_or_is_refused(described: Any) -> None:
    try:
        assert isinstance(messages.offer_sdp(described), str)
    except CallerError as refused:
        assert refused.status < 500


@bounded
@given(BODIES, st.sampled_from(FIELDS))
def test_any_optional_field_is_a_text_or_is_refused(body: Json, name: str) -> None:
    try:
        assert isinstance(messages.optional_text(body, name), str | None)
    except CallerError as refused:
        assert refused.status < 500


# -- events, from the model and from browsers


@bounded
@given(st.text(max_size=300) | EVENTS.map(lambda event: json.dumps(event)))
def test_any_text_on_the_channel_is_an_event_or_is_refused(text: str) -> None:
    try:
        event = realtime.parse(text)
    except (InvalidJson, InvalidMessage):
        return
    assert isinstance(event["type"], str)


@longer
@given(st.lists(EVENTS, max_size=25))
def test_any_order_of_any_events_makes_a_transcript(events: list[Json]) -> None:
    transcript = Transcript()
    for at, event in enumerate(events):
        transcript.feed(realtime.model_event(event), float(at))
    transcript.close(float(len(events)))
    ids = [turn.item_id for turn in transcript.turns()]
    assert len(set(ids)) == len(ids), "a turn is told once"


@longer
@given(st.lists(st.tuples(st.booleans(), EVENTS), max_size=12))
def test_any_event_in_an_older_dialect_is_translated(events: list[tuple[bool, Json]]) -> None:
    dialect = beta.ClientDialect()
    for from_browser, event in events:
        if from_browser:
            assert isinstance(dialect.to_model(event), dict)
        else:
            assert all(isinstance(one, dict) for one in dialect.to_client(event))


# -- descriptions

LINES = st.sampled_from(BROWSER_OFFER.splitlines()) | st.builds(
    lambda prefix, rest: prefix + rest,
    st.sampled_from(["a=candidate:", "a=group:BUNDLE ", "m=audio ", "m=", "a=mid:", "a=rtpmap:"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=40),
)
ENDS = st.sampled_from(["\r\n", "\n", "\r", "\x0b", "\u2028"])
DESCRIPTIONS = st.lists(st.tuples(LINES, ENDS), max_size=40).map(
    lambda lines: "v=0\r\n" + "".join(line + end for line, end in lines)
)


@bounded
@given(DESCRIPTIONS)
def test_any_description_is_taken_or_refused_by_its_kind(text: str) -> None:
    try:
        sdp.check_offer(text)
    except InvalidSdp as refused:
        assert refused.status in (400, 413)


@bounded
@given(DESCRIPTIONS)
def test_no_candidate_survives_in_any_description(text: str) -> None:
    without = sdp.without_candidates(text)
    assert sdp.without_candidates(without) == without
    assert sdp.candidate_lines(without) == []
    for line in without.replace("\r", "\n").split("\n"):
        assert not line.strip().startswith(("a=candidate:", "a=end-of-candidates"))


@bounded
@given(DESCRIPTIONS)
def test_finishing_any_description_twice_is_finishing_it_once(text: str) -> None:
    once = sdp.finish(text)
    assert sdp.finish(once) == once
    assert "a=fingerprint:sha-512" not in once
