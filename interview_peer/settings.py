"""Every setting of the server: its name, its default and what it must be.

The only module that reads the environment and ``.env``. They are read once, at the start, into
one frozen :class:`Settings`; a wrong value or an unknown name ends the start with one sentence
that names it. What a setting leads to is decided elsewhere.
"""

from __future__ import annotations

import base64
import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

import dotenv
import pydantic
from pydantic import Field, SecretStr
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from interview_peer.core import speech_redaction
from interview_peer.core.consent import Requirement
from interview_peer.core.origins import read_origin
from interview_peer.core.proxies import FORWARDED_FOR
from interview_peer.core.turn import IceServer, read_servers
from interview_peer.errors import ConfigurationError

ENV_FILE = Path(".env")
"""Read from the folder the server is started in. The environment wins over it."""

_PREFIX = "INTERVIEW_"
_HOST_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
_MACHINE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_STORE_PLACE = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9_.-]{1,252}(/[A-Za-z0-9_=-][A-Za-z0-9_.=-]*){0,16}"
)
_FLY_UDP_HOST = "fly-global-services"
"""Stands on Fly.io for an address of the inside, which no browser can reach."""
_SHORTEST_TURN_SECRET = 16
_SHORTEST_JOIN_SECRET = 32
_LOG_LEVELS = ("debug", "info", "warning", "error", "critical")

LogLevel = Literal["debug", "info", "warning", "error", "critical"]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(allow_inf_nan=False)]

# What the operator reads after the setting's name when its value cannot be used.
_MUST_BE = {
    "host": "must be an IP address or a host name, without a port",
    "port": "must be a whole number from 0 to 65535 (0 picks a free port)",
    "openai_api_key": "must be a key: visible ASCII characters without spaces",
    "openai_base_url": "must be an http:// or https:// address without user, query or fragment",
    "openai_model": "must be the name of a model",
    "log_level": f"must be one of {', '.join(_LOG_LEVELS)}",
    "log_format": "must be auto, text or json",
    "simulation": "must be true or false",
    "data_dir": "must be a folder, not a file",
    "database_url": "must be a postgresql:// address; leave it out for SQLite",
    "personas_dir": "must be an existing folder",
    "admin_key": "must be a key: visible ASCII characters without spaces",
    "join_secret": (
        f"must be at least {_SHORTEST_JOIN_SECRET} visible ASCII characters without spaces"
    ),
    "jwks_url": (
        "must be an https:// address without user or fragment (http:// only for this machine)"
    ),
    "jwks_issuer": "must be the issuer that tokens name: visible ASCII characters without spaces",
    "public_url": "must be an http:// or https:// address without user, query or fragment",
    "internal_url": "must be an http:// address with nothing behind, such as http://10.0.0.5:8080",
    "machine_id": "must be an id: letters, digits, - and _",
    "webhook_url": (
        "must be an https:// address without user or fragment (http:// only where "
        "INTERVIEW_WEBHOOK_ALLOW names a network)"
    ),
    "webhook_secret": "must be whsec_ followed by 24 to 64 bytes in base64",
    "webhook_allow": "must be networks such as 10.0.0.0/8, separated by commas",
    "udp_host": "must be an IP address or a host name, without a port",
    "forwarder": "must be auto, native or python",
    "udp_port": "must be a whole number from 0 to 65535 (0 picks a free port)",
    "public_ips": "must be IP addresses or host names, separated by commas",
    "ice_servers": (
        "must be stun:, stuns:, turn: or turns: addresses separated by commas, or a JSON array of "
        "objects with urls and, both or neither, username and credential"
    ),
    "turn_secret": (
        f"must be at least {_SHORTEST_TURN_SECRET} visible ASCII characters without spaces"
    ),
    "turn_ttl_seconds": "must be a whole number of seconds from 60 to 86400",
    "allowed_origins": (
        "must be exact origins such as https://careers.example.org, separated by commas"
    ),
    "allow_anonymous": "must be true or false",
    "metrics_port": "must be a whole number from 0 to 65535 (0 picks a free port)",
    "require_consent": "must be auto, true or false",
    "organisation": "must be a name of at most 200 characters in one line",
    "privacy_contact": "must be a text of at most 200 characters in one line",
    "redact_speech": (
        "must be all, or some of email, iban, card and phone, or module:function of your own, "
        "separated by commas"
    ),
    "hold_seconds": "must be a number of seconds from 0 to 600",
    "idle_seconds": "must be a number of seconds above 0, up to 86400",
    "connect_seconds": "must be a number of seconds above 0, up to 120",
    "record_keep_seconds": "must be a number of seconds from 0 to 86400",
    "max_interviews": "must be a whole number from 1 to 10000",
    "max_seconds": "must be a number of seconds from 10 to 86400",
    "max_tokens": "must be a whole number of tokens above 0",
    "waiting_per_address": "must be a whole number from 1 to 100",
    "drain_seconds": "must be a number of seconds from 0 to 86400",
    "watchdog_seconds": "must be 0, or a number of seconds from 1 to 600",
    "min_free_mb": "must be a whole number of megabytes from 0 to 1000000",
    "offers_per_minute": "must be a whole number from 0 to 100000",
    "offers_per_interview": "must be a whole number from 0 to 100000",
    "sockets_per_minute": "must be a whole number from 0 to 100000",
    "waiting_sockets": "must be a whole number from 1 to 10000",
    "messages_per_second": "must be a whole number from 0 to 10000",
    "events_per_second": "must be a whole number from 0 to 10000",
    "max_message_kb": "must be a whole number from 16 to 4096",
    "max_body_kb": "must be a whole number from 16 to 4096",
    "max_sdp_kb": "must be a whole number from 4 to 64",
    "request_seconds": "must be a number of seconds from 0.1 to 600",
    "max_connections": "must be a whole number from 10 to 1000000",
    "connections_per_address": "must be a whole number from 0 to 1000000",
    "trusted_proxies": "must be networks such as 10.0.0.0/8, separated by commas",
    "proxy_header": "must be the name of a header, such as X-Forwarded-For or Fly-Client-IP",
    "recordings_url": (
        "must be s3://bucket or s3://bucket/prefix, without user, query or fragment (gs:// and "
        "az:// are taken as well)"
    ),
    "retention_days": "must be a whole number of days from 1 to 36500",
    "notice_days": "must be a whole number of days from 1 to 36500",
    "dead_notice_days": "must be a whole number of days from 1 to 36500",
    "idempotency_days": "must be a whole number of days from 1 to 36500",
    "s3_endpoint": "must be an http:// or https:// address",
    "s3_region": "must be the name of a region",
    "s3_access_key": "must be a key: visible ASCII characters without spaces",
    "s3_secret_key": "must be a key: visible ASCII characters without spaces",
}


class Settings(BaseSettings):
    """All settings, validated together, frozen. Secrets print as ``**********``.

    Built directly (tests, embedding) it takes the arguments alone and never looks at the
    environment; :func:`load_settings` is what reads.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        case_sensitive=True,
        validate_default=True,
        hide_input_in_errors=True,
        env_ignore_empty=True,
        env_file_encoding="utf-8",
    )

    host: str = Field(default="127.0.0.1", validation_alias="INTERVIEW_HOST")
    """Address the HTTP server binds."""

    port: Port = Field(default=8080, validation_alias="PORT")
    """TCP port of the HTTP server; 0 picks a free one."""

    openai_api_key: SecretStr | None = Field(default=None, validation_alias="OPENAI_API_KEY")
    """The standard key, used by the server alone. Needed unless simulating."""

    openai_base_url: str = Field(
        default="https://api.openai.com/v1", validation_alias="OPENAI_BASE_URL"
    )
    """Where the voice service lives; kept without a trailing slash."""

    openai_model: str | None = Field(default=None, validation_alias="INTERVIEW_MODEL")
    """Model for every interview; None takes the persona's."""

    log_level: LogLevel = Field(default="info", validation_alias="LOG_LEVEL")
    """Least severe level that is logged."""

    log_format: Literal["auto", "text", "json"] = Field(
        default="auto", validation_alias="INTERVIEW_LOG_FORMAT"
    )
    """A line as text or as a JSON object; auto is text on a terminal alone."""

    simulation: bool = Field(default=False, validation_alias="SIMULATION_MODE")
    """Talk to the built-in simulator instead of OpenAI."""

    data_dir: Path = Field(default=Path("data"), validation_alias="INTERVIEW_DATA_DIR")
    """Folder that ``interviews/<id>/`` is made in, and the SQLite file."""

    database_url: SecretStr | None = Field(default=None, validation_alias="DATABASE_URL")
    """PostgreSQL to keep the state in; None is an SQLite file in ``data_dir``. Has a password."""

    personas_dir: Path | None = Field(default=None, validation_alias="INTERVIEW_PERSONAS_DIR")
    """Folder with further persona files; they win over shipped ones of the same name."""

    admin_key: SecretStr | None = Field(default=None, validation_alias="INTERVIEW_ADMIN_KEY")
    """Bearer key that ``/api/interviews…`` asks for, beside those kept in the database."""

    join_secret: SecretStr | None = Field(default=None, validation_alias="INTERVIEW_JOIN_SECRET")
    """Signs the tokens that candidates join with (HS256)."""

    jwks_url: str | None = Field(default=None, validation_alias="INTERVIEW_JWKS_URL")
    """Where the public keys of an identity provider are, whose tokens are taken too."""

    jwks_issuer: str | None = Field(default=None, validation_alias="INTERVIEW_JWKS_ISSUER")
    """Who must have issued those tokens; None takes any holder of such a key."""

    public_url: str | None = Field(default=None, validation_alias="INTERVIEW_PUBLIC_URL")
    """Where candidates and receivers reach this server; None is what a request was sent to."""

    internal_url: str | None = Field(default=None, validation_alias="INTERVIEW_INTERNAL_URL")
    """Where other servers on the same database reach this one, to pass requests on to it."""

    machine_id: str | None = Field(default=None, validation_alias="FLY_MACHINE_ID")
    """This machine's name at Fly.io, which sets it."""

    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), validation_alias="INTERVIEW_ALLOWED_ORIGINS"
    )
    """Origins beside the server's own whose pages may do what candidates do; none listed is every
    origin on a server that is open to all, and no other on one that asks for tokens."""

    webhook_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), validation_alias="INTERVIEW_WEBHOOK_ALLOW"
    )
    """Networks, beside public addresses, that notices may be sent to."""

    webhook_url: str | None = Field(default=None, validation_alias="INTERVIEW_WEBHOOK_URL")
    """Receiver of the notices of every interview."""

    webhook_secret: SecretStr | None = Field(
        default=None, validation_alias="INTERVIEW_WEBHOOK_SECRET"
    )
    """Signs what goes to it, and to callbacks without a secret of their own."""

    udp_host: str | None = Field(default=None, validation_alias="INTERVIEW_UDP_HOST")
    """Address that the browsers' UDP port binds; None is chosen at the start."""

    forwarder: Literal["auto", "native", "python"] = Field(
        default="auto", validation_alias="INTERVIEW_FORWARDER"
    )
    """What forwards audio: native code, Python, or native code where it was built."""

    udp_port: Port = Field(default=8081, validation_alias="INTERVIEW_UDP_PORT")
    """UDP port of the browser legs; 0 picks a free one."""

    public_ips: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), validation_alias="INTERVIEW_PUBLIC_IP"
    )
    """Addresses announced to browsers instead of the bound one."""

    ice_servers: Annotated[tuple[IceServer, ...], NoDecode] = Field(
        default=(), validation_alias="INTERVIEW_ICE_SERVERS"
    )
    """STUN and TURN servers that browsers are told of."""

    turn_secret: SecretStr | None = Field(default=None, validation_alias="INTERVIEW_TURN_SECRET")
    """Shared with the relays; signs short-lived credentials for those without their own."""

    turn_ttl_seconds: int = Field(
        default=14400, ge=60, le=86400, validation_alias="INTERVIEW_TURN_TTL_SECONDS"
    )
    """How long such a credential opens a relay."""

    metrics_port: Port | None = Field(default=None, validation_alias="INTERVIEW_METRICS_PORT")
    """TCP port of Prometheus' metrics, on ``host``; None serves none."""

    allow_anonymous: bool = Field(default=False, validation_alias="INTERVIEW_ALLOW_ANONYMOUS")
    """Let anyone who reaches a live server hold interviews."""

    require_consent: Requirement = Field(
        default="auto", validation_alias="INTERVIEW_REQUIRE_CONSENT"
    )
    """Who must agree to being recorded before anything is: ``core.consent.Requirement``."""

    organisation: str | None = Field(default=None, validation_alias="INTERVIEW_ORGANISATION")
    """Who records, as candidates are told."""

    privacy_contact: str | None = Field(default=None, validation_alias="INTERVIEW_PRIVACY_CONTACT")
    """Whom candidates ask about their recording, as they are told."""

    redact_speech: str | None = Field(default=None, validation_alias="INTERVIEW_REDACT_SPEECH")
    """What is taken out of texts before they are kept, as ``core.speech_redaction`` reads it."""

    hold_seconds: Seconds = Field(
        default=10.0, ge=0, le=600, validation_alias="INTERVIEW_HOLD_SECONDS"
    )
    """How long the model is held after the browser was lost; 0 ends at once."""

    idle_seconds: Seconds = Field(
        default=300.0, gt=0, le=86400, validation_alias="INTERVIEW_IDLE_SECONDS"
    )
    """An interview without media or messages for this long ends."""

    connect_seconds: Seconds = Field(
        default=15.0, gt=0, le=120, validation_alias="INTERVIEW_CONNECT_SECONDS"
    )
    """From the offer until both legs are connected."""

    record_keep_seconds: Seconds = Field(
        default=60.0, ge=0, le=86400, validation_alias="INTERVIEW_SESSION_KEEP_SECONDS"
    )
    """How long an ended session can still be asked about."""

    max_interviews: int = Field(
        default=100, ge=1, le=10000, validation_alias="INTERVIEW_MAX_INTERVIEWS"
    )
    """Interviews held at once; further ones are refused."""

    drain_seconds: Seconds = Field(
        default=240.0, ge=0, le=86400, validation_alias="INTERVIEW_DRAIN_SECONDS"
    )
    """How long interviews may go on after SIGTERM; 0 ends them at once, without a goodbye."""

    watchdog_seconds: Seconds = Field(
        default=10.0, ge=0, le=600, validation_alias="INTERVIEW_WATCHDOG_SECONDS"
    )
    """The process ends itself when its event loop stands still for so long; 0 never."""

    min_free_mb: int = Field(
        default=200, ge=0, le=1_000_000, validation_alias="INTERVIEW_MIN_FREE_MB"
    )
    """Megabytes that must be free on the recordings' disk for an interview to begin; 0 does not
    look."""

    max_seconds: Seconds = Field(
        default=3540.0, ge=10, le=86400, validation_alias="INTERVIEW_MAX_SECONDS"
    )
    """How long any interview may last: by default a minute less than the voice service allows."""

    max_tokens: int | None = Field(default=None, ge=1, validation_alias="INTERVIEW_MAX_TOKENS")
    """How many tokens an interview may use, by the service's count; None has no limit."""

    waiting_per_address: int = Field(
        default=10, ge=1, le=100, validation_alias="INTERVIEW_WAITING_PER_ADDRESS"
    )
    """WebSockets of one address at once that have not shown the token they need."""

    offers_per_minute: int = Field(
        default=60, ge=0, le=100000, validation_alias="INTERVIEW_OFFERS_PER_MINUTE"
    )
    """Offers of one address that are answered in a minute, and at once; 0 counts none."""

    offers_per_interview: int = Field(
        default=20, ge=0, le=100000, validation_alias="INTERVIEW_OFFERS_PER_INTERVIEW"
    )
    """The same of one interview: its first offer and each return."""

    sockets_per_minute: int = Field(
        default=120, ge=0, le=100000, validation_alias="INTERVIEW_SOCKETS_PER_MINUTE"
    )
    """WebSockets that one address may open in a minute; 0 counts none."""

    waiting_sockets: int = Field(
        default=100, ge=1, le=10000, validation_alias="INTERVIEW_WAITING_SOCKETS"
    )
    """WebSockets of all addresses at once that have not shown the token they need."""

    messages_per_second: int = Field(
        default=20, ge=0, le=10000, validation_alias="INTERVIEW_MESSAGES_PER_SECOND"
    )
    """Messages that one WebSocket may send, five seconds' worth at once; 0 counts none."""

    events_per_second: int = Field(
        default=50, ge=0, le=10000, validation_alias="INTERVIEW_EVENTS_PER_SECOND"
    )
    """Events that one browser may send on its data channel, two seconds' worth at once; 0 counts
    none."""

    max_message_kb: int = Field(
        default=256, ge=16, le=4096, validation_alias="INTERVIEW_MAX_MESSAGE_KB"
    )
    """Longest message of a WebSocket."""

    max_body_kb: int = Field(default=256, ge=16, le=4096, validation_alias="INTERVIEW_MAX_BODY_KB")
    """Longest body of a request."""

    max_sdp_kb: int = Field(default=64, ge=4, le=64, validation_alias="INTERVIEW_MAX_SDP_KB")
    """Longest offer."""

    request_seconds: Seconds = Field(
        default=10.0, ge=0.1, le=600, validation_alias="INTERVIEW_REQUEST_SECONDS"
    )
    """How long the head of an HTTP request may take to arrive, and again its body."""

    max_connections: int = Field(
        default=2000, ge=10, le=1000000, validation_alias="INTERVIEW_MAX_CONNECTIONS"
    )
    """TCP connections open at once; further ones are closed."""

    connections_per_address: int = Field(
        default=500, ge=0, le=1000000, validation_alias="INTERVIEW_CONNECTIONS_PER_ADDRESS"
    )
    """The same of one address, unless it is a trusted proxy's; 0 counts none."""

    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), validation_alias="INTERVIEW_TRUSTED_PROXIES"
    )
    """Networks of proxies that are believed from whom a request came."""

    proxy_header: str = Field(default=FORWARDED_FOR, validation_alias="INTERVIEW_PROXY_HEADER")
    """The header in which they tell it."""

    recordings_url: str | None = Field(default=None, validation_alias="INTERVIEW_RECORDINGS_URL")
    """Object store that finished recordings move to; None leaves them in the data folder."""

    retention_days: int | None = Field(
        default=None, ge=1, le=36500, validation_alias="INTERVIEW_RETENTION_DAYS"
    )
    """Recordings are erased when they are this old; None keeps them."""

    notice_days: int = Field(default=30, ge=1, le=36500, validation_alias="INTERVIEW_NOTICE_DAYS")
    """Notices that were delivered are kept for so long, with their deliveries and attempts."""

    dead_notice_days: int | None = Field(
        default=None, ge=1, le=36500, validation_alias="INTERVIEW_DEAD_NOTICE_DAYS"
    )
    """Those that were given up; None keeps them."""

    idempotency_days: int = Field(
        default=7, ge=1, le=36500, validation_alias="INTERVIEW_IDEMPOTENCY_DAYS"
    )
    """A request can be repeated by its idempotency key for so long."""

    s3_endpoint: str | None = Field(default=None, validation_alias="AWS_ENDPOINT_URL_S3")
    """Where the S3-compatible store answers; None is Amazon's own address."""

    s3_region: str | None = Field(default=None, validation_alias="AWS_REGION")
    """Region of the bucket; None is ``us-east-1``, or ``auto`` with an endpoint."""

    s3_access_key: SecretStr | None = Field(default=None, validation_alias="AWS_ACCESS_KEY_ID")
    """None leaves it to the store's library: web identity, container or instance credentials."""

    s3_secret_key: SecretStr | None = Field(default=None, validation_alias="AWS_SECRET_ACCESS_KEY")
    """Belongs to the access key."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the arguments alone."""
        return (init_settings,)

    @pydantic.field_validator("host", "udp_host")
    @classmethod
    def _check_host(cls, value: str | None) -> str | None:
        return None if value is None else _host(value)

    @pydantic.field_validator("public_ips", mode="before")
    @classmethod
    def _split_public_ips(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return [part for part in value.split(",") if part.strip()]

    @pydantic.field_validator("public_ips")
    @classmethod
    def _check_public_ips(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(_host(part) for part in value))

    @pydantic.field_validator("ice_servers", mode="before")
    @classmethod
    def _read_ice_servers(cls, value: object) -> tuple[IceServer, ...]:
        return read_servers(value)

    @pydantic.field_validator(
        *("openai_api_key", "admin_key", "turn_secret", "join_secret"),
        *("s3_access_key", "s3_secret_key"),
    )
    @classmethod
    def _check_key(cls, value: SecretStr | None) -> SecretStr | None:
        # A key goes into a header: a line break in it would be a header of its own.
        if value is None:
            return None
        key = value.get_secret_value().strip()
        if not _VISIBLE.fullmatch(key):
            raise ValueError("not a key")
        return SecretStr(key)

    @pydantic.field_validator("turn_secret")
    @classmethod
    def _check_turn_secret(cls, value: SecretStr | None) -> SecretStr | None:
        # Every browser gets a signature made with it, and can try guesses against that in peace.
        if value is not None and len(value.get_secret_value()) < _SHORTEST_TURN_SECRET:
            raise ValueError("too short")
        return value

    @pydantic.field_validator("join_secret")
    @classmethod
    def _check_join_secret(cls, value: SecretStr | None) -> SecretStr | None:
        # Every candidate holds a signature made with it; a short one can be guessed from that.
        if value is not None and len(value.get_secret_value()) < _SHORTEST_JOIN_SECRET:
            raise ValueError("too short")
        return value

    @pydantic.field_validator("allowed_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return [part for part in value.split(",") if part.strip()]

    @pydantic.field_validator("allowed_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(read_origin(part) for part in value))

    @pydantic.field_validator("redact_speech")
    @classmethod
    def _check_redact_speech(cls, value: str | None) -> str | None:
        speech_redaction.redactor(value or "")
        return value

    @pydantic.field_validator("jwks_url")
    @classmethod
    def _check_jwks_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        url = urlsplit(value := value.strip())
        # Whoever can change what is read here can let anybody in.
        at_home = url.scheme == "http" and is_loopback(url.hostname or "")
        if not _VISIBLE.fullmatch(value) or not (url.scheme == "https" or at_home):
            raise ValueError("not a safe address")
        if not url.hostname or url.port == 0 or "@" in url.netloc or "#" in value:
            raise ValueError("not an address")
        return value

    @pydantic.field_validator("watchdog_seconds")
    @classmethod
    def _check_watchdog_seconds(cls, value: float) -> float:
        # A moment's pause is nothing to die of.
        if 0 < value < 1:
            raise ValueError("too short")
        return value

    @pydantic.field_validator("proxy_header")
    @classmethod
    def _check_proxy_header(cls, value: str) -> str:
        if not _HEADER_NAME.fullmatch(value.strip()):
            raise ValueError("not a header")
        return value.strip()

    @pydantic.field_validator("webhook_allow", "trusted_proxies", mode="before")
    @classmethod
    def _split_networks(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return [part for part in value.split(",") if part.strip()]

    @pydantic.field_validator("webhook_allow", "trusted_proxies")
    @classmethod
    def _check_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(str(ipaddress.ip_network(part.strip())) for part in value))

    @pydantic.field_validator("webhook_url")
    @classmethod
    def _check_webhook_url(cls, value: str | None, info: pydantic.ValidationInfo) -> str | None:
        if value is None:
            return None
        url = urlsplit(value := value.strip())
        schemes = ("https", "http") if info.data.get("webhook_allow") else ("https",)
        if not _VISIBLE.fullmatch(value) or url.scheme not in schemes:
            raise ValueError("not a safe address")
        if not url.hostname or url.port == 0 or "@" in url.netloc or "#" in value:
            raise ValueError("not an address")
        return value

    @pydantic.field_validator("webhook_secret")
    @classmethod
    def _check_webhook_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        secret = value.get_secret_value().strip()
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        if not secret.startswith("whsec_") or not 24 <= len(key) <= 64:
            raise ValueError("not a secret")
        return SecretStr(secret)

    @pydantic.field_validator("openai_base_url", "public_url", "s3_endpoint")
    @classmethod
    def _check_base_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        value = value.strip()
        url = urlsplit(value)
        # urlsplit drops line breaks in silence; url.port raises ValueError when it is no port.
        if not _VISIBLE.fullmatch(value) or url.scheme not in ("http", "https"):
            raise ValueError("not a web address")
        if not url.hostname or url.port == 0 or "@" in url.netloc or "?" in value or "#" in value:
            raise ValueError("not a base address")
        return value.rstrip("/")

    @pydantic.field_validator("internal_url")
    @classmethod
    def _check_internal_url(cls, value: str | None) -> str | None:
        value = cls._check_base_url(value)
        if value is not None and (urlsplit(value).scheme != "http" or urlsplit(value).path):
            raise ValueError("not the address of a server alone")
        return value

    @pydantic.field_validator("machine_id")
    @classmethod
    def _check_machine_id(cls, value: str | None) -> str | None:
        if value is not None and not _MACHINE.fullmatch(value):
            raise ValueError("not an id")
        return value

    @pydantic.field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        text = value.get_secret_value().strip()
        url = urlsplit(text)
        if not _VISIBLE.fullmatch(text) or url.scheme not in ("postgresql", "postgres"):
            raise ValueError("not PostgreSQL")
        if url.port == 0 or not url.path.strip("/"):
            raise ValueError("no database")
        return SecretStr(text)

    @pydantic.field_validator("openai_model", "jwks_issuer")
    @classmethod
    def _check_model(cls, value: str | None) -> str | None:
        if value is not None and not _VISIBLE.fullmatch(value.strip()):
            raise ValueError("not a model")
        return value if value is None else value.strip()

    @pydantic.field_validator("log_level", mode="before")
    @classmethod
    def _lower_level(cls, value: object) -> object:
        lowered = value.strip().lower() if isinstance(value, str) else value
        return "warning" if lowered == "warn" else lowered

    @pydantic.field_validator("data_dir")
    @classmethod
    def _check_data_dir(cls, value: Path) -> Path:
        folder = value.expanduser().absolute()
        if folder.exists() and not folder.is_dir():
            raise ValueError("a file")
        return folder

    @pydantic.field_validator("personas_dir")
    @classmethod
    def _check_personas_dir(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        folder = value.expanduser().absolute()
        if not folder.is_dir():
            raise ValueError("not a folder")
        return folder

    @pydantic.field_validator("require_consent", mode="before")
    @classmethod
    def _read_require_consent(cls, value: object) -> object:
        word = str(value).strip().lower()
        return {"1": "true", "yes": "true", "on": "true", "0": "false", "no": "false"}.get(
            word, "false" if word == "off" else word
        )

    @pydantic.field_validator("organisation", "privacy_contact")
    @classmethod
    def _check_line(cls, value: str | None) -> str | None:
        if value is None:
            return None
        value = value.strip()
        if not value or len(value) > 200 or not value.isprintable() or "{" in value:
            raise ValueError("not one line")
        return value

    @pydantic.field_validator("recordings_url")
    @classmethod
    def _check_recordings_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        value = value.strip().rstrip("/")
        url = urlsplit(value)
        if not _VISIBLE.fullmatch(value) or url.scheme not in ("s3", "gs", "az"):
            raise ValueError("not a store")
        # No "..", no empty part: the prefix becomes the beginning of keys.
        if not _STORE_PLACE.fullmatch(url.netloc + url.path) or "?" in value or "#" in value:
            raise ValueError("not a bucket with a prefix")
        return value

    @pydantic.field_validator("s3_region")
    @classmethod
    def _check_s3_region(cls, value: str | None) -> str | None:
        if value is not None and not _HOST_NAME.fullmatch(value.strip()):
            raise ValueError("not a region")
        return None if value is None else value.strip()

    @pydantic.model_validator(mode="after")
    def _check_together(self) -> Settings:
        if self.turn_secret is None and any(one.needs_credential for one in self.ice_servers):
            raise ConfigurationError(
                "INTERVIEW_ICE_SERVERS names a turn: server without a credential: give it one, or "
                "set INTERVIEW_TURN_SECRET."
            )
        if self.udp_host == _FLY_UDP_HOST and not self.public_ips:
            raise ConfigurationError(
                f"INTERVIEW_PUBLIC_IP must be set where INTERVIEW_UDP_HOST is {_FLY_UDP_HOST}: to "
                "the app's dedicated IPv4, which `fly ips list` names."
            )
        if self.webhook_url is not None and self.webhook_secret is None:
            raise ConfigurationError(
                "INTERVIEW_WEBHOOK_SECRET must be set, so that the receiver at "
                "INTERVIEW_WEBHOOK_URL can tell whose notices it gets."
            )
        if (self.s3_access_key is None) != (self.s3_secret_key is None) and self.recordings_url:
            raise ConfigurationError(
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must be set together, or neither."
            )
        if self.simulation:
            return self
        if self.openai_api_key is None:
            raise ConfigurationError(
                "OPENAI_API_KEY must be set to talk to OpenAI; "
                "without a key, set SIMULATION_MODE=true."
            )
        if not (self.join_secret or self.jwks_url or self.allow_anonymous):
            raise ConfigurationError(
                "INTERVIEW_JOIN_SECRET or INTERVIEW_JWKS_URL must be set for a live server, so "
                "that candidates can show that they are invited; or INTERVIEW_ALLOW_ANONYMOUS=true "
                "to let anyone in."
            )
        if not (self.on_loopback or self.admin_key or self.allow_anonymous):
            raise ConfigurationError(
                "INTERVIEW_ADMIN_KEY must be set for a live server on an address that others can "
                "reach, or INTERVIEW_ALLOW_ANONYMOUS=true to go without."
            )
        return self

    @property
    def on_loopback(self) -> bool:
        """Whether the HTTP server can be reached from this machine alone."""
        return is_loopback(self.host)

    @property
    def open_to_all(self) -> bool:
        """Whether clients without a token are let in."""
        return self.simulation or self.allow_anonymous

    @property
    def state_url(self) -> str | None:
        """``database_url`` in plain text; None is SQLite."""
        return None if self.database_url is None else self.database_url.get_secret_value()

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that must never be logged, in plain text."""
        keys = (
            self.openai_api_key,
            self.admin_key,
            self.join_secret,
            self.turn_secret,
            self.webhook_secret,
            self.s3_access_key,
            self.s3_secret_key,
        )
        held = [key.get_secret_value() for key in keys if key is not None]
        if self.database_url is not None:
            # The password alone: the rest of the address may be told.
            password = urlsplit(self.database_url.get_secret_value()).password
            held += {password, unquote(password)} if password else ()
        return tuple(held)


class _SettingsFromEnvironment(Settings):
    """The same settings, read from the environment and ``.env`` where no argument is given."""

    model_config = SettingsConfigDict(extra="ignore", env_file=ENV_FILE)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings, dotenv_settings)


def env_name(field: str) -> str:
    """The environment variable that sets ``field``."""
    return str(Settings.model_fields[field].validation_alias)


def load_settings(*, prefer_simulation: bool = False, **overrides: Any) -> Settings:
    """Read the settings; ``overrides`` (flags, by field name) win, and None counts as unset.

    ``prefer_simulation`` makes simulation the default instead of live; the environment and
    ``.env`` still decide where they say something. Raises ConfigurationError with one sentence
    that names the first wrong or unknown setting.
    """
    given = {field: value for field, value in overrides.items() if value is not None}
    file_values = _env_file_values()
    for names in (os.environ, file_values):
        _refuse_unknown(names)
    flag = env_name("simulation")
    if prefer_simulation and not (os.environ.get(flag) or file_values.get(flag)):
        given.setdefault("simulation", True)
    try:
        read = _SettingsFromEnvironment(**given)
        return Settings(**{field: getattr(read, field) for field in Settings.model_fields})
    except pydantic.ValidationError as error:
        sentence = _sentence(error, given)
    # Outside the handler: the validation error holds the value, which may be a secret.
    raise ConfigurationError(sentence)


def static_dir() -> Path:
    """The folder with the pages: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "static", package.parent / "static"):
        if (folder / "index.html").is_file():
            return folder
    raise ConfigurationError("The pages are missing from this installation: install it again.")


def is_loopback(host: str) -> bool:
    """Whether an address, or a name, is one of this very machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _host(value: str) -> str:
    value = value.strip()
    try:
        ipaddress.ip_address(value)
    except ValueError:
        # All digits and dots is an address that went wrong, not a name.
        if not _HOST_NAME.fullmatch(value) or re.fullmatch(r"[0-9.]+", value):
            raise
    return value


def _env_file_values() -> dict[str, str | None]:
    try:
        return dict(dotenv.dotenv_values(ENV_FILE, encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        pass
    raise ConfigurationError("The file .env cannot be read: it must be UTF-8 text.")


def _refuse_unknown(names: Mapping[str, object]) -> None:
    known = {env_name(field) for field in Settings.model_fields}
    # Compared without the prefix, which alone would make any two names look alike.
    endings = [name.removeprefix(_PREFIX) for name in known if name.startswith(_PREFIX)]
    for name in sorted(names):
        if not name.upper().startswith(_PREFIX) or name in known:
            continue
        near = difflib.get_close_matches(name.upper().removeprefix(_PREFIX), endings, n=1)
        hint = f"did you mean {_PREFIX}{near[0]}?" if near else "README.md lists them all."
        raise ConfigurationError(f"{name} is not a setting of interview_peer; {hint}")


def _sentence(error: pydantic.ValidationError, given: Mapping[str, Any]) -> str:
    place = str(error.errors(include_input=False, include_url=False)[0]["loc"][0])
    field = next((f for f in Settings.model_fields if place in (f, env_name(f))), None)
    if field is None:
        return f"{place} is not a setting of interview_peer."
    name = env_name(field)
    if field in given:
        name += f" (given as --{field.replace('_', '-')})"
    return f"{name} {_MUST_BE[field]}."
