"""Join and resume tokens: what they say, how long they are good, what they look like.

A join token is a JWT that opens one interview; a resume token is random text that brings its
candidate back. Signing and checking signatures is ``web.access``' business, and so is keeping
what was used.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..types import Json, SessionId

AUDIENCE: Final = "interview-peer"
ISSUER: Final = "interview-peer"
"""What tokens made here name as their issuer."""

REQUIRED: Final = ("exp", "iat", "aud", "sub", "jti")
LEEWAY_SECONDS: Final = 10
LONGEST_LIFE_SECONDS: Final = 30 * 24 * 3600
"""A token that claims to be good for longer is refused: nobody would remember that it is out."""

SDK_PREFIX: Final = "ek_"
"""OpenAI's browser SDK takes keys that begin so, and no others."""
RESUME_PREFIX: Final = "ipr_"
TRUSTED_RESUME_PREFIX: Final = "ipr_trusted."
"""Of those that bring back whoever is trusted. Kept as a digest of the whole, so nobody can make
one of the other; the point is in no random part."""
ADMIN_PREFIX: Final = "ipk_"
MAX_TOKEN_LENGTH: Final = 4096

_SUBJECT: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_JWT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")


class UnusableClaims(ValueError):
    """The token's signature holds, but what it says cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class JoinClaims:
    """What a join token says, once its signature, audience and times were found good."""

    interview_id: SessionId
    jti: str
    """Unique among all tokens: by it a token is known to have been used."""
    expires_at: int
    """Unix seconds."""
    max_seconds: int | None = None
    """How long the interview may last at most, should the token say so."""
    trusted: bool = False
    """Whether its holder may configure the model's session, and see it."""


def claims_of(
    interview_id: SessionId, issued_at: int, expires_at: int, *, trusted: bool = False
) -> Json:
    """The claims of an interview's own token; times in Unix seconds.

    The same for the same interview: whoever asks once more with the same idempotency key gets the
    same token. Neither a name nor a plan is in it, for anybody can read a JWT.
    """
    claims: Json = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": interview_id,
        "jti": f"{interview_id}.1",
        "iat": issued_at,
        "nbf": issued_at,
        "exp": expires_at,
    }
    return claims | {"trusted": True} if trusted else claims


def read_claims(claims: Mapping[str, Any]) -> JoinClaims:
    """Check the claims that only we know the rules of. Raises ``UnusableClaims``."""
    subject, jti = claims.get("sub"), claims.get("jti")
    issued, expires = _number(claims, "iat"), _number(claims, "exp")
    if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject):
        raise UnusableClaims("sub is not the id of an interview")
    if not isinstance(jti, str) or not 1 <= len(jti) <= 128 or "\x00" in jti:
        raise UnusableClaims("jti is not a text of 1 to 128 characters")
    if issued is None or expires is None:
        raise UnusableClaims("iat or exp is not a number")
    if expires - issued > LONGEST_LIFE_SECONDS + LEEWAY_SECONDS:
        raise UnusableClaims("the token is good for longer than is allowed")
    longest = _number(claims, "max_seconds")
    if longest is not None and longest < 1:
        raise UnusableClaims("max_seconds is not a number of seconds")
    trusted = claims.get("trusted", False)
    if not isinstance(trusted, bool):
        raise UnusableClaims("trusted is neither true nor false")
    return JoinClaims(SessionId(subject), jti, expires, longest, trusted)


def _number(claims: Mapping[str, Any], name: str) -> int | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnusableClaims(f"{name} is not a number")
    try:
        return int(value)
    except (ValueError, OverflowError):
        raise UnusableClaims(f"{name} is not a number") from None


def given(text: str | None) -> str | None:
    """The token in what a client gave as its key, if there is one: without the SDK's prefix.

    Stock clients give keys of their own making; those open nothing and are no token.
    """
    if not text:
        return None
    token = text.strip().removeprefix(SDK_PREFIX)
    if token.startswith(RESUME_PREFIX) or _JWT.fullmatch(token):
        return token
    return None


def is_resume(token: str) -> bool:
    """Whether it is a resume token by its look."""
    return token.startswith(RESUME_PREFIX)


def is_trusted_resume(token: str) -> bool:
    """Whether it is one that brings back whoever is trusted, if it is good at all."""
    return token.startswith(TRUSTED_RESUME_PREFIX)


def new_resume_token(*, trusted: bool = False) -> str:
    """A resume token of 32 random bytes."""
    prefix = TRUSTED_RESUME_PREFIX if trusted else RESUME_PREFIX
    return prefix + secrets.token_urlsafe(32)


def new_admin_key() -> str:
    """An operator's key of 32 random bytes."""
    return ADMIN_PREFIX + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What is kept of a secret of high entropy: its sha256, in hex."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
