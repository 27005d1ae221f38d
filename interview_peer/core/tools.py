"""The functions that an interviewer may call and the server runs: what the model is told of them.

Values only; what a call does is decided in ``session.tools``. A further tool is one more row of
`BUILT_IN`, and something there that runs it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ..types import Json

END_INTERVIEW: Final = "end_interview"

WHY: Final = ("finished", "candidate_wishes", "other")
"""Why the interviewer ends; for the journal alone."""


class BadArguments(ValueError):
    """A call's arguments are none that the tool takes; the text says why, for the model."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One function. ``parameters`` is the JSON schema of its arguments."""

    name: str
    description: str
    parameters: Json

    def definition(self) -> Json:
        """What the session's configuration says of it."""
        return {
            "type": "function",
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
        }


BUILT_IN: Final[Mapping[str, Tool]] = {
    tool.name: tool
    for tool in (
        Tool(
            END_INTERVIEW,
            "Ends the interview. Call it once everything was asked, or when the candidate wishes "
            "to stop: say goodbye aloud first, then call it in the same reply. Never call it to "
            "answer a question, nor because the candidate is silent for a moment.",
            {
                "type": "object",
                "properties": {
                    "why": {
                        "type": "string",
                        "enum": list(WHY),
                        "description": "Why the interview is over.",
                    }
                },
                "additionalProperties": False,
            },
        ),
    )
}
"""Every tool, by its name."""


def definitions(names: Iterable[str]) -> list[Json]:
    """What a session's configuration says of these tools."""
    return [BUILT_IN[name].definition() for name in names]


def arguments_of(name: str, text: str) -> Json:
    """A call's arguments, checked against the tool's parameters.

    Raises `BadArguments`; its text never repeats what was given.
    """
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        raise BadArguments("The arguments are not valid JSON.") from None
    if not isinstance(value, dict):
        raise BadArguments("The arguments are not a JSON object.")
    known = BUILT_IN[name].parameters["properties"]
    for field, given in value.items():
        if field not in known:
            raise BadArguments("There is an argument that this tool does not take.")
        if not isinstance(given, str) or given not in known[field].get("enum", [given]):
            raise BadArguments(f"The argument '{field}' has a value that it does not take.")
    return value
