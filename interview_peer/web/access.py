"""Who may do what: candidates by their tokens, operators by their keys.

The one place where a token or a key is looked at. ``Access.admit`` says who may join an interview,
wherever something is handed out to candidates; ``Access.check_operator`` says who may use the
API. What an admitted caller gets is decided by ``web.joining``.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

import jwt
from aiohttp import web
from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from ..core import scopes, tokens
from ..core.acts import ENVIRONMENT, KEYLESS, Actor
from ..core.allowance import Allowance, caller_of
from ..core.proxies import MARKS
from ..core.scopes import Scopes
from ..core.tokens import JoinClaims, digest
from ..errors import (
    InsufficientScope,
    InterviewPeerError,
    RateLimited,
    StateUnavailable,
    TokenExpired,
    TokenInvalid,
    TokenRequired,
    TokenUsed,
    Unauthorized,
)
from ..settings import Settings, is_loopback
from ..state.database import Database, Transaction
from ..state.schema import admin_keys, now_us, resume_tokens, used_tokens
from ..types import SessionId
from .jwks import ALGORITHMS, Jwks

log = logging.getLogger(__name__)

T = TypeVar("T")

HS256: Final = "HS256"
FAILURES_PER_SECOND: Final = 10 / 60
FAILURES_AT_ONCE: Final = 10
"""Refused tokens and keys of one address, before it is told to wait."""
GRANTED: Final = web.RequestKey("granted", frozenset)
"""The scopes of the key that came with a request, as ``core.scopes`` has them."""
OPERATOR: Final = web.RequestKey("operator", Actor)
"""Whose key it was."""
KEY_ID_LENGTH: Final = 16
"""Of a key's digest, as the key's id: enough to name it, and nothing that opens anything."""
LAST_USE_SECONDS: Final = 60.0
"""How exactly it is kept when a key was last used."""
RENEW_SECONDS: Final = 1.0
"""How long the answer to an offer waits until its resume token is written down: whoever comes back
has but a few seconds."""


@dataclass(slots=True)
class Admission:
    """What a caller may join: one interview by a token, or, as an open client, those of no one."""

    interview_id: SessionId | None = None
    claims: JoinClaims | None = None
    """Of a join token that has not let in anybody yet."""
    resume: str | None = None
    """Digest of the resume token it was given."""
    redeemed: bool = False
    """Whether an offer was answered on the strength of it."""
    trusted: bool = False
    """Whether the token says that its holder may configure the model's session."""

    @property
    def is_open(self) -> bool:
        """Whether it is that of an open client, who has no token."""
        return self.interview_id is None


def expiry(row: Row[Any]) -> int:
    """When an interview's invitation ends, in Unix seconds: not before the row's own moment."""
    return int(-(-row.expires_at // 1_000_000))


@dataclass(frozen=True, slots=True)
class _Grant:
    """Whose key it is, and what it opens: said when it is made, and so for ever."""

    actor: Actor
    scopes: Scopes


@dataclass(frozen=True, slots=True)
class _Key:
    """An operator's key that was found in the database."""

    grant: _Grant
    noted: float
    """When its use was noted, on the monotonic clock."""


class Access:
    """Tokens and keys of one server."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        is_used: Callable[[SessionId, str], bool] = lambda session_id, token: False,
    ) -> None:
        """``is_used`` tells of tokens whose use may not be written down yet."""
        self._settings = settings
        self._database = database
        self._is_used = is_used
        self._jwks = Jwks(settings.jwks_url) if settings.jwks_url else None
        self._secret = settings.join_secret.get_secret_value() if settings.join_secret else None
        if self._secret is None and self._jwks is None and settings.open_to_all:
            # Invitations can be tried out without any setting; they are good until the restart.
            self._secret = secrets.token_urlsafe(32)
        self._resumes: dict[str, SessionId] = {}
        self._failures = Allowance(FAILURES_PER_SECOND, FAILURES_AT_ONCE)
        self._keys: dict[str, _Key] = {}
        """Keys of the database that were good, by digest."""
        self._asking = WeakValueDictionary[str, asyncio.Lock]()

    # -- candidates -----------------------------------------------------------------------------

    @property
    def open_to_all(self) -> bool:
        """Whether candidates need no token for interviews that are nobody's."""
        return self._settings.open_to_all

    @property
    def mints(self) -> bool:
        """Whether this server signs tokens itself."""
        return self._secret is not None

    def mint(
        self, interview_id: SessionId, issued_at: int, expires_at: int, *, trusted: bool = False
    ) -> str | None:
        """The token that opens this interview; nothing where only others issue tokens.

        Times in Unix seconds. The same arguments give the same token.
        """
        if self._secret is None:
            return None
        claims = tokens.claims_of(interview_id, issued_at, expires_at, trusted=trusted)
        return jwt.encode(claims, self._secret, algorithm=HS256)

    def invitation(self, row: Row[Any]) -> str | None:
        """The token of an interview by its row: ``mint`` with what the row says."""
        return self.mint(
            SessionId(row.id),
            row.created_at // 1_000_000,
            expiry(row),
            trusted=bool((row.plan or {}).get("gate_trusted")),
        )

    async def admit(self, token: str | None, address: str | None) -> Admission:
        """Who may join: the one question, asked wherever something is handed out to candidates.

        Args:
            token: as ``tokens.given`` or a client's ``init`` had it; None is an open client.
            address: of the caller; one that is refused too often has to wait.

        Raises:
            TokenRequired: there is no token, and this server is not open to all.
            TokenInvalid, TokenExpired, TokenUsed: the token does not let in.
            RateLimited: this address was refused too often.
            StateUnavailable, KeysUnavailable: the token cannot be checked just now.
        """
        if token is None:
            if self._settings.open_to_all:
                return Admission()
            raise TokenRequired
        if tokens.is_resume(token):
            return await self._admit_back(token, address)
        try:
            claims = await self._verify(token)
            if self._is_used(claims.interview_id, claims.jti) or await self._used(claims.jti):
                raise TokenUsed
            return Admission(claims.interview_id, claims, trusted=claims.trusted)
        except Unauthorized as refused:
            raise self._limited(refused, address) from None

    async def recognise(self, token: str, address: str | None) -> SessionId:
        """The interview a token belongs to, though it may have been used. Raises as ``admit``."""
        if tokens.is_resume(token):
            return (await self._admit_back(token, address)).interview_id or SessionId("")
        try:
            return (await self._verify(token)).interview_id
        except Unauthorized as refused:
            raise self._limited(refused, address) from None

    async def renew(
        self, admission: Admission, is_known: Callable[[SessionId], bool]
    ) -> str | None:
        """A new resume token, once an offer was answered; nothing for an open client.

        The one that was used stays good until the new one is: its answer may be lost on the way.
        Older ones open nothing any more. ``is_known`` tells interviews that still run.
        """
        name = admission.interview_id
        if name is None:
            return None
        admission.redeemed = True
        token = tokens.new_resume_token(trusted=admission.trusted)
        kept = {admission.resume} if admission.resume else set()
        self._resumes = {
            key: owner
            for key, owner in self._resumes.items()
            if (owner != name or key in kept) and is_known(owner)
        }
        admission.resume = digest(token)
        self._resumes[admission.resume] = name
        row = {"hash": admission.resume, "interview_id": name, "at": now_us()}

        async def work(tx: Transaction) -> None:
            await tx.execute(
                delete(resume_tokens).where(
                    resume_tokens.c.interview_id == name,
                    resume_tokens.c.hash.not_in([*kept, row["hash"]]),
                )
            )
            await tx.execute(insert(resume_tokens).values(**row))

        try:
            await self._database.run(work, patience=RENEW_SECONDS)
        except (StateUnavailable, IntegrityError):
            # Memory knows it, which is where the interview is; it goes on without the database.
            log.warning("a resume token is not written down", extra={"session": name})
        return token

    async def _admit_back(self, token: str, address: str | None) -> Admission:
        key = digest(token)
        name = self._resumes.get(key)
        if name is None:

            async def look(tx: Transaction) -> str | None:
                query = select(resume_tokens.c.interview_id).where(resume_tokens.c.hash == key)
                return (await tx.execute(query)).scalar_one_or_none()

            known = await self._look_up(address, lambda: self._database.run(look))
            if known is None:
                raise TokenInvalid
            name = SessionId(known)
        return Admission(name, resume=key, trusted=tokens.is_trusted_resume(token))

    async def _verify(self, token: str) -> JoinClaims:
        """Check signature, audience and times. Which key is decided by the algorithm alone."""
        if len(token) > tokens.MAX_TOKEN_LENGTH:
            raise TokenInvalid
        try:
            header = jwt.get_unverified_header(token)
            algorithm, key_id = str(header.get("alg")), header.get("kid")
            key: Any = None
            issuer = tokens.ISSUER
            if algorithm == HS256:
                key = self._secret
            elif algorithm in ALGORITHMS and self._jwks is not None:
                key = await self._jwks.find(key_id, algorithm)
                issuer = self._settings.jwks_issuer or ""
            if key is None:
                raise TokenInvalid
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=tokens.AUDIENCE,
                issuer=issuer or None,
                leeway=tokens.LEEWAY_SECONDS,
                options={"require": list(tokens.REQUIRED)},
            )
            return tokens.read_claims(claims)
        except jwt.ExpiredSignatureError:
            raise TokenExpired from None
        except (jwt.PyJWTError, tokens.UnusableClaims, ValueError, TypeError, RecursionError):
            raise TokenInvalid from None

    async def _used(self, jti: str) -> bool:
        async def look(tx: Transaction) -> bool:
            query = select(used_tokens.c.at).where(used_tokens.c.jti == jti)
            return (await tx.execute(query)).first() is not None

        return await self._database.run(look)

    # -- operators ------------------------------------------------------------------------------

    async def check_operator(self, request: web.Request) -> None:
        """Let only operators through: by the setting's key, or by one kept in the database that
        has a scope which the request's path asks for.

        Where no key is set, a simulation on loopback asks nobody who calls it by such a name and
        through no proxy. Whose key it is stands in the request then, as ``OPERATOR``, though its
        scopes may not suffice.

        Raises:
            Unauthorized: the key is missing, wrong or revoked.
            InsufficientScope: it is good, but not for this.
            RateLimited: this address was refused too often.
            StateUnavailable: that cannot be known just now.
        """
        grant = await self._granted(request)
        request[OPERATOR], request[GRANTED] = grant.actor, grant.scopes
        route = request.match_info.route
        # Where there is no such path, or not with this method, nothing is opened.
        if route.resource is not None:
            wanted = scopes.needed(route.method, route.resource.canonical)
            if not scopes.opens(grant.scopes, wanted):
                named = " or ".join(scopes.listed(wanted))
                raise InsufficientScope(f"This key may not do this: it needs the scope {named}.")

    async def is_operators(self, request: web.Request) -> bool:
        """Whether a request brings a good key, for what candidates may do as well.

        Refuses nothing: a wrong one, which counts as any, is told by whoever asks for a key.
        """
        key = bearer(request)
        if key is None:
            return False
        if self._is_settings_key(key):
            return True
        if not key.startswith(tokens.ADMIN_PREFIX):
            return False
        try:
            if digest(key) not in self._keys:
                await self._kept(digest(key), request.remote)
        except InterviewPeerError:
            return False
        return True

    def _is_settings_key(self, key: str) -> bool:
        setting = self._settings.admin_key
        return setting is not None and hmac.compare_digest(
            key.encode("utf-8", "replace"), setting.get_secret_value().encode()
        )

    async def _granted(self, request: web.Request) -> _Grant:
        """Whose the key of a request is. Raises as ``check_operator``."""
        settings = self._settings
        keyless = settings.admin_key is None and settings.simulation and settings.on_loopback
        # Under another name it was sent on by a proxy, or by a page of that name whose address was
        # made to lead here: neither is somebody at this machine. A proxy passes on any name.
        if keyless and is_loopback(request.url.host or "") and not _passed_on(request, settings):
            return _Grant(KEYLESS, scopes.EVERYTHING)
        key = bearer(request)
        if key is None:
            if settings.admin_key is None:
                raise Unauthorized("Set INTERVIEW_ADMIN_KEY on the server to use this path.")
            raise Unauthorized
        if self._is_settings_key(key):
            return _Grant(ENVIRONMENT, scopes.EVERYTHING)
        if not key.startswith(tokens.ADMIN_PREFIX):
            raise self._limited(Unauthorized(), request.remote)
        return await self._kept(digest(key), request.remote)

    async def _kept(self, key: str, address: str | None) -> _Grant:
        """Whose a key of the database is. Raises as ``check_operator``."""
        if key in self._keys:
            found = await self._find_key(key)
            if found is not None:
                return found
            # It was revoked.
            self._keys.pop(key, None)
            raise self._limited(Unauthorized(), address)
        # Requests that come at once with one key are one question, not one for each of them.
        async with self._asking.setdefault(key, asyncio.Lock()):
            just_found = self._keys.get(key)
            if just_found is not None:
                return just_found.grant
            found = await self._look_up(address, lambda: self._find_key(key))
        if found is None:
            raise Unauthorized
        return found

    async def _look_up(
        self, address: str | None, look: Callable[[], Awaitable[T | None]]
    ) -> T | None:
        """Ask the database about a secret that was shown, and that this process does not know.

        It counts as a refusal of the address before it is looked for, until it is found: whoever
        shows one wrong secret after the other keeps the database busy for a moment only.

        Raises:
            RateLimited: this address was refused too often.
        """
        caller = caller_of(address)
        if not self._failures.take(caller, time.monotonic()):
            raise RateLimited
        try:
            found = await look()
        except BaseException:
            # Nobody knows whether it was wrong.
            self._failures.give_back(caller)
            raise
        if found is not None:
            self._failures.give_back(caller)
        return found

    async def _find_key(self, key: str) -> _Grant | None:
        """Whose a key is, by its digest; None if there is none, or no more."""
        now = time.monotonic()
        known = self._keys.get(key)
        note = known is None or now - known.noted >= LAST_USE_SECONDS

        async def look(tx: Transaction) -> Any:
            found = await tx.execute(
                select(admin_keys.c.name, admin_keys.c.scopes).where(
                    admin_keys.c.hash == key, admin_keys.c.revoked_at.is_(None)
                )
            )
            kept = found.one_or_none()
            if kept is not None and note:
                await tx.execute(
                    update(admin_keys).where(admin_keys.c.hash == key).values(last_used_at=now_us())
                )
            return kept

        kept = await self._database.run(look)
        if kept is None:
            return None
        grant = _Grant(Actor(key[:KEY_ID_LENGTH], kept.name), scopes.read(kept.scopes))
        if note:
            self._keys[key] = _Key(grant, now)
        return grant

    def _limited(self, refused: InterviewPeerError, address: str | None) -> InterviewPeerError:
        """The refusal, or that this address has had too many of them."""
        allowed = self._failures.take(caller_of(address), time.monotonic())
        return refused if allowed else RateLimited()


def _passed_on(request: web.Request, settings: Settings) -> bool:
    """Whether a proxy sent the request on."""
    return any(name in request.headers for name in (*MARKS, settings.proxy_header))


def bearer(request: web.Request) -> str | None:
    """The key in ``Authorization: Bearer …``, if there is one."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None


def token_of(request: web.Request) -> str | None:
    """The join or resume token that came with a request's headers; never from its address."""
    return tokens.given(bearer(request))
