"""Which pages may use a server, and what every answer tells a browser."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.caller import Caller, Reply, calling
from tests.support.inprocess import live, serving
from tests.support.operator import KEY

LISTED = "https://careers.example.org"
FOREIGN = "https://elsewhere.example"
CALLS = "/v1/realtime/calls"
SECRET = "a-join-secret-of-more-than-32-characters"
CHANGING = (
    "/api/sdp-exchange",
    "/api/generate-ephemeral-key",
    CALLS,
    CALLS + "/rtc_none/hangup",
)
"""What candidates' front ends post to."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; "
    "media-src 'self' blob:; connect-src {connect}; base-uri 'none'; form-action 'none'; "
    "frame-ancestors {frames}"
)


@contextlib.asynccontextmanager
async def asking_for_tokens(folder: Path, **settings: Any) -> AsyncIterator[Caller]:
    """A caller of a live server that lets in invited candidates alone."""
    closed = live(
        "http://127.0.0.1:9/v1",
        **{"allow_anonymous": False, "join_secret": SECRET, "admin_key": KEY, **settings},
    )
    async with serving(folder, **closed) as server, calling(server.url) as caller:
        yield caller


@pytest.fixture
async def listing(tmp_path: Path) -> AsyncIterator[Caller]:
    async with asking_for_tokens(tmp_path, allowed_origins=(LISTED,)) as caller:
        yield caller


async def preflight(caller: Caller, path: str, origin: str) -> Reply:
    return await caller.request(
        "OPTIONS",
        path,
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-openai-agents-sdk",
        },
    )


def shared_with(reply: Reply) -> str | None:
    return reply.headers.get("access-control-allow-origin")


async def connects(caller: Caller, origin: str | None, path: str = "/ws") -> int:
    """The status of a WebSocket's upgrade."""
    headers = {} if origin is None else {"Origin": origin}
    async with aiohttp.ClientSession() as http:
        try:
            async with http.ws_connect(caller.url + path, headers=headers):
                return 101
        except aiohttp.WSServerHandshakeError as refused:
            return refused.status


# -- a server that asks for tokens


@pytest.mark.parametrize("path", CHANGING)
async def test_a_listed_page_is_let_in_by_name_and_no_other_is(listing: Caller, path: str) -> None:
    allowed = await preflight(listing, path, LISTED)
    assert allowed.status == 204
    assert shared_with(allowed) == LISTED
    assert allowed.headers["access-control-allow-methods"] == "POST"
    assert allowed.headers["access-control-allow-headers"] == (
        "authorization, content-type, x-openai-agents-sdk, openai-safety-identifier"
    )
    assert allowed.headers["vary"] == "Origin"
    for origin in (FOREIGN, "null", LISTED + ":8443", "http://careers.example.org"):
        refused = await preflight(listing, path, origin)
        assert (refused.status, shared_with(refused)) == (403, None), origin
        assert refused.headers["vary"] == "Origin"
        posted = await listing.post(path, headers={"Origin": origin}, json={})
        assert (posted.status, shared_with(posted)) == (403, None), origin
        assert "ORIGIN_NOT_ALLOWED" in posted.text.upper()
    own = listing.url
    for origin in (LISTED, own):
        answered = await listing.post(path, headers={"Origin": origin}, json={})
        assert answered.status != 403
        assert shared_with(answered) == origin
    # Whoever is no browser names none.
    assert (await listing.post(path, json={})).status != 403


async def test_refused_pages_are_told_in_the_form_of_the_path(listing: Caller) -> None:
    headers = {"Origin": FOREIGN}
    reply = await listing.post(CALLS, headers=headers)
    assert reply.json()["error"]["code"] == "origin_not_allowed"
    assert reply.json()["error"]["type"] == "invalid_request_error"
    reply = await listing.post("/api/sdp-exchange", headers=headers)
    assert reply.json()["code"] == "ORIGIN_NOT_ALLOWED"
    reply = await listing.post("/api/interviews", headers=headers)
    assert reply.json()["error"]["code"] == "ORIGIN_NOT_ALLOWED"


async def test_what_is_read_by_another_page_is_not_shown_to_it(listing: Caller) -> None:
    for path in ("/api/personas", "/health", "/api/ice-servers"):
        for origin, shared in ((FOREIGN, None), (LISTED, LISTED)):
            reply = await listing.get(path, headers={"Origin": origin})
            assert shared_with(reply) == shared
            assert reply.headers["vary"] == "Origin"
        assert "vary" in (await listing.get(path)).headers


@pytest.mark.parametrize("path", ["/ws", "/", "/ws/some-session"])
async def test_a_socket_is_opened_by_known_pages_and_by_no_page(listing: Caller, path: str) -> None:
    for origin in (None, LISTED, listing.url):
        assert await connects(listing, origin, path) == 101, origin
    for origin in (FOREIGN, "null", listing.url.replace("http", "https")[:-1]):
        assert await connects(listing, origin, path) == 403, origin


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/interviews"),
        ("POST", "/api/interviews/none/end"),
        ("DELETE", "/api/interviews/none"),
        ("POST", "/api/keys"),
        ("POST", "/api/webhooks"),
        ("POST", "/v1/realtime/client_secrets"),
    ],
)
async def test_what_operators_do_is_for_no_other_page(
    listing: Caller, method: str, path: str
) -> None:
    key = {"Authorization": f"Bearer {KEY}"}
    for origin in (LISTED, FOREIGN):
        reply = await listing.request(method, path, headers={**key, "Origin": origin})
        assert (reply.status, shared_with(reply)) == (403, None)
        asked = await preflight(listing, path, origin)
        assert (asked.status, shared_with(asked)) == (401, None)
    reply = await listing.request(method, path, headers={**key, "Origin": listing.url})
    assert reply.status != 403


# -- a server that is open to all


@pytest.mark.parametrize("path", CHANGING)
async def test_an_open_server_is_for_every_page(caller: Caller, path: str) -> None:
    for origin in (FOREIGN, "null"):
        asked = await preflight(caller, path, origin)
        assert (asked.status, shared_with(asked)) == (204, "*")
        reply = await caller.post(path, headers={"Origin": origin}, json={})
        assert reply.status != 403 and shared_with(reply) == "*"
    assert await connects(caller, FOREIGN) == 101


async def test_operators_paths_of_an_open_server_are_not(caller: Caller) -> None:
    """Without a key set anybody at this machine may ask; a page that they only look at may not."""
    for path in ("/api/interviews/none/end", "/api/keys"):
        assert (await caller.post(path, headers={"Origin": FOREIGN})).status == 403
        assert (await caller.post(path, headers={"Origin": caller.url})).status in (404, 415)


async def test_without_a_key_only_a_name_of_this_machine_opens_the_operators_door(
    caller: Caller,
) -> None:
    for host, status in (
        ("localhost:8080", 404),
        ("127.0.0.1", 404),
        ("[::1]:8080", 404),
        # Sent on by a proxy, or a name that somebody made lead here.
        ("interviews.example.org", 401),
        ("localhost.evil.example", 401),
        ("127.0.0.1.evil.example", 401),
    ):
        reply = await caller.get("/api/interviews/none", headers={"Host": host})
        assert reply.status == status, host


@pytest.mark.parametrize(
    "mark",
    [
        {"X-Forwarded-For": "203.0.113.9"},
        {"X-Forwarded-Proto": "https"},
        {"Forwarded": "for=203.0.113.9"},
        {"X-Real-IP": "203.0.113.9"},
        {"Via": "1.1 proxy"},
        {"Fly-Client-IP": "203.0.113.9"},
    ],
)
async def test_without_a_key_nobody_gets_in_through_a_proxy_by_any_name(
    tmp_path: Path, mark: dict[str, str]
) -> None:
    # A proxy passes on whatever its client wrote as the host.
    home = {"Host": "localhost"}
    async with (
        serving(tmp_path, proxy_header="Fly-Client-IP") as server,
        calling(server.url) as caller,
    ):
        assert (await caller.get("/api/interviews", headers=home)).status == 200
        assert (await caller.get("/api/interviews", headers={**home, **mark})).status == 401


async def test_a_list_binds_an_open_server_too(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, allowed_origins=(LISTED,)) as server,
        calling(server.url) as caller,
    ):
        assert (await preflight(caller, CALLS, FOREIGN)).status == 403
        assert shared_with(await preflight(caller, CALLS, LISTED)) == LISTED
        assert await connects(caller, FOREIGN) == 403


async def test_a_preflight_for_nothing_is_answered_so(caller: Caller) -> None:
    for path in (CALLS + "/nothing/at/all", "/v1/nothing"):
        assert (await preflight(caller, path, FOREIGN)).status == 404
    asked = await preflight(caller, "/api/personas", FOREIGN)
    assert asked.headers["access-control-allow-methods"] == "GET"


# -- what every answer tells

EVERYWHERE = (
    *("/", "/i/some-id", "/static/review.html", "/static/app.css", "/static/none"),
    *("/health", "/healthz", "/api/personas", "/api/interviews", "/api/openapi.json"),
    *("/api/sessions/none", "/v1/none", "/none"),
)


def expected(path: str, connect: str, frames: str) -> dict[str, str | None]:
    page = path == "/" or path.startswith("/i/")
    return {
        "content-security-policy": POLICY.format(
            connect=connect, frames=frames if page else "'none'"
        ),
        "permissions-policy": "microphone=(self), camera=(), geolocation=(), display-capture=()",
        "referrer-policy": "no-referrer",
        "server": "interview_peer",
        "x-content-type-options": "nosniff",
        "cross-origin-opener-policy": "same-origin",
        "cache-control": "no-cache" if path.startswith("/static/") else "no-store",
        "strict-transport-security": None,
    }


def headers_of(reply: Reply, names: dict[str, str | None]) -> dict[str, str | None]:
    return {name: reply.headers.get(name) for name in names}


async def test_every_answer_has_exactly_the_headers_of_its_kind(
    caller: Caller, tmp_path: Path
) -> None:
    wide = "'self' http: https: ws: wss:"
    for path in EVERYWHERE:
        want = expected(path, wide, "'none'")
        assert headers_of(await caller.get(path), want) == want, path
    both = f"'self' {LISTED} wss://careers.example.org http://ats.example:81 ws://ats.example:81"
    origins = (LISTED, "http://ats.example:81")
    async with asking_for_tokens(tmp_path / "closed", allowed_origins=origins) as closed:
        for path in EVERYWHERE:
            want = expected(path, both, " ".join(origins))
            assert headers_of(await closed.get(path), want) == want, path
        # A stream's headers leave before its handler is done.
        made = await closed.post(
            "/api/interviews", json={}, headers={"Authorization": f"Bearer {KEY}"}
        )
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as http:
            url = f"{closed.url}/api/interviews/{made.json()['id']}/events"
            async with http.get(url) as stream:
                want = expected("/api", both, "'none'")
                found = {name: stream.headers.get(name) for name in want}
        assert found == want


async def test_without_a_list_the_page_of_a_server_with_tokens_talks_to_it_alone(
    tmp_path: Path,
) -> None:
    async with asking_for_tokens(tmp_path) as closed:
        want = expected("/", "'self'", "'none'")
        assert headers_of(await closed.get("/"), want) == want
        assert (await preflight(closed, CALLS, FOREIGN)).status == 403
        assert await connects(closed, FOREIGN) == 403
        assert await connects(closed, closed.url) == 101


@pytest.mark.parametrize(
    ("settings", "headers", "told"),
    [
        ({}, {}, False),
        # Anybody can write such a header.
        ({}, {"X-Forwarded-Proto": "https"}, False),
        ({"trusted_proxies": ("127.0.0.0/8",)}, {"X-Forwarded-Proto": "https"}, True),
        ({"trusted_proxies": ("127.0.0.0/8",)}, {"X-Forwarded-Proto": "http"}, False),
        ({"trusted_proxies": ("127.0.0.0/8",)}, {}, False),
        (
            {"trusted_proxies": ("127.0.0.0/8",)},
            {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"},
            True,
        ),
        ({"trusted_proxies": ("10.0.0.0/8",)}, {"X-Forwarded-Proto": "https"}, False),
        ({"public_url": "https://our.host"}, {}, True),
        ({"public_url": "http://our.host"}, {}, False),
    ],
)
async def test_browsers_are_held_to_tls_where_they_came_by_it(
    tmp_path: Path, settings: dict[str, Any], headers: dict[str, str], told: bool
) -> None:
    async with serving(tmp_path, **settings) as server, calling(server.url) as caller:
        for path in ("/", "/health", "/none"):
            reply = await caller.get(path, headers=headers)
            found = reply.headers.get("strict-transport-security")
            assert found == ("max-age=31536000" if told else None), path
