"""All interviews of this process: found by id, started, forgotten in time, ended at shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from typing import Final

from ..core.consent import Policy, Requirement, policy
from ..core.lifecycle import WAITING, Phase, Reason
from ..core.sdp import Offer
from ..errors import AtCapacity, Draining, ManifestDamaged, SessionIdTaken, SessionNotFound
from ..personas import Personas
from ..storage.finished import read_manifest
from ..storage.folder import InterviewFolder
from ..types import INVITED, Json, SessionId
from .interview import Interview
from .openings import Openings
from .surroundings import Surroundings

log = logging.getLogger(__name__)

SWEEP_SECONDS: Final = 1.0
FOLDER_SECONDS: Final = 1.0
"""How long a new session waits for the disk to say whether there was one of its name."""
RECORDS_PER_INTERVIEW: Final = 20
"""Records kept for each interview that may run: greeted, ended and abandoned sessions."""

_RUNNING: Final = frozenset({Phase.CONNECTING, Phase.LIVE, Phase.DETACHED, Phase.ENDING})


class Interviews:
    """The sessions this process knows.

    A session is created by being asked for, becomes an interview by its first offer, and is kept
    for a while after its end so that it can be asked about.
    """

    def __init__(
        self,
        around: Surroundings,
        personas: Personas,
        *,
        idle_seconds: float,
        keep_seconds: float,
        openings: Openings,
        require_consent: Requirement = "auto",
    ) -> None:
        """``require_consent`` says whether those who make a session must agree to being recorded;
        of invited ones that is fixed with the invitation."""
        self.personas = personas
        self._around = around
        self._idle_seconds = idle_seconds
        self._keep_seconds = keep_seconds
        self._openings = openings
        self._require_consent = require_consent
        self._interviews: dict[SessionId, Interview] = {}
        self._unwatched_since: dict[SessionId, float] = {}
        self._sweeper: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._interviews)

    def settle(self) -> None:
        """Bring the meters of all interviews up to date."""
        for interview in self._interviews.values():
            interview.settle()

    def start(self) -> None:
        """Begin forgetting what is idle, abandoned or long over."""
        self._sweeper = asyncio.create_task(self._sweep(), name="sweep interviews")

    def create(self, session_id: str | None = None, *, asks: bool | None = None) -> Interview:
        """Make a session; without an id one is made up.

        ``asks`` says whether the candidate must agree to being recorded first; None is what the
        server asks of open clients.

        Raises:
            InvalidSessionId: the id is no name.
            SessionIdTaken: a session of that id is known; of older ones ``require_new`` tells.
            AtCapacity: too many sessions are known.
            Draining: nothing is to begin here any more.
        """
        if self._openings.draining:
            raise Draining
        if self.crowded:
            raise AtCapacity
        name = SessionId(session_id or str(uuid.uuid4()))
        # Refuses what is no name; the disk is not asked.
        InterviewFolder(self._around.data_dir, name)
        if name in self._interviews:
            raise SessionIdTaken
        interview = Interview(name, self.personas.default, self._around)
        if asks is None:
            asks = policy(self._require_consent, invited=False) is Policy.REQUIRED
        if asks:
            interview.ask_consent()
        self._interviews[name] = interview
        return interview

    async def require_new(self, session_id: str) -> None:
        """Refuse an id of which an interview took place, by its folder.

        A disk that does not answer keeps nobody out: it costs the recording at most.

        Raises:
            InvalidSessionId: the id is no name.
            SessionIdTaken: there is a folder.
        """
        folder = InterviewFolder(self._around.data_dir, SessionId(session_id))
        if self._openings.disk_unusable:
            return
        with contextlib.suppress(OSError):  # TimeoutError is one.
            async with asyncio.timeout(FOLDER_SECONDS):
                if await self._around.storage.run(folder.exists):
                    raise SessionIdTaken

    def find(self, session_id: str) -> Interview:
        """The session of that id.

        Raises:
            SessionNotFound: there is none, or it was forgotten.
        """
        interview = self._interviews.get(SessionId(session_id))
        if interview is None:
            raise SessionNotFound
        return interview

    def find_or_create(self, session_id: str | None) -> Interview:
        """The session of that id, made now if it is new. Raises as ``create`` does."""
        known = self._interviews.get(SessionId(session_id)) if session_id else None
        return known or self.create(session_id)

    def forget(self, interview: Interview) -> None:
        """Drop a session that was greeted and never used."""
        if interview.phase in WAITING:
            interview.feed.end(None)
            self._interviews.pop(interview.id, None)
            self._unwatched_since.pop(interview.id, None)

    def drop(self, session_id: str) -> None:
        """Forget a session that is over, with all that is remembered of it; others stay."""
        name = SessionId(session_id)
        known = self._interviews.get(name)
        if known is not None and known.finished.is_set():
            self._interviews.pop(name)
            self._unwatched_since.pop(name, None)

    def runs(self, session_id: SessionId) -> bool:
        """Whether this process holds a session of that id that is not over."""
        known = self._interviews.get(session_id)
        return known is not None and not known.finished.is_set()

    def recording_statistics(self) -> Json:
        """Figures of the thread that writes recordings, and of their finishing."""
        return {
            "writing": self._around.storage.statistics(),
            "finishing": self._around.finishing.statistics(),
        }

    def recording_failed(self, session_id: str) -> str | None:
        """One word for what stopped the recording of an interview that this process knows."""
        known = self._interviews.get(SessionId(session_id))
        return None if known is None else known.recording_failed

    def has_used(self, session_id: SessionId, token: str) -> bool:
        """Whether somebody came into an interview of this process by that join token."""
        known = self._interviews.get(session_id)
        return known is not None and known.entry.has_used(token)

    async def answer_offer(
        self,
        interview: Interview,
        offer: Offer,
        token: str | None = None,
        *,
        trusted: bool = False,
    ) -> str:
        """Let an interview answer an offer, if there is room for one more.

        Raises as ``Interview.answer_offer`` does, and as ``Openings.require``.
        """
        if interview.phase is Phase.CREATED:
            self._openings.require(self.running)
        return await interview.answer_offer(offer, token, trusted=trusted)

    async def files(self, session_id: str) -> list[str] | None:
        """Names of the files an interview has on disk; nothing if it has no folder.

        Raises ``InvalidSessionId`` if the id is no name.
        """
        folder = InterviewFolder(self._around.data_dir, SessionId(session_id))

        def look() -> list[str] | None:
            if not folder.exists():
                return None
            return sorted(one.name for one in folder.path.iterdir() if one.name[0] != ".")

        return await self._around.storage.run(look)

    async def transcript(self, session_id: str) -> bytes | None:
        """The finished transcript as JSON; nothing before it is written. Raises as ``files``."""
        path = InterviewFolder(self._around.data_dir, SessionId(session_id)).path

        def read() -> bytes | None:
            file = path / "transcript.json"
            return file.read_bytes() if file.is_file() else None

        return await self._around.storage.run(read)

    async def never_began(self, names: list[str]) -> list[str]:
        """Those of these ids that neither run here nor have a folder that is still to be told."""
        idle = [
            name
            for name in map(SessionId, names)
            if name not in self._interviews or self._interviews[name].phase in WAITING
        ]

        def look() -> list[str]:
            root = self._around.data_dir
            return [name for name in idle if not InterviewFolder(root, name).is_untold()]

        return await self._around.storage.run(look)

    async def outcome(self, session_id: str) -> tuple[str, str | None] | None:
        """Phase and reason of an interview that is over, as its manifest has them; None without
        one. Raises as ``files``.
        """
        folder = InterviewFolder(self._around.data_dir, SessionId(session_id))

        def look() -> tuple[str, str | None] | None:
            try:
                finished = read_manifest(folder)
            except ManifestDamaged:
                return None
            if finished is None:
                return None
            document = finished.document
            phase, reason = document.get("phase"), document.get("reason")
            if phase == Reason.RECOVERED.value:
                # Of a crash the API tells as of every other end: by its reason.
                return Phase.ENDED.value, Reason.RECOVERED.value
            known = phase if phase in (Phase.ENDED.value, Phase.FAILED.value) else None
            return known or Phase.ENDED.value, reason if isinstance(reason, str) else None

        return await self._around.storage.run(look)

    async def finishing(self, session_id: str) -> Json | None:
        """How far the mix and the manifest of an ended interview are: ``state`` (``waiting``,
        ``running``, ``done`` or ``failed``), ``progress`` from 0 to 1, and the ``reason`` of a
        failure. None while it runs, and where nothing was recorded. Raises as ``files``.
        """
        folder = InterviewFolder(self._around.data_dir, SessionId(session_id))
        state = self._around.finishing.state(folder.session_id)
        if state is not None:
            return state
        try:
            finished = await self._around.storage.run(lambda: read_manifest(folder))
        except ManifestDamaged as error:
            return {"state": "failed", "progress": 1.0, "reason": error.code}
        return None if finished is None else {"state": "done", "progress": 1.0}

    def known(self) -> list[Interview]:
        """Every session that is known, whether it was used, runs or is over."""
        return list(self._interviews.values())

    @property
    def running(self) -> int:
        """Interviews that hold legs now."""
        return sum(one.phase in _RUNNING for one in self._interviews.values())

    def still_running(self) -> list[Interview]:
        """The interviews that hold legs now."""
        return [one for one in self._interviews.values() if one.phase in _RUNNING]

    @property
    def crowded(self) -> bool:
        """Whether no further session can be known, be it used or not."""
        return len(self._interviews) >= self._openings.most * RECORDS_PER_INTERVIEW

    async def close(self) -> None:
        """End every interview, politely, and forget them all; none begins any more."""
        self._openings.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
            self._sweeper = None
        await asyncio.gather(*map(self._end_or_keep, list(self._interviews.values())))
        self._interviews.clear()

    async def call_off(self, interview: Interview) -> bool:
        """Give back an invitation whose candidate is not connected yet, because the server ends.

        False where the candidate is connected, or the interview is nobody's invitation.
        """
        # The offer may have failed by itself meanwhile.
        called_off = _is_invitation(interview)
        if not called_off and (called_off := await interview.call_off()):
            log.info("an interview was called off", extra={"session": interview.id})
        if called_off:
            self.forget(interview)
        return called_off

    async def _end_or_keep(self, interview: Interview) -> None:
        """End an interview, but for an invitation that can still be followed later."""
        if not await self.call_off(interview):
            await interview.end(Reason.SERVER_SHUTDOWN)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._review_all()

    def _review_all(self) -> None:
        # Not within the task, which would keep the last interview in memory until the next comes.
        for interview in list(self._interviews.values()):
            try:
                self.review(interview, time.monotonic())
            except Exception:
                # One session's trouble must not end the clean-up of all others.
                log.exception("a session could not be reviewed")

    def review(self, interview: Interview, now: float) -> None:
        """End or forget one session, if its time at ``now`` (monotonic) has come."""
        name = interview.id
        if interview.finished.is_set():
            if interview.ended_at is not None and now - interview.ended_at >= self._keep_seconds:
                self._interviews.pop(name, None)
                self._unwatched_since.pop(name, None)
        elif now - interview.last_activity >= self._idle_seconds and not _is_invitation(interview):
            interview.end_soon(Reason.IDLE)
        elif interview.seconds:
            self._unwatched_since.pop(name, None)
            interview.keep_limits(now)
        elif interview.phase in WAITING and not interview.watched:
            since = self._unwatched_since.setdefault(name, now)
            if now - max(since, interview.last_activity) >= self._keep_seconds:
                interview.feed.end(None)
                self._interviews.pop(name, None)
                self._unwatched_since.pop(name, None)
        else:
            self._unwatched_since.pop(name, None)


def _is_invitation(interview: Interview) -> bool:
    """Whether nobody has used it yet: whoever is invited may still come, on another day too."""
    return interview.origin == INVITED and interview.phase in WAITING
