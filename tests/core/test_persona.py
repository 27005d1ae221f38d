"""Persona files: what they may say, what is refused, and the session configuration they become."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from interview_peer.core.persona import (
    DEFAULT_MODEL,
    FIELDS,
    VOICES,
    InvalidPersona,
    from_table,
    ga_model,
)
from interview_peer.core.tools import END_INTERVIEW, definitions
from interview_peer.errors import ConfigurationError, PersonaNotFound
from interview_peer.personas import Personas
from interview_peer.types import Json

MINIMUM: Json = {"title": "A title", "description": "A line.", "instructions": "Ask."}


def test_the_least_a_file_may_say_is_completed() -> None:
    session = from_table("one", MINIMUM).session()
    assert session == {
        "type": "realtime",
        "model": DEFAULT_MODEL,
        "output_modalities": ["audio"],
        "instructions": "Ask.",
        "audio": {
            "input": {
                "transcription": {"model": "gpt-transcribe"},
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.5,
                    "prefix_padding_ms": 300,
                    "silence_duration_ms": 500,
                    "create_response": True,
                    "interrupt_response": True,
                },
            },
            "output": {"voice": "marin"},
        },
        "tools": definitions([END_INTERVIEW]),
        "tool_choice": "auto",
    }


def test_tools_can_be_switched_off_by_the_file_and_by_who_makes_the_session() -> None:
    without = from_table("one", {**MINIMUM, "tools": []})
    assert without.tools == ()
    for session in (without.session(), from_table("one", MINIMUM).session(with_tools=False)):
        assert not {"tools", "tool_choice"} & set(session)
    assert from_table("one", {**MINIMUM, "tools": [END_INTERVIEW]}) == from_table("one", MINIMUM)


@pytest.mark.parametrize(
    "value", ["end_interview", None, [1], ["no_such"], [END_INTERVIEW, END_INTERVIEW], {}]
)
def test_tools_that_there_are_not_are_refused(value: Any) -> None:
    with pytest.raises(InvalidPersona, match="persona one: tools "):
        from_table("one", {**MINIMUM, "tools": value})


def test_everything_a_file_says_reaches_the_session() -> None:
    persona = from_table(
        "two",
        {
            **MINIMUM,
            "voice": "cedar",
            "model": "gpt-realtime-mini",
            "transcription_model": "gpt-4o-transcribe",
            "language": "de",
            "turn_detection": {"type": "semantic_vad", "eagerness": "low"},
        },
    )
    session = persona.session()
    assert session["model"] == "gpt-realtime-mini"
    assert session["audio"]["output"] == {"voice": "cedar"}
    assert session["audio"]["input"] == {
        "transcription": {"model": "gpt-4o-transcribe", "language": "de"},
        "turn_detection": {"type": "semantic_vad", "eagerness": "low"},
    }
    assert persona.session("gpt-realtime-2.1-mini")["model"] == "gpt-realtime-2.1-mini"


def test_another_voice_changes_nothing_else() -> None:
    persona = from_table("one", MINIMUM)
    changed = persona.with_voice("ash").session()
    assert changed["audio"]["output"] == {"voice": "ash"}
    changed["audio"]["output"] = persona.session()["audio"]["output"]
    assert changed == persona.session()


@pytest.mark.parametrize("field", ["title", "description", "instructions"])
@pytest.mark.parametrize("value", [None, "", "  \n", 7, ["text"]])
def test_a_text_that_is_missing_empty_or_no_text_is_refused(field: str, value: Any) -> None:
    table = {**MINIMUM, field: value}
    if value is None:
        del table[field]
    with pytest.raises(InvalidPersona, match=f"persona one: {field} must be a text"):
        from_table("one", table)


@pytest.mark.parametrize("field", ["voice", "model", "transcription_model", "language"])
@pytest.mark.parametrize("value", ["", " ", 1, {"a": "b"}])
def test_an_optional_text_that_is_given_must_be_one(field: str, value: Any) -> None:
    with pytest.raises(InvalidPersona, match=f"{field} must be a text"):
        from_table("one", {**MINIMUM, field: value})


@pytest.mark.parametrize("value", ["server_vad", {}, {"type": "loud"}, {"type": ["server_vad"]}, 3])
def test_turn_detection_must_be_of_a_known_kind(value: Any) -> None:
    with pytest.raises(InvalidPersona, match="turn_detection.type must be server_vad or semantic"):
        from_table("one", {**MINIMUM, "turn_detection": value})


def test_a_field_with_a_typing_error_is_named() -> None:
    with pytest.raises(InvalidPersona, match="unknown field 'voise'"):
        from_table("one", {**MINIMUM, "voise": "marin"})


@pytest.mark.parametrize("name", ["", "Upper", "with space", "-first", "a/b", "x" * 65])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InvalidPersona, match="must be lower-case letters"):
        from_table(name, MINIMUM)


@pytest.mark.parametrize(
    ("asked", "taken"),
    [
        ("gpt-realtime", "gpt-realtime"),
        ("gpt-realtime-2.1", "gpt-realtime-2.1"),
        ("gpt-realtime-mini", "gpt-realtime-mini"),
        ("gpt-4o-realtime-preview-2024-12-17", None),
        ("gpt-realtime-" + "x" * 60, None),
        ("gpt-realtime; drop", None),
        ("", None),
        (None, None),
    ],
)
def test_only_models_that_still_run_may_be_asked_for(asked: str | None, taken: str | None) -> None:
    assert ga_model(asked) == taken


# -- the folder of files


def write(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.toml").write_text(text, encoding="utf-8")


GOOD = 'title = "T"\ndescription = "D"\ninstructions = "I"\n'


def test_the_shipped_personas_can_be_used_and_the_default_comes_first() -> None:
    shipped = Personas.load()
    names = [persona.name for persona in shipped.all()]
    assert names[0] == "default" == shipped.default.name
    assert len(names) >= 2
    for persona in shipped.all():
        assert persona.voice in VOICES
        assert persona.session()["instructions"]


def test_a_persona_is_found_by_name_and_a_voice_gives_the_default() -> None:
    personas = Personas.load()
    assert personas.find("engineer").name == "engineer"
    assert personas.find(None) is personas.default
    assert personas.find("") is personas.default
    assert personas.find("Alloy") == personas.default.with_voice("alloy")
    for unknown in ("nobody", "Engineer", "../default"):
        with pytest.raises(PersonaNotFound):
            personas.find(unknown)


def test_an_operators_file_takes_the_place_of_a_shipped_one(tmp_path: Path) -> None:
    write(tmp_path, "default", GOOD)
    write(tmp_path, "own", GOOD)
    personas = Personas.load(tmp_path)
    assert personas.default.instructions == "I"
    assert personas.find("own").title == "T"
    assert personas.find("engineer")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("title = ", "cannot be read"),
        ('title = "T"', "cannot be used"),
        (GOOD + "voice = 1", "cannot be used"),
    ],
)
def test_a_bad_file_ends_the_start_with_its_name(tmp_path: Path, text: str, why: str) -> None:
    write(tmp_path, "broken", text)
    with pytest.raises(ConfigurationError, match=f"broken.toml {why}"):
        Personas.load(tmp_path)


def test_a_file_that_is_no_text_ends_the_start_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="broken.toml cannot be read"):
        Personas.load(tmp_path)


def test_a_folder_that_is_missing_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="INTERVIEW_PERSONAS_DIR"):
        Personas.load(tmp_path / "nowhere")


# -- the gate


def test_a_persona_without_a_gate_changes_nothing_of_it() -> None:
    persona = from_table("one", MINIMUM)
    assert (persona.gate_allow, persona.gate_deny, persona.gate_trusted) == ((), (), False)


def test_a_gate_is_read() -> None:
    gate = {
        "allow": ["session.update", "conversation.item.delete"],
        "deny": ["conversation.item.create"],
        "trusted": True,
    }
    persona = from_table("one", {**MINIMUM, "gate": gate})
    assert persona.gate_allow == ("session.update", "conversation.item.delete")
    assert persona.gate_deny == ("conversation.item.create",)
    assert persona.gate_trusted
    # It is the server's business, not the model's.
    assert persona.session() == from_table("one", MINIMUM).session()


@pytest.mark.parametrize(
    ("gate", "named"),
    [
        ("open", "gate must be a table"),
        ({"alow": []}, "'gate.alow'"),
        ({"allow": "session.update"}, "gate.allow must be a list"),
        ({"deny": [1]}, "gate.deny must be a list"),
        ({"allow": ["session.updat"]}, "gate.allow may not name 'session.updat'"),
        ({"allow": ["input_audio_buffer.append"]}, "'input_audio_buffer.append'"),
        ({"deny": ["session.created"]}, "gate.deny may not name 'session.created'"),
        ({"allow": ["session.update"], "deny": ["session.update"]}, "both name 'session.update'"),
        ({"trusted": "yes"}, "gate.trusted must be true or false"),
    ],
)
def test_a_gate_that_cannot_be_used_is_refused_by_its_field(gate: Any, named: str) -> None:
    with pytest.raises(InvalidPersona) as caught:
        from_table("one", {**MINIMUM, "gate": gate})
    assert named in str(caught.value)


def test_a_persona_file_with_a_wrong_gate_ends_the_start(tmp_path: Path) -> None:
    text = 'title = "T"\ndescription = "D"\ninstructions = "I"\n[gate]\nallow = ["all"]\n'
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        Personas.load(tmp_path)
    assert "mine.toml" in str(caught.value) and "gate.allow" in str(caught.value)


def test_the_example_in_the_documents_can_be_used() -> None:
    document = (Path(__file__).parents[2] / "docs" / "personas.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", document, re.DOTALL)
    persona = from_table("engineer", tomllib.loads(example))
    assert persona.gate_deny == ("conversation.item.create",)
    told = set[str]()
    for row in re.findall(r"^\| (`[a-z_., `]+`) \|", document, re.MULTILINE):
        told |= {*re.findall(r"`([a-z_.]+)`", row)}
    assert told == {*FIELDS, "gate.allow", "gate.deny", "gate.trusted"}
