"""Writes the transcript's other forms beside ``transcript.json``: text and captions."""

from __future__ import annotations

import json

from ..core.transcript_text import FORMATS
from ..storage.folder import InterviewFolder, write_whole
from .names import TEXT_NAMES, TRANSCRIPT_NAME


def write(folder: InterviewFolder) -> None:
    """Write every form of the transcript; none where it is missing or cannot be understood.

    Raises ``OSError`` if the disk refuses.
    """
    try:
        texts = rendered((folder.path / TRANSCRIPT_NAME).read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return
    for name, data in texts.items():
        write_whole(folder.path / name, data)


def rendered(transcript: bytes) -> dict[str, bytes]:
    """The bytes of each form by its file name. Raises ``ValueError`` for what is no transcript."""
    document = json.loads(transcript)
    if not isinstance(document, dict):
        raise ValueError("a transcript is a JSON object")
    return {
        name: FORMATS[kind].render(document).encode("utf-8", "replace")
        for name, kind in TEXT_NAMES.items()
    }
