"""The transcript has who said what, when and in which order, however the events come."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from interview_peer.core.realtime import DICTATED, TAG, model_event
from interview_peer.core.replay import SPEECH_LINE, rebuild, speech_line
from interview_peer.core.transcript import Transcript
from interview_peer.core.turns import Turn, TurnKind, TurnStatus, document, heard_of
from interview_peer.types import ItemId, Json, SessionId, Speaker

CANDIDATE, INTERVIEWER = Speaker.CANDIDATE, Speaker.INTERVIEWER
PARTIAL, COMPLETE = TurnStatus.PARTIAL, TurnStatus.COMPLETE
INTERRUPTED, FAILED = TurnStatus.INTERRUPTED, TurnStatus.FAILED

TRANSCRIPTION = "conversation.item.input_audio_transcription"
ABSENT: Any = object()


# The service's events, as they come on the channel


def message(item_id: str, role: str, status: str, *content: Json) -> Json:
    return {
        "id": item_id,
        "type": "message",
        "role": role,
        "status": status,
        "content": list(content),
    }


def item(kind: str, previous: Any, body: Json) -> Json:
    event = {"type": f"conversation.item.{kind}", "item": body}
    return event if previous is ABSENT else event | {"previous_item_id": previous}


def started(u: str) -> Json:
    return {"type": "input_audio_buffer.speech_started", "item_id": u, "audio_start_ms": 100}


def stopped(u: str) -> Json:
    return {"type": "input_audio_buffer.speech_stopped", "item_id": u, "audio_end_ms": 900}


def committed(u: str, previous: Any) -> Json:
    event = {"type": "input_audio_buffer.committed", "item_id": u}
    return event if previous is ABSENT else event | {"previous_item_id": previous}


def user_item(u: str, previous: Any) -> list[Json]:
    body = message(u, "user", "completed", {"type": "input_audio", "transcript": None})
    return [item("added", previous, body), item("done", previous, body)]


def speech(u: str, previous: Any) -> list[Json]:
    """Steps 1 to 5: the candidate speaks and falls silent."""
    return [started(u), stopped(u), committed(u, previous), *user_item(u, previous)]


def typed(u: str, previous: Any, text: str, role: str = "user") -> list[Json]:
    kind = "output_text" if role == "assistant" else "input_text"
    body = message(u, role, "completed", {"type": kind, "text": text})
    return [item("added", previous, body), item("done", previous, body)]


def heard_delta(u: str, delta: str) -> Json:
    return {"type": f"{TRANSCRIPTION}.delta", "item_id": u, "delta": delta, "obfuscation": "Zq"}


def heard(u: str, text: str) -> Json:
    return {
        "type": f"{TRANSCRIPTION}.completed",
        "item_id": u,
        "content_index": 0,
        "transcript": text,
    }


def unheard(u: str) -> Json:
    return {"type": f"{TRANSCRIPTION}.failed", "item_id": u, "error": {"code": "unclear"}}


def reply_created(r: str, conversation: str | None = "conv_1") -> Json:
    response: Json = {"id": r, "status": "in_progress", "conversation_id": conversation}
    return {"type": "response.created", "response": response}


def reply_opened(r: str, a: str, previous: Any) -> list[Json]:
    body = message(a, "assistant", "in_progress")
    return [
        {"type": "response.output_item.added", "response_id": r, "output_index": 0, "item": body},
        item("added", previous, body),
        {
            "type": "response.content_part.added",
            "response_id": r,
            "item_id": a,
            "part": {"type": "audio", "transcript": ""},
        },
    ]


def said_delta(r: str, a: str, delta: str) -> Json:
    return {
        "type": "response.output_audio_transcript.delta",
        "response_id": r,
        "item_id": a,
        "delta": delta,
        "obfuscation": "p",
    }


def said(r: str, a: str, text: str) -> Json:
    return {
        "type": "response.output_audio_transcript.done",
        "response_id": r,
        "item_id": a,
        "transcript": text,
    }


def reply_done(r: str, status: str = "completed", reason: str | None = None) -> Json:
    details = {"type": status, "reason": reason} if reason else None
    return {
        "type": "response.done",
        "response": {"id": r, "status": status, "status_details": details, "usage": {}},
    }


def reply_closed(
    r: str, a: str, previous: Any, text: str, status: str = "completed", reason: str = ""
) -> list[Json]:
    """Steps 11 to 16: generation is over."""
    body = message(
        a,
        "assistant",
        "completed" if status == "completed" else "incomplete",
        {"type": "output_audio", "transcript": text},
    )
    return [
        {"type": "response.output_audio.done", "response_id": r, "item_id": a},
        said(r, a, text),
        {
            "type": "response.content_part.done",
            "response_id": r,
            "item_id": a,
            "part": {"type": "audio", "transcript": text},
        },
        item("done", previous, body),
        {"type": "response.output_item.done", "response_id": r, "output_index": 0, "item": body},
        reply_done(r, status, reason or None),
    ]


def playout(what: str, r: str) -> Json:
    return {"type": f"output_audio_buffer.{what}", "response_id": r}


def truncated(a: str, heard_ms: int) -> Json:
    return {
        "type": "conversation.item.truncated",
        "item_id": a,
        "content_index": 0,
        "audio_end_ms": heard_ms,
    }


def deleted(item_id: str) -> Json:
    return {"type": "conversation.item.deleted", "item_id": item_id}


def reply(r: str, a: str, previous: Any, *pieces: str) -> list[Json]:
    """Steps 6 to 16, and the playout's end after it."""
    return [
        reply_created(r),
        *reply_opened(r, a, previous),
        *(said_delta(r, a, piece) for piece in pieces),
        playout("started", r),
        *reply_closed(r, a, previous, "".join(pieces)),
        {"type": "rate_limits.updated", "rate_limits": []},
        playout("stopped", r),
    ]


def listen(*events: Json | list[Json]) -> Transcript:
    """Feed events one second apart, the first at second 1."""
    transcript = Transcript()
    flat = [e for group in events for e in (group if isinstance(group, list) else [group])]
    for second, event in enumerate(flat, 1):
        transcript.feed(model_event(event), float(second))
    return transcript


def script(transcript: Transcript) -> list[tuple[str, str, TurnStatus]]:
    return [(turn.item_id, turn.text, turn.status) for turn in transcript.turns()]


def only(transcript: Transcript) -> Turn:
    (turn,) = transcript.turns()
    return turn


# A turn and its reply


def test_a_turn_and_its_reply_have_texts_times_and_speakers() -> None:
    transcript = listen(speech("U", None), heard("U", "I am here."), reply("R", "A", "U", "Good."))
    # Seconds: speech 1-5, text 6, reply created 7, opened 8-10, delta 11, playout 12, closed
    # 13-18, limits 19, playout's end 20.
    assert transcript.turns() == [
        Turn(ItemId("U"), CANDIDATE, "I am here.", 1.0, 2.0, COMPLETE, None),
        Turn(ItemId("A"), INTERVIEWER, "Good.", 12.0, 20.0, COMPLETE, None),
    ]


def test_text_that_comes_after_the_reply_stands_before_it() -> None:
    transcript = listen(
        speech("U", None),
        reply("R", "A", "U", "Good."),
        speech("U2", "A"),
        heard("U2", "Second."),
        heard("U", "First."),
    )
    assert script(transcript) == [
        ("U", "First.", COMPLETE),
        ("A", "Good.", COMPLETE),
        ("U2", "Second.", COMPLETE),
    ]


def test_candidate_text_grows_and_is_then_replaced_by_its_final_form() -> None:
    steps = [*speech("U", None), heard_delta("U", " I am"), heard_delta("U", " hear")]
    assert script(listen(steps)) == [("U", "I am hear", PARTIAL)]
    steps.append(heard("U", "I am here.\n"))
    assert script(listen(steps)) == [("U", "I am here.", COMPLETE)]
    steps.append(heard_delta("U", " late"))
    assert script(listen(steps)) == [("U", "I am here.", COMPLETE)]


def test_reply_text_grows_while_it_is_spoken() -> None:
    steps = [
        *speech("U", None),
        reply_created("R"),
        *reply_opened("R", "A", "U"),
        said_delta("R", "A", "Tell me "),
        playout("started", "R"),
        said_delta("R", "A", "more"),
    ]
    turn = listen(steps).turns()[1]
    assert (turn.text, turn.status, turn.ended_at) == ("Tell me more", PARTIAL, None)


def test_speech_without_text_yet_is_a_turn_already() -> None:
    assert only(listen(started("U"))) == Turn(ItemId("U"), CANDIDATE, "", 1.0, None, PARTIAL, None)
    assert only(listen(speech("U", None))).ended_at == 2.0


def test_speech_that_goes_on_counts_as_one_stretch() -> None:
    turn = only(listen(started("U"), stopped("U"), started("U"), stopped("U"), heard("U", "Er")))
    assert (turn.started_at, turn.ended_at) == (1.0, 4.0)


def test_failed_transcription_stays_as_a_turn_without_text() -> None:
    transcript = listen(speech("U", None), heard_delta("U", "Gar"), unheard("U"))
    assert only(transcript) == Turn(ItemId("U"), CANDIDATE, "", 1.0, 2.0, FAILED, None)
    assert script(listen(unheard("U"))) == [("U", "", FAILED)]


def test_text_wins_over_a_failure_whichever_comes_first() -> None:
    for last in ([unheard("U"), heard("U", "Yes.")], [heard("U", "Yes."), unheard("U")]):
        assert script(listen(speech("U", None), last)) == [("U", "Yes.", COMPLETE)]


def test_sound_without_words_is_a_turn_with_empty_text() -> None:
    assert script(listen(speech("U", None), heard("U", ""))) == [("U", "", COMPLETE)]


def test_an_idle_timeouts_empty_item_is_no_turn_but_keeps_the_order() -> None:
    transcript = listen(
        {"type": "input_audio_buffer.timeout_triggered", "item_id": "I"},
        committed("I", None),
        user_item("I", None),
        reply("R", "A", "I", "Still there?"),
        # What transcriptions make of silence was said by nobody.
        heard("I", "Thank you for watching."),
    )
    assert script(transcript) == [("A", "Still there?", COMPLETE)]


def test_push_to_talk_has_an_end_but_no_known_start() -> None:
    turn = only(listen(committed("U", None), user_item("U", None), heard("U", "Over.")))
    assert (turn.started_at, turn.ended_at) == (None, 1.0)


def test_speech_thrown_away_is_dropped_once_new_speech_begins() -> None:
    assert script(listen(started("X"), stopped("X"))) == [("X", "", PARTIAL)]
    transcript = listen(started("X"), stopped("X"), speech("U", None), heard("U", "Again."))
    assert script(transcript) == [("U", "Again.", COMPLETE)]


def test_text_without_any_announcement_is_kept() -> None:
    assert script(listen(heard("U", "Out of the blue."))) == [("U", "Out of the blue.", COMPLETE)]


# Other replies


def test_a_written_reply_takes_from_its_first_piece_to_its_end() -> None:
    body = message("A", "assistant", "completed", {"type": "output_text", "text": "Hello."})
    transcript = listen(
        reply_created("R"),
        reply_opened("R", "A", None),
        {"type": "response.output_text.delta", "response_id": "R", "item_id": "A", "delta": "Hel"},
        {"type": "response.output_text.done", "response_id": "R", "item_id": "A", "text": "Hello."},
        item("done", None, body),
        reply_done("R"),
    )
    assert only(transcript) == Turn(
        ItemId("A"), INTERVIEWER, "Hello.", 5.0, 8.0, COMPLETE, None, TurnKind.TEXT
    )


def test_a_reply_without_its_text_events_takes_it_from_the_item() -> None:
    body = message("A", "assistant", "completed", {"type": "output_audio", "transcript": "Hm."})
    transcript = listen(
        reply_created("R"), reply_opened("R", "A", None), item("done", None, body), reply_done("R")
    )
    assert script(transcript) == [("A", "Hm.", COMPLETE)]


def test_an_item_that_repeats_the_pieces_makes_them_final() -> None:
    body = message("A", "assistant", "completed", {"type": "output_audio", "transcript": "Hm."})
    transcript = listen(
        reply_opened("R", "A", None), said_delta("R", "A", "Hm."), item("done", None, body)
    )
    assert script(transcript) == [("A", "Hm.", COMPLETE)]


def test_a_reply_of_several_parts_ends_with_all_of_its_text() -> None:
    parts: list[Json] = [
        {"type": "output_audio", "transcript": "One."},
        {"type": "output_audio", "transcript": "Two."},
    ]
    transcript = listen(
        reply_created("R"),
        reply_opened("R", "A", None),
        said("R", "A", "One."),
        said("R", "A", "Two."),
        item("done", None, message("A", "assistant", "completed", *parts)),
        reply_done("R"),
    )
    assert script(transcript) == [("A", "One. Two.", COMPLETE)]


def test_a_reply_that_fails_midway_stays_partial() -> None:
    transcript = listen(
        reply_created("R"),
        reply_opened("R", "A", None),
        said_delta("R", "A", "I wo"),
        reply_done("R", "failed"),
    )
    assert script(transcript) == [("A", "I wo", PARTIAL)]


def test_a_reply_that_never_said_anything_is_no_turn() -> None:
    transcript = listen(
        reply_created("R"),
        reply_opened("R", "A", None),
        reply_done("R", "cancelled", "turn_detected"),
    )
    assert transcript.turns() == []


def test_a_reply_that_sounds_is_a_turn_even_without_text() -> None:
    transcript = listen(reply_created("R"), reply_opened("R", "A", None), playout("started", "R"))
    assert script(transcript) == [("A", "", PARTIAL)]


def test_a_function_call_is_no_turn_but_a_place_in_the_order() -> None:
    call = {"id": "F", "type": "function_call", "name": "lookup", "call_id": "c", "arguments": ""}
    result = {"id": "O", "type": "function_call_output", "call_id": "c", "output": "{}"}
    transcript = listen(
        speech("U", None),
        reply_created("R"),
        {"type": "response.output_item.added", "response_id": "R", "item": call},
        item("added", "U", call),
        {
            "type": "response.function_call_arguments.delta",
            "response_id": "R",
            "item_id": "F",
            "delta": "{}",
        },
        item("done", "U", call),
        reply_done("R"),
        item("added", "F", result),
        item("done", "F", result),
        reply("R2", "A", "O", "Found it."),
        heard("U", "Look it up."),
    )
    assert script(transcript) == [("U", "Look it up.", COMPLETE), ("A", "Found it.", COMPLETE)]


def test_an_out_of_band_reply_that_is_not_heard_is_no_turn() -> None:
    unheard_reply = [
        reply_created("R", conversation=None),
        said_delta("R", "A", "score: 4"),
        said("R", "A", "score: 4"),
        reply_done("R"),
    ]
    assert listen(unheard_reply).turns() == []
    assert script(listen(unheard_reply, playout("started", "R"))) == [("A", "score: 4", COMPLETE)]


def test_a_reply_whose_item_joined_the_conversation_is_a_turn_whatever_its_start_said() -> None:
    transcript = listen(
        reply_created("R", conversation=None),
        reply_opened("R", "A", None),
        said("R", "A", "Hello."),
    )
    assert script(transcript) == [("A", "Hello.", COMPLETE)]


# Interruption

QUESTION = "What did you build, and why did you build it that way?"


def _generated() -> list[Json]:
    return [
        *speech("U", None),
        heard("U", "Hello."),
        reply_created("R"),
        *reply_opened("R", "A", "U"),
        said_delta("R", "A", QUESTION[:20]),
        playout("started", "R"),
        said_delta("R", "A", QUESTION[20:]),
    ]


def _interrupted(transcript: Transcript, text: str = QUESTION, heard_ms: int | None = 1200) -> None:
    turn = next(turn for turn in transcript.turns() if turn.item_id == "A")
    assert (turn.status, turn.text, turn.heard_ms) == (INTERRUPTED, text, heard_ms)


def test_interruption_while_the_sound_still_plays_keeps_all_that_was_generated() -> None:
    transcript = listen(
        _generated(),
        reply_closed("R", "A", "U", QUESTION),
        started("U2"),
        playout("cleared", "R"),
        truncated("A", 1200),
        stopped("U2"),
        committed("U2", "A"),
        user_item("U2", "A"),
        heard("U2", "Sorry, one thing."),
    )
    _interrupted(transcript)
    assert [turn.item_id for turn in transcript.turns()] == ["U", "A", "U2"]
    _, answer, _ = transcript.turns()
    assert (answer.started_at, answer.ended_at) == (12.0, 21.0)


@pytest.mark.parametrize("position", range(7))
def test_interruption_during_generation_is_the_same_wherever_the_cut_is_told(position: int) -> None:
    closing = reply_closed("R", "A", "U", QUESTION, "cancelled", "turn_detected")
    cut = [playout("cleared", "R"), truncated("A", 1200)]
    transcript = listen(
        _generated(), started("U2"), closing[:position], cut, closing[position:], stopped("U2")
    )
    _interrupted(transcript)
    assert [turn.item_id for turn in transcript.turns()] == ["U", "A", "U2"]


def test_a_cut_told_before_the_end_of_generation_is_not_forgotten() -> None:
    closing = reply_closed("R", "A", "U", QUESTION)
    # The sound began at 12, and was cut at 14: where the service does not say, our clock does.
    _interrupted(listen(_generated(), playout("cleared", "R"), closing), heard_ms=2000)


def test_what_was_heard_is_the_text_cut_in_proportion_to_the_sound() -> None:
    done = reply_done("R")
    # 68 tokens are 3.4 s of sound, and the text has 54 characters.
    done["response"]["usage"] = {"output_token_details": {"audio_tokens": 68}}
    for heard_ms, words in (
        (0, ""),
        (400, "What"),
        (1700, "What did you build, and why"),
        (3399, "What did you build, and why did you build it that"),
        (3400, QUESTION),
        (9000, QUESTION),
    ):
        transcript = listen(_generated(), said("R", "A", QUESTION), done, truncated("A", heard_ms))
        turn = transcript.turns()[1]
        assert (turn.heard_ms, turn.heard_text, turn.text) == (heard_ms, words, QUESTION)
        told = transcript.document(SessionId("s"), datetime.now(UTC))["turns"][1]
        assert told["estimated"] is (words not in ("", QUESTION))


def test_of_a_reply_that_the_interviews_end_cut_what_had_sounded_was_heard() -> None:
    transcript = listen(_generated(), reply_closed("R", "A", "U", QUESTION))
    transcript.close(12.8)
    turn = transcript.turns()[1]
    assert (turn.status, turn.heard_ms, turn.heard_text) == (INTERRUPTED, 800, "What did you")


def test_of_a_reply_cut_before_it_sounded_nothing_was_heard() -> None:
    transcript = listen(
        reply_created("R"),
        reply_opened("R", "A", None),
        said("R", "A", QUESTION),
        reply_done("R", "cancelled", "turn_detected"),
    )
    assert (only(transcript).heard_ms, only(transcript).heard_text) == (0, "")


def test_a_text_without_spaces_is_cut_between_characters() -> None:
    assert heard_of("\u4f60\u597d\u4e16\u754c", 500, 1000) == "\u4f60\u597d"
    assert heard_of("word", 500, 1000) == "wo"
    assert heard_of("two words", 100, 1000) == ""


# Where in the recording


def listening(prefix: int | None, silence: int | None) -> Json:
    detection: Json = {"type": "server_vad"}
    if prefix is not None:
        detection["prefix_padding_ms"] = prefix
    if silence is not None:
        detection["silence_duration_ms"] = silence
    audio = {"input": {"turn_detection": detection}}
    return {"type": "session.created", "session": {"id": "s", "audio": audio}}


@pytest.mark.parametrize(
    ("session", "start", "end"),
    [
        ([], 10.3, 11.5),
        ([listening(None, None)], 10.3, 11.5),
        ([listening(100, 200)], 10.1, 11.8),
        ([{"type": "session.created", "session": {"id": "s"}}], 10.3, 11.5),
        ([listening(0, 0), listening(100, 200)], 10.1, 11.8),
    ],
)
def test_speech_lies_where_the_service_heard_it_less_its_padding(
    session: list[Json], start: float, end: float
) -> None:
    transcript = listen(session, started("U"), stopped("U"))
    transcript.place_speech(ItemId("U"), start=10.0)
    transcript.place_speech(ItemId("U"), end=12.0)
    turn = only(transcript)
    assert (turn.started_at, turn.ended_at) == (start, end)


def test_a_semantic_detector_has_no_silence_of_a_known_length() -> None:
    detection = {"type": "semantic_vad", "eagerness": "auto"}
    session = {"id": "s", "audio": {"input": {"turn_detection": detection}}}
    transcript = listen({"type": "session.updated", "session": session}, started("U"), stopped("U"))
    transcript.place_speech(ItemId("U"), start=1.0, end=4.0)
    assert (only(transcript).started_at, only(transcript).ended_at) == (1.3, 4.0)


def test_speech_that_goes_on_has_its_last_end_and_never_ends_before_it_begins() -> None:
    transcript = listen(started("U"), stopped("U"), stopped("U"))
    transcript.place_speech(ItemId("U"), start=0.0, end=1.0)
    transcript.place_speech(ItemId("U"), start=1.2, end=3.0)
    assert (only(transcript).started_at, only(transcript).ended_at) == (0.3, 2.5)
    short = listen(started("U"), stopped("U"))
    short.place_speech(ItemId("U"), start=0.0, end=0.6)
    assert (only(short).started_at, only(short).ended_at) == (0.1, 0.1)


def test_the_journals_own_lines_place_speech_when_it_is_replayed() -> None:
    lines = [
        line(1.0, started("U")),
        line(1.0, speech_line(ItemId("U"), "start", 0.25), None),
        line(2.0, stopped("U")),
        line(2.0, speech_line(ItemId("U"), "end", 1.9), None),
        line(2.1, {"type": SPEECH_LINE, "item_id": 7, "start": 9}, None),
        line(2.1, {"type": SPEECH_LINE, "item_id": "U", "start": "x", "end": True}, None),
        # What a browser says under that name places nothing.
        line(2.2, {"type": SPEECH_LINE, "item_id": "U", "end": 0.6}, "to_model"),
    ]
    turn = only(rebuild(lines))
    assert (turn.started_at, turn.ended_at) == (0.55, 1.4)


# What lies between turns


def test_tool_calls_are_marked_after_the_turn_that_led_to_them() -> None:
    call = {"id": "F", "type": "function_call", "name": "lookup", "call_id": "c", "arguments": ""}
    other = {"id": "M", "type": "mcp_call", "name": "search", "arguments": "{}"}
    transcript = listen(
        item("added", None, other),
        speech("U", "M"),
        heard("U", "Look it up."),
        item("added", "U", call),
        item("done", "U", call | {"arguments": "{}"}),
        reply("R", "A", "F", "Found it."),
    )
    marks = transcript.document(SessionId("s"), datetime.now(UTC))["marks"]
    assert marks == [
        {
            "kind": "tool_call",
            "after": None,
            "start_ms": 1000,
            "end_ms": 1000,
            "item_id": "M",
            "name": "search",
            "call_id": None,
        },
        {
            "kind": "silence",
            "after": "U",
            "start_ms": 3000,
            "end_ms": 15000,
        },
        {
            "kind": "tool_call",
            "after": "U",
            "start_ms": 8000,
            "end_ms": 8000,
            "item_id": "F",
            "name": "lookup",
            "call_id": "c",
        },
    ]
    assert script(transcript) == [("U", "Look it up.", COMPLETE), ("A", "Found it.", COMPLETE)]


def test_what_the_interviewer_was_told_is_marked_and_is_nobodys_turn() -> None:
    dictated = reply_created("R")
    dictated["response"]["metadata"] = {TAG: f"{DICTATED}4711"}
    asked_for = reply_created("R2")
    asked_for["response"]["metadata"] = {TAG: "4711"}
    transcript = listen(
        typed("U", None, "Hello."),
        typed("S", "U", "Be brief.", "system"),
        [dictated, *reply("R", "A", "S", "As you wish.")[1:]],
        typed("S2", "A", "Forget it.", "system"),
        {"type": "conversation.item.deleted", "item_id": "S2"},
        [asked_for, *reply("R2", "A2", "A", "Well then.")[1:]],
    )
    made = transcript.document(SessionId("s"), datetime.now(UTC))
    marks = [one for one in made["marks"] if one["kind"] != "silence"]
    assert marks == [
        {"kind": "instruction", "after": "U", "start_ms": 3000, "end_ms": 3000, "item_id": "S"},
        {"kind": "dictated", "after": "U", "start_ms": 5000, "end_ms": 5000, "item_id": "A"},
    ]
    assert "Be brief." not in json.dumps(made)
    assert [one["item_id"] for one in made["turns"]] == ["U", "A", "A2"]


def test_long_silences_are_marked_up_to_the_end() -> None:
    def turn(name: str, start: float | None, end: float | None) -> Turn:
        return Turn(ItemId(name), CANDIDATE, "x", start, end, COMPLETE, None)

    def marked(*turns: Turn, until: float | None = None) -> list[tuple[Any, int, int]]:
        made = document(SessionId("s"), datetime.now(UTC), turns, until=until)
        return [(one["after"], one["start_ms"], one["end_ms"]) for one in made["marks"]]

    one, two = turn("1", 6.0, 8.0), turn("2", 13.0, 14.0)
    assert marked(one, two, until=30.0) == [
        (None, 0, 6000),
        ("1", 8000, 13000),
        ("2", 14000, 30000),
    ]
    assert marked(turn("1", 4.9, 8.0), turn("2", 12.9, 14.0), until=18.9) == []
    # While somebody speaks on, the other's pause is none; nor is one known behind an open turn.
    assert marked(turn("1", 1.0, 20.0), turn("2", 2.0, 3.0), turn("3", 21.0, 22.0)) == []
    assert marked(turn("1", 1.0, None), turn("2", 20.0, 21.0), turn("3", 26.0, 27.0)) == [
        ("2", 21000, 26000)
    ]
    assert marked(turn("1", None, None), until=60.0) == []


def test_a_client_may_interrupt() -> None:
    closing = reply_closed("R", "A", "U", QUESTION, "cancelled", "client_cancelled")
    # Until the sound is thrown away, nobody knows how much of it was heard.
    _interrupted(listen(_generated(), closing), heard_ms=None)
    _interrupted(listen(_generated(), closing, playout("cleared", "R")), heard_ms=8000)
    _interrupted(listen(_generated(), closing, playout("cleared", "R"), truncated("A", 1200)))


def test_a_truncated_item_that_comes_back_shorter_does_not_shorten_the_turn() -> None:
    short = message("A", "assistant", "incomplete", {"type": "output_audio", "transcript": "What"})
    empty = message("A", "assistant", "incomplete", {"type": "output_audio", "transcript": None})
    for body in (short, empty):
        _interrupted(listen(_generated(), truncated("A", 1200), item("done", "U", body)))


def test_a_retrieved_item_without_its_text_erases_nothing() -> None:
    body = message("A", "assistant", "completed", {"type": "output_audio", "audio": "AAAA"})
    transcript = listen(
        _generated(),
        reply_closed("R", "A", "U", QUESTION),
        truncated("A", 1200),
        {"type": "conversation.item.retrieved", "item": body},
    )
    _interrupted(transcript)


def test_clearing_after_the_last_sound_interrupts_nothing() -> None:
    transcript = listen(reply("R", "A", None, "All said."), playout("cleared", "R"))
    assert script(transcript) == [("A", "All said.", COMPLETE)]
    assert only(transcript).ended_at == 14.0


def test_sound_that_pauses_and_goes_on_is_one_playout() -> None:
    transcript = listen(
        reply("R", "A", None, "All said."), playout("started", "R"), playout("cleared", "R")
    )
    turn = only(transcript)
    assert (turn.status, turn.started_at, turn.ended_at) == (INTERRUPTED, 6.0, 16.0)


# Order


def test_an_item_without_known_predecessor_waits_at_the_end() -> None:
    transcript = Transcript()

    def feed(*events: Json) -> list[str]:
        for event in events:
            transcript.feed(model_event(event), 1.0)
        return [turn.item_id for turn in transcript.turns()]

    assert feed(*typed("C", "B", "c")) == ["C"]
    assert feed(*typed("A", None, "a")) == ["A", "C"]
    assert feed(*typed("D", "A", "d")) == ["A", "D", "C"]
    # Its predecessor appears, put in between the first and what followed that so far.
    assert feed(*typed("B", "A", "b")) == ["A", "B", "C", "D"]


def test_items_that_do_not_say_what_they_follow_stay_in_the_order_they_came() -> None:
    transcript = listen(
        typed("A", ABSENT, "a"), typed("B", ABSENT, "b"), typed("C", "A", "c"), heard("D", "d")
    )
    assert [turn.item_id for turn in transcript.turns()] == ["A", "C", "B", "D"]


def test_an_item_put_first_or_between_is_shown_there() -> None:
    transcript = listen(
        typed("A", None, "a"),
        typed("B", "A", "b"),
        typed("between", "A", "x"),
        typed("first", None, "y"),
    )
    assert [turn.item_id for turn in transcript.turns()] == ["first", "A", "between", "B"]


def test_a_predecessor_outweighs_an_earlier_null() -> None:
    transcript = listen(typed("A", None, "a"), committed("U", None), user_item("U", "A"))
    transcript.feed(model_event(heard("U", "u")), 9.0)
    assert [turn.item_id for turn in transcript.turns()] == ["A", "U"]


def test_the_first_predecessor_named_stays() -> None:
    steps = [*typed("A", None, "a"), *typed("B", "A", "b"), *typed("C", "A", "c")]
    body = message("C", "user", "completed", {"type": "input_text", "text": "c"})
    transcript = listen(steps, item("done", "B", body), item("done", ABSENT, body))
    assert [turn.item_id for turn in transcript.turns()] == ["A", "C", "B"]


def test_an_event_that_names_no_predecessor_takes_no_place_away() -> None:
    body = message("A", "user", "completed", {"type": "input_text", "text": "a"})
    transcript = listen(
        typed("B", ABSENT, "b"), item("added", None, body), item("done", ABSENT, body)
    )
    assert [turn.item_id for turn in transcript.turns()] == ["A", "B"]


def test_a_chain_whose_beginning_is_unknown_keeps_its_own_order() -> None:
    transcript = listen(typed("C", "B", "c"), typed("B", "lost", "b"), typed("A", None, "a"))
    assert [turn.item_id for turn in transcript.turns()] == ["A", "B", "C"]


def test_items_that_follow_each_other_in_a_circle_are_not_lost() -> None:
    transcript = listen(
        typed("X", "Y", "x"), typed("Y", "X", "y"), typed("S", "S", "s"), typed("A", None, "a")
    )
    assert [turn.item_id for turn in transcript.turns()] == ["A", "X", "Y", "S"]


def test_a_long_conversation_is_walked_without_recursion() -> None:
    transcript = Transcript()
    names = [f"item_{n}" for n in range(5000)]
    for previous, name in zip([None, *names], names, strict=False):
        for event in typed(name, previous, name):
            transcript.feed(model_event(event), 0.0)
    assert [turn.text for turn in transcript.turns()] == names


# Items made by clients


def test_a_typed_message_is_a_turn_at_the_moment_it_was_sent() -> None:
    transcript = listen(typed("T", None, "Can you hear me?"))
    assert only(transcript) == Turn(
        ItemId("T"), CANDIDATE, "Can you hear me?", 1.0, 1.0, COMPLETE, None, TurnKind.TEXT
    )


def test_seeded_interviewer_turns_are_turns_and_system_notes_are_not() -> None:
    transcript = listen(
        typed("S", None, "Be kind.", role="system"),
        typed("A", "S", "Welcome back.", role="assistant"),
    )
    assert only(transcript) == Turn(
        ItemId("A"), INTERVIEWER, "Welcome back.", 3.0, 3.0, COMPLETE, None, TurnKind.TEXT
    )


def test_a_message_whose_role_is_missing_later_keeps_its_speaker() -> None:
    body = {"id": "T", "type": "message", "content": []}
    assert script(listen(typed("T", None, "Hi."), item("done", None, body))) == [
        ("T", "Hi.", COMPLETE)
    ]


def test_a_deleted_item_vanishes_and_its_followers_stay_in_place() -> None:
    steps = [*typed("A", None, "a"), *typed("B", "A", "b"), *typed("C", "B", "c")]
    transcript = listen(steps, deleted("B"), heard("B", "late text"))
    assert [turn.item_id for turn in transcript.turns()] == ["A", "C"]


def test_an_item_created_again_under_its_old_id_moves_to_its_new_place() -> None:
    transcript = listen(
        typed("A", None, "a"),
        typed("B", "A", "b"),
        typed("D", "B", "d"),
        typed("C", "B", "c"),
        deleted("B"),
        typed("B", "D", "b again"),
    )
    assert [turn.text for turn in transcript.turns()] == ["a", "c", "d", "b again"]


def test_each_former_place_of_an_item_created_again_is_remembered() -> None:
    transcript = listen(
        typed("A", None, "a"),
        typed("B", "A", "b1"),
        typed("C", "B", "c"),
        deleted("B"),
        typed("B", "C", "b2"),
        typed("D", "B", "d"),
        deleted("B"),
        typed("B", "D", "b3"),
        typed("E", "B", "e"),
    )
    assert [turn.text for turn in transcript.turns()] == ["a", "c", "d", "b3", "e"]


def test_events_that_say_nothing_about_speech_change_nothing() -> None:
    transcript = listen(
        {"type": "session.created", "session": {"id": "sess_1"}},
        {"type": "session.updated", "session": {"id": "sess_1"}},
        {"type": "error", "error": {"code": "x", "message": "m"}},
        {"type": "surprise.event", "item_id": "U"},
        {"type": "response.done"},
        truncated("nothing known", 5),
        reply_created("R"),
    )
    assert transcript.turns() == []


# The end


def test_a_reply_still_sounding_at_the_end_was_cut_off_there() -> None:
    # Its words are all there, its sound is not.
    transcript = listen(_generated(), reply_closed("R", "A", "U", QUESTION))
    _, turn = transcript.turns()
    assert turn.status is COMPLETE
    transcript.close(40.0004)
    candidate, turn = transcript.turns()
    assert (turn.text, turn.status, turn.ended_at) == (QUESTION, INTERRUPTED, 40.0)
    assert (candidate.status, candidate.ended_at) == (COMPLETE, 2.0)


def test_a_reply_heard_to_its_end_stays_whole() -> None:
    transcript = listen(
        _generated(), reply_closed("R", "A", "U", QUESTION), playout("stopped", "R")
    )
    before = transcript.turns()
    transcript.close(40.0)
    assert transcript.turns() == before


def test_a_reply_without_its_last_words_at_the_end_keeps_those_it_has() -> None:
    transcript = listen(reply_created("R"), said_delta("R", "A", "Tell me"))
    transcript.close(9.0)
    turn = only(transcript)
    assert (turn.text, turn.status, turn.ended_at) == ("Tell me", INTERRUPTED, 9.0)


def test_a_candidate_speaking_at_the_end_was_not_transcribed() -> None:
    transcript = listen(started("U"))
    transcript.close(9.0)
    assert only(transcript) == Turn(ItemId("U"), CANDIDATE, "", 1.0, 9.0, FAILED, None)


def test_a_candidate_half_transcribed_at_the_end_keeps_the_text_and_the_true_end() -> None:
    transcript = listen(speech("U", None), heard_delta("U", "I am"))
    transcript.close(9.0)
    turn = only(transcript)
    assert (turn.text, turn.status, turn.ended_at) == ("I am", INTERRUPTED, 2.0)


def test_a_text_that_comes_while_the_end_is_under_way_counts_and_a_second_end_does_not() -> None:
    transcript = listen(speech("U", None))
    transcript.close(9.0)
    transcript.feed(model_event(heard("U", "I am here.")), 9.2)
    transcript.feed(model_event(started("V")), 9.5)
    transcript.close(12.0)
    assert script(transcript) == [("U", "I am here.", COMPLETE), ("V", "", FAILED)]
    # What begins after the end does not end before it began.
    assert transcript.turns()[1].ended_at == 9.5


def test_a_rebuilt_transcript_is_closed_where_the_interview_ended_or_by_the_last_line() -> None:
    def line(t: float, direction: str | None, event: Json) -> str:
        return json.dumps({"t": t, "direction": direction, "event": event}) + "\n"

    speaking = line(1.0, "to_browser", started("U"))
    ending = line(4.0, None, {"type": "interview.phase", "before": "live", "phase": "ending"})
    later = line(5.0, None, {"type": "interview.phase", "before": "ending", "phase": "ended"})
    live = line(0.5, None, {"type": "interview.phase", "before": "connecting", "phase": "live"})
    assert only(rebuild([live, speaking, ending, later])).ended_at == 4.0
    # A crash leaves no line of the end.
    crashed = rebuild([live, speaking, line(3.0, "to_model", {"type": "response.cancel"}), "{"])
    assert only(crashed).ended_at == 3.0
    assert rebuild([]).turns() == []


def while_away(*events: Json, back: float, end: float = 20.0) -> Turn:
    """The only turn of a journal: events a second apart, the browser gone at 2.5 seconds."""

    def line(t: float, direction: str | None, event: Json) -> tuple[float, str]:
        return t, json.dumps({"t": t, "direction": direction, "event": event})

    def phase(t: float, name: str) -> tuple[float, str]:
        return line(t, None, {"type": "interview.phase", "phase": name})

    told = [line(float(second), "to_browser", event) for second, event in enumerate(events, 1)]
    lines = sorted([*told, phase(2.5, "detached"), phase(back, "live"), phase(end, "ending")])
    return only(rebuild(text for _, text in lines))


def test_what_is_played_while_nobody_is_there_was_not_heard() -> None:
    delta, text = said_delta("R", "A", "A"), said("R", "A", "A long story.")
    # Played to its end from second 2 to 6: half a second of it was heard.
    over = [delta, playout("started", "R"), text, reply_done("R"), playout("stopped", "R")]
    turn = while_away(*over, back=10)
    assert (turn.status, turn.heard_ms, turn.heard_text) == (INTERRUPTED, 500, "A")
    # Back while it still sounds: the rest is in pieces.
    assert while_away(*over, back=4.5).heard_ms == 500
    # The service counts what it played, and may count less.
    assert while_away(*over, truncated("A", 3000), back=10).heard_ms == 500
    assert while_away(*over, truncated("A", 300), back=10).heard_ms == 300
    # Gone once it was over.
    heard = while_away(playout("started", "R"), playout("stopped", "R"), text, back=10)
    assert (heard.status, heard.heard_ms) == (COMPLETE, None)


def test_a_reply_that_begins_while_nobody_is_there_was_heard_if_it_sounds_later() -> None:
    news: Json = {"type": "x_future.event"}
    made = [news, news, reply_created("R"), said("R", "A", "Hi."), reply_done("R")]
    unplayed = while_away(*made, back=10)
    assert (unplayed.status, unplayed.heard_ms, unplayed.heard_text) == (INTERRUPTED, 0, "")
    played = [*made, playout("started", "R"), playout("stopped", "R")]
    assert while_away(*played, back=10).heard_ms == 0
    turn = while_away(*played, back=5.5)
    assert (turn.status, turn.heard_ms) == (COMPLETE, None)


# The document


def test_the_document_holds_the_turns_and_the_start_in_utc() -> None:
    transcript = listen(
        speech("U", None), heard("U", "H\u00e9 \U0001f642"), _generated()[6:], truncated("A", 1200)
    )
    start = datetime(2026, 11, 20, 12, 0, 0, 250_000, tzinfo=timezone(timedelta(hours=2)))
    document = transcript.document(SessionId("abc"), start)
    assert json.loads(json.dumps(document)) == {
        "schema": 2,
        "session_id": "abc",
        "started_at": "2026-11-20T10:00:00.250Z",
        "final": True,
        "turns": [
            {
                "item_id": "U",
                "speaker": "candidate",
                "kind": "speech",
                "text": "H\u00e9 \U0001f642",
                "start_ms": 1000,
                "end_ms": 2000,
                "status": "complete",
                "heard_ms": None,
                "heard_text": None,
                "estimated": False,
            },
            {
                "item_id": "A",
                "speaker": "interviewer",
                "kind": "speech",
                "text": QUESTION,
                "start_ms": 12000,
                "end_ms": None,
                "status": "interrupted",
                "heard_ms": 1200,
                "heard_text": "What did you",
                "estimated": True,
            },
        ],
        "marks": [{"kind": "silence", "after": "U", "start_ms": 2000, "end_ms": 12000}],
    }


def test_a_start_without_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        Transcript().document(SessionId("abc"), datetime(2026, 11, 20))


def test_text_can_always_be_written_as_utf8() -> None:
    halves = [heard_delta("U", "\ud83d"), heard_delta("U", "\ude42"), heard("V", "x\ud83dy")]
    document = listen(started("U"), halves).document(SessionId("abc"), datetime.now(UTC))
    texts = {turn["item_id"]: turn["text"] for turn in document["turns"]}
    assert texts == {"U": "\U0001f642", "V": "x\ufffdy"}
    json.dumps(document, ensure_ascii=False).encode()


# The journal


def line(t: float, event: Json, direction: str | None = "to_browser") -> str:
    return json.dumps(
        {"t": t, "at": "2026-11-20T10:00:00Z", "direction": direction, "event": event}
    )


def test_only_the_models_events_are_replayed() -> None:
    said_by_browser = typed("X", None, "forged")[0]
    transcript = rebuild(
        [
            line(0.0, {"type": "interview.started", "session_id": "abc", "schema": 1}, None),
            line(0.1, said_by_browser, "to_model"),
            line(0.2, typed("T", None, "real")[0]),
        ]
    )
    assert only(transcript) == Turn(
        ItemId("T"), CANDIDATE, "real", 0.2, 0.2, COMPLETE, None, TurnKind.TEXT
    )


def test_torn_and_damaged_lines_cost_only_themselves() -> None:
    whole = line(1.0, typed("T", None, "kept")[0])
    damaged = [
        "",
        "[1, 2]",
        "\ufffd\ufffd",
        "[" * 100_000,
        json.dumps({"t": None, "direction": "to_browser", "event": deleted("T")}),
        json.dumps({"t": 2.0, "direction": "to_browser", "event": "odd"}),
        json.dumps({"t": 2.0, "direction": "to_browser", "event": {}}),
    ]
    assert script(rebuild([whole, *damaged, whole[:-9]])) == [("T", "kept", COMPLETE)]


# Long conversations, every order of arrival that the service may choose


class Conversation:
    """Makes up an interview: its events in one legal order of arrival, and what is true of it.

    A main stream holds what the service sends in a fixed order. Transcriptions and playout are
    streams of their own, which may be late by any amount.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.main: list[Json] = []
        self.streams: list[tuple[int, int | None, list[Json]]] = []
        """Earliest place in the main stream, latest place or None, events in order."""
        self.order: list[str] = []
        self.expected: dict[str, tuple[str, TurnStatus, int | None]] = {}
        self.counter = 0
        self.sounding: tuple[str, str, int] | None = None
        """A reply whose sound has not ended: response, item, place where the sound begins."""

    @property
    def last(self) -> str | None:
        return self.order[-1] if self.order else None

    def name(self, kind: str) -> str:
        self.counter += 1
        return f"{kind}_{self.counter}"

    def words(self) -> list[str]:
        vocabulary = ("why ", "did ", "you ", "build ", "this, ", "\u00e9t\u00e9 ")
        return [self.chance.choice(vocabulary) for _ in range(self.chance.randint(1, 9))]

    def aside(self, events: list[Json], latest: int | None = None) -> None:
        self.streams.append((len(self.main), latest, events))

    def candidate_speaks(self) -> None:
        u = self.name("item")
        self.main.append(started(u))
        self.end_sound(interrupted=self.chance.random() < 0.5)
        self.main += [stopped(u), committed(u, self.last), *user_item(u, self.last)]
        self.order.append(u)
        words = self.words()
        text = "".join(words)
        deltas = [heard_delta(u, word) for word in words if self.chance.random() < 0.8]
        fate = self.chance.random()
        if fate < 0.7:
            self.aside([*deltas, heard(u, text)])
            self.expected[u] = (text.strip(), COMPLETE, None)
        elif fate < 0.85:
            self.aside([*deltas, unheard(u)])
            self.expected[u] = ("", FAILED, None)
        else:
            self.aside(deltas)
            partial = "".join(delta["delta"] for delta in deltas)
            self.expected[u] = (partial.strip(), PARTIAL, None)

    def end_sound(self, interrupted: bool) -> None:
        if self.sounding is None:
            return
        r, a, begins = self.sounding
        self.sounding = None
        text, _, _ = self.expected[a]
        if interrupted:
            heard_ms = self.chance.randint(100, 5000)
            self.expected[a] = (text, INTERRUPTED, heard_ms)
            self.main += [playout("cleared", r), truncated(a, heard_ms)]
            self.streams.append((begins, len(self.main) - 3, [playout("started", r)]))
        else:
            sound = [playout("started", r), playout("stopped", r)]
            self.streams.append((begins, len(self.main) - 1, sound))

    def interviewer_replies(self) -> None:
        self.end_sound(interrupted=False)
        r, a, previous = self.name("resp"), self.name("item"), self.last
        words = self.words()
        text = "".join(words)
        self.main += [reply_created(r), *reply_opened(r, a, previous), said_delta(r, a, words[0])]
        begins = len(self.main)
        self.main += [said_delta(r, a, word) for word in words[1:]]
        self.order.append(a)
        if self.chance.random() < 0.7:
            self.main += reply_closed(r, a, previous, text)
            self.expected[a] = (text.strip(), COMPLETE, None)
            self.sounding = (r, a, begins)
            return
        # Cut while it is generated, by speech that turns out to be nothing but noise.
        u = self.name("item")
        self.streams.append((begins, len(self.main) - 1, [playout("started", r)]))
        self.main.append(started(u))
        heard_ms = self.chance.randint(0, 900)
        self.aside([playout("cleared", r), truncated(a, heard_ms)], len(self.main) + 6)
        self.main += reply_closed(r, a, previous, text, "cancelled", "turn_detected")
        self.expected[a] = (text.strip(), INTERRUPTED, heard_ms)
        self.main += [stopped(u), committed(u, a), *user_item(u, a)]
        self.order.append(u)
        self.aside([heard(u, "")])
        self.expected[u] = ("", COMPLETE, None)

    def function_is_called(self) -> None:
        call = {"id": self.name("item"), "type": "function_call", "arguments": "{}"}
        r = self.name("resp")
        self.main += [
            reply_created(r),
            {"type": "response.output_item.added", "response_id": r, "item": call},
            item("added", self.last, call),
            item("done", self.last, call),
            reply_done(r),
        ]
        self.order.append(call["id"])

    def someone_types(self) -> None:
        t = self.name("item")
        role = self.chance.choice(["user", "assistant", "system"])
        if self.order and self.chance.random() < 0.4:
            place = self.chance.randrange(len(self.order) + 1)
            previous = self.order[place - 1] if place else None
        else:
            place, previous = len(self.order), self.last
        self.main += typed(t, previous, f"typed {t}", role)
        self.order.insert(place, t)
        if role != "system":
            self.expected[t] = (f"typed {t}", COMPLETE, None)

    def something_is_deleted(self) -> None:
        if self.expected and self.sounding is None:
            victim = self.chance.choice(sorted(self.expected))
            self.main.append(deleted(victim))
            del self.expected[victim]

    def something_unknown(self) -> None:
        self.main.append({"type": "surprise.event", "item_id": self.last, "x": [1]})

    def events(self, steps: int) -> list[Json]:
        """Make up the interview and return its events as they arrive."""
        actions = [
            self.candidate_speaks,
            self.interviewer_replies,
            self.function_is_called,
            self.someone_types,
            self.something_is_deleted,
            self.something_unknown,
        ]
        for _ in range(steps):
            self.chance.choices(actions, weights=[6, 6, 1, 2, 1, 1])[0]()
        self.end_sound(interrupted=False)
        end = len(self.main)
        # Place in the main stream, stream, place in the stream: what came when.
        arrivals = [((n, 0, n), event) for n, event in enumerate(self.main, 1)]
        for n, (earliest, latest, events) in enumerate(self.streams):
            last = end if latest is None else min(latest + 1, end)
            # Most are soon, some are very late.
            if latest is None and self.chance.random() < 0.7:
                last = min(earliest + 12, end)
            places = sorted(self.chance.randint(earliest, last) for _ in events)
            for k, (at, event) in enumerate(zip(places, events, strict=True)):
                arrivals.append(((at, n + 1, k), event))
        return [event for _, event in sorted(arrivals, key=lambda arrival: arrival[0])]


@pytest.mark.parametrize("seed", range(40))
def test_any_order_of_arrival_gives_the_conversation_as_it_was_held(seed: int) -> None:
    conversation = Conversation(seed)
    events = conversation.events(steps=60)
    transcript = Transcript()
    journal = [line(0.0, {"type": "interview.started", "session_id": "s", "schema": 1}, None)]
    sounds: dict[str, float] = {}
    now = 0.0
    for event in events:
        now += conversation.chance.random()
        transcript.feed(model_event(event), now)
        # A journal keeps milliseconds, and holds what the browser said too.
        journal.append(line(round(now, 3), event))
        if event["type"] == "conversation.item.added":
            journal.append(
                line(now, {"type": "response.create", "item": event["item"]}, "to_model")
            )
        if event["type"].endswith("speech_started"):
            sounds[event["item_id"]] = round(now, 3)

    place = {name: n for n, name in enumerate(conversation.order)}
    turns = transcript.turns()
    assert [turn.item_id for turn in turns] == sorted(conversation.expected, key=place.__getitem__)
    for turn in turns:
        assert (turn.text, turn.status, turn.heard_ms) == conversation.expected[turn.item_id]
        if turn.started_at is not None and turn.ended_at is not None:
            assert turn.started_at <= turn.ended_at
        if turn.item_id in sounds:
            assert turn.started_at == sounds[turn.item_id]

    torn = line(now + 1, deleted(turns[0].item_id))[:-1]
    transcript.close(now)
    turns = transcript.turns()
    assert PARTIAL not in [turn.status for turn in turns]
    again = rebuild([*journal, torn])
    assert again.turns() == turns
    documents = [one.document(SessionId("s"), datetime.now(UTC)) for one in (transcript, again)]
    for one in documents:
        one["started_at"] = ""
    assert json.dumps(documents[0]) == json.dumps(documents[1])


@pytest.mark.parametrize("seed", range(40))
def test_what_may_come_in_another_order_changes_nothing(seed: int) -> None:
    """Each event keeps the time that it is about; only its place in the queue is another.

    What the service sends in order stays so: the main stream, one item's transcription, one
    reply's playout. How these lie among each other is left to chance.
    """
    conversation = Conversation(2000 + seed)
    events = conversation.events(steps=40)
    timed = [(float(n), event) for n, event in enumerate(events)]

    def stream(event: Json) -> str:
        if event["type"].startswith(TRANSCRIPTION):
            return str(event["item_id"])
        return "main"

    queues: dict[str, list[tuple[float, Json]]] = {}
    for at, event in timed:
        queues.setdefault(stream(event), []).append((at, event))
    documents = []
    for order in range(4):
        chance = random.Random(order)
        left = {name: list(queue) for name, queue in queues.items()}
        transcript = Transcript()
        while left:
            # Transcriptions of an item may come before and long after anything else.
            name = chance.choice(sorted(left)) if order else "main" if "main" in left else min(left)
            at, event = left[name].pop(0)
            if not left[name]:
                del left[name]
            transcript.feed(model_event(event), at)
        transcript.close(float(len(events)))
        documents.append(transcript.document(SessionId("s"), datetime(2026, 1, 1, tzinfo=UTC)))
    assert all(one == documents[0] for one in documents)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_so_far_is_never_taken_back(seed: int) -> None:
    conversation = Conversation(1000 + seed)
    events = conversation.events(steps=40)
    place = {name: n for n, name in enumerate(conversation.order)}
    transcript = Transcript()
    for event in events:
        transcript.feed(model_event(event), 1.0)
        shown = [place[turn.item_id] for turn in transcript.turns()]
        assert shown == sorted(shown)
