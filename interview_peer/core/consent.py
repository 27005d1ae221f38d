"""Agreeing to be recorded: what is asked, what was answered, and who has to be asked at all.

The text belongs to the persona, and is fixed with the interview when that is made; its place
holders are filled in once, when personas are read. Waiting for the answer is the lifecycle's
(``Phase.CONSENT``), keeping it the database's, the journal's and the manifest's.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from ..types import Json

Requirement = Literal["auto", "true", "false"]
"""The operator's setting: ``auto`` asks those who come by a token, ``true`` everybody, ``false``
nobody."""

DEFAULT_VERSION: Final = "2026-11"
DEFAULT_TEXT: Final = """
You are about to speak with an interviewer that is an artificial intelligence, not a person.

Who is responsible: {organisation}.

What is recorded: your voice, the interviewer's voice, a written transcript of both, and when each \
of you spoke. No video is recorded.

What for: so that {organisation} can conduct this interview and review what was said.

Who else receives it: while you speak, your voice is sent to OpenAI, whose service listens, \
transcribes and answers.

How long it is kept: {retention}

Your choice: taking part is voluntary. You can end the interview at any moment. To see what was \
recorded, to have it erased or to take back your agreement later, ask {contact}.

If you do not agree, the interview does not begin and nothing is recorded.
"""

INVITER: Final = "the organisation that invited you"


class Policy(enum.Enum):
    """What one interview needs before anything of it may be recorded."""

    REQUIRED = "required"
    """The candidate must agree here."""
    GIVEN = "given"
    """Whoever made the interview has the candidate's agreement already."""
    OFF = "off"
    """Nobody is asked: an open client, or as the operator set it."""


def policy(requirement: Requirement, *, invited: bool, wished: Policy | None = None) -> Policy:
    """What an interview needs. ``wished`` is what its maker said about it, and wins."""
    if wished is not None:
        return wished
    asked = requirement == "true" or (requirement == "auto" and invited)
    return Policy.REQUIRED if asked else Policy.OFF


@dataclass(frozen=True, slots=True)
class Operator:
    """What the text says about who runs this server."""

    organisation: str | None = None
    contact: str | None = None
    """Whom candidates ask about their recording."""
    retention_days: int | None = None
    """After how many days recordings are erased by themselves; None: not by themselves."""

    def fill(self, text: str) -> str:
        """The text with its place holders filled in; other braces stay as they are."""
        organisation = self.organisation or INVITER
        days = self.retention_days
        kept = (
            f"until {organisation} erases it."
            if days is None
            else f"it is erased after {days} {'day' if days == 1 else 'days'}, or earlier."
        )
        values = {
            "{organisation}": organisation,
            "{contact}": self.contact or organisation,
            "{retention}": kept,
        }
        # One pass each, in the order of the table: what is filled in holds no place holder of ours.
        for place, value in values.items():
            text = text.replace(place, value)
        return text.strip()


@dataclass(frozen=True, slots=True)
class Consent:
    """An agreement, as it is kept: who said so, when, and to which text."""

    at: datetime
    """With a zone."""
    by: Literal["candidate", "integrator"] = "candidate"
    version: str | None = None
    """Of the text; None where somebody else showed the text."""
    sha256: str | None = None
    """Of the text that was shown, in UTF-8, as hexadecimal digits."""

    @classmethod
    def to(cls, text: str, version: str, at: datetime) -> Consent:
        """A candidate's agreement to this text."""
        return cls(at, "candidate", version, digest(text))

    def told(self) -> Json:
        """As it stands in the journal, in the manifest and in answers."""
        stamp = self.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {"by": self.by, "at": stamp, "version": self.version, "sha256": self.sha256}

    @classmethod
    def read(cls, told: Any) -> Consent | None:
        """What ``told`` wrote; None for anything else."""
        if not isinstance(told, Mapping):
            return None
        by, version, sha256 = told.get("by"), told.get("version"), told.get("sha256")
        try:
            at = datetime.fromisoformat(told["at"])
        except (KeyError, TypeError, ValueError):
            return None
        texts = all(one is None or isinstance(one, str) for one in (version, sha256))
        if by not in ("candidate", "integrator") or at.tzinfo is None or not texts:
            return None
        return cls(at, by, version, sha256)


def digest(text: str) -> str:
    """The SHA-256 of a text in UTF-8, as hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()
