"""The interviewers that ship, and reading more from a folder of the operator's.

A persona file is named after the persona, ``<name>.toml``; an operator's file of the same name
takes the place of a shipped one.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from ..core.consent import Operator
from ..core.persona import (
    DEFAULT_MODEL,
    NOBODY,
    VOICES,
    InvalidPersona,
    Persona,
    from_table,
)
from ..errors import ConfigurationError, PersonaNotFound

SHIPPED = Path(__file__).parent
DEFAULT = "default"


class Personas:
    """All interviewers that can be asked for by name."""

    def __init__(self, personas: Mapping[str, Persona]) -> None:
        self._personas = dict(personas)

    @classmethod
    def load(cls, folder: Path | None = None, operator: Operator = NOBODY) -> Personas:
        """Read the shipped personas, then those in the operator's ``folder``.

        ``operator`` is what their consent texts tell of who runs this server.

        Raises:
            ConfigurationError: a file cannot be read or used; the sentence names it.
        """
        personas: dict[str, Persona] = {}
        folders = [SHIPPED] if folder is None else [SHIPPED, folder]
        for place in folders:
            if not place.is_dir():
                raise ConfigurationError(f"INTERVIEW_PERSONAS_DIR {place} is not a folder.")
            for path in sorted(place.glob("*.toml")):
                personas[path.stem] = _read(path, operator)
        return cls(personas)

    @property
    def default(self) -> Persona:
        """Who interviews when nobody was asked for."""
        return self._personas[DEFAULT]

    def all(self) -> list[Persona]:
        """Every persona, the default first, then by name."""
        return sorted(self._personas.values(), key=lambda one: (one.name != DEFAULT, one.name))

    def models(self, chosen: str | None) -> set[str]:
        """Every model that interviews will ask for; ``chosen`` is the operator's for all."""
        asked: set[str] = set()
        for persona in self._personas.values():
            asked.add(chosen or persona.model or DEFAULT_MODEL)
            asked.add(persona.transcription_model)
        return asked

    def find(self, name: str | None) -> Persona:
        """The persona of that name; a bare voice name is the default with that voice.

        Raises:
            PersonaNotFound: it is neither.
        """
        if not name:
            return self.default
        if name in self._personas:
            return self._personas[name]
        if name.lower() in VOICES:
            return self.default.with_voice(name.lower())
        raise PersonaNotFound


def _read(path: Path, operator: Operator) -> Persona:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        return from_table(path.stem, table, operator)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"The persona file {path} cannot be read: {error}.") from None
    except InvalidPersona as error:
        raise ConfigurationError(f"The persona file {path} cannot be used: {error}.") from None
