"""What the files are called that finishing adds to an interview's folder."""

from __future__ import annotations

from typing import Final

from ..core.transcript_text import FORMATS
from ..storage.finished import MANIFEST_NAME as MANIFEST_NAME
from ..storage.finished import TOMBSTONE_NAME as TOMBSTONE_NAME

MIX_NAME: Final = "mixed.webm"
WAVEFORM_NAME: Final = "waveform.json"
TRANSCRIPT_NAME: Final = "transcript.json"
TEXT_NAMES: Final = {f"transcript.{kind}": kind for kind in FORMATS}
"""The transcript's other forms, by file name."""

FACTS_NAME: Final = ".facts.json"
"""What the server knows at the end, until the manifest tells it."""
