"""deploy.sh, run against a stand-in for Fly.io's program: what it asks, in what order, and when
it stops."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.shipping.programs import findings
from tests.support.server import ROOT, clean_environment

SECRETS = ("OPENAI_API_KEY", "INTERVIEW_ADMIN_KEY", "INTERVIEW_JOIN_SECRET")
ADDRESS = "198.51.100.7"

STAND_IN = """#!/bin/bash
# Notes its arguments, and what came on stdin; then answers as it was told.
place='{place}'
call=("${{0##*/}}" "$@")
asked="${{call[*]}}"
{{
    printf '%s\\x1f' "${{call[@]}}"
    [[ $asked != *import* ]] || printf '%s\\x1f' "$(cat)"
    printf '\\x1e'
}} >> "$place/calls"
for answer in "$place"/answers/*; do
    if [[ $asked == "$(< "$answer/beginning")"* ]]; then
        cat "$answer/text"
        exit "$(< "$answer/code")"
    fi
done
"""


def machine(name: str, group: str = "app", state: str = "started") -> dict[str, Any]:
    """As ``fly machine list --json`` tells of one, shortened."""
    return {
        "id": name,
        "name": f"quiet-{name}",
        "state": state,
        "region": "fra",
        "image_ref": {"registry": "registry.fly.io", "labels": {"id": "x"}},
        "config": {"env": {"PORT": "8080"}, "metadata": {"fly_process_group": group}},
    }


class Deployment:
    """A checkout with deploy.sh, and programs that answer for Fly.io."""

    def __init__(self, place: Path) -> None:
        self.place = place
        for name in ("deploy.sh", "fly.toml"):
            shutil.copy(ROOT / name, place / name)
        self.tools = place / "tools"
        self.tools.mkdir()
        for name in ("fly", "curl"):
            (self.tools / name).write_text(STAND_IN.format(place=place))
            (self.tools / name).chmod(0o700)
        self.answers: dict[str, tuple[int, str]] = {}
        self.addresses(
            {"Address": "2a09:8280::1", "Type": "v6"}, {"Address": ADDRESS, "Type": "v4"}
        )
        self.secrets(SECRETS)
        self.machines(machine("148e1"))

    def addresses(self, *told: dict[str, Any]) -> None:
        self.answers["fly ips list"] = (0, json.dumps(told, indent=4))

    def secrets(self, names: Iterable[str]) -> None:
        told = [{"name": name, "digest": "1f"} for name in names]
        self.answers["fly secrets list"] = (0, json.dumps(told, indent=4))

    def machines(self, *told: dict[str, Any]) -> None:
        self.answers["fly machine list"] = (0, json.dumps(told, indent=4))

    def fails(self, beginning: str) -> None:
        self.answers[beginning] = (1, "")

    def configure(self, before: str, after: str) -> None:
        """Change fly.toml."""
        file = self.place / "fly.toml"
        assert before in (text := file.read_text())
        file.write_text(text.replace(before, after))

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        for beginning, (code, text) in self.answers.items():
            answer = self.place / "answers" / beginning.replace(" ", "-")
            answer.mkdir(parents=True)
            for name, content in (("beginning", beginning), ("code", str(code)), ("text", text)):
                (answer / name).write_text(content)
        path = f"{self.tools}:{os.environ['PATH']}"
        return subprocess.run(
            [self.place / "deploy.sh", *arguments],
            env=clean_environment(PATH=path, **environment),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @property
    def calls(self) -> list[list[str]]:
        """Every program that was run, with its arguments, and what it read from stdin."""
        file = self.place / "calls"
        calls = file.read_text().split("\x1e")[:-1] if file.exists() else []
        return [call.split("\x1f")[:-1] for call in calls]

    @property
    def asked(self) -> list[str]:
        """The beginnings of the calls."""
        return [" ".join(call[:3]) for call in self.calls]


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


def test_shell_scripts_have_no_known_mistake() -> None:
    assert findings("shellcheck", str(ROOT / "deploy.sh"), str(ROOT / ".ci" / "run")) == ""


def test_a_running_server_is_emptied_before_it_is_replaced(deployment: Deployment) -> None:
    done = deployment.run()
    assert done.returncode == 0, done.stderr
    assert deployment.asked == [
        "fly auth whoami",
        "fly config validate",
        "fly ips list",
        "fly machine list",
        "fly secrets list",
        "fly secrets import",
        "fly ssh console",
        "fly deploy --app",
        "curl --silent --show-error",
    ]
    drain = deployment.calls[6]
    assert drain[drain.index("--machine") + 1] == "148e1"
    assert drain[-1].endswith("/interview-peer drain --wait --seconds 7200")
    assert "--ha=false" in deployment.calls[7]
    assert deployment.calls[8][-1] == "https://interview-peer.fly.dev/readyz"
    assert done.stdout.splitlines()[-1] == "Deployed: https://interview-peer.fly.dev"


def test_the_dedicated_address_becomes_the_one_that_is_announced(deployment: Deployment) -> None:
    assert deployment.run().returncode == 0
    given = deployment.calls[5]
    assert "--stage" in given
    assert given[-1] == f"INTERVIEW_PUBLIC_IP={ADDRESS}"


def test_secrets_of_the_environment_are_passed_on_and_in_no_argument(
    deployment: Deployment,
) -> None:
    deployment.secrets(())
    values = {name: f"value-of-{name.lower()}" for name in SECRETS}
    done = deployment.run(**values)
    assert done.returncode == 0, done.stderr
    *_, given = deployment.calls[5]
    assert set(given.splitlines()[1:]) == {f"{name}={value}" for name, value in values.items()}
    others = json.dumps([call for call in deployment.calls if "import" not in call])
    told = done.stdout + done.stderr + others + " ".join(deployment.calls[5][:-1])
    assert not any(value in told for value in values.values())


@pytest.mark.parametrize("lacking", SECRETS)
def test_a_missing_secret_is_named_and_nothing_is_changed(
    deployment: Deployment, lacking: str
) -> None:
    deployment.secrets(name for name in SECRETS if name != lacking)
    done = deployment.run()
    assert done.returncode == 2
    assert done.stderr.startswith(f"{lacking} is not set: ")
    assert "fly secrets import" not in deployment.asked
    assert "fly deploy --app" not in deployment.asked


def test_an_app_with_a_shared_address_alone_is_refused(deployment: Deployment) -> None:
    deployment.addresses({"Address": "66.241.124.1", "Type": "shared_v4"})
    done = deployment.run()
    assert done.returncode == 2
    assert "fly ips allocate-v4" in done.stderr
    assert "fly deploy --app" not in deployment.asked


def test_two_machines_on_one_udp_port_are_refused(deployment: Deployment) -> None:
    deployment.machines(machine("148e1"), machine("148e2"))
    done = deployment.run()
    assert done.returncode == 2
    assert "fly scale count 1" in done.stderr
    assert deployment.asked[-1] == "fly machine list"


def test_every_machine_of_several_groups_is_emptied(deployment: Deployment) -> None:
    deployment.machines(
        machine("148e1", "m0"), machine("148e2", "m1"), machine("148e3", "m2", "stopped")
    )
    assert deployment.run("--drain-seconds", "60").returncode == 0
    drains = [call for call in deployment.calls if "ssh" in call]
    assert [call[call.index("--machine") + 1] for call in drains] == ["148e1", "148e2"]
    assert drains[0][-1].endswith("--seconds 60")


def test_a_first_deployment_has_nothing_to_empty(deployment: Deployment) -> None:
    deployment.machines()
    done = deployment.run()
    assert done.returncode == 0, done.stderr
    assert "fly ssh console" not in deployment.asked
    assert "fly deploy --app" in deployment.asked


def test_who_is_in_a_hurry_leaves_the_emptying_out(deployment: Deployment) -> None:
    assert deployment.run("--no-drain").returncode == 0
    assert "fly ssh console" not in deployment.asked


def test_another_app_gets_an_address_of_its_own(deployment: Deployment) -> None:
    done = deployment.run("--app", "another")
    assert done.returncode == 0, done.stderr
    own = "https://another.fly.dev"
    assert deployment.calls[7][:4] == ["fly", "deploy", "--app", "another"]
    assert deployment.calls[7][-2:] == ["--env", f"INTERVIEW_PUBLIC_URL={own}"]
    assert deployment.calls[8][-1] == f"{own}/readyz"
    assert done.stdout.splitlines()[-1] == f"Deployed: {own}"


def test_the_app_of_the_file_keeps_the_address_of_the_file(deployment: Deployment) -> None:
    deployment.configure("https://interview-peer.fly.dev", "https://interviews.example.org/")
    done = deployment.run("--app", "interview-peer")
    assert done.returncode == 0, done.stderr
    assert "--env" not in deployment.calls[7]
    assert done.stdout.splitlines()[-1] == "Deployed: https://interviews.example.org"


def test_an_app_whose_address_cannot_be_known_is_refused(deployment: Deployment) -> None:
    deployment.configure("https://interview-peer.fly.dev", "https://interviews.example.org")
    done = deployment.run("--app", "another")
    assert done.returncode == 2
    assert done.stderr.startswith("INTERVIEW_PUBLIC_URL in fly.toml, https://interviews.example")
    assert deployment.calls == []


@pytest.mark.parametrize(
    ("failing", "sentence"),
    [
        ("fly ssh console", "The server could not be emptied."),
        ("fly deploy", "The deployment failed"),
        ("curl", "https://interview-peer.fly.dev/readyz does not say that it is ready."),
    ],
)
def test_a_step_that_fails_ends_the_deployment_there(
    deployment: Deployment, failing: str, sentence: str
) -> None:
    deployment.fails(failing)
    done = deployment.run()
    assert done.returncode == 1
    assert done.stderr.startswith(sentence)
    assert " ".join(deployment.calls[-1]).startswith(failing)
    assert "Deployed" not in done.stdout


def test_after_a_failed_deployment_an_emptied_server_is_named_with_its_cure(
    deployment: Deployment,
) -> None:
    deployment.fails("fly deploy")
    told = deployment.run().stderr.splitlines()[-1]
    assert "lets nobody in" in told
    assert told.endswith("fly apps restart interview-peer")


def test_a_server_that_was_not_emptied_is_not_said_to_be(deployment: Deployment) -> None:
    deployment.fails("fly deploy")
    assert "lets nobody in" not in deployment.run("--no-drain").stderr


def test_a_file_in_single_quotes_is_read_as_well(deployment: Deployment) -> None:
    deployment.configure('app = "interview-peer"', "app = 'quiet-peer' # ours")
    deployment.configure('"https://interview-peer.fly.dev"', "'https://talks.example.org'")
    done = deployment.run()
    assert done.returncode == 0, done.stderr
    assert deployment.calls[7][3] == "quiet-peer"
    assert done.stdout.splitlines()[-1] == "Deployed: https://talks.example.org"


@pytest.mark.parametrize(
    ("failing", "cure"),
    [
        ("fly auth", "fly auth login"),
        ("fly config validate", "fly apps create interview-peer"),
        ("fly ips list", "fly does not tell the addresses of interview-peer"),
        ("fly machine list", "fly does not tell the machines of interview-peer"),
        ("fly secrets list", "fly does not tell the secrets of interview-peer"),
    ],
)
def test_what_is_missing_is_told_with_its_cure(
    deployment: Deployment, failing: str, cure: str
) -> None:
    deployment.fails(failing)
    done = deployment.run()
    assert done.returncode == 2
    assert cure in done.stderr
    assert "fly secrets import" not in deployment.asked


@pytest.mark.parametrize(
    "arguments",
    [
        ("--nonsense",),
        ("--app",),
        ("--app", ""),
        ("--drain-seconds", "soon"),
        # Such as a variable that is not set; it is no wish to leave the emptying out.
        ("--drain-seconds", ""),
        ("--config", "none"),
    ],
)
def test_a_wrong_flag_changes_nothing(deployment: Deployment, arguments: tuple[str, ...]) -> None:
    assert deployment.run(*arguments).returncode == 2
    assert deployment.calls == []


def test_a_dry_run_shows_each_step_and_runs_nothing(deployment: Deployment) -> None:
    wet = deployment.run()
    steps = [line for line in wet.stdout.splitlines() if line[:1].isdecimal()]
    (deployment.place / "calls").unlink()
    (deployment.tools / "fly").unlink()
    deployment.answers.clear()
    done = deployment.run("--dry-run", "--app", "another", OPENAI_API_KEY="sk-of-mine")
    assert done.returncode == 0, done.stderr
    assert deployment.calls == []
    assert [line for line in done.stdout.splitlines() if line[:1].isdecimal()] == steps
    assert "would run: fly deploy --app another --config fly.toml --ha=false" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("it would be at https://another.fly.dev")
    assert "sk-of-mine" not in done.stdout
