"""The Dockerfile keeps what it promises in writing; ``tests/image`` builds it and runs it."""

from __future__ import annotations

import re
from pathlib import Path

from interview_peer.settings import Settings, env_name
from tests.shipping.programs import findings
from tests.support.server import ROOT

DOCKERFILE = ROOT / "Dockerfile"
TEXT = DOCKERFILE.read_text(encoding="utf-8")


def test_the_linter_finds_nothing() -> None:
    assert findings("hadolint", str(DOCKERFILE)) == ""


def test_the_linter_finds_what_is_wrong(tmp_path: Path) -> None:
    wrong = tmp_path / "Dockerfile"
    wrong.write_text("FROM python:latest\nRUN sudo apt-get install gcc\nCMD serve\n")
    assert {"DL3007", "DL3004", "DL3025"} <= set(
        re.findall(r"DL\d+", findings("hadolint", str(wrong)))
    )


def test_the_base_is_pinned_by_tag_and_digest() -> None:
    (base,) = re.findall(r"^ARG BASE=(.+)$", TEXT, re.MULTILINE)
    assert re.fullmatch(r"docker\.io/library/python:3\.11\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)
    sources = re.findall(r"^FROM (\S+)", TEXT, re.MULTILINE)
    assert set(sources) == {"${BASE}", "runtime"}


def test_the_image_that_is_built_without_a_target_is_the_unprivileged_one() -> None:
    stages = re.split(r"^FROM ", TEXT, flags=re.MULTILINE)
    assert "USER 10001:10001" in stages[-1]
    assert stages[-1].startswith("runtime AS server\n")


def test_every_command_is_run_without_a_shell() -> None:
    commands = re.findall(r"^\s*(?:ENTRYPOINT|CMD) (.+)$", TEXT, re.MULTILINE)
    assert len(commands) == 5
    assert all(command.startswith("[") for command in commands)


def test_ports_and_data_folder_are_those_of_the_settings() -> None:
    fields = Settings.model_fields
    assert f"EXPOSE {fields['port'].default}/tcp {fields['udp_port'].default}/udp" in TEXT
    names = set(re.findall(r"\b((?:INTERVIEW|OPENAI)_[A-Z_]+)=", TEXT))
    assert names == {env_name("host"), env_name("data_dir")}


def test_what_is_built_from_goes_to_the_build_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    sent = {rule[1:] for rule in rules if rule.startswith("!")}
    copied: set[str] = set()
    for line in re.findall(r"^COPY (?!--from)(.+)$", TEXT, re.MULTILINE):
        copied.update(line.split()[:-1])
    assert copied == sent
    assert all((ROOT / name).exists() for name in sent)
