r"""Secrets in text and events that are about to leave, in every spelling JSON knows."""

from __future__ import annotations

import json

import pytest

from interview_peer.core.redaction import MASK, Redactor

KEY = "sk-proj-A1b2_C3d4"
HARD = 'k"ey\\with/all'


def spelled(text: str) -> str:
    r"""Every character as ``\uXXXX``."""
    return "".join(f"\\u{ord(one):04x}" for one in text)


def test_a_text_without_a_secret_is_the_same_object() -> None:
    text = "nothing to hide"
    assert Redactor([KEY]).text(text) is text


def test_each_occurrence_is_masked() -> None:
    assert Redactor([KEY]).text(f"{KEY}, and {KEY}!") == f"{MASK}, and {MASK}!"


def test_a_secret_that_contains_another_is_masked_whole() -> None:
    clean = Redactor(["abc", "abcdef"]).text("abcdef abc")
    assert clean == f"{MASK} {MASK}"


def test_an_empty_secret_masks_nothing() -> None:
    event = {"type": "x"}
    assert Redactor([""]).event(event, "text") == (event, "text")


def test_an_event_without_a_secret_passes_as_the_same_objects() -> None:
    event = {"type": "x", "text": 'quoted "words"'}
    text = json.dumps(event)
    passed, passed_text = Redactor([KEY]).event(event, text)
    assert passed is event and passed_text is text


@pytest.mark.parametrize("key", [KEY, HARD, "\u00e9\u00e8-key"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_secret_is_masked_in_event_and_text(key: str, ascii_only: bool) -> None:
    event = {"type": "error", "error": {"message": f"bad key {key}.", "param": [key]}}
    text = json.dumps(event, ensure_ascii=ascii_only)
    clean, clean_text = Redactor([key]).event(event, text)
    wanted = {"type": "error", "error": {"message": f"bad key {MASK}.", "param": [MASK]}}
    assert clean == json.loads(clean_text) == wanted


def test_a_secret_in_a_field_name_is_masked_too() -> None:
    event = {"type": "x", KEY: 1}
    clean, text = Redactor([KEY]).event(event, json.dumps(event))
    assert clean == {"type": "x", MASK: 1} == json.loads(text)


def test_a_secret_spelled_in_escapes_is_masked() -> None:
    text = f'{{"type": "x", "text": "{spelled(KEY)}"}}'
    clean, clean_text = Redactor([KEY]).event(json.loads(text), text)
    assert clean == {"type": "x", "text": MASK} == json.loads(clean_text)


def test_one_escape_elsewhere_does_not_hide_a_secret() -> None:
    text = f'{{"type": "x", "text": "\\n{KEY}"}}'
    _, clean_text = Redactor([KEY]).event(json.loads(text), text)
    assert KEY not in clean_text
