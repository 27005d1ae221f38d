"""What ``POST /api/interviews`` takes: checked at the edge and turned into values.

Each refusal names the field. Which personas there are and where callbacks may go is asked of those
who know.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from typing import Annotated, Any, Final, Literal

import pydantic
from pydantic import AfterValidator, ConfigDict, Field, PlainValidator
from pydantic_core import PydanticCustomError

from ..core.consent import Policy, Requirement, policy
from ..core.persona import VOICES, Persona, ga_model
from ..core.tokens import LONGEST_LIFE_SECONDS
from ..core.tools import BUILT_IN, END_INTERVIEW
from ..errors import (
    CallbackSecretRequired,
    InvalidField,
    InvalidWebhookUrl,
    LimitExceeded,
    PersonaNotFound,
    UnknownPersona,
)
from ..notices.guard import Guard
from ..notices.signing import BadSecret, key_of
from ..notices.types import FACTS
from ..personas import Personas
from ..types import Json

MAX_INSTRUCTIONS: Final = 32_000
MAX_METADATA_BYTES: Final = 4096
MAX_REFERENCE: Final = 200
MAX_KEY: Final = 255
MAX_SECONDS: Final = 3600
"""The voice service ends a session after an hour."""
LEAST_SECONDS: Final = 10
DEFAULT_EXPIRES_SECONDS: Final = 7 * 24 * 3600
LEAST_EXPIRES_SECONDS: Final = 10


def _storable(text: str) -> str:
    # PostgreSQL keeps no NUL, and half a surrogate pair is no text at all.
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise PydanticCustomError("text", "holds a character that cannot be kept")
    return text


VOICE_ID: Final = r"[A-Za-z0-9_-]{1,64}"
"""What ids of an operator's own voices look like."""

_VOICE_ID: Final = re.compile(VOICE_ID)
_UNPRINTABLE: Final = re.compile(r"[^A-Za-z0-9 _.,:@/()\[\]+-]")


def filled(text: str) -> str:
    """A text with something in it."""
    if not text.strip():
        raise PydanticCustomError("text", "must not be empty")
    return text


def _voice(value: Any) -> str | dict[str, str]:
    match value:
        case str() if value in VOICES:
            return value
        case {"id": str(name), **others} if not others and _VOICE_ID.fullmatch(name):
            return {"id": name}
        case _:
            raise PydanticCustomError(
                "voice", f"must be one of {', '.join(VOICES)}, or an object with a voice's id"
            )


def _model(name: str) -> str:
    if ga_model(name) is None:
        raise PydanticCustomError("model", "must be a gpt-realtime model")
    return name


def _at_most(most: int) -> AfterValidator:
    def check(value: int) -> int:
        if value > most:
            raise PydanticCustomError(LimitExceeded.code, f"may be {most} at most")
        return value

    return AfterValidator(check)


def _metadata(value: Json) -> Json:
    try:
        size = len(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())
    except (ValueError, RecursionError):
        raise PydanticCustomError("metadata", "holds a value that cannot be kept") from None
    if size > MAX_METADATA_BYTES:
        raise PydanticCustomError(
            LimitExceeded.code, f"may have {MAX_METADATA_BYTES} bytes at most"
        )
    _check_texts(value)
    return value


def _check_texts(value: Any) -> None:
    match value:
        case str():
            _storable(value)
        case dict():
            for key, inner in value.items():
                _storable(key)
                _check_texts(inner)
        case list():
            for inner in value:
                _check_texts(inner)
        # Compared first: a whole number may be too large to be made a float.
        case int() | float() if abs(value) > 1e100 or not math.isfinite(value):
            raise PydanticCustomError("number", "holds a number that cannot be kept")
        case _:
            pass


def _secret(text: str) -> str:
    try:
        key_of(text)
    except BadSecret as error:
        raise PydanticCustomError("secret", str(error).rstrip(".")) from None
    return text


def _event(name: str) -> str:
    if name != "*" and name not in FACTS:
        raise PydanticCustomError("event", "is not a type of notice")
    return name


def _tools(names: list[str]) -> list[str]:
    if any(name not in BUILT_IN for name in names) or len(set(names)) < len(names):
        raise PydanticCustomError("tools", f"may have each of {', '.join(BUILT_IN)} once")
    return names


Text = Annotated[str, AfterValidator(_storable)]
"""A text that every database and every event can hold."""


class Strict(pydantic.BaseModel):
    """A request's body, or a part of it: no field but its own, each of its very type."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True, frozen=True)


class Plan(Strict):
    """An interviewer described in the request instead of a persona's name."""

    instructions: Annotated[Text, Field(max_length=MAX_INSTRUCTIONS), AfterValidator(filled)]
    voice: Annotated[str | dict[str, str], PlainValidator(_voice)] = "marin"
    model: Annotated[str, AfterValidator(_model)] | None = None
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})?$")] | None = None
    tools: Annotated[list[str], AfterValidator(_tools)] | None = None


class Limits(Strict):
    """How long it may last, and until when it may begin."""

    max_seconds: Annotated[int, Field(ge=LEAST_SECONDS), _at_most(MAX_SECONDS)] = MAX_SECONDS
    expires_in_seconds: Annotated[
        int, Field(ge=LEAST_EXPIRES_SECONDS), _at_most(LONGEST_LIFE_SECONDS)
    ] = DEFAULT_EXPIRES_SECONDS


class Callback(Strict):
    """Where notices of this interview go, beside the endpoints of all."""

    url: str
    secret: Annotated[str, AfterValidator(_secret)] | None = None
    events: Annotated[list[Annotated[str, AfterValidator(_event)]], Field(max_length=50)] | None = (
        None
    )


class NewInterview(Strict):
    """The whole request."""

    persona: Annotated[Text, Field(max_length=100)] | None = None
    plan: Plan | None = None
    candidate_reference: Annotated[Text, Field(max_length=MAX_REFERENCE)] | None = None
    metadata: Annotated[dict[str, Any], AfterValidator(_metadata)] | None = None
    limits: Limits = Limits()
    callback: Callback | None = None
    trusted: bool = False
    """Whether whoever comes by its token may configure the model's session, and see it."""
    consent: Literal["required", "given"] | None = None
    """Whether the candidate must agree to being recorded, or has agreed elsewhere; None leaves it
    to the server's setting."""
    idempotency_key: Annotated[Text, Field(min_length=1, max_length=MAX_KEY)] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """A request that can be carried out."""

    request: NewInterview
    interviewer: Persona
    """A copy: what is invited to stays the same, whatever the operator changes meanwhile."""
    key: str | None
    fingerprint: str
    """Of the body, without its idempotency key: tells a repeat from another request."""
    consent: Policy = Policy.REQUIRED
    """What must come before anything of it is recorded."""


@dataclasses.dataclass(frozen=True)
class Terms:
    """What the server brings to every request for an interview, whichever route takes it."""

    personas: Personas
    guard: Guard
    """Says where callbacks may lead."""
    can_sign: bool
    """Whether the server has a secret for callbacks that bring none."""
    require_consent: Requirement = "auto"
    """The server's setting, for requests that do not say."""


def read(body: Json, key: str | None, terms: Terms) -> Wanted:
    """Check a request.

    Args:
        key: the header ``Idempotency-Key``; the field of that name says the same.

    Raises:
        InvalidField, UnknownPersona, LimitExceeded: naming the first field that is wrong.
        InvalidWebhookUrl: the callback's URL is not one that notices may be sent to.
        CallbackSecretRequired: nothing that is sent there could be signed.
    """
    try:
        request = NewInterview.model_validate(body)
    except pydantic.ValidationError as error:
        refused = refusal(error)
    except RecursionError:
        refused = InvalidField("metadata", "metadata: is nested too deeply.")
    else:
        key = _key(key, request.idempotency_key)
        if request.callback is not None:
            _check_url(terms.guard, request.callback.url)
            if request.callback.secret is None and not terms.can_sign:
                raise CallbackSecretRequired("callback.secret")
        interviewer = _interviewer(request, terms.personas)
        if request.trusted:
            interviewer = dataclasses.replace(interviewer, gate_trusted=True)
        wished = None if request.consent is None else Policy(request.consent)
        return Wanted(
            request,
            interviewer,
            key,
            fingerprint(body),
            policy(terms.require_consent, invited=True, wished=wished),
        )
    # Outside of the handler: the validation error holds what was given.
    raise refused


def refusal(error: pydantic.ValidationError) -> InvalidField:
    """The first thing that is wrong, as our own error."""
    first = error.errors(include_input=False, include_url=False)[0]
    # Names of a request's own making may be long, and their type is no part of the path.
    field = printable(".".join(str(part) for part in first["loc"])) or "body"
    kind = LimitExceeded if first["type"] == LimitExceeded.code else InvalidField
    return kind(field, f"{field}: {_SAID.get(first['type'], first['msg'])}.")


_SAID: Final = {
    "extra_forbidden": "is not a field of this request",
    "missing": "is missing",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "list_type": "must be a list",
    "string_type": "must be a text",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
}
"""Of mistakes that Pydantic's own sentences tell in Python's words."""


def printable(field: str) -> str:
    """A field's name, of a request's own making, as a line of text that is nobody's markup."""
    return _UNPRINTABLE.sub("?", field[:100])


def _key(header: str | None, field: str | None) -> str | None:
    if header is None:
        return field
    try:
        _storable(header)
    except PydanticCustomError:
        raise InvalidField("idempotency_key") from None
    if not 1 <= len(header) <= MAX_KEY or field not in (None, header):
        raise InvalidField(
            "idempotency_key",
            f"idempotency_key: 1 to {MAX_KEY} characters, the same in header and body.",
        )
    return header


def _check_url(guard: Guard, url: str) -> None:
    try:
        guard.check_url(url)
    except InvalidWebhookUrl as refused:
        raise InvalidCallback(f"callback.{refused.message}") from None


class InvalidCallback(InvalidWebhookUrl):
    """The same, told with the field."""

    field = "callback.url"


def _interviewer(request: NewInterview, personas: Personas) -> Persona:
    plan = request.plan
    if plan is None:
        try:
            return personas.find(request.persona)
        except PersonaNotFound:
            raise UnknownPersona("persona") from None
    if request.persona is not None:
        raise InvalidField("plan", "plan: give a persona or a plan, not both.")
    return dataclasses.replace(
        personas.default,
        name="plan",
        title="",
        description="",
        instructions=plan.instructions,
        voice=plan.voice,
        model=plan.model,
        language=plan.language,
        tools=(END_INTERVIEW,) if plan.tools is None else tuple(plan.tools),
    )


def fingerprint(body: Json) -> str:
    """Tells one request's body from another's; its idempotency key is no part of it."""
    told = {key: value for key, value in body.items() if key != "idempotency_key"}
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
