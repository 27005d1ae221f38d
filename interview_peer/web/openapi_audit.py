"""The OpenAPI document's part for what operators did."""

from __future__ import annotations

from typing import Final

from ..core.acts import Outcome
from ..types import Json
from .audit_api import ACTS
from .openapi_parts import (
    ID,
    MAYBE_TEXT,
    MOMENT,
    OPERATOR,
    PAGING,
    TEXT,
    answer,
    fields,
    operation,
    parameter,
    ref,
    refusals,
)

SCHEMAS: Final[Json] = {
    "Act": fields(
        {
            "id": ID,
            "at": {**MOMENT, "description": "When it began."},
            "act": {
                **TEXT,
                "description": "As the parameter has them; also what a newer server wrote down.",
            },
            "outcome": {
                "enum": [one.value for one in Outcome],
                "description": "`begun` is under way, or was when the server broke off.",
            },
            "code": {**MAYBE_TEXT, "description": "Why it was refused, as docs/errors.md has it."},
            "key_id": {**TEXT, "description": "As /api/keys tells it, or a word for none."},
            "key_name": TEXT,
            "interview_id": MAYBE_TEXT,
            "object_id": {
                **MAYBE_TEXT,
                "description": "A key, a webhook or a delivery; a number for refusals.left_out.",
            },
            "address": {**MAYBE_TEXT, "description": "The client's."},
        }
    ),
}

AUDIT: Final[Json] = {
    "/api/audit": {
        "get": operation(
            "audit",
            "What operators did, newest first.",
            {
                "200": answer(
                    "One page.",
                    fields(
                        {
                            "acts": {"type": "array", "items": ref("Act")},
                            "next_cursor": MAYBE_TEXT,
                        }
                    ),
                ),
                **refusals("401", "422", "429", "503"),
            },
            parameters=[
                parameter("interview", "query", ID, "What was done to this interview."),
                parameter("key", "query", ID, "What was done with the key of this id."),
                parameter("act", "query", {"enum": list(ACTS)}),
                parameter("since", "query", MOMENT, "From this moment on."),
                parameter("until", "query", MOMENT, "Before this moment."),
                *PAGING,
            ],
            **OPERATOR,
        ),
    },
}
