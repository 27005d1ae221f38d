"""Web origins: how one is written, and whose page a request comes from.

Browsers name the page that makes a request in its ``Origin``; nobody else has to, and whoever is
no browser can write anything there. So it protects the people who use browsers, and is no
credential.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

_ORIGIN: Final = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::([0-9]{1,5}))?")
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


def read_origin(text: str) -> str:
    """An origin as browsers write it: lower case, without the scheme's own port.

    Raises:
        ValueError: it is none, or more than one: ``*`` and ``https://*.example.org`` are refused.
    """
    found = _ORIGIN.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError("not an origin")
    scheme, host, port = found.groups()
    if port is not None and not 1 <= int(port) <= 65535:
        raise ValueError("not a port")
    if port is None or port == _DEFAULT_PORTS[scheme]:
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{int(port)}"


def origin_of(url: str) -> str:
    """The origin of a web address. Raises ``ValueError`` for one of another kind."""
    parts = urlsplit(url)
    return read_origin(f"{parts.scheme}://{parts.netloc}")


@dataclass(frozen=True, slots=True)
class Pages:
    """Whose pages may use a server."""

    listed: Collection[str]
    """Origins beside the server's own, as ``read_origin`` writes them."""
    public: str | None
    """The origin that candidates reach the server under, where that is known."""
    anybodys: bool
    """Whether every page may."""

    def is_own(self, origin: str, host: str) -> bool:
        """Whether a page is the server's own; ``host`` is the request's ``Host``.

        Where the public origin is known, a page of that host under another scheme is not: somebody
        on the way may have written it.
        """
        try:
            origin = read_origin(origin)
        except ValueError:
            return False
        if origin == self.public:
            return True
        scheme, _, place = origin.partition("://")
        if self.public is not None and self.public.partition("://")[2] == place:
            return False
        try:
            return read_origin(f"{scheme}://{host}") == origin
        except ValueError:
            return False

    def admit(self, origin: str, host: str) -> bool:
        """Whether a candidate's page of that origin may use the server."""
        return self.anybodys or origin in self.listed or self.is_own(origin, host)
