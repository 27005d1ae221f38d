"""What candidates decide about being recorded: checked, written down, and told to the interview.

An invited candidate's agreement is in the database before anybody is told of it, so that it
outlives a reload, this process, and holds on every node. It uses up no token. A refusal ends the
interview as any other end does, before anything of it was begun.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, select, update

from ..core.consent import Consent, Policy
from ..core.lifecycle import WAITING, Phase, Reason
from ..errors import (
    ConsentOutdated,
    InterviewElsewhere,
    InterviewRunning,
    SessionEnded,
    SessionNotFound,
)
from ..notices.types import Notice
from ..session.interview import Interview
from ..state.database import Transaction
from ..state.parts import StateParts
from ..state.records import FINAL, agreed, consented
from ..state.schema import from_us, interviews, now_us
from ..types import INVITED, Json, SessionId


class Consents:
    """Writes agreements down, and knows those that other nodes wrote."""

    def __init__(self, state: StateParts) -> None:
        self._state = state

    async def refresh(self, interview: Interview) -> None:
        """Take note of a decision that was made on another node; nothing unless one is awaited.

        Raises:
            SessionNotFound, SessionEnded: it was erased or ended meanwhile.
            InterviewElsewhere: it has begun on another node.
            StateUnavailable: that cannot be known just now.
        """
        if interview.phase is Phase.CONSENT and interview.origin == INVITED:
            known = consent_of(await self._look(interview))
            if known is not None and interview.phase is Phase.CONSENT:
                interview.agree(known)

    async def decide(self, interview: Interview, *, agreed: bool, version: str | None) -> None:
        """The candidate agrees to the text of this version, or refuses. Again is harmless.

        Raises:
            ConsentOutdated: the interview's text is of another version.
            InterviewRunning: it has begun, so it is too late to refuse; it can be ended.
            SessionNotFound, SessionEnded: it was erased, or it is over.
            InterviewElsewhere: it has begun on another node.
            StateUnavailable: nothing was decided, or it is not known; repeating it is safe.
        """
        interview.touch()
        if interview.phase not in WAITING:
            if interview.reason is not None:
                raise SessionEnded
            if not agreed:
                raise InterviewRunning("The interview has begun. Disconnect to end it.")
            return
        if not agreed:
            await self.check_unused(interview)
            interview.end_soon(Reason.CONSENT_REFUSED)
            return
        await self.refresh(interview)
        if interview.phase is not Phase.CONSENT:
            return
        persona = interview.persona
        if version != persona.consent_version:
            raise ConsentOutdated
        # As the columns hold it: what is told at once is what is told after a restart.
        given = Consent.to(persona.consent_text, persona.consent_version, datetime.now(UTC))
        if interview.origin == INVITED:
            given = await self._write(interview, given)
        if interview.phase is Phase.CONSENT:
            interview.agree(given)

    async def check_unused(self, interview: Interview) -> None:
        """Let somebody end here what waits here; nothing unless it is an invitation. Of one that
        has begun on another node, this one would tell an end that is none.

        Raises:
            SessionNotFound, SessionEnded: it was erased or ended meanwhile.
            InterviewElsewhere: it has begun on another node.
            StateUnavailable: that cannot be known just now.
        """
        if interview.phase not in WAITING or interview.origin != INVITED:
            return
        name = interview.id

        async def look(tx: Transaction) -> tuple[Row[Any] | None, bool]:
            query = select(interviews).where(interviews.c.id == name)
            row = (await tx.execute(query)).one_or_none()
            return row, row is not None and await self._state.is_elsewhere(tx, row.node_id)

        row, elsewhere = await self._state.database.run(look)
        if interview.phase not in WAITING:
            # It has begun meanwhile, and here.
            return
        # Nor of one whose node is gone, which is recovered.
        if Phase(_check_open(interview, row).phase) not in WAITING or elsewhere:
            raise InterviewElsewhere

    async def _look(self, interview: Interview) -> Mapping[Any, Any]:
        """The interview's row, if it can still be decided about."""
        name = interview.id

        async def look(tx: Transaction) -> Row[Any] | None:
            query = select(interviews).where(interviews.c.id == name)
            return (await tx.execute(query)).one_or_none()

        return _checked(interview, await self._state.database.run(look))

    async def _write(self, interview: Interview, given: Consent) -> Consent:
        name = interview.id

        async def work(tx: Transaction) -> Row[Any] | Consent | None:
            query = select(interviews).where(interviews.c.id == name).with_for_update()
            row = (await tx.execute(query)).one_or_none()
            if row is None or row.phase != Phase.CONSENT.value or row.deleted_at is not None:
                return row
            changes = {"phase": Phase.CREATED.value, **agreed(given)}
            await tx.execute(update(interviews).where(interviews.c.id == name).values(**changes))
            fact = consented(given, row.candidate_reference, row.metadata)
            await self._state.outbox.write(tx, Notice(SessionId(name), fact, given.at), now_us())
            return given

        found = await self._state.database.run(work)
        if isinstance(found, Consent):
            self._state.chronicle.wake()
            return found
        # The same was said elsewhere at the same time, and stays.
        return consent_of(_checked(interview, found)) or given


def _checked(interview: Interview, row: Row[Any] | None) -> Mapping[Any, Any]:
    """The row of an interview that has not begun; one that ended elsewhere ends here too."""
    row = _check_open(interview, row)
    if Phase(row.phase) not in WAITING or (row.claim is not None and interview.entry.claim is None):
        raise InterviewElsewhere
    return row._mapping


def _check_open(interview: Interview, row: Row[Any] | None) -> Row[Any]:
    """The row of an interview that is not over; one that ended elsewhere ends here too."""
    if row is None or row.deleted_at is not None:
        raise SessionNotFound
    if row.phase in FINAL:
        interview.end_soon(Reason(row.reason) if row.reason else Reason.INTERNAL)
        raise SessionEnded
    return row


def consent_of(row: Mapping[Any, Any]) -> Consent | None:
    """The agreement that a row of the interviews holds."""
    if row["consent_at"] is None:
        return None
    by_candidate = row["consent"] == Policy.REQUIRED.value
    return Consent(
        from_us(row["consent_at"]),
        "candidate" if by_candidate else "integrator",
        row["consent_version"],
        row["consent_sha256"],
    )


def status(interview: Interview) -> Json:
    """What is to be agreed to, and what was."""
    given = None if interview.consent is None else interview.consent.told()
    return {
        "sessionId": interview.id,
        "required": interview.phase is Phase.CONSENT,
        "agreed": given is not None,
        "at": None if given is None else given["at"],
        "version": interview.persona.consent_version,
        "text": interview.persona.consent_text,
    }
