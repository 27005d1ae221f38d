"""The one model of knobs and faults, and the flags that are made of it."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from interview_peer.cli import main
from interview_peer.cli_simulate import FROM_ELSEWHERE, flag_name, flags, settings_from
from interview_peer.errors import ConfigurationError
from interview_peer.simulator.settings import SimulatorSettings


@pytest.mark.parametrize(
    "wrong",
    [
        {"greet": 1},
        {"greet": "yes"},
        {"made_up": True},
        {"answer_status": 200},
        {"answer_delay": -1.0},
        {"greet_after": float("nan")},
        {"session_seconds": float("inf")},
        {"idle_audio": "loud"},
        {"transcription_failure_share": 1.5},
        {"reply_failure_share": 0.6, "reply_incomplete_share": 0.6},
        {"tool_arguments": "[]"},
        {"tool_arguments": "{"},
        {"max_calls": 1.5},
    ],
    ids=str,
)
def test_a_wrong_or_unknown_setting_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SimulatorSettings(**wrong)


def test_changed_settings_are_checked_and_the_old_ones_stay() -> None:
    before = SimulatorSettings(seed=4)
    after = before.changed(greet=False)
    assert (before.greet, after.greet, after.seed) == (True, False, 4)
    with pytest.raises(ValidationError):
        before.changed(greet="no")


def test_no_text_of_the_settings_holds_the_key() -> None:
    settings = SimulatorSettings(api_key="sk-secret")
    assert "sk-secret" not in f"{settings!r} {settings}"


def test_every_setting_is_explained_and_has_a_flag() -> None:
    fields = SimulatorSettings.model_fields
    assert all(field.description for field in fields.values())
    named = {option for flag in flags() for option in flag.opts}
    assert named == {flag_name(name) for name in set(fields) - FROM_ELSEWHERE}


def test_the_help_names_every_flag_under_its_heading() -> None:
    said = CliRunner().invoke(main, ["simulate", "--help"])
    assert said.exit_code == 0, said.output
    lines = said.output.splitlines()
    faults = lines.index("Faults on the channel:")
    assert faults < next(n for n, line in enumerate(lines) if "--strict-channel" in line)
    assert all(option in said.output for flag in flags() for option in flag.opts)


def test_flags_are_read_into_settings() -> None:
    given = {"greet": False, "answer_status": 429, "idle_audio": "stop_jump", "seed": None}
    settings = settings_from(given, "sk-x")
    assert settings == SimulatorSettings(
        api_key="sk-x", greet=False, answer_status=429, idle_audio="stop_jump"
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"answer_status": 99}, "--answer-status"),
        ({"tool_arguments": "x"}, "--tool-arguments: must be a JSON object"),
        ({"reply_failure_share": 0.6, "reply_incomplete_share": 0.6}, "exceed 1"),
    ],
)
def test_a_wrong_flag_is_named(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        settings_from(given, None)
    assert words in caught.value.message


def test_a_wrong_flag_ends_the_command_with_one_sentence() -> None:
    said = CliRunner().invoke(main, ["simulate", "--port", "0", "--answer-status", "99"])
    assert said.exit_code == 2
    assert said.output.startswith("--answer-status: input should be")
    assert said.output.count("\n") == 1
