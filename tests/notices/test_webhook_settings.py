"""Settings of the operator's receiver."""

from __future__ import annotations

from pathlib import Path

import pytest

from interview_peer.errors import ConfigurationError
from interview_peer.notices import signing
from interview_peer.settings import Settings, load_settings

SECRET = signing.new_secret()


def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **names: str) -> Settings:
    monkeypatch.chdir(tmp_path)
    for name, value in names.items():
        monkeypatch.setenv(f"INTERVIEW_WEBHOOK_{name}", value)
    return load_settings(simulation=True)


def test_a_receiver_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = read(monkeypatch, tmp_path, URL="https://example.com/hook?a=b", SECRET=SECRET)
    assert settings.webhook_url == "https://example.com/hook?a=b"
    assert settings.webhook_allow == ()
    assert SECRET in settings.secrets
    assert SECRET not in repr(settings)


def test_networks_are_read_and_let_plain_http_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = read(
        monkeypatch,
        tmp_path,
        URL="http://127.0.0.1:3000/",
        SECRET=SECRET,
        ALLOW="127.0.0.0/8, ::1,10.1.2.3,",
    )
    assert settings.webhook_allow == ("127.0.0.0/8", "::1/128", "10.1.2.3/32")


@pytest.mark.parametrize(
    ("named", "names"),
    [
        ("URL", {"URL": "http://example.com/", "SECRET": SECRET}),
        ("URL", {"URL": "https://user@example.com/", "SECRET": SECRET}),
        ("URL", {"URL": "https://example.com/#x", "SECRET": SECRET}),
        ("URL", {"URL": "https://example.com:x/", "SECRET": SECRET}),
        ("URL", {"URL": "example.com", "SECRET": SECRET}),
        ("SECRET", {"URL": "https://example.com/"}),
        ("SECRET", {"URL": "https://example.com/", "SECRET": "password"}),
        ("SECRET", {"URL": "https://example.com/", "SECRET": "whsec_c2hvcnQ="}),
        ("ALLOW", {"ALLOW": "10.1.2.3/8"}),
        ("ALLOW", {"ALLOW": "example.com"}),
    ],
)
def test_a_wrong_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str, names: dict[str, str]
) -> None:
    with pytest.raises(ConfigurationError, match=f"^INTERVIEW_WEBHOOK_{named} must") as refused:
        read(monkeypatch, tmp_path, **names)
    assert names.get("SECRET", "whsec_") not in str(refused.value) or named == "SECRET"
