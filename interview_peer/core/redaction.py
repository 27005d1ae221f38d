"""Takes the server's secrets out of text that is about to leave.

The voice service may repeat a key it was given, in an error or anywhere else. What comes from it
passes here before it reaches a browser or a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from ..types import Json

MASK = "[redacted]"


class Redactor:
    """Replaces known secret values, in whatever JSON spelling they come."""

    def __init__(self, secrets: Iterable[str]) -> None:
        # Longest first, so that a secret that contains another is masked whole.
        self._secrets = tuple(sorted({s for s in secrets if s}, key=len, reverse=True))

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
        clean = self.text(plain)
        if clean is plain:
            return event, text
        return json.loads(clean), clean
