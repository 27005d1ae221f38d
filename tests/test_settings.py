"""Settings: where they are read, what they may be, and how a mistake is told."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pydantic
import pytest

from interview_peer.errors import ConfigurationError
from interview_peer.settings import Settings, env_name, load_settings, mistakes

KEY = "sk-test-0123456789abcdef"
JOIN = "join-secret-of-thirty-two-bytes-or-so"


@pytest.fixture(autouse=True)
def clean_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting in the environment, and no ``.env`` in the working folder."""
    for name in [*os.environ]:
        if name.upper().startswith("INTERVIEW_"):
            monkeypatch.delenv(name)
    for field in Settings.model_fields:
        monkeypatch.delenv(env_name(field), raising=False)
    monkeypatch.chdir(tmp_path)


def sentence_of(**overrides: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(**overrides)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_defaults_bind_loopback_and_the_documented_ports() -> None:
    settings = load_settings(simulation=True)
    assert (settings.host, settings.port, settings.udp_port) == ("127.0.0.1", 8080, 8081)
    assert settings.openai_base_url == "https://api.openai.com/v1"
    assert settings.data_dir == Path.cwd() / "data"
    assert settings.udp_host is None
    assert settings.public_ips == ()


def test_environment_wins_over_env_file_and_flag_over_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path(".env").write_text("PORT=1001\nINTERVIEW_HOLD_SECONDS=3\nLOG_LEVEL=debug # loud\n")
    monkeypatch.setenv("PORT", "1002")
    settings = load_settings(simulation=True)
    assert (settings.port, settings.hold_seconds, settings.log_level) == (1002, 3.0, "debug")
    assert load_settings(simulation=True, port="1003").port == 1003


def test_settings_built_directly_never_look_at_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PORT", "1002")
    Path(".env").write_text("INTERVIEW_HOLD_SECONDS=3\n")
    settings = Settings(simulation=True)
    assert (settings.port, settings.hold_seconds) == (8080, 10.0)


def test_empty_value_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("PORT=\nINTERVIEW_ADMIN_KEY=\n")
    monkeypatch.setenv("INTERVIEW_UDP_HOST", "")
    settings = load_settings(simulation=True)
    assert (settings.port, settings.admin_key, settings.udp_host) == (8080, None, None)


def test_settings_cannot_be_changed_afterwards() -> None:
    settings = Settings(simulation=True)
    with pytest.raises(pydantic.ValidationError):
        settings.port = 1


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("LOG_LEVEL", "WARNING", "log_level", "warning"),
        ("LOG_LEVEL", "Warn", "log_level", "warning"),
        ("SIMULATION_MODE", "False", "simulation", False),
        ("OPENAI_BASE_URL", "http://127.0.0.1:9/v1/", "openai_base_url", "http://127.0.0.1:9/v1"),
        (
            "INTERVIEW_PUBLIC_IP",
            "203.0.113.5, fly-global-services,203.0.113.5",
            "public_ips",
            ("203.0.113.5", "fly-global-services"),
        ),
        ("INTERVIEW_PUBLIC_IP", "2001:db8::1", "public_ips", ("2001:db8::1",)),
        ("INTERVIEW_UDP_PORT", "0", "udp_port", 0),
        ("INTERVIEW_HOLD_SECONDS", "0", "hold_seconds", 0.0),
        ("INTERVIEW_RECORDINGS_URL", "s3://bucket/a/b/", "recordings_url", "s3://bucket/a/b"),
        ("INTERVIEW_RETENTION_DAYS", "30", "retention_days", 30),
        ("AWS_ENDPOINT_URL_S3", "https://s.example.org/", "s3_endpoint", "https://s.example.org"),
        ("INTERVIEW_MODEL", " gpt-realtime ", "openai_model", "gpt-realtime"),
        ("INTERVIEW_PUBLIC_URL", "https://i.example.org/", "public_url", "https://i.example.org"),
        (
            "INTERVIEW_INTERNAL_URL",
            "http://[fdaa::3]:8080/",
            "internal_url",
            "http://[fdaa::3]:8080",
        ),
        ("FLY_MACHINE_ID", "9185340f4d7283", "machine_id", "9185340f4d7283"),
        (
            "INTERVIEW_JWKS_URL",
            "http://127.0.0.1:9/jwks.json",
            "jwks_url",
            "http://127.0.0.1:9/jwks.json",
        ),
    ],
)
def test_value_is_read_in_the_form_it_is_used(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, field: str, expected: object
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("INTERVIEW_JOIN_SECRET", JOIN)
    monkeypatch.setenv(name, value)
    assert getattr(load_settings(), field) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INTERVIEW_PROXY_HEADER", "X-Forwarded-For:"),
        ("INTERVIEW_PROXY_HEADER", "forwarded"),
        ("INTERVIEW_HOST", "http://localhost"),
        ("INTERVIEW_HOST", "localhost:80"),
        ("INTERVIEW_HOST", "127.0.0.300"),
        ("PORT", "eighty"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("OPENAI_API_KEY", "two words"),
        ("OPENAI_API_KEY", "line\nbreak"),
        ("OPENAI_BASE_URL", "ftp://example.org/v1"),
        ("OPENAI_BASE_URL", "api.openai.com/v1"),
        ("OPENAI_BASE_URL", "https:///v1"),
        ("OPENAI_BASE_URL", "https://me:pass@example.org/v1"),
        ("OPENAI_BASE_URL", "https://example.org/v1?key=1"),
        ("OPENAI_BASE_URL", "https://example.org:99999/v1"),
        ("OPENAI_BASE_URL", "https://example.org/\nv1"),
        ("INTERVIEW_MODEL", "two words"),
        ("DATABASE_URL", "mysql://me:pass@db.example.org/interviews"),
        ("DATABASE_URL", "postgresql://db.example.org"),
        ("DATABASE_URL", "postgresql://db.example.org:0/interviews"),
        ("DATABASE_URL", "db.example.org/interviews"),
        ("LOG_LEVEL", "chatty"),
        ("SIMULATION_MODE", "perhaps"),
        ("INTERVIEW_PERSONAS_DIR", "nowhere"),
        ("INTERVIEW_ADMIN_KEY", "clé"),
        ("INTERVIEW_JOIN_SECRET", "thirty-one-characters-are-short"),
        ("INTERVIEW_JOIN_SECRET", "two words of more than thirty-two letters"),
        ("INTERVIEW_JWKS_URL", "http://id.example.org/jwks.json"),
        ("INTERVIEW_JWKS_URL", "id.example.org/jwks.json"),
        ("INTERVIEW_JWKS_URL", "https://me:pass@id.example.org/jwks.json"),
        ("INTERVIEW_JWKS_URL", "https://id.example.org/jwks.json#x"),
        ("INTERVIEW_JWKS_ISSUER", "two words"),
        ("INTERVIEW_PUBLIC_URL", "interviews.example.org"),
        ("INTERVIEW_INTERNAL_URL", "10.0.0.5:8080"),
        ("INTERVIEW_INTERNAL_URL", "https://10.0.0.5:8080"),
        ("INTERVIEW_INTERNAL_URL", "http://10.0.0.5:8080/api"),
        ("INTERVIEW_INTERNAL_URL", "http://user:word@10.0.0.5:8080"),
        ("FLY_MACHINE_ID", "a;app=evil"),
        ("INTERVIEW_PUBLIC_URL", "https://interviews.example.org/?a"),
        ("INTERVIEW_UDP_HOST", "a b"),
        ("INTERVIEW_UDP_PORT", "1.5"),
        ("INTERVIEW_PUBLIC_IP", "203.0.113.5;203.0.113.6"),
        ("INTERVIEW_PUBLIC_IP", "203.0.113"),
        ("INTERVIEW_ICE_SERVERS", "relay.example.org"),
        ("INTERVIEW_ICE_SERVERS", '[{"urls": "turn:a", "credential": "x"}]'),
        ("INTERVIEW_TURN_SECRET", "fifteen-letters"),
        ("INTERVIEW_TURN_SECRET", "two words of more than sixteen letters"),
        ("INTERVIEW_TURN_TTL_SECONDS", "59"),
        ("INTERVIEW_TURN_TTL_SECONDS", "86401"),
        ("INTERVIEW_ALLOW_ANONYMOUS", "maybe"),
        ("INTERVIEW_REDACT_SPEECH", "email,names"),
        ("INTERVIEW_REDACT_SPEECH", "no.such.module:function"),
        ("INTERVIEW_REQUIRE_CONSENT", "maybe"),
        ("INTERVIEW_ORGANISATION", "two\nlines"),
        ("INTERVIEW_PRIVACY_CONTACT", "{contact}"),
        ("INTERVIEW_HOLD_SECONDS", "601"),
        ("INTERVIEW_HOLD_SECONDS", "-1"),
        ("INTERVIEW_HOLD_SECONDS", "nan"),
        ("INTERVIEW_IDLE_SECONDS", "0"),
        ("INTERVIEW_CONNECT_SECONDS", "inf"),
        ("INTERVIEW_SESSION_KEEP_SECONDS", "soon"),
        ("INTERVIEW_MAX_INTERVIEWS", "0"),
        ("INTERVIEW_RECORDINGS_URL", "https://bucket.example.org/prefix"),
        ("INTERVIEW_RECORDINGS_URL", "s3://"),
        ("INTERVIEW_RECORDINGS_URL", "s3://bucket/../other"),
        ("INTERVIEW_RECORDINGS_URL", "s3://user:secret@bucket"),
        ("INTERVIEW_RECORDINGS_URL", "s3://bucket?region=x"),
        ("INTERVIEW_RETENTION_DAYS", "0"),
        ("INTERVIEW_RETENTION_DAYS", "1.5"),
        ("AWS_ENDPOINT_URL_S3", "store.example.org"),
        ("AWS_REGION", "two words"),
        ("AWS_ACCESS_KEY_ID", "two words"),
    ],
)
@pytest.mark.parametrize("where", ["environment", "env file"])
def test_wrong_value_is_one_sentence_that_names_the_setting_and_not_the_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, where: str
) -> None:
    if where == "environment":
        monkeypatch.setenv(name, value)
    else:
        Path(".env").write_text(f"{name}='{value}'\n")
    monkeypatch.setenv("SIMULATION_MODE", value if name == "SIMULATION_MODE" else "true")
    sentence = sentence_of()
    assert sentence.startswith(f"{name} ")
    assert sentence.endswith(".")
    if name.endswith(("_KEY", "_SECRET")):
        assert value not in sentence


def test_data_dir_that_is_a_file_is_refused() -> None:
    Path("data").write_text("")
    assert sentence_of(simulation=True).startswith("INTERVIEW_DATA_DIR must be a folder")


def test_wrong_flag_is_named_beside_its_setting() -> None:
    assert sentence_of(port="x").startswith("PORT (given as --port) must be")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("INTERVIEW_HODL_SECONDS", "did you mean INTERVIEW_HOLD_SECONDS?"),
        ("interview_host", "did you mean INTERVIEW_HOST?"),
        ("INTERVIEW_XYZZY", "README.md lists them all."),
    ],
)
@pytest.mark.parametrize("where", ["environment", "env file"])
def test_unknown_name_is_refused_with_the_nearest_known_one(
    monkeypatch: pytest.MonkeyPatch, name: str, hint: str, where: str
) -> None:
    if where == "environment":
        monkeypatch.setenv(name, "1")
    else:
        Path(".env").write_text(f"{name}=1\n")
    sentence = sentence_of(simulation=True)
    assert sentence == f"{name} is not a setting of interview_peer; {hint}"


def test_names_of_other_programs_in_the_env_file_are_left_alone() -> None:
    Path(".env").write_text("SOME_TOOL=1\nSIMULATION_MODE=true\n")
    assert load_settings().simulation


def test_env_file_that_is_no_text_is_named() -> None:
    Path(".env").write_bytes(b"PORT=\xff\xfe\n")
    assert sentence_of(simulation=True) == "The file .env cannot be read: it must be UTF-8 text."


def test_live_without_a_key_is_refused() -> None:
    assert sentence_of().startswith("OPENAI_API_KEY must be set")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_live_on_loopback_needs_no_admin_key(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("INTERVIEW_JOIN_SECRET", JOIN)
    assert load_settings(host=host).on_loopback


def test_live_without_a_way_to_know_candidates_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert sentence_of().startswith("INTERVIEW_JOIN_SECRET or INTERVIEW_JWKS_URL must be set")
    assert load_settings(allow_anonymous=True).open_to_all
    assert not load_settings(join_secret=JOIN).open_to_all
    assert not load_settings(jwks_url="https://id.example.org/jwks.json").open_to_all


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "peer.example.org"])
def test_live_elsewhere_needs_the_admin_key_or_leave_to_go_without(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("INTERVIEW_JOIN_SECRET", JOIN)
    assert sentence_of(host=host).startswith("INTERVIEW_ADMIN_KEY must be set")
    assert not load_settings(host=host, allow_anonymous=True).on_loopback
    monkeypatch.setenv("INTERVIEW_ADMIN_KEY", "operator")
    assert load_settings(host=host).host == host


def test_simulation_elsewhere_needs_no_key_at_all() -> None:
    assert load_settings(host="0.0.0.0", simulation=True).simulation


@pytest.mark.parametrize("where", ["environment", "env file"])
@pytest.mark.parametrize(("said", "simulates"), [("false", False), ("true", True), ("", True)])
def test_preferred_simulation_yields_to_what_is_set(
    monkeypatch: pytest.MonkeyPatch, where: str, said: str, simulates: bool
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("INTERVIEW_JOIN_SECRET", JOIN)
    if where == "environment":
        monkeypatch.setenv("SIMULATION_MODE", said)
    else:
        Path(".env").write_text(f"SIMULATION_MODE={said}\n")
    assert load_settings(prefer_simulation=True).simulation is simulates
    assert load_settings(prefer_simulation=True, simulation=False).simulation is False


def test_secrets_are_hidden_in_every_printed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    monkeypatch.setenv("INTERVIEW_ADMIN_KEY", "operator-0123")
    monkeypatch.setenv("INTERVIEW_JOIN_SECRET", JOIN)
    settings = load_settings()
    printed = f"{settings!r} {settings!s} {settings.model_dump()} {settings.model_dump_json()}"
    assert KEY not in printed
    assert "operator-0123" not in printed
    assert JOIN not in printed
    assert settings.secrets == (KEY, "operator-0123", JOIN)


def test_relay_without_a_credential_needs_the_shared_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INTERVIEW_ICE_SERVERS", "stun:s.example.org,turn:t.example.org")
    assert sentence_of(simulation=True).startswith(
        "INTERVIEW_ICE_SERVERS names a turn: server without a credential"
    )
    monkeypatch.setenv("INTERVIEW_TURN_SECRET", " sixteen-letters-\n")
    settings = load_settings(simulation=True)
    assert [server.urls for server in settings.ice_servers] == [
        ("stun:s.example.org",),
        ("turn:t.example.org",),
    ]
    assert settings.secrets == ("sixteen-letters-",)
    assert "sixteen-letters-" not in f"{settings!r} {settings.model_dump_json()}"


def test_relays_own_credential_is_read_and_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "INTERVIEW_ICE_SERVERS",
        '[{"urls": "turn:a", "username": "me", "credential": "0penSesame"}]',
    )
    settings = load_settings(simulation=True)
    (server,) = settings.ice_servers
    assert server.credential is not None
    assert server.credential.get_secret_value() == "0penSesame"
    printed = f"{settings!r} {settings!s} {settings.model_dump()} {settings.model_dump_json()}"
    assert "0penSesame" not in printed


def test_relays_credential_is_in_no_refusal_and_none_of_its_causes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INTERVIEW_ICE_SERVERS", '[{"urls": "turn:a", "credential": "0penSesame"}')
    with pytest.raises(ConfigurationError) as caught:
        load_settings(simulation=True)
    assert "0penSesame" not in caught.value.message
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_refused_secret_is_nowhere_in_the_error_or_its_causes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-broken key")
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_password_of_the_database_is_a_secret_in_every_spelling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = "postgresql://me:0pen%2FSesame@db.example.org/interviews?sslmode=require"
    monkeypatch.setenv("DATABASE_URL", f" {url}\n")
    settings = load_settings(simulation=True)
    assert settings.state_url == url
    assert "Sesame" not in f"{settings!r} {settings.model_dump_json()}"
    assert set(settings.secrets) == {"0pen%2FSesame", "0pen/Sesame"}


def test_every_setting_says_what_it_must_be() -> None:
    assert set(mistakes.MUST_BE) == set(Settings.model_fields)


def test_no_subject_hides_a_setting_or_a_check_of_another() -> None:
    # Of two checks of one name pydantic runs one, in silence.
    subjects = [one for one in Settings.__mro__ if one.__module__.startswith("interview_peer.")]
    names = Counter(
        name
        for one in subjects
        for name in {*vars(one), *vars(one).get("__annotations__", ())}
        if not name.startswith("__") and not hasattr(pydantic.BaseModel, name)
    )
    assert names["_check_live"] == names["port"] == 1
    assert [name for name, count in names.items() if count > 1] == []


def test_half_of_the_stores_credentials_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    assert load_settings(simulation=True).recordings_url is None
    monkeypatch.setenv("INTERVIEW_RECORDINGS_URL", "s3://bucket")
    assert sentence_of(simulation=True).startswith("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "0penSesame")
    settings = load_settings(simulation=True)
    assert "0penSesame" in settings.secrets
    assert "0penSesame" not in repr(settings)


@pytest.mark.parametrize(
    ("value", "meant"),
    [("auto", "auto"), ("TRUE", "true"), ("1", "true"), ("off", "false"), (True, "true")],
)
def test_consent_is_required_automatically_always_or_never(value: Any, meant: str) -> None:
    assert Settings(simulation=True).require_consent == "auto"
    assert Settings(simulation=True, require_consent=value).require_consent == meant
