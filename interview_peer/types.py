"""Words shared by every room: who speaks, where an event travels, what an id is.

Values only. Nothing here does I/O or knows a library.
"""

from __future__ import annotations

import enum
from typing import Any, Final, NewType

SessionId = NewType("SessionId", str)
"""Names one interview, towards clients and on disk. 1 to 64 characters of ``[A-Za-z0-9_-]``."""

ItemId = NewType("ItemId", str)
"""Names one conversation item; given by the model's service."""

ResponseId = NewType("ResponseId", str)
"""Names one reply of the model; given by the model's service."""

Json = dict[str, Any]
"""A decoded JSON object."""

INVITED: Final = "api"
"""Origin of interviews that an integrator made by the API: a token is needed to enter them."""

OPEN: Final = "open"
"""Origin of interviews that an open client just began."""


class Speaker(enum.Enum):
    """Whose voice it is. The value names the recording file and the transcript's speaker."""

    CANDIDATE = "candidate"
    INTERVIEWER = "interviewer"


class Direction(enum.Enum):
    """Which way an ``oai-events`` message travels."""

    TO_MODEL = "to_model"
    TO_BROWSER = "to_browser"
