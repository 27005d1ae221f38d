"""What identifies a person is taken out of texts, whole, and nothing else is."""

from __future__ import annotations

import collections
import json
import pickle
import random
import time
from typing import Any

import pytest

from interview_peer.core.reading import read
from interview_peer.core.realtime import InputTextDone
from interview_peer.core.redaction import Redactor
from interview_peer.core.speech_redaction import PATTERNS, WITHHELD, SpeechRedactor, redactor
from interview_peer.types import ItemId, Json


def redacted(text: str, setting: str = "all") -> str:
    made = redactor(setting)
    assert made is not None
    return made.text(text, collections.Counter())


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Write to ann.o-neil+jobs@mail.example.co.uk, please.", "Write to [email], please."),
        ("a@b.de and c_d@e-f.com", "[email] and [email]"),
        ("M\u00fcller@stra\u00dfe.example!", "[email]!"),
        ("It's DE89 3704 0044 0532 0130 00 and Okay.", "It's [iban] and Okay."),
        ("de89370400440532013000", "[iban]"),
        ("GB82-WEST-1234-5698-7654-32", "[iban]"),
        ("NO93 8601 1117 947, BE68 5390 0754 7034", "[iban], [iban]"),
        ("My card is 4111 1111 1111 1111.", "My card is [card]."),
        ("4111-1111-1111-1111 12 27", "[card] 12 27"),
        ("378282246310005 or 5555555555554444", "[card] or [card]"),
        ("Call +49 (0)30 901820-10 now.", "Call [phone] now."),
        ("(555) 123-4567, 555-123-4567, 0151 23456789", "[phone], [phone], [phone]"),
        ("+1.415.555.2671 / 00441632960123", "[phone] / [phone]"),
    ],
)
def test_what_identifies_a_person_is_taken_out(text: str, kept: str) -> None:
    assert redacted(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "From 2019 2020 on, and on 2026-11-20, 20.11.2026, 20/11/2026.",
        "We had 1 500 000 users and 12,345,678 requests at 99.95 percent.",
        "Version 3.11.4, port 8080, 127 ms, 640 x 480.",
        "an @ sign, a@b, @home, me@localhost",
        "item_4111111111111112x",
        "DE12",
        "",
    ],
)
def test_other_numbers_and_signs_stay(text: str) -> None:
    assert redacted(text) == text


def test_a_wrong_checksum_is_no_card_and_no_iban() -> None:
    assert redacted("DE89 3704 0044 0532 0130 01", "iban") == "DE89 3704 0044 0532 0130 01"
    assert redacted("4111 1111 1111 1112", "card") == "4111 1111 1111 1112"
    assert redacted("0000 0000 0000 0000", "card") == "0000 0000 0000 0000"


def test_only_the_named_patterns_are_applied() -> None:
    text = "a@b.de 4111111111111111 +49 30 90182010"
    assert redacted(text, "email") == "[email] 4111111111111111 +49 30 90182010"
    assert redacted(text, " card ,email") == "[email] [card] +49 30 90182010"


def test_what_was_taken_out_is_counted() -> None:
    counts: collections.Counter[str] = collections.Counter()
    made = redactor("all")
    assert made is not None
    made.text("a@b.de c@d.de +49 30 90182010", counts)
    assert +counts == {"email": 2, "phone": 1}


@pytest.mark.parametrize("seed", range(30))
def test_a_planted_number_never_survives(seed: int) -> None:
    chance = random.Random(seed)
    words = ["well", "I", "built 12", "bridges,", "in", "2019", "(mostly)", "R2-D2"]
    planted = chance.choice(
        ["4111 1111 1111 1111", "DE89370400440532013000", "x.y@z.org", "+49 30 90182010"]
    )
    before = " ".join(chance.choices(words, k=chance.randrange(0, 8)))
    after = " ".join(chance.choices(["and", "so", "then", "okay"], k=chance.randrange(0, 8)))
    assert planted not in redacted(f"{before} {planted} {after}")


@pytest.mark.parametrize("piece", ["1 ", "1", "a.", "a@", "DE89 ", "+1(", "1-", "@a.", "DE89A"])
def test_no_text_takes_long(piece: str) -> None:
    text = piece * (20_000 // len(piece))
    began = time.process_time()
    redacted(text)
    assert time.process_time() - began < 1.0


# Events


def cleaned(event: Json, setting: str = "all") -> tuple[Json, collections.Counter[str]]:
    counts: collections.Counter[str] = collections.Counter()
    made = redactor(setting)
    assert made is not None
    return made.event(event, counts), +counts


def test_every_whole_text_of_an_event_is_redacted_and_nothing_else() -> None:
    event: Json = {
        "type": "response.done",
        "event_id": "a@b.de",
        "response": {
            "id": "r",
            "output": [
                {"content": [{"type": "output_audio", "transcript": "to a@b.de"}]},
                {"type": "function_call", "arguments": '{"to": "a@b.de"}', "name": "mail"},
                {"type": "function_call_output", "output": "sent to a@b.de"},
            ],
        },
    }
    before = str(event)
    kept, counts = cleaned(event)
    assert kept["response"]["output"] == [
        {"content": [{"type": "output_audio", "transcript": "to [email]"}]},
        {"type": "function_call", "arguments": '{"to": "[email]"}', "name": "mail"},
        {"type": "function_call_output", "output": "sent to [email]"},
    ]
    assert kept["event_id"] == "a@b.de"
    assert counts == {"email": 3}
    assert str(event) == before, "what the browser gets is another matter"


@pytest.mark.parametrize("kind", ["response.create", "response.created", "response.done"])
def test_words_that_the_interviewer_is_given_to_say_are_redacted(kind: str) -> None:
    event: Json = {"type": kind, "response": {"instructions": "Say: to a@b.de", "input": []}}
    kept, counts = cleaned(event)
    assert kept == {"type": kind, "response": {"instructions": "Say: to [email]", "input": []}}
    assert counts == {"email": 1}
    assert event["response"]["instructions"] == "Say: to a@b.de", "the model hears all"


def test_the_instructions_of_a_session_are_nobodys_speech() -> None:
    event: Json = {"type": "session.update", "session": {"instructions": "Write to a@b.de"}}
    assert cleaned(event) == (event, {})


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.output_audio_transcript.delta", "delta": "4111 11"},
        {"type": "conversation.item.input_audio_transcription.delta", "delta": "4111 11"},
        {"type": "response.function_call_arguments.delta", "delta": "4111 11"},
        {"type": "conversation.item.input_audio_transcription.segment", "text": "4111 11"},
        {
            "type": "conversation.item.input_audio_transcription.delta",
            "delta": "",
            "logprobs": [{"token": "4111 11", "logprob": -0.1}],
        },
    ],
)
def test_text_that_still_grows_is_withheld(event: Json) -> None:
    kept, _ = cleaned(event, "email")
    assert "4111" not in str(kept) and kept["type"] == event["type"]


def test_an_event_that_another_process_reads_is_redacted_there() -> None:
    made = redactor(f"email,{HERE}:shout")
    assert made is not None
    sent: SpeechRedactor = pickle.loads(pickle.dumps(made))
    event = {
        "type": "conversation.item.input_audio_transcription.completed",
        "item_id": "u",
        "transcript": "to a@b.de",
    }
    message = json.dumps(event)
    reading = read(message, Redactor([]), is_beta=False, speech=sent)
    assert reading.typed == InputTextDone(ItemId("u"), "TO [EMAIL]")
    assert reading.kept is not None and json.loads(reading.kept)["transcript"] == "TO [EMAIL]"
    assert reading.taken == {"email": 1, "hook": 1}
    assert reading.text is None, "the browser gets the message as it came"
    assert read(message, Redactor([]), is_beta=False).kept is None


# A function of the operator's own


def shout(text: str) -> str:
    return text.upper()


def fail(text: str) -> str:
    raise RuntimeError(text)


def forget(text: str) -> Any:
    return None


HERE = "tests.core.test_speech_redaction"


def test_a_function_is_named_by_its_import_path_and_sees_what_patterns_leave() -> None:
    assert redacted("a@b.de is mine", f"email,{HERE}:shout") == "[EMAIL] IS MINE"
    counts: collections.Counter[str] = collections.Counter()
    SpeechRedactor(hook=shout).text("ABC", counts)
    assert not +counts
    SpeechRedactor(hook=shout).text("abc", counts)
    assert +counts == {"hook": 1}


@pytest.mark.parametrize("name", ["fail", "forget"])
def test_a_function_that_fails_keeps_nothing(name: str) -> None:
    counts: collections.Counter[str] = collections.Counter()
    made = redactor(f"{HERE}:{name}")
    assert made is not None
    assert made.text("secret", counts) == WITHHELD
    assert counts["failed"] == 1


@pytest.mark.parametrize(
    "setting",
    [
        "emails",
        "no.such.module:f",
        f"{HERE}:nothing",
        f"{HERE}:HERE",
        ":",
        f"{HERE}:shout,{HERE}:fail",
    ],
)
def test_what_cannot_be_used_is_told_in_a_sentence(setting: str) -> None:
    with pytest.raises(ValueError, match="pattern|imported|function"):
        redactor(setting)


@pytest.mark.parametrize("setting", ["", " ", ","])
def test_nothing_named_is_nothing_redacted(setting: str) -> None:
    assert redactor(setting) is None


def test_the_patterns_have_the_names_that_the_setting_takes() -> None:
    assert list(PATTERNS) == ["email", "iban", "card", "phone"]
