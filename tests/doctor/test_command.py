"""``interview-peer doctor`` as it is typed: lines, JSON, exit codes."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from interview_peer.cli import main
from interview_peer.doctor.examine import CHECKS

pytestmark = pytest.mark.usefixtures("clean_surroundings")


def run(*arguments: str, **env: str) -> Result:
    ours = {"INTERVIEW_UDP_HOST": "127.0.0.1", "INTERVIEW_UDP_PORT": "0"}
    return CliRunner().invoke(main, ["doctor", *arguments], env={**ours, **env})


def test_a_simulation_gets_a_line_for_each_check_and_exit_code_0() -> None:
    result = run(SIMULATION_MODE="true", INTERVIEW_MIN_FREE_MB="0")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split()[1] for line in lines] == list(CHECKS)
    assert {line.split()[0] for line in lines} <= {"pass", "warn"}


def test_a_wrong_setting_is_a_row_and_exit_code_1() -> None:
    result = run("--json", SIMULATION_MODE="true", INTERVIEW_MAX_SECONDS="never")
    assert result.exit_code == 1
    (row,) = map(json.loads, result.stdout.splitlines())
    assert (row["check"], row["status"]) == ("settings", "fail")
    assert row["finding"].startswith("INTERVIEW_MAX_SECONDS must be")


def test_what_fails_is_told_with_its_cure_without_secrets_and_ends_with_1() -> None:
    result = run(
        "--json",
        OPENAI_API_KEY="sk-hidden-4711",
        OPENAI_BASE_URL="http://127.0.0.1:9",
        INTERVIEW_JOIN_SECRET="hidden-" * 8,
    )
    assert result.exit_code == 1
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    failed = [row for row in rows if row["status"] == "fail"]
    assert {row["check"] for row in failed} == {"model"}
    assert all(set(row) == {"check", "status", "finding", "cure"} for row in rows)
    assert all(row["cure"] for row in rows if row["status"] != "pass")
    assert "hidden" not in result.output
