"""The server as a process: where it listens and is reached, what it logs, how it ends."""

from __future__ import annotations

import re
from typing import Literal, get_args
from urllib.parse import urlsplit

import pydantic
from pydantic import BaseModel, Field

from .values import BaseUrl, Host, Port, Seconds, is_loopback, read_base_url

_MACHINE = re.compile(r"[A-Za-z0-9_-]{1,64}")

LogLevel = Literal["debug", "info", "warning", "error", "critical"]

MUST_BE = {
    "host": "must be an IP address or a host name, without a port",
    "port": "must be a whole number from 0 to 65535 (0 picks a free port)",
    "public_url": "must be an http:// or https:// address without user, query or fragment",
    "internal_url": "must be an http:// address with nothing behind, such as http://10.0.0.5:8080",
    "machine_id": "must be an id: letters, digits, - and _",
    "metrics_port": "must be a whole number from 0 to 65535 (0 picks a free port)",
    "log_level": f"must be one of {', '.join(get_args(LogLevel))}",
    "log_format": "must be auto, text or json",
    "drain_seconds": "must be a number of seconds from 0 to 86400",
    "watchdog_seconds": "must be 0, or a number of seconds from 1 to 600",
}


class ServerSettings(BaseModel):
    """Settings of the process."""

    host: Host = Field(default="127.0.0.1", validation_alias="INTERVIEW_HOST")
    """Address the HTTP server binds."""

    port: Port = Field(default=8080, validation_alias="PORT")
    """TCP port of the HTTP server; 0 picks a free one."""

    public_url: BaseUrl | None = Field(default=None, validation_alias="INTERVIEW_PUBLIC_URL")
    """Where candidates and receivers reach this server; None is what a request was sent to."""

    internal_url: str | None = Field(default=None, validation_alias="INTERVIEW_INTERNAL_URL")
    """Where other servers on the same database reach this one, to pass requests on to it."""

    machine_id: str | None = Field(default=None, validation_alias="FLY_MACHINE_ID")
    """This machine's name at Fly.io, which sets it."""

    metrics_port: Port | None = Field(default=None, validation_alias="INTERVIEW_METRICS_PORT")
    """TCP port of Prometheus' metrics, on ``host``; None serves none."""

    log_level: LogLevel = Field(default="info", validation_alias="LOG_LEVEL")
    """Least severe level that is logged."""

    log_format: Literal["auto", "text", "json"] = Field(
        default="auto", validation_alias="INTERVIEW_LOG_FORMAT"
    )
    """A line as text or as a JSON object; auto is text on a terminal alone."""

    drain_seconds: Seconds = Field(
        default=120.0, ge=0, le=86400, validation_alias="INTERVIEW_DRAIN_SECONDS"
    )
    """How long interviews may go on after SIGTERM; 0 ends them at once, without a goodbye. The end
    may take 180 s longer, and 300 s is the most that Fly.io gives."""

    watchdog_seconds: Seconds = Field(
        default=10.0, ge=0, le=600, validation_alias="INTERVIEW_WATCHDOG_SECONDS"
    )
    """The process ends itself when its event loop stands still for so long; 0 never."""

    @pydantic.field_validator("internal_url")
    @classmethod
    def _check_internal_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        value = read_base_url(value)
        if urlsplit(value).scheme != "http" or urlsplit(value).path:
            raise ValueError("not the address of a server alone")
        return value

    @pydantic.field_validator("machine_id")
    @classmethod
    def _check_machine_id(cls, value: str | None) -> str | None:
        if value is not None and not _MACHINE.fullmatch(value):
            raise ValueError("not an id")
        return value

    @pydantic.field_validator("log_level", mode="before")
    @classmethod
    def _lower_log_level(cls, value: object) -> object:
        lowered = value.strip().lower() if isinstance(value, str) else value
        return "warning" if lowered == "warn" else lowered

    @pydantic.field_validator("watchdog_seconds")
    @classmethod
    def _check_watchdog_seconds(cls, value: float) -> float:
        # A moment's pause is nothing to die of.
        if 0 < value < 1:
            raise ValueError("too short")
        return value

    @property
    def on_loopback(self) -> bool:
        """Whether the HTTP server can be reached from this machine alone."""
        return is_loopback(self.host)
