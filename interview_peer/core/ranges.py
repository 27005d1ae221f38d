"""Which bytes of a file a ``Range`` header asks for (RFC 9110, section 14)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import RangeNotSatisfiable

_ONE = re.compile(r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes ``start`` up to, not including, ``end``."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


def requested(header: str | None, size: int) -> Span | None:
    """The part of ``size`` bytes that is asked for; None for the whole.

    What is no single range of bytes is ignored, as the standard allows: several ranges, other
    units, nonsense.

    Raises:
        RangeNotSatisfiable: the range begins at or beyond the end.
    """
    match = _ONE.fullmatch(header.strip()) if header else None
    if match is None:
        return None
    first, last = match.groups()
    if first:
        start, end = int(first), int(last) + 1 if last else size
        if start >= end and last:
            return None
    elif last:
        # The last so many bytes.
        start, end = max(size - int(last), 0), size
        if int(last) == 0:
            raise RangeNotSatisfiable
    else:
        return None
    if start >= size:
        raise RangeNotSatisfiable
    return Span(start, min(end, size))
