"""Every event that the official package knows, filled to the last field with marks of their own.

What is left of such an event shows by the marks in it which fields it was made of.
"""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Iterator
from typing import Any, Final

from pydantic import BaseModel

from interview_peer.types import Json

from .official import server_types

VARIANTS: Final = 9
"""As many as the longest union has members: the kinds of item."""

NEW_FIELD: Final = "brand_new"
"""A field that the service might add tomorrow, put into every object."""

_MARK: Final = re.compile(r"<([A-Za-z0-9_.]*)>")


def planted_events(kind: str) -> Iterator[Json]:
    """Events of this type in which each union has taken each of its forms."""
    model = server_types()[kind]
    seen = set()
    for variant in range(VARIANTS):
        event = {**_object(model, "", variant), "type": kind}
        text = json.dumps(event)
        if text not in seen:
            seen.add(text)
            yield event


def marks(value: Any) -> set[str]:
    """The fields, as dotted paths, whose marks are somewhere in this value."""
    return set(_MARK.findall(json.dumps(value)))


def _object(model: type[BaseModel], place: str, variant: int) -> Json:
    made: Json = {NEW_FIELD: {"deep": [f"<{place}{NEW_FIELD}>"]}}
    for name, field in model.model_fields.items():
        made[field.alias or name] = _value(field.annotation, f"{place}{name}", variant)
    return made


def _value(kind: Any, place: str, variant: int) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _value(inner[0], place, variant)
    if origin is typing.Literal:
        return inner[variant % len(inner)]
    if origin in (typing.Union, types.UnionType):
        forms = [one for one in inner if one is not type(None)]
        return _value(forms[variant % len(forms)], place, variant)
    if origin is list:
        # All forms at once, so that none hides behind another.
        entry = inner[0]
        if typing.get_origin(entry) is typing.Annotated:
            entry = typing.get_args(entry)[0]
        forms = [*typing.get_args(entry)] if typing.get_origin(entry) is typing.Union else [entry]
        return [_value(one, place, variant) for one in forms]
    if origin is dict or kind in (object, Any):
        return {"key": f"<{place}>"}
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _object(kind, f"{place}.", variant)
    if kind is bool:
        return True
    if kind in (int, float):
        return kind(7)
    assert kind is str, (place, kind)
    return f"<{place}>"
