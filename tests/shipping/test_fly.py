"""fly.toml agrees with the settings, with the image and with what Fly.io does to UDP."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

from interview_peer.errors import ConfigurationError
from interview_peer.settings import Settings, env_name, environment, load_settings
from tests.support.server import ROOT

from .longest_end import LONGEST_END_SECONDS

CONFIG: dict[str, Any] = tomllib.loads((ROOT / "fly.toml").read_text(encoding="utf-8"))
SECRETS = {
    "OPENAI_API_KEY": "sk-test-0123456789abcdef",
    "INTERVIEW_ADMIN_KEY": "an-operators-key",
    "INTERVIEW_JOIN_SECRET": "join-secret-of-thirty-two-bytes-or-so",
    "INTERVIEW_PUBLIC_IP": "203.0.113.5",
}
"""What deploy.sh adds."""


def seconds(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": 60}[unit]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Settings:
    """Read as on a machine there."""
    for field in Settings.model_fields:
        monkeypatch.delenv(env_name(field), raising=False)
    monkeypatch.setattr(environment, "ENV_FILE", tmp_path / "none")
    for name, value in {**CONFIG["env"], **SECRETS}.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def test_a_server_starts_with_these_settings(settings: Settings) -> None:
    assert settings.udp_host == "fly-global-services"
    assert settings.proxy_header == "Fly-Client-IP"
    assert not settings.open_to_all
    assert settings.public_url == f"https://{CONFIG['app']}.fly.dev"


def test_web_requests_reach_the_port_that_is_bound_on_all_addresses(settings: Settings) -> None:
    web = CONFIG["http_service"]
    assert web["internal_port"] == settings.port
    # fly-global-services is for UDP; TCP is not delivered to it.
    assert settings.host == "0.0.0.0"
    assert web["force_https"] is True


def test_udp_keeps_its_port_and_has_no_handler(settings: Settings) -> None:
    (service,) = CONFIG["services"]
    (port,) = service["ports"]
    assert service["protocol"] == "udp"
    assert service["internal_port"] == port["port"] == settings.udp_port
    assert set(port) == {"port"}


def test_no_machine_is_stopped_because_no_request_comes() -> None:
    web = CONFIG["http_service"]
    assert web["auto_stop_machines"] == "off"
    assert web["auto_start_machines"] is False
    assert web["min_machines_running"] == 1
    assert CONFIG["restart"] == [{"policy": "always"}]


def test_the_signal_empties_the_server_and_leaves_time_to_write(settings: Settings) -> None:
    assert CONFIG["kill_signal"] == "SIGTERM"
    given = seconds(CONFIG["kill_timeout"])
    # Longer is not given, whatever the file says.
    assert settings.drain_seconds + LONGEST_END_SECONDS <= given <= 300


def test_a_deployment_waits_longer_than_the_old_server_may_take() -> None:
    assert seconds(CONFIG["deploy"]["wait_timeout"]) > seconds(CONFIG["kill_timeout"])
    # The others start a second machine, which could not have the volume.
    assert CONFIG["deploy"]["strategy"] == "rolling"


def test_a_server_that_is_emptied_stays_reachable() -> None:
    (check,) = CONFIG["http_service"]["checks"]
    assert check["path"] == "/health"
    assert CONFIG["checks"]["ready"]["path"] == "/readyz"
    assert CONFIG["checks"]["ready"]["port"] == CONFIG["http_service"]["internal_port"]


def test_the_volume_is_the_data_folder_and_the_image_hands_it_over(settings: Settings) -> None:
    assert CONFIG["mounts"]["destination"] == str(settings.data_dir)
    target = CONFIG["build"]["build-target"]
    text = (ROOT / CONFIG["build"]["dockerfile"]).read_text()
    stage = text.split(f"FROM runtime AS {target}\n")[1].split("\nFROM ")[0]
    assert "USER 0:0" in stage
    assert f'"{settings.data_dir}"' in stage


def test_the_proxy_lets_through_more_than_the_server_admits(settings: Settings) -> None:
    # An interview holds one connection; the page, the API and waiting candidates some more.
    assert CONFIG["http_service"]["concurrency"]["soft_limit"] >= 4 * settings.max_interviews


def test_the_documented_groups_have_a_udp_port_each() -> None:
    document = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    (block,) = (one for one in re.findall(r"```toml\n(.+?)```", document, re.DOTALL))
    groups = tomllib.loads(block)
    served = {name: command.split()[-1] for name, command in groups["processes"].items()}
    assert len(set(served.values())) == len(served) > 1
    for service in groups["services"]:
        (name,) = service["processes"]
        assert str(service["internal_port"]) == served[name]
        assert service["ports"] == [{"port": service["internal_port"]}]
    # Machines that share a PostgreSQL do not start before it is of their version.
    assert groups["deploy"]["release_command"] == "migrate"
    # That of one machine has SQLite on a volume, which the release's machine does not see.
    assert "release_command" not in CONFIG["deploy"]


def test_without_the_public_address_a_server_does_not_start(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INTERVIEW_PUBLIC_IP")
    with pytest.raises(ConfigurationError, match="^INTERVIEW_PUBLIC_IP must be"):
        load_settings()
