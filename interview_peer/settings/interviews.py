"""Interviews: further personas, how many are held, how long they last, wait and are kept."""

from __future__ import annotations

from pathlib import Path

import pydantic
from pydantic import BaseModel, Field

from .values import Seconds

MUST_BE = {
    "personas_dir": "must be an existing folder",
    "hold_seconds": "must be a number of seconds from 0 to 600",
    "idle_seconds": "must be a number of seconds above 0, up to 86400",
    "connect_seconds": "must be a number of seconds above 0, up to 120",
    "record_keep_seconds": "must be a number of seconds from 0 to 86400",
    "max_interviews": "must be a whole number from 1 to 10000",
    "max_seconds": "must be a number of seconds from 10 to 86400",
    "max_tokens": "must be a whole number of tokens above 0",
}


class InterviewSettings(BaseModel):
    """Settings of every interview."""

    personas_dir: Path | None = Field(default=None, validation_alias="INTERVIEW_PERSONAS_DIR")
    """Folder with further persona files; they win over shipped ones of the same name."""

    hold_seconds: Seconds = Field(
        default=10.0, ge=0, le=600, validation_alias="INTERVIEW_HOLD_SECONDS"
    )
    """How long the model is held after the browser was lost; 0 ends at once."""

    idle_seconds: Seconds = Field(
        default=300.0, gt=0, le=86400, validation_alias="INTERVIEW_IDLE_SECONDS"
    )
    """An interview without media or messages for this long ends."""

    connect_seconds: Seconds = Field(
        default=15.0, gt=0, le=120, validation_alias="INTERVIEW_CONNECT_SECONDS"
    )
    """From the offer until both legs are connected."""

    record_keep_seconds: Seconds = Field(
        default=60.0, ge=0, le=86400, validation_alias="INTERVIEW_SESSION_KEEP_SECONDS"
    )
    """How long an ended session can still be asked about."""

    max_interviews: int = Field(
        default=100, ge=1, le=10000, validation_alias="INTERVIEW_MAX_INTERVIEWS"
    )
    """Interviews held at once; further ones are refused."""

    max_seconds: Seconds = Field(
        default=3540.0, ge=10, le=86400, validation_alias="INTERVIEW_MAX_SECONDS"
    )
    """How long any interview may last: by default a minute less than the voice service allows."""

    max_tokens: int | None = Field(default=None, ge=1, validation_alias="INTERVIEW_MAX_TOKENS")
    """How many tokens an interview may use, by the service's count; None has no limit."""

    @pydantic.field_validator("personas_dir")
    @classmethod
    def _check_personas_dir(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        folder = value.expanduser().absolute()
        if not folder.is_dir():
            raise ValueError("not a folder")
        return folder
