"""All settings as one: what depends on several subjects, and what must never be logged."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import pydantic
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ..errors import ConfigurationError
from .access import AccessSettings
from .interviews import InterviewSettings
from .limits import LimitSettings
from .media import MediaSettings
from .notices import NoticeSettings
from .privacy import PrivacySettings
from .server import ServerSettings
from .storage import StorageSettings
from .voice import VoiceSettings


# The bases stand from the last to the first, as pydantic goes through them: of several mistakes
# that of the server's own settings is told first.
class Settings(
    StorageSettings,
    NoticeSettings,
    LimitSettings,
    InterviewSettings,
    PrivacySettings,
    MediaSettings,
    AccessSettings,
    VoiceSettings,
    ServerSettings,
    BaseSettings,
):
    """All settings, validated together, frozen. Secrets print as ``**********``.

    Built directly (tests, embedding) it takes the arguments alone and never looks at the
    environment; :func:`load_settings` is what reads.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        case_sensitive=True,
        validate_default=True,
        hide_input_in_errors=True,
        env_ignore_empty=True,
        env_file_encoding="utf-8",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the arguments alone."""
        return (init_settings,)

    @pydantic.model_validator(mode="after")
    def _check_live(self) -> Settings:
        if self.simulation:
            return self
        if self.openai_api_key is None:
            raise ConfigurationError(
                "OPENAI_API_KEY must be set to talk to OpenAI; "
                "without a key, set SIMULATION_MODE=true."
            )
        if not (self.join_secret or self.jwks_url or self.allow_anonymous):
            raise ConfigurationError(
                "INTERVIEW_JOIN_SECRET or INTERVIEW_JWKS_URL must be set for a live server, so "
                "that candidates can show that they are invited; or INTERVIEW_ALLOW_ANONYMOUS=true "
                "to let anyone in."
            )
        if not (self.on_loopback or self.admin_key or self.allow_anonymous):
            raise ConfigurationError(
                "INTERVIEW_ADMIN_KEY must be set for a live server on an address that others can "
                "reach, or INTERVIEW_ALLOW_ANONYMOUS=true to go without."
            )
        return self

    @property
    def open_to_all(self) -> bool:
        """Whether clients without a token are let in."""
        return self.simulation or self.allow_anonymous

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that must never be logged, in plain text."""
        keys = (
            self.openai_api_key,
            self.admin_key,
            self.join_secret,
            self.turn_secret,
            self.webhook_secret,
            self.s3_access_key,
            self.s3_secret_key,
        )
        held = [key.get_secret_value() for key in keys if key is not None]
        if self.state_url is not None:
            # The password alone: the rest of the address may be told.
            password = urlsplit(self.state_url).password
            held += {password, unquote(password)} if password else ()
        return tuple(held)


def env_name(field: str) -> str:
    """The environment variable that sets ``field``."""
    return str(Settings.model_fields[field].validation_alias)
