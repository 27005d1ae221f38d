"""compose.yaml and the systemd unit agree with the settings, the image and the documents."""

from __future__ import annotations

import configparser
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from interview_peer.session import drain
from interview_peer.settings import Settings, env_name, environment, load_settings
from tests.support.server import ROOT

from .longest_end import (
    CLOSING_SECONDS,
    FINISHING_SECONDS,
    LONGEST_END_SECONDS,
    SOCKETS_SECONDS,
)

TEXT = (ROOT / "compose.yaml").read_text(encoding="utf-8")
GIVEN = {
    "DOMAIN": "interviews.example.org",
    "PUBLIC_IP": "203.0.113.5",
    "OPENAI_API_KEY": "sk-test-0123456789abcdef",
    "INTERVIEW_ADMIN_KEY": "an-operators-key",
    "INTERVIEW_JOIN_SECRET": "join-secret-of-thirty-two-bytes-or-so",
    "POSTGRES_PASSWORD": "0123456789abcdef",
    "TURN_SECRET": "fedcba9876543210",
}
VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::\?[^}]*)?\}")
FILE: dict[str, Any] = yaml.safe_load(VARIABLE.sub(lambda found: GIVEN[found[1]], TEXT))
SERVICES: dict[str, Any] = FILE["services"]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """Read as in the container of the server."""
    for field in Settings.model_fields:
        monkeypatch.delenv(env_name(field), raising=False)
    monkeypatch.setattr(environment, "ENV_FILE", tmp_path / "none")
    image = re.findall(r"\b(INTERVIEW_[A-Z_]+)=(\S+)", (ROOT / "Dockerfile").read_text())
    for name, value in {**dict(image), **SERVICES["server"]["environment"]}.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def test_a_server_starts_with_these_settings(settings: Settings) -> None:
    assert settings.public_url == "https://interviews.example.org"
    assert settings.state_url is not None and "@database/" in settings.state_url
    assert not settings.open_to_all
    assert not settings.on_loopback


def test_the_example_names_every_variable_and_no_other() -> None:
    example = (ROOT / "deploy" / "compose.env.example").read_text()
    assert set(re.findall(r"^([A-Z_]+)=", example, re.MULTILINE)) == set(VARIABLE.findall(TEXT))


def test_every_secret_must_be_given() -> None:
    asked = set(re.findall(r"\$\{([A-Z_]+):\?", TEXT))
    assert asked == set(VARIABLE.findall(TEXT))


def test_udp_is_published_under_the_port_that_is_bound(settings: Settings) -> None:
    assert SERVICES["server"]["ports"] == [f"{settings.udp_port}:{settings.udp_port}/udp"]
    assert settings.public_ips == (GIVEN["PUBLIC_IP"],)


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_can_change_its_own_files_or_gain_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert ":latest" not in service["image"]


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_is_put_into_read_only_files_but_files_of_the_machine(name: str) -> None:
    # Compose refuses to start a read-only service with a file made from `content` or a variable.
    for sort in ("configs", "secrets"):
        for used in SERVICES[name].get(sort, ()):
            source = used if isinstance(used, str) else used["source"]
            assert set(FILE[sort][source]) == {"file"}


@pytest.mark.parametrize("name", ["server", "migration"])
def test_our_services_run_the_unprivileged_target(name: str) -> None:
    assert SERVICES[name]["build"]["target"] == "server"
    assert "cap_add" not in SERVICES[name]


def test_recordings_lie_on_a_volume_where_the_image_writes_them(settings: Settings) -> None:
    volume, _, place = SERVICES["server"]["volumes"][0].partition(":")
    assert volume in FILE["volumes"]
    assert place == str(settings.data_dir)


def test_the_server_starts_after_the_relay_on_a_database_of_its_version() -> None:
    wait = SERVICES["server"]["depends_on"]
    assert wait == {
        "migration": {"condition": "service_completed_successfully"},
        "turn": {"condition": "service_started"},
    }
    assert SERVICES["migration"]["command"] == ["migrate"]
    assert SERVICES["migration"]["depends_on"]["database"]["condition"] == "service_healthy"
    database = SERVICES["database"]["environment"]
    ours = SERVICES["migration"]["environment"]["DATABASE_URL"]
    assert ours == (
        f"postgresql://{database['POSTGRES_USER']}:{database['POSTGRES_PASSWORD']}"
        f"@database/{database['POSTGRES_DB']}"
    )


def test_a_stop_waits_for_running_interviews(settings: Settings) -> None:
    grace = int(SERVICES["server"]["stop_grace_period"].removesuffix("s"))
    assert grace >= settings.drain_seconds + LONGEST_END_SECONDS


def test_the_documents_tell_how_long_the_end_may_take() -> None:
    told = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert (
        f"{drain.END_SECONDS:.0f} s for goodbyes and ends, "
        f"{FINISHING_SECONDS:.0f} s for recordings and notices, "
        f"{SOCKETS_SECONDS:.0f} s for requests and WebSockets, "
        f"{CLOSING_SECONDS:.0f} s for all else"
    ) in " ".join(told.split())
    (rule,) = re.findall(r"\*\*(\d+) seconds longer\s+than `INTERVIEW_DRAIN_SECONDS`\*\*", told)
    assert int(rule) >= LONGEST_END_SECONDS


def test_the_proxy_in_front_is_believed_and_nobody_else(settings: Settings) -> None:
    (network,) = FILE["networks"]["inside"]["ipam"]["config"]
    assert settings.trusted_proxies == (network["subnet"],)
    assert SERVICES["proxy"]["command"][-1] == f"server:{settings.port}"
    # Web pages go through the proxy alone.
    assert not any("8080" in port for port in SERVICES["server"]["ports"])


def test_the_relay_reaches_nothing_but_the_server(settings: Settings) -> None:
    document = (ROOT / "docs" / "turn.md").read_text()
    (documented,) = re.findall(r"```conf\n(.+?)```", document, re.DOTALL)
    ours = SERVICES["turn"]["environment"]["TURN_CONFIG"].splitlines()
    with_tls = ("tls-listening-port=", "cert=", "pkey=", "no-tlsv1")
    own = {"realm", "static-auth-secret", "allowed-peer-ip"}
    same = [
        line
        for line in documented.splitlines()
        if line and not line.startswith(with_tls) and line.split("=")[0] not in own
    ]
    assert set(ours) - set(same) == {
        "realm=interviews.example.org",
        f"static-auth-secret={GIVEN['TURN_SECRET']}",
        f"allowed-peer-ip={GIVEN['PUBLIC_IP']}",
        "no-tls",
        "no-dtls",
    }
    assert set(same) <= set(ours)
    assert settings.turn_secret is not None
    assert settings.turn_secret.get_secret_value() == GIVEN["TURN_SECRET"]
    urls = [url for server in settings.ice_servers for url in server.urls]
    assert urls == [
        "turn:interviews.example.org:3478",
        "turn:interviews.example.org:3478?transport=tcp",
    ]


def test_the_relay_starts_with_its_settings_in_a_file_of_its_own(tmp_path: Path) -> None:
    *shell, script = SERVICES["turn"]["entrypoint"]
    settings = SERVICES["turn"]["environment"]["TURN_CONFIG"]
    assert "/tmp" in SERVICES["turn"]["tmpfs"]
    # Two dollars are one to Compose.
    script = script.replace("$$", "$").replace("/tmp/", f"{tmp_path}/")
    stand_in = tmp_path / "turnserver"
    stand_in.write_text('#!/bin/sh\necho "$@"; echo "left: $TURN_CONFIG"\n')
    stand_in.chmod(0o700)
    done = subprocess.run(
        [*shell, script],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "TURN_CONFIG": settings},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    file = tmp_path / "turn.conf"
    assert done.stdout.splitlines() == [f"-c {file} --log-file=stdout", "left: "]
    assert file.read_text() == settings
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_relay_may_have_the_right_that_its_program_carries() -> None:
    # `turnserver` has cap_net_bind_service+ep: without it in the bounding set, exec is refused.
    assert SERVICES["turn"]["cap_add"] == ["NET_BIND_SERVICE"]


def test_the_database_is_up_only_once_it_listens_on_an_address() -> None:
    # The server that the first start sets up with listens on a socket file alone.
    test = SERVICES["database"]["healthcheck"]["test"]
    assert test[:3] == ["CMD", "pg_isready", "--host=127.0.0.1"]


def test_the_systemd_unit_agrees_with_the_settings() -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=False, delimiters="=")
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(ROOT / "deploy" / "interview-peer.service")
    service = unit["Service"]
    assert service["ExecStart"].endswith("/interview-peer serve")
    drained = Settings.model_fields["drain_seconds"].default
    assert int(service["TimeoutStopSec"]) >= drained + LONGEST_END_SECONDS
    assert service["Restart"] == "always"
    folder = f"/var/lib/{service['StateDirectory']}"
    assert f"{env_name('data_dir')}={folder}" in service["Environment"].split()
    # Otherwise a .env of somebody else's working folder would be read.
    assert service["WorkingDirectory"] == folder
    # `man systemd.kill`: the signal goes to the server alone, which then ends its own processes.
    assert service["KillMode"] == "mixed"


def test_the_documented_settings_of_the_systemd_unit_make_a_server_that_browsers_reach() -> None:
    document = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    (given,) = re.findall(r"interview-peer\.env <<'END'\n(.+?)\nEND\n", document, re.DOTALL)
    names = {line.partition("=")[0] for line in given.splitlines()}
    assert names <= {env_name(field) for field in Settings.model_fields}
    # Behind NAT the address that is bound leads nowhere.
    assert env_name("public_ips") in names
