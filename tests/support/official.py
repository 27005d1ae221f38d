"""Checks events against the types of the official ``openai`` package, with nothing left over.

Its types take fields that they do not know; here those are found and named.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from openai.types import Model
from openai.types.realtime import (
    ClientSecretCreateResponse,
    RealtimeClientEvent,
    RealtimeServerEvent,
)
from openai.types.realtime.realtime_session_create_request import RealtimeSessionCreateRequest
from pydantic import BaseModel, TypeAdapter, ValidationError

from interview_peer.types import Json

UNTYPED = {"obfuscation"}
"""The service pads the sizes of what it sends with it; the package does not name it."""

READ_ONLY = {"id", "object", "expires_at"}
"""What the service adds to a session that it tells of, where the package has the type of a session
that is asked for."""


@functools.cache
def _types(union: Any) -> Mapping[str, type[BaseModel]]:
    """The class of each event type in one of the package's unions."""
    members = typing.get_args(typing.get_args(union)[0])
    found: dict[str, type[BaseModel]] = {}
    for member in members:
        field = member.model_fields.get("type")
        if field is not None:
            for name in typing.get_args(field.annotation):
                found[str(name)] = member
    return found


def server_types() -> Mapping[str, type[BaseModel]]:
    """What the service may send, by event type."""
    return _types(RealtimeServerEvent)


def client_types() -> Mapping[str, type[BaseModel]]:
    """What a client may send, by event type."""
    return _types(RealtimeClientEvent)


def server_problems(event: Json) -> list[str]:
    """What is wrong with an event of the service's; nothing if all is well."""
    return [*_problems(server_types(), event)]


def client_problems(event: Json) -> list[str]:
    """What is wrong with an event of a client's."""
    return [*_problems(client_types(), event)]


def session_problems(session: Json) -> list[str]:
    """What is wrong with the session of a create call."""
    return [*_checked(RealtimeSessionCreateRequest, session, "session")]


def secret_problems(body: Json) -> list[str]:
    """What is wrong with the reply to a wish for an ephemeral key."""
    return [*_checked(ClientSecretCreateResponse, body, "client_secret")]


def model_problems(body: Json) -> list[str]:
    """What is wrong with a model as it is told."""
    return [*_checked(Model, body, "model")]


def _problems(types: Mapping[str, type[BaseModel]], event: Json) -> Iterator[str]:
    kind = str(event.get("type"))
    if kind not in types:
        yield f"{kind} is no event"
    else:
        yield from _checked(types[kind], event, kind)


def _checked(model: type[BaseModel], value: Json, name: str) -> Iterator[str]:
    try:
        # Strict: the package would read a number out of a string.
        made = TypeAdapter[BaseModel](model).validate_python(value, strict=True)
    except ValidationError as error:
        for one in error.errors():
            yield f"{name}: {'.'.join(map(str, one['loc']))}: {one['msg']}"
        return
    yield from _left_over(made, name)


def _left_over(value: Any, place: str) -> Iterator[str]:
    """Fields that no type names, at any depth."""
    match value:
        case BaseModel():
            told = place in ("session.created.session", "session.updated.session")
            for name in value.model_extra or {}:
                if name not in UNTYPED and not (told and name in READ_ONLY):
                    yield f"{place}.{name} is no field of {type(value).__name__}"
            for name in value.model_fields_set:
                yield from _left_over(getattr(value, name, None), f"{place}.{name}")
        case list():
            for one in value:
                yield from _left_over(one, f"{place}[]")
        case dict():
            for name, one in value.items():
                yield from _left_over(one, f"{place}.{name}")
