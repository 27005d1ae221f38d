"""The OpenAPI document's part for recordings: what there is, sound in whole or in part."""

from __future__ import annotations

from typing import Final

from ..session.archive import SOUNDS
from ..types import Json
from .openapi_parts import (
    ID,
    INTERVIEW_ID,
    MAYBE_MOMENT,
    MAYBE_NUMBER,
    MAYBE_OBJECT,
    MAYBE_TEXT,
    MINE,
    MOMENT,
    OPERATOR,
    TEXT,
    answer,
    fields,
    operation,
    parameter,
    ref,
    refusals,
)

PEAKS: Final[Json] = {"type": "object"}
_HASH: Final[Json] = {**TEXT, "pattern": "^[0-9a-f]{64}$"}
_HEADERS: Final[Json] = {
    "ETag": {"schema": TEXT},
    "Accept-Ranges": {"schema": {"const": "bytes"}},
    "Content-Range": {"schema": TEXT},
    "X-Recording-Damage": {"schema": TEXT},
}

SCHEMAS: Final[Json] = {
    "Recording": fields(
        {
            "id": ID,
            "state": {"enum": ["running", "finishing", "ready", "failed", "damaged"]},
            "code": {**MAYBE_TEXT, "description": "Code of what is wrong with it, of docs/errors."},
            "message": {**MAYBE_TEXT, "description": "The same for a person."},
            "finishing": {**MAYBE_OBJECT, "description": "How far the mix and the manifest are."},
            "failure": {
                **MAYBE_TEXT,
                "description": "What stopped the recording while the interview went on; overflow: a"
                " disk that hung cost sound.",
            },
            "kept": {"enum": ["disk", "store"]},
            "started_at": MAYBE_MOMENT,
            "seconds": MAYBE_NUMBER,
            "complete": {"type": "boolean", "description": "False where sound or text is missing."},
            "reason": {**MAYBE_TEXT, "description": "Why the interview ended."},
            "consent": {
                **MAYBE_OBJECT,
                "description": "Who agreed to being recorded (`by`), when (`at`), and to which "
                "text (`version`, `sha256`).",
            },
            "files": {
                "type": "array",
                "items": fields(
                    {
                        "name": TEXT,
                        "content_type": TEXT,
                        "bytes": {"type": "integer"},
                        "seconds": MAYBE_NUMBER,
                        "sha256": _HASH,
                        "damage": {
                            "type": "array",
                            "items": TEXT,
                            "description": "Codes of what is wrong with it; empty if it is whole.",
                        },
                        "path": {**MAYBE_TEXT, "description": "Where this server hands it out."},
                        "url": {**MAYBE_TEXT, "description": "Opens it to whoever has it."},
                        "url_seconds": {"type": ["integer", "null"]},
                    }
                ),
            },
        },
        *("kept", "started_at", "seconds", "complete", "reason", "consent"),
    ),
    "Erasure": fields(
        {
            "id": ID,
            "erased_at": MOMENT,
            "complete": {
                "type": "boolean",
                "description": "False while copies in a store are to go.",
            },
            "waits_for": {
                **MAYBE_TEXT,
                "description": "Code of the trouble that this store is in; it is asked again.",
            },
            "files": {"type": "array", "items": TEXT, "description": "What this request removed."},
            "turns": {"type": "integer"},
        }
    ),
}


def _partly(sentence: str, content: Json) -> Json:
    """The answers of a file that can be had in part."""
    return {
        "200": {"description": sentence, "content": content, "headers": _HEADERS},
        "206": {"description": "The part that was asked for.", "content": content},
        "304": {"description": "The caller has it."},
        **refusals(*MINE, "409", "410", "416", "500"),
    }


RECORDINGS: Final[Json] = {
    "/api/interviews/{interview_id}/recording": {
        "get": operation(
            "recordings",
            "What a recording consists of.",
            {"200": answer("The recording.", ref("Recording")), **refusals(*MINE, "410")},
            parameters=[INTERVIEW_ID],
            **OPERATOR,
        )
    },
    "/api/interviews/{interview_id}/recording/{which}": {
        "get": operation(
            "recordings",
            "One voice, or both mixed; with a Range header, a part of it.",
            _partly(
                "The whole sound.",
                {
                    "audio/ogg; codecs=opus": {"schema": TEXT},
                    "audio/webm; codecs=opus": {"schema": TEXT},
                },
            ),
            parameters=[
                INTERVIEW_ID,
                parameter("which", "path", {"enum": list(SOUNDS)}),
                parameter(
                    "damaged",
                    "query",
                    {"type": "boolean", "default": False},
                    "True gets what is left of a file that was damaged when it was finished.",
                ),
            ],
            **OPERATOR,
        )
    },
    "/api/interviews/{interview_id}/waveform": {
        "get": operation(
            "recordings",
            "How loud both voices are over time.",
            _partly("The waveform.", {"application/json": {"schema": PEAKS}}),
            parameters=[INTERVIEW_ID],
            **OPERATOR,
        )
    },
}
