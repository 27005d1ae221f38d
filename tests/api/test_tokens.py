"""Which tokens are taken: signature, algorithm, audience, times and claims."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from interview_peer.core import tokens
from interview_peer.core.tokens import UnusableClaims, claims_of, read_claims
from interview_peer.errors import (
    InterviewPeerError,
    KeysUnavailable,
    RateLimited,
    TokenExpired,
    TokenInvalid,
    TokenRequired,
)
from interview_peer.settings import Settings
from interview_peer.state import migrate
from interview_peer.state.database import Database
from interview_peer.types import Json, SessionId
from interview_peer.web import access as access_module
from interview_peer.web.access import Access, Admission

SECRET = "a-join-secret-of-more-than-32-characters"
NAME = SessionId("interview-1")
NOW = int(time.time())
"""When the tests were collected: what shall still be good when they run is good for a day."""
DAY = 86400
CLAIMS: Json = {
    "iss": "interview-peer",
    "aud": "interview-peer",
    "sub": NAME,
    "jti": "t-1",
    "iat": NOW,
    "exp": NOW + DAY,
}
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def settings(**changes: Any) -> Settings:
    live: Json = {"openai_api_key": "sk-1", "join_secret": SECRET}
    return Settings(**{**live, **changes})


@pytest.fixture
async def one_database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(None, tmp_path)
    await migrate.upgrade(opened)
    yield opened
    await opened.close()


@pytest.fixture
def access(one_database: Database) -> Access:
    return Access(settings(), one_database)


def signed(key: Any = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    claims = {k: v for k, v in {**CLAIMS, **changes}.items() if v is not None}
    return jwt.encode(claims, key, algorithm=algorithm)


async def refusal(access: Access, token: str | None) -> type[InterviewPeerError]:
    with pytest.raises(InterviewPeerError) as refused:
        await access.admit(token, None)
    return type(refused.value)


def unsigned(header: Json) -> str:
    parts = (json.dumps(part).encode() for part in (header, CLAIMS))
    text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    return f"{text.decode()}."


async def test_a_good_token_lets_into_its_interview(access: Access) -> None:
    admission = await access.admit(signed(max_seconds=60), None)
    assert admission.interview_id == NAME
    assert admission.claims is not None and admission.claims.max_seconds == 60
    assert not admission.is_open


async def test_what_is_minted_is_taken_and_is_the_same_each_time(access: Access) -> None:
    token = access.mint(NAME, NOW, NOW + DAY)
    assert token is not None and token == access.mint(NAME, NOW, NOW + DAY)
    assert (await access.admit(token, None)).interview_id == NAME


@pytest.mark.parametrize(
    "token",
    [
        signed(key="another-secret-of-more-than-32-characters"),
        signed(key=SECRET.ljust(64, "x"), algorithm="HS512"),
        signed(algorithm="HS384", key=SECRET.ljust(48, "x")),
        unsigned({"alg": "none"}),
        unsigned({"alg": "None", "typ": "JWT"}),
        unsigned({"alg": "HS256"}),
        unsigned({"alg": ["HS256"]}),
        unsigned({}),
        signed(key=EC_KEY, algorithm="ES256"),
        signed(aud="somebody-else"),
        signed(aud=None),
        signed(iss="somebody-else"),
        signed(sub=None),
        signed(sub="../etc"),
        signed(jti=None),
        signed(jti="x" * 129),
        signed(iat=None),
        signed(exp=None),
        signed(iat=NOW + 2 * DAY, exp=NOW + 3 * DAY),
        signed(nbf=NOW + DAY // 2),
        signed(exp=NOW + 31 * DAY),
        signed(max_seconds="all"),
        signed(max_seconds=0),
        signed() + "x",
        signed(more="x" * 5000),
        "not.a.token",
        "..",
        "ipr_unknown",
    ],
)
async def test_a_token_with_anything_wrong_is_invalid(access: Access, token: str) -> None:
    assert await refusal(access, token) is TokenInvalid


async def test_a_token_is_good_until_its_time_and_a_little(access: Access) -> None:
    old = NOW - 3600
    assert await refusal(access, signed(iat=old, exp=NOW - 60)) is TokenExpired
    assert (await access.admit(signed(iat=old, exp=int(time.time()) - 2), None)).claims


async def test_without_a_token_only_an_open_server_lets_in(
    access: Access, one_database: Database
) -> None:
    assert await refusal(access, None) is TokenRequired
    for changes in ({"allow_anonymous": True}, {"simulation": True}):
        admission = await Access(settings(**changes), one_database).admit(None, None)
        assert admission.is_open


async def test_a_bad_token_is_refused_where_none_would_be_needed(one_database: Database) -> None:
    access = Access(settings(allow_anonymous=True), one_database)
    assert await refusal(access, signed(aud="x")) is TokenInvalid


async def test_an_open_server_without_a_secret_makes_one_that_nobody_shares(
    one_database: Database,
) -> None:
    first, second = (
        Access(settings(join_secret=None, simulation=True), one_database) for _ in range(2)
    )
    token = first.mint(NAME, NOW, NOW + DAY)
    assert (await first.admit(token, None)).interview_id == NAME
    assert await refusal(second, token) is TokenInvalid


async def test_an_address_that_is_refused_too_often_has_to_wait(access: Access) -> None:
    kinds = []
    for _ in range(access_module.FAILURES_AT_ONCE + 1):
        with pytest.raises(InterviewPeerError) as refused:
            await access.admit("a.b.c", "192.0.2.1")
        kinds.append(type(refused.value))
    assert kinds[:-1] == [TokenInvalid] * access_module.FAILURES_AT_ONCE
    assert kinds[-1] is RateLimited
    assert (await access.admit(signed(), "192.0.2.1")).interview_id == NAME


async def test_coming_back_does_not_wait_for_a_database_that_is_away(tmp_path: Path) -> None:
    database = await Database.open("postgresql://u:p@127.0.0.1:1/none", tmp_path)
    access = Access(settings(), database)
    async with asyncio.timeout(3):
        token = await access.renew(Admission(NAME), lambda name: True)
        # The interview is in memory, and so is what brings back to it.
        assert (await access.admit(token, None)).interview_id == NAME
    await database.close()


# -- an identity provider


class Provider:
    """Serves a key set, or not."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: list[Json] = []
        self.status = 200
        self.asked = 0

    async def serve(self, request: web.Request) -> web.Response:
        self.asked += 1
        return web.json_response({"keys": self.keys}, status=self.status)

    def add(self, key: Any, kid: str, **more: Any) -> None:
        kind = jwt.algorithms.RSAAlgorithm if hasattr(key, "p") or key is RSA_KEY else None
        algorithm = kind or jwt.algorithms.ECAlgorithm
        public = json.loads(algorithm.to_jwk(key.public_key()))
        self.keys.append({**public, "kid": kid, **more})


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    made = Provider()
    made.add(RSA_KEY, "r", alg="RS256", use="sig")
    made.add(EC_KEY, "e")
    made.keys.append({"kty": "oct", "k": base64.urlsafe_b64encode(b"x" * 32).decode(), "kid": "o"})
    made.keys.append({"kty": "odd", "kid": "?"})
    app = web.Application()
    app.router.add_get("/jwks.json", made.serve)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    made.url = str(server.make_url("/jwks.json"))
    yield made
    await server.close()


def by_provider(key: Any, algorithm: str, kid: str | None, **changes: Any) -> str:
    claims = {**CLAIMS, "iss": "https://id.example.org", **changes}
    return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": kid} if kid else None)


@pytest.fixture
def federated(provider: Provider, one_database: Database) -> Access:
    changes = {"jwks_url": provider.url, "jwks_issuer": "https://id.example.org"}
    return Access(settings(**changes), one_database)


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"), [(RSA_KEY, "RS256", "r"), (EC_KEY, "ES256", "e")]
)
async def test_a_providers_token_is_taken_beside_our_own(
    federated: Access, key: Any, algorithm: str, kid: str
) -> None:
    assert (await federated.admit(by_provider(key, algorithm, kid), None)).interview_id == NAME
    assert (await federated.admit(signed(), None)).interview_id == NAME


async def test_a_providers_token_needs_its_own_key_algorithm_and_issuer(federated: Access) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    for token in (
        by_provider(other, "ES256", "e"),
        by_provider(EC_KEY, "ES256", "r"),
        by_provider(RSA_KEY, "RS512", "r"),
        by_provider(RSA_KEY, "PS256", "r"),
        by_provider(EC_KEY, "ES256", "unknown"),
        by_provider(EC_KEY, "ES256", None),
        by_provider(EC_KEY, "ES256", "e", iss="https://evil.example.org"),
        by_provider("x" * 32, "HS256", "o"),
        by_provider(SECRET, "HS256", None),
    ):
        assert await refusal(federated, token) is TokenInvalid


async def test_keys_are_fetched_once_and_unknown_ids_cost_nothing(
    federated: Access, provider: Provider
) -> None:
    for kid in ("e", "e", "x", "y", "z"):
        token = by_provider(EC_KEY, "ES256", kid)
        if kid == "e":
            await federated.admit(token, None)
        else:
            assert await refusal(federated, token) is TokenInvalid
    assert provider.asked == 1


async def test_a_provider_that_cannot_be_reached_is_no_fault_of_the_token(
    federated: Access, provider: Provider
) -> None:
    provider.status = 500
    token = by_provider(EC_KEY, "ES256", "e")
    assert await refusal(federated, token) is KeysUnavailable
    assert (await federated.admit(signed(), None)).interview_id == NAME


async def test_without_a_secret_of_ours_nothing_is_minted(
    provider: Provider, one_database: Database
) -> None:
    access = Access(settings(join_secret=None, jwks_url=provider.url), one_database)
    assert access.mint(NAME, NOW, NOW + DAY) is None
    assert await refusal(access, signed(key="x" * 32)) is TokenInvalid
    assert (await access.admit(by_provider(EC_KEY, "ES256", "e"), None)).interview_id == NAME


# -- rules


def test_claims_that_are_made_are_read() -> None:
    claims = read_claims(claims_of(NAME, NOW, NOW + 60))
    assert (claims.interview_id, claims.expires_at, claims.max_seconds) == (NAME, NOW + 60, None)


def test_claims_hold_nothing_but_what_is_needed() -> None:
    assert set(claims_of(NAME, NOW, NOW)) == {"iss", "aud", "sub", "jti", "iat", "nbf", "exp"}


def test_trust_is_a_claim_of_its_own_and_nothing_but_true_or_false() -> None:
    assert not read_claims(claims_of(NAME, NOW, NOW + 60)).trusted
    assert read_claims(claims_of(NAME, NOW, NOW + 60, trusted=True)).trusted
    assert not read_claims({**CLAIMS, "trusted": False}).trusted


@pytest.mark.parametrize("odd", ["true", 1, None, []])
def test_trust_that_is_neither_true_nor_false_is_refused(odd: object) -> None:
    with pytest.raises(UnusableClaims):
        read_claims({**CLAIMS, "trusted": odd})


def test_a_resume_token_says_whom_it_brings_back() -> None:
    plain, trusted = (tokens.new_resume_token(trusted=one) for one in (False, True))
    assert tokens.is_resume(plain) and tokens.is_resume(trusted)
    assert tokens.is_trusted_resume(trusted) and not tokens.is_trusted_resume(plain)


@pytest.mark.parametrize("value", [True, "1", [], float("inf")])
def test_times_that_are_no_numbers_are_refused(value: object) -> None:
    with pytest.raises(UnusableClaims):
        read_claims({**CLAIMS, "exp": value})


@pytest.mark.parametrize(
    ("text", "token"),
    [
        (None, None),
        ("", None),
        ("sk-anything", None),
        ("ek_anything", None),
        ("held-by-server", None),
        ("a.b.c", "a.b.c"),
        ("ek_a.b.c", "a.b.c"),
        (" ek_a.b. ", "a.b."),
        ("ipr_x", "ipr_x"),
        ("ek_ipr_x", "ipr_x"),
        ("a.b.c.d", None),
    ],
)
def test_keys_of_stock_clients_are_no_tokens(text: str | None, token: str | None) -> None:
    assert tokens.given(text) == token
