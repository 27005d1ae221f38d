"""Lists of the API, a page at a time: what their queries may hold, and how many rows a page has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from multidict import MultiMapping

from ..errors import InvalidField

MAX_LIMIT: Final = 200
DEFAULT_LIMIT: Final = 50


def check_names(query: MultiMapping[str], names: Sequence[str]) -> None:
    """Refuse a query with other names than these, or with one of them twice: ``InvalidField``."""
    for name in query:
        if name not in names or len(query.getall(name)) > 1:
            field = name if name in names else "query"
            raise InvalidField(field, f"{field}: takes each of {', '.join(names)} once.")


def limit_of(query: MultiMapping[str]) -> int:
    """How many rows are asked for. Raises ``InvalidField``."""
    text = query.get("limit", str(DEFAULT_LIMIT))
    short = text.isascii() and text.isdecimal() and len(text) <= 9
    if not short or not 1 <= int(text) <= MAX_LIMIT:
        raise InvalidField("limit", f"limit: must be a whole number from 1 to {MAX_LIMIT}.")
    return int(text)
