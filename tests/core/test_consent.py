"""Who is asked to agree to being recorded, to which text, and how an agreement is kept."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from interview_peer.core.consent import (
    DEFAULT_TEXT,
    DEFAULT_VERSION,
    Consent,
    Operator,
    Policy,
    Requirement,
    policy,
)
from interview_peer.core.persona import InvalidPersona, from_table
from interview_peer.personas import Personas
from interview_peer.types import Json

AT = datetime(2026, 11, 20, 10, 0, 0, 123000, UTC)
REQUIRED, GIVEN, OFF = Policy.REQUIRED, Policy.GIVEN, Policy.OFF


@pytest.mark.parametrize(
    ("requirement", "invited", "others"),
    [("auto", REQUIRED, OFF), ("true", REQUIRED, REQUIRED), ("false", OFF, OFF)],
)
def test_the_setting_decides_who_is_asked(
    requirement: Requirement, invited: Policy, others: Policy
) -> None:
    assert policy(requirement, invited=True) is invited
    assert policy(requirement, invited=False) is others
    # Who makes an interview knows better.
    assert policy(requirement, invited=True, wished=GIVEN) is GIVEN
    assert policy(requirement, invited=True, wished=REQUIRED) is REQUIRED


def test_the_text_that_ships_tells_everything_a_candidate_must_know() -> None:
    text = Operator("Acme", "privacy@acme.example", 30).fill(DEFAULT_TEXT)
    for told in ("artificial intelligence", "Acme", "voice", "OpenAI", "30 days"):
        assert told in text
    assert "ask privacy@acme.example" in text
    assert "{" not in text
    unknown = Operator().fill(DEFAULT_TEXT)
    assert "{" not in unknown
    assert "Who is responsible: the organisation that invited you." in unknown
    assert "until the organisation that invited you erases it" in unknown


def test_one_day_is_a_day_and_foreign_braces_stay() -> None:
    assert Operator(retention_days=1).fill(" {retention} {x} ") == (
        "it is erased after 1 day, or earlier. {x}"
    )


def test_personas_have_the_text_that_ships_or_their_own(tmp_path: Path) -> None:
    own = 'title = "t"\ndescription = "d"\ninstructions = "i"\n'
    consent = '[consent]\nversion = "7"\ntext = "For {organisation} alone."\n'
    (tmp_path / "own.toml").write_text(own + consent)
    personas = Personas.load(tmp_path, Operator("Acme"))
    assert personas.find("own").consent_text == "For Acme alone."
    assert personas.find("own").consent_version == "7"
    assert personas.default.consent_text == Operator("Acme").fill(DEFAULT_TEXT)
    assert personas.default.consent_version == DEFAULT_VERSION
    assert personas.find("alloy").consent_text == personas.default.consent_text


@pytest.mark.parametrize(
    ("consent", "sentence"),
    [
        ("a text", "consent must have text and version"),
        ({"text": "a"}, "consent must have text and version"),
        ({"text": "a", "version": "1", "title": "b"}, "consent must have text and version"),
        ({"text": " ", "version": "1"}, r"consent\.text must be a text"),
        ({"text": "a", "version": 1}, r"consent\.version must be a text"),
        ({"text": "a" * 20_001, "version": "1"}, "20000 characters"),
        ({"text": "a", "version": "1" * 101}, "version 100"),
    ],
)
def test_a_consent_that_cannot_be_used_is_refused_by_its_name(consent: Any, sentence: str) -> None:
    table: Json = {"title": "t", "description": "d", "instructions": "i", "consent": consent}
    with pytest.raises(InvalidPersona, match=sentence):
        from_table("one", table)


def test_an_agreement_is_kept_with_the_hash_of_its_text() -> None:
    given = Consent.to("Grüße", "1", AT)
    assert given.told() == {
        "by": "candidate",
        "at": "2026-11-20T10:00:00.123Z",
        "version": "1",
        "sha256": hashlib.sha256("Grüße".encode()).hexdigest(),
    }
    assert Consent.read(given.told()) == given
    elsewhere = Consent(AT, "integrator")
    assert Consent.read(elsewhere.told()) == elsewhere


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        "candidate",
        {},
        {"by": "candidate"},
        {"by": "nobody", "at": "2026-11-20T10:00:00Z"},
        {"by": "candidate", "at": "2026-11-20T10:00:00"},
        {"by": "candidate", "at": 7},
        {"by": "candidate", "at": "2026-11-20T10:00:00Z", "version": 7},
    ],
)
def test_what_is_no_agreement_is_not_read_as_one(wrong: Any) -> None:
    assert Consent.read(wrong) is None
