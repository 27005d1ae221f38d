"""What candidates agree to before they are recorded, and what is taken out of what they said."""

from __future__ import annotations

import pydantic
from pydantic import BaseModel, Field

from ..core import speech_redaction
from ..core.consent import Requirement
from .values import Line

MUST_BE = {
    "require_consent": "must be auto, true or false",
    "organisation": "must be a name of at most 200 characters in one line",
    "privacy_contact": "must be a text of at most 200 characters in one line",
    "redact_speech": (
        "must be all, or some of email, iban, card and phone, or module:function of your own, "
        "separated by commas"
    ),
}


class PrivacySettings(BaseModel):
    """Settings of consent and redaction."""

    require_consent: Requirement = Field(
        default="auto", validation_alias="INTERVIEW_REQUIRE_CONSENT"
    )
    """Who must agree to being recorded before anything is: ``core.consent.Requirement``."""

    organisation: Line | None = Field(default=None, validation_alias="INTERVIEW_ORGANISATION")
    """Who records, as candidates are told."""

    privacy_contact: Line | None = Field(default=None, validation_alias="INTERVIEW_PRIVACY_CONTACT")
    """Whom candidates ask about their recording, as they are told."""

    redact_speech: str | None = Field(default=None, validation_alias="INTERVIEW_REDACT_SPEECH")
    """What is taken out of texts before they are kept, as ``core.speech_redaction`` reads it."""

    @pydantic.field_validator("require_consent", mode="before")
    @classmethod
    def _read_require_consent(cls, value: object) -> object:
        word = str(value).strip().lower()
        return {"1": "true", "yes": "true", "on": "true", "0": "false", "no": "false"}.get(
            word, "false" if word == "off" else word
        )

    @pydantic.field_validator("redact_speech")
    @classmethod
    def _check_redact_speech(cls, value: str | None) -> str | None:
        speech_redaction.redactor(value or "")
        return value
