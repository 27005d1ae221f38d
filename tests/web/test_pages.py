"""The pages are found wherever the package is."""

from __future__ import annotations

from pathlib import Path

import pytest

from interview_peer.errors import ConfigurationError
from interview_peer.web import pages
from interview_peer.web.pages import static_dir


def test_pages_are_found_from_a_checkout() -> None:
    assert (static_dir() / "index.html").is_file()


def test_pages_inside_an_installed_package_come_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pages, "__file__", str(tmp_path / "package" / "web" / "pages.py"))
    with pytest.raises(ConfigurationError):
        static_dir()
    for folder in (tmp_path / "static", tmp_path / "package" / "static"):
        folder.mkdir(parents=True)
        (folder / "index.html").write_text("")
        assert static_dir() == folder
