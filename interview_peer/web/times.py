"""Moments in requests and answers: RFC 3339, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime

from ..errors import InvalidField
from ..state.schema import rfc3339, to_us


def told(microseconds: int | None) -> str | None:
    """A moment of the database as answers have it."""
    return None if microseconds is None else rfc3339(microseconds)


def asked(field: str, text: str) -> int:
    """A moment of a request, in microseconds; one without a zone is in UTC.

    Raises ``InvalidField``, naming the field, for anything else.
    """
    try:
        moment = datetime.fromisoformat(text)
        return to_us(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        raise InvalidField(
            field, f"{field}: must be a time such as 2026-11-20T10:00:00Z."
        ) from None
