"""``/api/interviews``: what the systems around an interview make, ask and end.

Requests are read and answers shaped here; ``interview_store`` does what they ask for.
"""

from __future__ import annotations

import base64
import binascii
import uuid
from typing import Any, Final

from aiohttp import web
from sqlalchemy import Row

from ..core.accept import preferred
from ..core.lifecycle import WAITING, Phase
from ..core.tokens import SDK_PREFIX
from ..core.transcript_text import FORMATS
from ..errors import InvalidField, InvalidMessage, InvalidSessionId, NotAcceptable, SessionNotFound
from ..session.interview import Interview
from ..settings import Settings
from ..storage.finished import TOMBSTONE_NAME
from ..types import OPEN, Json, SessionId
from . import files, forms, new_interview, paging, times
from .access import Access
from .acts import concerns
from .interview_store import Filters, InterviewStore
from .new_interview import Terms

PATH: Final = "/api/interviews"
FILTERS: Final = (
    "phase",
    "created_after",
    "created_before",
    "candidate_reference",
    "limit",
    "cursor",
)
KINDS: Final = {
    "json": "application/json",
    **{kind: form.content_type.partition(";")[0] for kind, form in FORMATS.items()},
}
"""The forms of a transcript: suffix and content type, in our order of preference."""
PHASES: Final = tuple(phase.value for phase in Phase)


class InterviewsApi:
    """The routes of interviews."""

    def __init__(
        self,
        settings: Settings,
        terms: Terms,
        access: Access,
        store: InterviewStore,
    ) -> None:
        self._public_url = settings.public_url
        self._terms = terms
        self._access = access
        self._store = store

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        router = app.router
        router.add_post(PATH, self.create)
        router.add_get(PATH, self.list)
        router.add_get(PATH + "/{interview_id}", self.get)
        router.add_delete(PATH + "/{interview_id}", self.delete)
        router.add_get(PATH + "/{interview_id}/transcript", self.transcript)
        for kind in KINDS:
            router.add_get(f"{PATH}/{{interview_id}}/transcript.{kind}", self.transcript)

    async def create(self, request: web.Request) -> web.Response:
        """Make an interview; the answer holds the link for its candidate."""
        body = await forms.read_json(request)
        key = request.headers.get("Idempotency-Key")
        wanted = new_interview.read(body, key, self._terms)
        row, repeated = await self._store.create(SessionId(str(uuid.uuid4())), wanted)
        concerns(request, interview_id=row.id)
        token = self._access.invitation(row)
        base = self._public_url or str(request.url.origin())
        link = f"{base}/i/{row.id}"
        return web.json_response(
            {
                **resource(row, None),
                # Behind the # it is sent to no server and stands in no log.
                "join_url": link if token is None else f"{link}#t={token}",
                "join_token": token,
                "sdk_key": None if token is None else SDK_PREFIX + token,
            },
            status=201,
            headers={
                "Location": f"{PATH}/{row.id}",
                **({"Idempotent-Replayed": "true"} if repeated else {}),
            },
        )

    async def list(self, request: web.Request) -> web.Response:
        """Interviews, newest first, a page at a time."""
        wanted = _filters(request)
        rows = await self._store.page(wanted)
        page = rows[: wanted.limit]
        more = len(rows) > len(page)
        return web.json_response(
            {
                "interviews": [resource(row, self._store.running(row.id)) for row in page],
                "next_cursor": _cursor(page[-1]) if more else None,
            }
        )

    async def get(self, request: web.Request) -> web.Response:
        """One interview, running or over, with its statistics and files."""
        return web.json_response(await self.whole(interview_id(request)))

    async def delete(self, request: web.Request) -> web.Response:
        """Erase what was said, recorded and known of a candidate; 202 while copies are to go."""
        end = request.query.get("end", "false")
        if end not in ("true", "false") or len(request.query) > ("end" in request.query):
            raise InvalidMessage("This path takes ?end=true or nothing.")
        removed = await self._store.erase(interview_id(request), end=end == "true")
        return web.json_response(removed, status=200 if removed["complete"] else 202)

    async def transcript(self, request: web.Request) -> web.StreamResponse:
        """The transcript of one interview, in the form that the path or ``Accept`` asks for."""
        _, point, kind = request.path.rpartition("/")[2].partition(".")
        if not point:
            accepted = ", ".join(request.headers.getall("Accept", ())) or None
            wanted = preferred(accepted, [*KINDS.values()])
            if wanted is None:
                raise NotAcceptable(f"A transcript is had as {', '.join(KINDS.values())}.")
            kind = next(kind for kind, name in KINDS.items() if name == wanted)
        found = await self._store.transcript(interview_id(request), kind)
        if not isinstance(found, bytes):
            return await files.send(request, found)
        content_type = FORMATS[kind].content_type if kind in FORMATS else "application/json"
        return web.Response(body=found, headers={"Content-Type": content_type})

    async def whole(self, name: str) -> Json:
        """One interview, as its path tells it. Raises ``SessionNotFound``."""
        row = await self._store.find(name)
        running = self._store.running(name)
        names = await self._store.files(name)
        if row is not None and row.deleted_at is not None:
            raise SessionNotFound
        if row is None and running is None and (names is None or TOMBSTONE_NAME in names):
            raise SessionNotFound
        if row is None:
            told = _unkept(name, running, await self._store.outcome(name))
        else:
            told = resource(row, running)
        statistics = None if running is None else running.statistics()
        return {
            **told,
            "statistics": statistics,
            "files": names or [],
            "finishing": await self._store.finishing(name),
        }


def resource(row: Row[Any], running: Interview | None) -> Json:
    """An interview as every answer has it. What this process sees of its phase is newest."""
    if running is not None and running.phase in WAITING and Phase(row.phase) not in WAITING:
        # Somebody waits here; it runs on another node, or it is over.
        running = None
    callback = row.callback
    reason = row.reason
    if running is not None:
        reason = running.reason.value if running.reason else None
    return {
        "id": row.id,
        "origin": row.origin,
        "phase": row.phase if running is None else running.phase.value,
        "reason": reason,
        "persona": row.persona,
        "plan": _plan(row),
        "candidate_reference": row.candidate_reference,
        "metadata": row.metadata,
        "limits": row.limits,
        "consent": {
            "policy": row.consent,
            "at": times.told(row.consent_at),
            "version": row.consent_version,
            "sha256": row.consent_sha256,
        },
        "callback": None
        if callback is None
        else {"url": callback["url"], "events": callback["events"]},
        "created_at": times.told(row.created_at),
        "started_at": times.told(row.started_at),
        "ended_at": times.told(row.ended_at),
        "expires_at": times.told(row.expires_at),
        "seconds": row.seconds,
        "usage": row.usage,
    }


def _plan(row: Row[Any]) -> Json | None:
    """The plan that the request described; a persona's own is the operator's business."""
    if row.persona is not None or row.plan is None:
        return None
    told = ("instructions", "voice", "model", "language", "tools")
    return {key: row.plan.get(key) for key in told}


def _unkept(name: str, running: Interview | None, outcome: tuple[str, str | None] | None) -> Json:
    """One that the database does not hold: greeted and no more, or older than the database. Of the
    latter its manifest tells the ``outcome``."""
    blank: Json = dict.fromkeys(
        (
            *(
                "persona",
                "plan",
                "candidate_reference",
                "metadata",
                "limits",
                "callback",
                "consent",
            ),
            *("created_at", "started_at", "ended_at", "expires_at", "seconds", "usage"),
        )
    )
    phase, reason = outcome or (Phase.ENDED.value, None)
    if running is not None:
        phase = running.phase.value
        reason = None if running.reason is None else running.reason.value
    return {
        "id": name,
        "origin": OPEN,
        "phase": phase,
        "reason": reason,
        **blank,
    }


def interview_id(request: web.Request) -> str:
    """The id in the request's path. Raises ``InvalidSessionId``."""
    name = request.match_info["interview_id"]
    if not name.isascii() or len(name) > 64 or not name.replace("-", "").replace("_", "").isalnum():
        raise InvalidSessionId
    return name


def _filters(request: web.Request) -> Filters:
    query = request.query
    paging.check_names(query, FILTERS)
    phase = query.get("phase")
    if phase is not None and phase not in PHASES:
        raise InvalidField("phase", f"phase: must be one of {', '.join(PHASES)}.")
    reference = query.get("candidate_reference")
    if reference is not None and (
        "\x00" in reference
        or len(reference) > new_interview.MAX_REFERENCE
        or not _is_text(reference)
    ):
        raise InvalidField("candidate_reference", "candidate_reference: is none that can be kept.")
    moments = {
        name: times.asked(name, query[name])
        for name in ("created_after", "created_before")
        if name in query
    }
    return Filters(
        phase=phase,
        candidate_reference=reference,
        limit=paging.limit_of(query),
        after=_position(query["cursor"]) if "cursor" in query else None,
        **moments,
    )


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _cursor(last: Row[Any]) -> str:
    text = f"{last.created_at}.{last.id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _position(cursor: str) -> tuple[int, str]:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
        at, _, name = text.partition(".")
        if len(at) > 18 or not at.isdecimal() or not name or not name.isprintable():
            raise ValueError("not a cursor")
        return int(at), name
    except (ValueError, binascii.Error):
        raise InvalidField(
            "cursor", "cursor: must be one that a page before this one gave."
        ) from None
