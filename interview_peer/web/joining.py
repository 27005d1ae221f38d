"""How a caller comes into an interview: found, fetched from the database, or made.

``Access`` says who may; this module turns what was admitted into an ``Interview`` and answers
offers for it, so that every way in (socket, HTTP, OpenAI's) keeps the same rules.
"""

from __future__ import annotations

from aiohttp import web
from sqlalchemy import select

from ..core.lifecycle import WAITING, Phase
from ..core.persona import Persona
from ..core.sdp import Offer, check_offer
from ..errors import (
    InterviewElsewhere,
    SessionEnded,
    SessionIdTaken,
    SessionNotFound,
    TokenExpired,
    TokenInvalid,
    TokenRequired,
)
from ..session.interview import Interview
from ..session.registry import Interviews
from ..state.database import Transaction
from ..state.parts import StateParts
from ..state.records import FINAL
from ..state.schema import interviews as table
from ..state.schema import now_us
from ..types import INVITED, Json, SessionId
from .access import Access, Admission, token_of
from .claims import Claims
from .consents import Consents, consent_of
from .limits import LIMITS
from .waiting_room import WaitingRoom


class Joining:
    """The way in, the same for every surface."""

    def __init__(
        self, access: Access, interviews: Interviews, state: StateParts, unknown: WaitingRoom
    ) -> None:
        self.access = access
        self.claims = Claims(state)
        self.consents = Consents(state)
        self.unknown = unknown
        """Connections that are open and have not shown the token that they need."""
        self._interviews = interviews
        self._state = state
        self._open_to_all = access.open_to_all

    async def admit(self, request: web.Request) -> Admission:
        """Who this request comes from. Raises as ``Access.admit``."""
        return await self.access.admit(token_of(request), request.remote)

    async def check_own(self, request: web.Request, session_id: str) -> None:
        """Whether a caller may know of a session, and act on it, without a way into it.

        An invited candidate's is for who has a token of it, used or not. Others, on a server that
        is open to all, are for whoever knows their id.

        Raises:
            TokenRequired: no token came; whether there is such a session is not told.
            TokenInvalid: it is another interview's, or none of ours.
            TokenExpired, RateLimited, StateUnavailable, KeysUnavailable: as ``Access.recognise``.
        """
        token = token_of(request)
        if token is not None:
            if await self.access.recognise(token, request.remote) != session_id:
                raise TokenInvalid
            return
        known = self._known(session_id)
        if not self._open_to_all or (known is not None and known.origin == INVITED):
            raise TokenRequired

    async def enter(
        self, admission: Admission, wanted: str | None, *, must_exist: bool = False
    ) -> Interview:
        """The interview that an admitted caller wants, made if it is not there yet.

        Args:
            wanted: an id that the caller named; a token is for one interview and needs none.
            must_exist: an open client comes back to what it knows, and makes nothing.

        Raises:
            TokenRequired: an open client wants an interview that is for invited candidates.
            TokenInvalid: the token is for another one, or for coming back to what has not begun.
            SessionNotFound, SessionEnded, InterviewElsewhere, TokenExpired: not to be had.
            InvalidSessionId, SessionIdTaken, AtCapacity: as ``Interviews.create`` and
                ``require_new``.
            StateUnavailable: the database is needed and does not answer.
        """
        if admission.interview_id is not None:
            if wanted is not None and wanted != admission.interview_id:
                raise TokenInvalid
            return await self._invited(admission)
        if wanted is None:
            return self._interviews.create()
        known = self._known(wanted)
        if known is None:
            origin = await self._origin(wanted)
            if origin == INVITED:
                raise TokenRequired
            if must_exist:
                raise SessionNotFound
            if origin is not None:
                raise SessionIdTaken
            await self._interviews.require_new(wanted)
            known = self._interviews.find_or_create(wanted)
        if known.origin == INVITED:
            raise TokenRequired
        return known

    def take_offer(self, request: web.Request, text: str) -> Offer:
        """An offer that came with a request, counted and then looked at.

        Raises as ``Limits.offer`` and ``check_offer``.
        """
        request.app[LIMITS].offer(request.remote, text)
        return check_offer(text)

    async def answer(
        self, admission: Admission, interview: Interview, offer: Offer
    ) -> tuple[str, str | None]:
        """Answer an offer; the SDP, and the resume token for coming back (None: open client).

        Raises as ``Interviews.answer_offer`` and ``Claims.take``. A token is used up when the
        candidate is connected; until then it stays good, whatever became of the answer.
        """
        token: str | None = None
        if not admission.is_open:
            if admission.claims is not None and not admission.redeemed:
                token = admission.claims.jti
            await self.consents.refresh(interview)
            await self.claims.take(interview, token)
        try:
            answer = await self._interviews.answer_offer(
                interview, offer, token, trusted=admission.trusted
            )
        except BaseException:
            if interview.phase is Phase.CREATED:
                interview.entry.give_back()
            raise
        return answer, await self.access.renew(admission, self._runs)

    async def answer_or_forget(
        self, request: web.Request, admission: Admission, interview: Interview, offer: Offer
    ) -> tuple[str, str | None]:
        """As ``answer``, for a request; a session that was only made for one that fails is
        forgotten. Raises as ``Limits.offer_for`` too."""
        try:
            request.app[LIMITS].offer_for(interview.id)
            return await self.answer(admission, interview, offer)
        except BaseException:
            if not interview.watched:
                self._interviews.forget(interview)
            raise

    def _runs(self, session_id: SessionId) -> bool:
        return self._known(session_id) is not None

    def _known(self, session_id: str) -> Interview | None:
        try:
            return self._interviews.find(session_id)
        except SessionNotFound:
            return None

    async def _origin(self, session_id: str) -> str | None:
        """Of one that this process does not know; None if there is none.

        Raises ``InterviewElsewhere`` for an open client's that another one holds.
        """

        async def look(tx: Transaction) -> tuple[str | None, bool]:
            query = select(table.c.origin, table.c.node_id).where(table.c.id == session_id)
            row = (await tx.execute(query)).one_or_none()
            if row is None:
                return None, False
            return row.origin, await self._state.is_elsewhere(tx, row.node_id)

        # No id of ours holds what PostgreSQL could not even compare.
        if not session_id.isprintable():
            return None
        origin, elsewhere = await self._state.database.run(look)
        if elsewhere and origin != INVITED:
            raise InterviewElsewhere(SessionId(session_id))
        return origin

    async def _invited(self, admission: Admission) -> Interview:
        name = admission.interview_id
        assert name is not None
        # What it has brings back into what has begun. Where that was undone, somebody comes in
        # anew, and by what is used up by it: else the join token would let in another one later.
        comes_back = admission.claims is None
        known = self._known(name)
        if known is not None and not (comes_back and known.phase in WAITING):
            await self.consents.refresh(known)
            return known

        async def look(tx: Transaction) -> Json | None:
            row = (await tx.execute(select(table).where(table.c.id == name))).one_or_none()
            return None if row is None else dict(row._mapping)

        row = await self._state.database.run(look)
        if row is None or row["deleted_at"] is not None:
            raise SessionNotFound
        if row["phase"] in FINAL:
            raise SessionEnded
        if Phase(row["phase"]) not in WAITING or (comes_back and row["claim"] is not None):
            # It runs, and not here; or it did, and nobody has noticed its end yet.
            raise InterviewElsewhere(name)
        if comes_back:
            raise TokenInvalid
        if row["expires_at"] is not None and row["expires_at"] <= now_us():
            raise TokenExpired
        try:
            await self._interviews.require_new(name)
        except SessionIdTaken:
            raise SessionEnded from None
        # Another call may have fetched it meanwhile.
        known = self._known(name)
        if known is not None:
            return known
        interview = self._interviews.create(name, asks=row["phase"] == Phase.CONSENT.value)
        interview.origin = INVITED
        interview.consent = consent_of(row)
        if row["plan"]:
            interview.persona = Persona(**row["plan"])
        limits = [(row["limits"] or {}).get("max_seconds")]
        if admission.claims is not None:
            limits.append(admission.claims.max_seconds)
        interview.max_seconds = min((one for one in limits if one is not None), default=None)
        return interview
