"""Who holds an invited interview: one node at a time, from its first offer on.

A claim is written before the first offer is answered and given back if that comes to nothing. It
is not the token that is used up by it: that happens when the candidate is connected. So whatever
is lost on the way, a request, a commit's answer or this process, the invitation stays good; but a
process that is killed, not ended, once the offer is answered leaves an interview that has begun.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
from typing import Final

from sqlalchemy import select, update

from ..core.lifecycle import Phase
from ..errors import (
    ConsentRequired,
    InterviewElsewhere,
    InterviewPeerError,
    SessionBusy,
    SessionEnded,
    SessionNotFound,
    StateUnavailable,
    TokenUsed,
)
from ..session.interview import Interview
from ..state.database import PATIENCE_SECONDS, Transaction, is_passing
from ..state.happenings import Released
from ..state.parts import StateParts
from ..state.records import FINAL
from ..state.schema import interviews, used_tokens
from ..types import SessionId

log = logging.getLogger(__name__)

PAUSE_SECONDS: Final = 0.1
CLOSE_SECONDS: Final = 5.0


class Claims:
    """Takes interviews for this node. Owns the writing, which outlives who asked for it."""

    def __init__(self, state: StateParts) -> None:
        self._state = state
        self._taking: dict[SessionId, asyncio.Task[None]] = {}

    async def take(self, interview: Interview, token: str | None) -> None:
        """Hold an interview before its first offer is answered; nothing if that was before.

        Args:
            token: the ``jti`` of the join token that is shown.

        Raises:
            SessionNotFound, SessionEnded: the interview is gone or over.
            ConsentRequired: nobody has agreed to being recorded yet.
            InterviewElsewhere: another node holds it.
            TokenUsed: somebody came in by this token.
            SessionBusy: another offer is quicker.
            StateUnavailable: that cannot be known just now.
        """
        name = interview.id
        if interview.phase is not Phase.CREATED:
            return
        if interview.entry.claim is not None or name in self._taking:
            raise SessionBusy
        claim = secrets.token_hex(16)
        task = asyncio.create_task(self._write(name, claim, token), name=f"claim {name}")
        self._taking[name] = task
        taken = False
        try:
            await asyncio.wait({task}, timeout=PATIENCE_SECONDS)
            if not task.done():
                raise StateUnavailable
            task.result()
            taken = True
            interview.entry.claim = claim
        finally:
            # Late, lost or unwanted: nobody knows what came of it, so it is given back.
            over = functools.partial(self._over, name, None if taken else claim)
            task.add_done_callback(over)

    async def close(self) -> None:
        """Wait for what is being written."""
        if self._taking:
            await asyncio.wait(self._taking.values(), timeout=CLOSE_SECONDS)

    def _over(self, name: SessionId, unwanted: str | None, task: asyncio.Task[None]) -> None:
        self._taking.pop(name, None)
        error = None if task.cancelled() else task.exception()
        if unwanted is not None and not (
            isinstance(error, InterviewPeerError) and not isinstance(error, StateUnavailable)
        ):
            self._state.chronicle.tell(Released(interview_id=name, claim=unwanted))

    async def _write(self, name: SessionId, claim: str, token: str | None) -> None:
        """Try until it is written or time is up; no try is left behind that could come late."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_SECONDS
        work = functools.partial(self._work, name=name, claim=claim, token=token)
        while True:
            try:
                return await self._state.database.once(work)
            except Exception as error:
                if not is_passing(error):
                    raise
                if loop.time() + PAUSE_SECONDS >= deadline:
                    raise StateUnavailable from error
            await asyncio.sleep(PAUSE_SECONDS)

    async def _work(
        self, tx: Transaction, *, name: SessionId, claim: str, token: str | None
    ) -> None:
        found = await tx.execute(
            select(
                interviews.c.phase,
                interviews.c.deleted_at,
                interviews.c.node_id,
                interviews.c.claim,
            )
            .where(interviews.c.id == name)
            .with_for_update()
        )
        row = found.one_or_none()
        if row is None or row.deleted_at is not None:
            raise SessionNotFound
        if row.phase in FINAL:
            raise SessionEnded
        if row.phase == Phase.CONSENT.value:
            raise ConsentRequired
        if row.phase != Phase.CREATED.value:
            raise InterviewElsewhere(name)
        if row.claim == claim:
            return
        # What this node held before is over: it is asked only where nobody negotiates.
        if await self._state.is_elsewhere(tx, row.node_id):
            raise InterviewElsewhere(name)
        if token is not None:
            used = select(used_tokens.c.jti).where(used_tokens.c.jti == token)
            if (await tx.execute(used)).first() is not None:
                raise TokenUsed
        await tx.execute(
            update(interviews)
            .where(interviews.c.id == name)
            .values(node_id=self._state.node_id, claim=claim)
        )
