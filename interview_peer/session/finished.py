"""What an interview's files came to at its end, before its recording is finished."""

from __future__ import annotations

from dataclasses import dataclass

from ..types import Json


@dataclass(frozen=True, slots=True)
class Files:
    """The transcript's document, and what is missing of the recording at the end."""

    transcript: Json | None = None
    failed: str | None = None
    """One word, or None for a whole recording (or none that was ever begun)."""
