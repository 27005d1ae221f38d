"""Where the pages are that browsers are given."""

from __future__ import annotations

from pathlib import Path

from ..errors import ConfigurationError


def static_dir() -> Path:
    """The folder with the pages: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "static", package.parent / "static"):
        if (folder / "index.html").is_file():
            return folder
    raise ConfigurationError("The pages are missing from this installation: install it again.")
