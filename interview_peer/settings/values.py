"""Kinds of values that several settings take: hosts, keys, web addresses, lists.

Whatever cannot be used is a ``ValueError``. Its text is never shown: it might hold a secret.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

VISIBLE = re.compile(r"[\x21-\x7e]+")
HOST_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}")


def is_loopback(host: str) -> bool:
    """Whether an address, or a name, is one of this very machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def read_base_url(value: str) -> str:
    """An http or https address that paths are put behind, without a trailing slash."""
    value = value.strip()
    url = urlsplit(value)
    # urlsplit drops line breaks in silence; url.port raises ValueError when it is no port.
    if not VISIBLE.fullmatch(value) or url.scheme not in ("http", "https"):
        raise ValueError("not a web address")
    if not url.hostname or url.port == 0 or "@" in url.netloc or "?" in value or "#" in value:
        raise ValueError("not a base address")
    return value.rstrip("/")


def read_address(value: str, schemes: Collection[str]) -> str:
    """A web address of one of the schemes, as it stands: a query may belong to it."""
    value = value.strip()
    url = urlsplit(value)
    if not VISIBLE.fullmatch(value) or url.scheme not in schemes:
        raise ValueError("not a safe address")
    if not url.hostname or url.port == 0 or "@" in url.netloc or "#" in value:
        raise ValueError("not an address")
    return value


def split_list(value: object) -> object:
    """The parts of a text that are separated by commas; anything else as it is."""
    if not isinstance(value, str):
        return value
    return [part for part in value.split(",") if part.strip()]


def _read_host(value: str) -> str:
    value = value.strip()
    try:
        ipaddress.ip_address(value)
    except ValueError:
        # All digits and dots is an address that went wrong, not a name.
        if not HOST_NAME.fullmatch(value) or re.fullmatch(r"[0-9.]+", value):
            raise
    return value


def _read_hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_read_host(part) for part in value))


def _read_networks(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(ipaddress.ip_network(part.strip())) for part in value))


def _read_key(value: SecretStr) -> SecretStr:
    # A key goes into a header: a line break in it would be a header of its own.
    key = value.get_secret_value().strip()
    if not VISIBLE.fullmatch(key):
        raise ValueError("not a key")
    return SecretStr(key)


def _read_word(value: str) -> str:
    value = value.strip()
    if not VISIBLE.fullmatch(value):
        raise ValueError("not a word")
    return value


def _read_line(value: str) -> str:
    value = value.strip()
    if not value or len(value) > 200 or not value.isprintable() or "{" in value:
        raise ValueError("not one line")
    return value


Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(allow_inf_nan=False)]
Host = Annotated[str, AfterValidator(_read_host)]
Hosts = Annotated[
    tuple[str, ...], NoDecode, BeforeValidator(split_list), AfterValidator(_read_hosts)
]
Networks = Annotated[
    tuple[str, ...], NoDecode, BeforeValidator(split_list), AfterValidator(_read_networks)
]
BaseUrl = Annotated[str, AfterValidator(read_base_url)]
Key = Annotated[SecretStr, AfterValidator(_read_key)]
Word = Annotated[str, AfterValidator(_read_word)]
"""Visible ASCII characters without spaces."""
Line = Annotated[str, AfterValidator(_read_line)]
"""A text of at most 200 characters that is put into another."""
