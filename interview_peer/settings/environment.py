"""Reads the settings: the only place that looks into the environment and ``.env``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import dotenv
import pydantic
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ..errors import ConfigurationError
from . import mistakes
from .model import Settings, env_name

ENV_FILE = Path(".env")
"""Read from the folder the server is started in. The environment wins over it."""


class _SettingsFromEnvironment(Settings):
    """The same settings, read from the environment and ``.env`` where no argument is given."""

    model_config = SettingsConfigDict(extra="ignore", env_file=ENV_FILE)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings, dotenv_settings)


def load_settings(*, prefer_simulation: bool = False, **overrides: Any) -> Settings:
    """Read the settings; ``overrides`` (flags, by field name) win, and None counts as unset.

    ``prefer_simulation`` makes simulation the default instead of live; the environment and
    ``.env`` still decide where they say something. Raises ConfigurationError with one sentence
    that names the first wrong or unknown setting.
    """
    given = {field: value for field, value in overrides.items() if value is not None}
    file_values = _env_file_values()
    for names in (os.environ, file_values):
        mistakes.refuse_unknown(names)
    flag = env_name("simulation")
    if prefer_simulation and not (os.environ.get(flag) or file_values.get(flag)):
        given.setdefault("simulation", True)
    try:
        read = _SettingsFromEnvironment(**given)
        return Settings(**{field: getattr(read, field) for field in Settings.model_fields})
    except pydantic.ValidationError as error:
        sentence = mistakes.sentence(error, given)
    # Outside the handler: the validation error holds the value, which may be a secret.
    raise ConfigurationError(sentence)


def _env_file_values() -> dict[str, str | None]:
    try:
        return dict(dotenv.dotenv_values(ENV_FILE, encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        pass
    raise ConfigurationError("The file .env cannot be read: it must be UTF-8 text.")
