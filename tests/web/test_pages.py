"""The pages are found wherever the package is, and answered without asking a disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from interview_peer.errors import ConfigurationError
from interview_peer.web import pages
from interview_peer.web.pages import static_dir
from tests.support.caller import calling
from tests.support.inprocess import serving


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


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("review.html", "text/html; charset=utf-8"),
        ("app.css", "text/css; charset=utf-8"),
        ("page.js", "text/javascript; charset=utf-8"),
        ("favicon.svg", "image/svg+xml; charset=utf-8"),
    ],
)
async def test_a_file_of_the_page_is_sent_whole_and_once(
    tmp_path: Path, name: str, content_type: str
) -> None:
    async with serving(tmp_path) as server, calling(server.url) as caller:
        reply = await caller.get(f"/static/{name}")
        assert (reply.status, reply.headers["content-type"]) == (200, content_type)
        assert reply.text.encode() == (static_dir() / name).read_bytes()
        tag = {"If-None-Match": reply.headers["etag"]}
        again = await caller.get(f"/static/{name}", headers=tag)
        assert (again.status, again.text) == (304, "")
        other = await caller.get("/static/connection.js", headers=tag)
        assert other.status == 200 and other.headers["etag"] != reply.headers["etag"]


async def test_pages_are_answered_without_the_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "static"
    folder.mkdir()
    (folder / "index.html").write_text("first", encoding="utf-8")
    (folder / "deep").mkdir()
    (folder / "deep" / "one.bin").write_bytes(b"\0")
    monkeypatch.setattr("interview_peer.web.api.static_dir", lambda: folder)
    async with serving(tmp_path) as server, calling(server.url) as caller:
        (folder / "index.html").unlink()
        for path in ("/", "/i/some-id", "/static/index.html"):
            assert (await caller.get(path)).text == "first"
        kept = await caller.get("/static/deep/one.bin")
        assert kept.headers["content-type"] == "application/octet-stream"
        for path in ("/static/deep", "/static/deep/", "/static/app.css"):
            assert (await caller.get(path)).status == 404
