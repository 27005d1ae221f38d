"""Who is let in: keys, tokens, origins, and the proxies that are believed whose a request is."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

import pydantic
from pydantic import BaseModel, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from ..core.origins import read_origin
from ..core.proxies import FORWARDED, FORWARDED_FOR
from .values import Key, Networks, Word, is_loopback, read_address, split_list

_HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
_SHORTEST_JOIN_SECRET = 32

MUST_BE = {
    "admin_key": "must be a key: visible ASCII characters without spaces",
    "join_secret": (
        f"must be at least {_SHORTEST_JOIN_SECRET} visible ASCII characters without spaces"
    ),
    "jwks_url": (
        "must be an https:// address without user or fragment (http:// only for this machine)"
    ),
    "jwks_issuer": "must be the issuer that tokens name: visible ASCII characters without spaces",
    "allow_anonymous": "must be true or false",
    "allowed_origins": (
        "must be exact origins such as https://careers.example.org, separated by commas"
    ),
    "trusted_proxies": "must be networks such as 10.0.0.0/8, separated by commas",
    "proxy_header": (
        "must be the name of a header that holds addresses, such as X-Forwarded-For or"
        " Fly-Client-IP; Forwarded is not read"
    ),
}


class AccessSettings(BaseModel):
    """Settings of who is let in."""

    admin_key: Key | None = Field(default=None, validation_alias="INTERVIEW_ADMIN_KEY")
    """Bearer key of operators, with every scope, beside those kept in the database."""

    join_secret: Key | None = Field(default=None, validation_alias="INTERVIEW_JOIN_SECRET")
    """Signs the tokens that candidates join with (HS256)."""

    jwks_url: str | None = Field(default=None, validation_alias="INTERVIEW_JWKS_URL")
    """Where the public keys of an identity provider are, whose tokens are taken too."""

    jwks_issuer: Word | None = Field(default=None, validation_alias="INTERVIEW_JWKS_ISSUER")
    """Who must have issued those tokens; None takes any holder of such a key."""

    allow_anonymous: bool = Field(default=False, validation_alias="INTERVIEW_ALLOW_ANONYMOUS")
    """Let anyone who reaches a live server hold interviews."""

    allowed_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_list)] = Field(
        default=(), validation_alias="INTERVIEW_ALLOWED_ORIGINS"
    )
    """Origins beside the server's own whose pages may do what candidates do; none listed is every
    origin on a server that is open to all, and no other on one that asks for tokens."""

    trusted_proxies: Networks = Field(default=(), validation_alias="INTERVIEW_TRUSTED_PROXIES")
    """Networks of proxies that are believed from whom a request came."""

    proxy_header: str = Field(default=FORWARDED_FOR, validation_alias="INTERVIEW_PROXY_HEADER")
    """The header in which they tell it."""

    @pydantic.field_validator("join_secret")
    @classmethod
    def _check_join_secret(cls, value: SecretStr | None) -> SecretStr | None:
        # Every candidate holds a signature made with it; a short one can be guessed from that.
        if value is not None and len(value.get_secret_value()) < _SHORTEST_JOIN_SECRET:
            raise ValueError("too short")
        return value

    @pydantic.field_validator("jwks_url")
    @classmethod
    def _check_jwks_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        # Whoever can change what is read here can let anybody in.
        at_home = is_loopback(urlsplit(value.strip()).hostname or "")
        return read_address(value, ("https", "http") if at_home else ("https",))

    @pydantic.field_validator("allowed_origins")
    @classmethod
    def _check_allowed_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(read_origin(part) for part in value))

    @pydantic.field_validator("proxy_header")
    @classmethod
    def _check_proxy_header(cls, value: str) -> str:
        value = value.strip()
        if not _HEADER_NAME.fullmatch(value) or value.lower() == FORWARDED.lower():
            raise ValueError("not a header of addresses")
        return value
