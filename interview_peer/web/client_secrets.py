"""``POST /v1/realtime/client_secrets``: a key for a candidate's SDK, asked for as of OpenAI.

A back end written for OpenAI, pointed here with an operator's key, makes an interview by it. What
it gets is the interview's join token; a key of OpenAI's is neither needed nor given.
"""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any, Final

import pydantic
from aiohttp import web

from ..core.persona import Persona
from ..core.tokens import SDK_PREFIX
from ..errors import (
    InvalidField,
    InvalidParameter,
    MissingParameter,
    TokensElsewhere,
    UnknownParameter,
)
from ..settings import Settings
from ..types import Json, SessionId
from . import forms, new_interview
from .access import Access, expiry
from .acts import concerns
from .interview_store import InterviewStore
from .new_interview import InvalidCallback, Plan, Terms, Wanted

PATH: Final = "/v1/realtime/client_secrets"
LEAST_SECONDS: Final = 10
MOST_SECONDS: Final = 7200
DEFAULT_SECONDS: Final = 600

_TRANSCRIPTION: Final = frozenset(("delay", "keywords", "language", "languages", "model", "prompt"))
_INPUT: Final = frozenset(("format", "noise_reduction", "transcription", "turn_detection"))
_OUTPUT: Final = frozenset(("format", "speed", "voice"))
KNOWN: Final = {
    "session": frozenset(
        (
            *("type", "audio", "include", "instructions", "max_output_tokens", "model"),
            *("output_modalities", "parallel_tool_calls", "prompt", "reasoning"),
            *("tool_choice", "tools", "tracing", "truncation"),
        )
    ),
    "session.audio": frozenset(("input", "output")),
    "session.audio.input": _INPUT,
    "session.audio.input.transcription": _TRANSCRIPTION,
    "session.audio.output": _OUTPUT,
}
"""OpenAI's fields of a session. Those that are not ``_PLANNED`` are the server's to choose: they
are taken, so that an existing back end need not change, and the answer says what is in force."""

_PLANNED: Final = {
    "instructions": "session.instructions",
    "model": "session.model",
    "voice": "session.audio.output.voice",
    "language": "session.audio.input.transcription.language",
}
"""What becomes of the interview's plan: its field, and the session's."""


class ClientSecrets:
    """The route; the operator's key is asked for before it is reached."""

    def __init__(
        self,
        settings: Settings,
        terms: Terms,
        access: Access,
        store: InterviewStore,
    ) -> None:
        self._model = settings.openai_model
        self._terms = terms
        self._access = access
        self._store = store

    def add_to(self, app: web.Application) -> None:
        """Register the route."""
        app.router.add_post(PATH, self.create)

    async def create(self, request: web.Request) -> web.Response:
        """Make an interview, and the key that lets one candidate into it."""
        body = await forms.read_json(request)
        wanted = self._read(body, request.headers.get("Idempotency-Key"))
        if not self._access.mints:
            raise TokensElsewhere
        row, repeated = await self._store.create(SessionId(str(uuid.uuid4())), wanted)
        concerns(request, interview_id=row.id)
        return web.json_response(
            {
                "value": f"{SDK_PREFIX}{self._access.invitation(row)}",
                "expires_at": expiry(row),
                "session": _told(row.id, wanted.interviewer, self._model),
            },
            headers={"Idempotent-Replayed": "true"} if repeated else {},
        )

    def _read(self, body: Json, key: str | None) -> Wanted:
        """The request as one for an interview.

        Raises:
            InvalidParameter: naming the first field that is wrong, as the caller wrote it.
        """
        _check_names(body, "", frozenset(("expires_after", "session", "interview")))
        seconds = _seconds(_part(body, "expires_after"))
        plan = _plan(_part(body, "session"))
        asked = dict(_part(body, "interview"))
        if "plan" in asked:
            raise InvalidParameter(
                "interview.plan", "interview.plan: give the session's instructions instead."
            )
        limits = asked.get("limits", {})
        if isinstance(limits, dict):
            if "expires_in_seconds" in limits:
                raise InvalidParameter(
                    "interview.limits.expires_in_seconds",
                    "interview.limits.expires_in_seconds: give expires_after.seconds instead.",
                )
            asked["limits"] = {**limits, "expires_in_seconds": seconds}
        if "instructions" in plan:
            if "persona" in asked:
                raise InvalidParameter(
                    "interview.persona",
                    "interview.persona: give a persona or the session's instructions, not both.",
                )
            asked["plan"] = plan
        try:
            wanted = new_interview.read(asked, key, self._terms)
        except (InvalidField, InvalidCallback) as refused:
            raise _renamed(refused.field, refused.message) from None
        # A persona keeps what the session does not say.
        return dataclasses.replace(
            wanted,
            interviewer=dataclasses.replace(wanted.interviewer, **plan),
            fingerprint=new_interview.fingerprint(body),
        )


def _seconds(expires_after: Json) -> int:
    _check_names(expires_after, "expires_after", frozenset(("anchor", "seconds")))
    if expires_after.get("anchor", "created_at") != "created_at":
        raise InvalidParameter(
            "expires_after.anchor", "expires_after.anchor: can only be created_at."
        )
    seconds = expires_after.get("seconds", DEFAULT_SECONDS)
    whole = isinstance(seconds, int) and not isinstance(seconds, bool)
    if not whole or not LEAST_SECONDS <= seconds <= MOST_SECONDS:
        raise InvalidParameter(
            "expires_after.seconds",
            f"expires_after.seconds: must be a whole number from {LEAST_SECONDS} to "
            f"{MOST_SECONDS}.",
        )
    return int(seconds)


def _plan(session: Json) -> Json:
    """What a session says of the interviewer, as fields of a plan; those that it leaves out are
    not there."""
    if not session:
        return {}
    if "type" not in session:
        raise MissingParameter("session.type", "session.type: is missing.")
    if session["type"] != "realtime":
        raise InvalidParameter(
            "session.type", "session.type: must be realtime: an interviewer speaks."
        )
    _check_session(session, "session")
    plan: Json = {}
    for name, path in _PLANNED.items():
        value: Any = session
        for part in path.split(".")[1:]:
            value = (value or {}).get(part)
        if value is not None:
            plan[name] = value
    try:
        # Without instructions of its own it is a persona's, but the rest is checked alike.
        Plan.model_validate({"instructions": "-", **plan})
    except pydantic.ValidationError as error:
        refused = new_interview.refusal(error)
    else:
        return plan
    raise _renamed(f"plan.{refused.field}", refused.message)


def _check_session(part: Json, place: str) -> None:
    """Refuse fields that OpenAI's sessions do not have, at any depth that we read."""
    _check_names(part, place, KNOWN[place])
    for name in part:
        inner = f"{place}.{name}"
        if inner in KNOWN and part[name] is not None:
            _check_session(_part(part, name, place), inner)


def _check_names(part: Json, place: str, known: frozenset[str]) -> None:
    for name in part:
        if name not in known:
            field = new_interview.printable(f"{place}.{name}" if place else name)
            raise UnknownParameter(field, f"{field}: is not known.")


def _part(whole: Json, name: str, place: str = "") -> Json:
    """An object within another; an empty one where it is missing or null."""
    value = whole.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        field = f"{place}.{name}" if place else name
        raise InvalidParameter(field, f"{field}: must be an object.")
    return value


def _renamed(field: str, sentence: str) -> InvalidParameter:
    """A refusal of ours, with the field named as the caller wrote it."""
    top, _, rest = field.partition(".")
    if top == "plan":
        named = _PLANNED.get(rest, "session")
    elif top == "idempotency_key":
        named = field
    else:
        named = f"interview.{field}"
    for known in (field, rest):
        # Our sentences begin with the field.
        sentence = sentence.removeprefix(f"{known}: ")
    return InvalidParameter(named, f"{named}: {sentence}")


def _told(interview_id: str, interviewer: Persona, model: str | None) -> Json:
    """The session as OpenAI's answer has it.

    Without instructions: back ends often hand the whole answer to the browser.
    """
    session = interviewer.session(model)
    session.pop("instructions")
    return {
        **session,
        "object": "realtime.session",
        "id": f"sess_{interview_id}",
        "expires_at": 0,
        "tools": [],
    }
