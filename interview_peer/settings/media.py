"""The way of the audio: the browsers' UDP port, what forwards it, STUN and TURN servers."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
from pydantic import BaseModel, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from ..core.turn import IceServer, read_servers
from ..errors import ConfigurationError
from .values import Host, Hosts, Key, Port

_FLY_UDP_HOST = "fly-global-services"
"""Stands on Fly.io for an address of the inside, which no browser can reach."""
_SHORTEST_TURN_SECRET = 16

MUST_BE = {
    "udp_host": "must be an IP address or a host name, without a port",
    "udp_port": "must be a whole number from 0 to 65535 (0 picks a free port)",
    "public_ips": "must be IP addresses or host names, separated by commas",
    "forwarder": "must be auto, native or python",
    "ice_servers": (
        "must be stun:, stuns:, turn: or turns: addresses separated by commas, or a JSON array of "
        "objects with urls and, both or neither, username and credential"
    ),
    "turn_secret": (
        f"must be at least {_SHORTEST_TURN_SECRET} visible ASCII characters without spaces"
    ),
    "turn_ttl_seconds": "must be a whole number of seconds from 60 to 86400",
}


class MediaSettings(BaseModel):
    """Settings of the way that audio takes."""

    udp_host: Host | None = Field(default=None, validation_alias="INTERVIEW_UDP_HOST")
    """Address that the browsers' UDP port binds; None is chosen at the start."""

    udp_port: Port = Field(default=8081, validation_alias="INTERVIEW_UDP_PORT")
    """UDP port of the browser legs; 0 picks a free one."""

    public_ips: Hosts = Field(default=(), validation_alias="INTERVIEW_PUBLIC_IP")
    """Addresses announced to browsers instead of the bound one."""

    forwarder: Literal["auto", "native", "python"] = Field(
        default="auto", validation_alias="INTERVIEW_FORWARDER"
    )
    """What forwards audio: native code, Python, or native code where it was built."""

    ice_servers: Annotated[tuple[IceServer, ...], NoDecode, BeforeValidator(read_servers)] = Field(
        default=(), validation_alias="INTERVIEW_ICE_SERVERS"
    )
    """STUN and TURN servers that browsers are told of."""

    turn_secret: Key | None = Field(default=None, validation_alias="INTERVIEW_TURN_SECRET")
    """Shared with the relays; signs short-lived credentials for those without their own."""

    turn_ttl_seconds: int = Field(
        default=14400, ge=60, le=86400, validation_alias="INTERVIEW_TURN_TTL_SECONDS"
    )
    """How long such a credential opens a relay."""

    @pydantic.field_validator("turn_secret")
    @classmethod
    def _check_turn_secret(cls, value: SecretStr | None) -> SecretStr | None:
        # Every browser gets a signature made with it, and can try guesses against that in peace.
        if value is not None and len(value.get_secret_value()) < _SHORTEST_TURN_SECRET:
            raise ValueError("too short")
        return value

    @pydantic.model_validator(mode="after")
    def _check_way(self) -> MediaSettings:
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
        return self
