"""The pages that browsers are given: where they are, and how they are answered.

They are read once, when the server starts, and kept in memory (some 125 kB). To read a file for an
answer takes several trips to other threads, each of which may keep the event loop, and with it all
audio, from Python's lock for its switch interval (5 ms, ``sys.setswitchinterval``).
"""

from __future__ import annotations

import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import hdrs, web

from ..errors import ConfigurationError, NotFound
from .files import listed

FRONT: Final = "index.html"

_TYPES: Final = mimetypes.MimeTypes()
"""Python's own table: that of a machine may call scripts something that browsers refuse to run."""
# As RFC 9239 has it, and Python from 3.12 on.
_TYPES.add_type("text/javascript", ".js")
_TEXT: Final = ("text/", "image/svg+xml")


def static_dir() -> Path:
    """The folder with the pages: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "static", package.parent / "static"):
        if (folder / FRONT).is_file():
            return folder
    raise ConfigurationError("The pages are missing from this installation: install it again.")


@dataclass(frozen=True, slots=True)
class _Page:
    body: bytes
    content_type: str
    tag: str
    """For ``ETag``: another one for other bytes."""


class StaticFiles:
    """All files of a folder, as they were when it was read."""

    def __init__(self, folder: Path) -> None:
        """Raises ``OSError`` where a file cannot be read."""
        self._pages = {
            path.relative_to(folder).as_posix(): _read(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    def answer(self, request: web.Request, name: str) -> web.Response:
        """The file of that name; to a browser that has it, that it is the same.

        Raises:
            NotFound: there is no file of exactly this name.
        """
        page = self._pages.get(name)
        if page is None:
            raise NotFound
        headers = {hdrs.ETAG: page.tag}
        if listed(request.headers.get(hdrs.IF_NONE_MATCH), page.tag):
            return web.Response(status=304, headers=headers)
        headers[hdrs.CONTENT_TYPE] = page.content_type
        return web.Response(body=page.body, headers=headers)


def _read(path: Path) -> _Page:
    body = path.read_bytes()
    found = _TYPES.guess_type(path.name)[0] or "application/octet-stream"
    if found.startswith(_TEXT):
        found += "; charset=utf-8"
    return _Page(body, found, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
