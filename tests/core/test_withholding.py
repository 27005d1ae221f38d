"""What an invited candidate's browser is told: of each event, exactly what the table here says."""

from __future__ import annotations

import copy
import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interview_peer.core import realtime
from interview_peer.core.beta import ClientDialect
from interview_peer.core.reading import read
from interview_peer.core.redaction import Redactor
from interview_peer.core.withholding import UNSAID, session_told, withhold
from interview_peer.types import Json
from tests.simulator.test_official_types import PLANTED, TALKS
from tests.support.official import server_problems, server_types
from tests.support.planted import NEW_FIELD, VARIANTS, marks, planted_events

WORDS: Final = "item.content.text item.content.transcript item.id"
OF_SESSION: Final = (
    "session.model session.audio.output.voice session.audio.output.voice.id"
    " session.audio.input.transcription.model session.audio.input.transcription.language"
)
OF_RESPONSE: Final = (
    "response.id response.conversation_id response.audio.output.voice response.output.id"
    " response.output.content.text response.output.content.transcript"
    " response.status_details.error.code response.status_details.error.type"
)
HEARD: Final = "conversation.item.input_audio_transcription"

TOLD: Final[dict[str, str | None]] = {
    "session.created": OF_SESSION,
    "session.updated": OF_SESSION,
    "error": "error.code error.type",
    "rate_limits.updated": None,
    "conversation.created": "conversation.id",
    "conversation.item.created": f"{WORDS} previous_item_id",
    "conversation.item.added": f"{WORDS} previous_item_id",
    "conversation.item.done": f"{WORDS} previous_item_id",
    "conversation.item.retrieved": WORDS,
    "conversation.item.truncated": "item_id",
    "conversation.item.deleted": "item_id",
    f"{HEARD}.delta": "item_id delta logprobs.token",
    f"{HEARD}.completed": "item_id transcript logprobs.token languages.code",
    f"{HEARD}.segment": "item_id id text speaker",
    f"{HEARD}.failed": "item_id error.code error.type",
    "input_audio_buffer.speech_started": "item_id",
    "input_audio_buffer.speech_stopped": "item_id",
    "input_audio_buffer.committed": "item_id previous_item_id",
    "input_audio_buffer.cleared": "",
    "input_audio_buffer.timeout_triggered": "item_id",
    "input_audio_buffer.dtmf_event_received": "event",
    "response.created": OF_RESPONSE,
    "response.done": OF_RESPONSE,
    "response.output_item.added": f"{WORDS} response_id",
    "response.output_item.done": f"{WORDS} response_id",
    "response.content_part.added": "item_id response_id part.text part.transcript",
    "response.content_part.done": "item_id response_id part.text part.transcript",
    "response.output_text.delta": "item_id response_id delta",
    "response.output_text.done": "item_id response_id text",
    "response.output_audio_transcript.delta": "item_id response_id delta",
    "response.output_audio_transcript.done": "item_id response_id transcript",
    "response.output_audio.delta": "item_id response_id delta",
    "response.output_audio.done": "item_id response_id",
    "response.function_call_arguments.delta": None,
    "response.function_call_arguments.done": None,
    "response.mcp_call_arguments.delta": None,
    "response.mcp_call_arguments.done": None,
    "response.mcp_call.in_progress": None,
    "response.mcp_call.completed": None,
    "response.mcp_call.failed": None,
    "mcp_list_tools.in_progress": None,
    "mcp_list_tools.completed": None,
    "mcp_list_tools.failed": None,
    "output_audio_buffer.started": "response_id",
    "output_audio_buffer.stopped": "response_id",
    "output_audio_buffer.cleared": "response_id",
}
"""The texts of each event type that are told, by their place; None where the event is not."""

OFTEN: Final = (
    "response.output_audio_transcript.delta",
    "response.output_text.delta",
    f"{HEARD}.delta",
    "input_audio_buffer.speech_started",
    "output_audio_buffer.started",
)


def test_every_official_type_is_in_the_table() -> None:
    assert set(TOLD) == set(server_types())


@pytest.mark.parametrize("kind", sorted(TOLD))
def test_of_each_event_exactly_this_is_told(kind: str) -> None:
    wanted = TOLD[kind]
    found: set[str] = set()
    for event in planted_events(kind):
        before = copy.deepcopy(event)
        told = withhold(event)
        assert event == before, "the event itself was changed"
        assert (told is None) or wanted is not None
        if told is not None:
            found |= marks(told)
            assert NEW_FIELD not in json.dumps(told)
            assert server_problems(told) == []
    allowed = set() if wanted is None else {"event_id", *wanted.split()}
    if kind == "input_audio_buffer.dtmf_event_received":
        allowed.discard("event_id")
    assert found == allowed


def test_the_planted_events_hold_what_must_be_withheld() -> None:
    planted = {
        kind: set().union(*(marks(event) for event in planted_events(kind)))
        for kind in server_types()
    }
    assert {"session.instructions", "session.tools.description", "session.prompt.id"} <= planted[
        "session.created"
    ]
    assert {"response.output.arguments", "response.output.output"} <= planted["response.done"]
    assert {"item.output", "item.arguments", "item.content.audio"} <= planted[
        "conversation.item.retrieved"
    ]
    assert all(NEW_FIELD in found for found in planted.values())


@pytest.mark.parametrize("kind", sorted(set(TOLD) - {"error"}))
def test_large_events_lose_the_same(kind: str) -> None:
    for event in planted_events(kind):
        told = withhold(event)
        reading = read(json.dumps(event), Redactor([]), is_beta=False, withholds=True)
        assert reading.swallowed == (told is None)
        # The journal's copy is whole.
        assert reading.text is None and reading.kept is None
        if told is not None:
            assert (event if reading.told is None else json.loads(reading.told)) == told
        if kind.startswith("session."):
            assert reading.session == session_told(event["session"])


@pytest.mark.parametrize("kind", OFTEN)
def test_events_that_come_often_pass_as_the_object_that_came(kind: str) -> None:
    (event, *_) = planted_events(kind)
    plain = {key: value for key, value in event.items() if key not in (NEW_FIELD, "logprobs")}
    plain["obfuscation"] = "x9"
    assert withhold(plain) is plain


@pytest.mark.parametrize("make", TALKS, ids=lambda make: make.__name__)
def test_what_is_left_of_whole_talks_fits_the_official_types(make: Any) -> None:
    told = [withhold(event) for event in make(1).events]
    left = [event for event in told if event is not None and event["type"] != PLANTED]
    assert left
    for event in left:
        assert server_problems(event) == []
        # A client of the beta is told as little.
        for spoken in ClientDialect(is_beta=True).to_client(event):
            assert "instructions" not in json.dumps(spoken)


def test_what_a_transcription_cost_is_told_as_nothing_in_a_form_that_fits() -> None:
    kind = f"{HEARD}.completed"
    for event in planted_events(kind):
        told = withhold(event)
        assert told is not None and told["usage"] == {"type": "duration", "seconds": 0}


def test_of_an_unknown_event_only_what_it_refers_to_is_told() -> None:
    event = {
        "type": "response.reasoning.delta",
        "event_id": "e",
        "item_id": "i",
        "output_index": 0,
        "audio_end_ms": 12.5,
        "delta": "SECRET",
        "secret_id": "S" * 129,
        "list_id": ["SECRET"],
        "session": {"instructions": "SECRET"},
    }
    assert withhold(event) == {
        "type": "response.reasoning.delta",
        "event_id": "e",
        "item_id": "i",
        "output_index": 0,
        "audio_end_ms": 12.5,
    }


def test_the_message_of_an_error_may_quote_anything_and_is_replaced() -> None:
    error = {"type": "server_error", "code": "x", "message": "SECRET", "param": "SECRET"}
    told = withhold({"type": "error", "event_id": "e", "error": error})
    assert told is not None
    assert told["error"] == {"type": "server_error", "code": "x", "message": UNSAID}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["SECRET", "message", "user"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "type role content session item response audio output input tools error usage"
                " instructions id event_id voice part logprobs format".split()
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    kind=st.sampled_from([*TOLD, "new.event"]),
    fields=st.dictionaries(
        st.sampled_from(
            "session item response error part usage logprobs delta item_id previous_item_id".split()
        ),
        values,
    ),
)
def test_odd_shapes_are_survived_and_tell_nothing_twice(kind: str, fields: Json) -> None:
    event = {"type": kind, "event_id": "e", **fields}
    before = copy.deepcopy(event)
    told = withhold(event)
    assert event == before
    if told is not None:
        assert told["type"] == kind
        # What may be told stays as it is, however often it is asked about.
        assert withhold(told) == told
        assert "instructions" not in json.dumps(
            {key: value for key, value in told.items() if key in ("session", "item", "response")}
        )
        json.dumps(told)
        realtime.model_event(told)


@given(variant=st.integers(0, VARIANTS - 1), text=st.text(max_size=40))
def test_no_instructions_are_told_whatever_they_are(variant: int, text: str) -> None:
    session = [*planted_events("session.created")][variant]["session"]
    marked = f"~SECRET~{text}"
    session |= {"instructions": marked, "tools": [{"name": marked}], "prompt": {"id": marked}}
    told = withhold({"type": "session.updated", "event_id": "e", "session": session})
    assert told is not None
    assert "~SECRET~" not in json.dumps(told)
