"""Takes the server's secrets out of text that is about to leave.

The voice service may repeat a key it was given, in an error or anywhere else. What comes from it
passes here before it reaches a browser or a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ..types import Json

MASK = "[redacted]"


class Redactor:
    """Replaces known secret values, in whatever JSON spelling they come."""

    def __init__(self, secrets: Iterable[str]) -> None:
        # Longest first, so that a secret that contains another is masked whole.
        self._secrets = tuple(sorted({s for s in secrets if s}, key=len, reverse=True))
        # Within JSON text a quotation mark or a backslash of a secret is escaped.
        self._spellings = tuple(json.dumps(s, ensure_ascii=False)[1:-1] for s in self._secrets)

    def text(self, text: str) -> str:
        """The text with each secret masked."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, MASK)
        return text

    def event(self, event: Json, text: str) -> tuple[Json, str]:
        r"""An event and its JSON text, with each secret masked in both.

        JSON can spell any character as ``\uXXXX``, so a text with backslashes is judged by what
        it decodes to.
        """
        if not self._secrets:
            return event, text
        plain = json.dumps(event, ensure_ascii=False) if "\\" in text else text
        if not any(spelling in plain for spelling in self._spellings):
            return event, text
        clean: Json = self._masked(event)
        return clean, json.dumps(clean)

    def _masked(self, value: Any) -> Any:
        match value:
            case str():
                return self.text(value)
            case list():
                return [self._masked(one) for one in value]
            case dict():
                return {self.text(key): self._masked(one) for key, one in value.items()}
            case _:
                return value
