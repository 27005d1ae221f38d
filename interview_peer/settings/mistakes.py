"""What the operator reads about a wrong value or an unknown name: one sentence that names it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import pydantic

from ..errors import ConfigurationError
from . import access, interviews, limits, media, notices, privacy, server, storage, voice
from .model import Settings, env_name

_PREFIX = "INTERVIEW_"

MUST_BE = (
    server.MUST_BE
    | voice.MUST_BE
    | access.MUST_BE
    | media.MUST_BE
    | privacy.MUST_BE
    | interviews.MUST_BE
    | limits.MUST_BE
    | notices.MUST_BE
    | storage.MUST_BE
)
"""What stands behind a setting's name when its value cannot be used, by field."""


def refuse_unknown(names: Iterable[str]) -> None:
    """Raise ConfigurationError for the first name that looks like a setting and is none."""
    known = {env_name(field) for field in Settings.model_fields}
    # Compared without the prefix, which alone would make any two names look alike.
    endings = [name.removeprefix(_PREFIX) for name in known if name.startswith(_PREFIX)]
    for name in sorted(names):
        if not name.upper().startswith(_PREFIX) or name in known:
            continue
        near = difflib.get_close_matches(name.upper().removeprefix(_PREFIX), endings, n=1)
        hint = f"did you mean {_PREFIX}{near[0]}?" if near else "README.md lists them all."
        raise ConfigurationError(f"{name} is not a setting of interview_peer; {hint}")


def sentence(error: pydantic.ValidationError, given: Mapping[str, Any]) -> str:
    """What the first mistake of ``error`` is told as; ``given`` are flags, by field.

    Never holds the value: it may be a secret.
    """
    place = str(error.errors(include_input=False, include_url=False)[0]["loc"][0])
    field = next((f for f in Settings.model_fields if place in (f, env_name(f))), None)
    if field is None:
        return f"{place} is not a setting of interview_peer."
    name = env_name(field)
    if field in given:
        name += f" (given as --{field.replace('_', '-')})"
    return f"{name} {MUST_BE[field]}."
