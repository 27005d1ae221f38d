"""Where the pages are that browsers are given."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from ..errors import ConfigurationError


def static_dir() -> Path:
    """The folder with the pages: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "static", package.parent / "static"):
        if (folder / "index.html").is_file():
            return folder
    raise ConfigurationError("The pages are missing from this installation: install it again.")


def page(path: Path) -> web.FileResponse:
    """An answer that is a file, which the process writes itself.

    The kernel is not told to send it (``loop.sendfile``): where such a connection is aborted,
    asyncio goes on waiting for its descriptor, which will be another connection's.
    """
    response = web.FileResponse(path)
    # For aiohttp what has a coding goes through the process, be it the one that changes nothing.
    response.enable_compression(web.ContentCoding.identity)
    return response
