"""The voice service: whom the server calls, with which key, or the simulator instead."""

from __future__ import annotations

from pydantic import BaseModel, Field

from .values import BaseUrl, Key, Word

MUST_BE = {
    "openai_api_key": "must be a key: visible ASCII characters without spaces",
    "openai_base_url": "must be an http:// or https:// address without user, query or fragment",
    "openai_model": "must be the name of a model",
    "simulation": "must be true or false",
}


class VoiceSettings(BaseModel):
    """Settings of the voice service."""

    openai_api_key: Key | None = Field(default=None, validation_alias="OPENAI_API_KEY")
    """The standard key, used by the server alone. Needed unless simulating."""

    openai_base_url: BaseUrl = Field(
        default="https://api.openai.com/v1", validation_alias="OPENAI_BASE_URL"
    )
    """Where the voice service lives; kept without a trailing slash."""

    openai_model: Word | None = Field(default=None, validation_alias="INTERVIEW_MODEL")
    """Model for every interview; None takes the persona's."""

    simulation: bool = Field(default=False, validation_alias="SIMULATION_MODE")
    """Talk to the built-in simulator instead of OpenAI."""
