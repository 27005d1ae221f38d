"""Which of several content types a client wants most, by its ``Accept`` header."""

from __future__ import annotations

from collections.abc import Sequence


def preferred(header: str | None, offered: Sequence[str]) -> str | None:
    """The offered type that the header likes best; of equals the first. None if it takes none.

    ``offered`` are bare types as ``text/plain``, in our own order of preference. Parameters other
    than ``q`` are not looked at, and a part that cannot be read counts as absent.
    """
    if header is None or not header.strip():
        return offered[0] if offered else None
    ranges = [one for one in map(_range, header.split(",")) if one is not None]
    best: tuple[float, str] | None = None
    for kind in offered:
        quality = _quality(kind, ranges)
        if quality > 0 and (best is None or quality > best[0]):
            best = (quality, kind)
    return None if best is None else best[1]


def _range(part: str) -> tuple[str, float] | None:
    kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
    if kind.count("/") != 1:
        return None
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                return None
    # Written so that NaN is out of range as well.
    return (kind, quality) if 0 <= quality <= 1 else None


def _quality(kind: str, ranges: Sequence[tuple[str, float]]) -> float:
    """What the most specific range that covers this type says of it; 0 if none does."""
    for covering in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
        found = [quality for name, quality in ranges if name == covering]
        if found:
            return max(found)
    return 0.0
