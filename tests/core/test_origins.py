"""Which text is an origin, and whose page a request comes from."""

from __future__ import annotations

import pytest

from interview_peer.core.origins import Pages, origin_of, read_origin


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://careers.example.org", "https://careers.example.org"),
        (" HTTPS://Careers.Example.ORG ", "https://careers.example.org"),
        ("https://careers.example.org:443", "https://careers.example.org"),
        ("http://careers.example.org:80", "http://careers.example.org"),
        ("http://careers.example.org:443", "http://careers.example.org:443"),
        ("http://localhost:08080", "http://localhost:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_an_origin_is_written_as_browsers_do(text: str, origin: str) -> None:
    assert read_origin(text) == origin


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "null",
        "careers.example.org",
        "//careers.example.org",
        "https://",
        "https://*.example.org",
        "https://careers.example.org/",
        "https://careers.example.org/page",
        "https://careers.example.org?",
        "https://careers.example.org#",
        "https://me@careers.example.org",
        "https://careers.example.org:",
        "https://careers.example.org:0",
        "https://careers.example.org:65536",
        "https://careers.example.org; script-src *",
        "https://careers.example.org https://two.example.org",
        "https://careers.example.org\nX: 1",
        "wss://careers.example.org",
        "file:///etc",
        "https://b\u00fccher.example",
    ],
)
def test_what_is_no_single_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        read_origin(text)


def test_the_origin_of_an_address_leaves_its_path_out() -> None:
    assert origin_of("https://Our.host:443/interviews") == "https://our.host"


LISTED = "https://careers.example.org"


@pytest.mark.parametrize(
    ("public", "origin", "host", "own"),
    [
        (None, "http://localhost:8080", "localhost:8080", True),
        # A proxy that speaks TLS passes the host on, and the scheme is not known here.
        (None, "https://our.host", "our.host", True),
        (None, "https://our.host", "our.host:443", True),
        (None, "https://our.host:8443", "our.host", False),
        (None, "https://evil.example", "our.host", False),
        (None, "null", "our.host", False),
        (None, "null", "null", False),
        (None, "", "", False),
        ("https://our.host", "https://our.host", "10.0.0.5:8080", True),
        ("https://our.host", "https://our.host", "our.host", True),
        # Somebody on the way could write a page of the plain scheme.
        ("https://our.host", "http://our.host", "our.host", False),
        # Of who asks past the proxy, as operators do.
        ("https://our.host", "http://localhost:8080", "localhost:8080", True),
        ("https://our.host", "https://evil.example", "our.host", False),
    ],
)
def test_a_page_is_our_own_by_the_public_address_or_the_host_that_was_asked(
    public: str | None, origin: str, host: str, own: bool
) -> None:
    pages = Pages(listed=frozenset({LISTED}), public=public, anybodys=False)
    assert pages.is_own(origin, host) is own
    assert pages.admit(origin, host) is own


def test_a_listed_page_may_use_the_server_and_is_not_its_own() -> None:
    pages = Pages(listed=frozenset({LISTED}), public=None, anybodys=False)
    assert pages.admit(LISTED, "our.host")
    assert not pages.is_own(LISTED, "our.host")
    for near in (LISTED + ":444", LISTED.replace("https", "http"), LISTED + ".evil.example"):
        assert not pages.admit(near, "our.host")


def test_where_nothing_is_asked_for_any_page_may() -> None:
    pages = Pages(listed=frozenset(), public=None, anybodys=True)
    assert pages.admit("https://anywhere.example", "our.host") and pages.admit("null", "our.host")
    assert not pages.is_own("https://anywhere.example", "our.host")
