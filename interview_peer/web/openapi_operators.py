"""The OpenAPI document's part for operators and integrators: interviews and keys."""

from __future__ import annotations

from typing import Final

from ..core.consent import Policy
from ..core.persona import VOICES
from ..core.scopes import Scope
from ..core.tokens import LONGEST_LIFE_SECONDS
from ..core.tools import BUILT_IN
from ..notices.types import FACTS
from ..types import INVITED, OPEN, Json
from .control_api import (
    DEFAULT_GOODBYE_SECONDS,
    MAX_GOODBYE_SECONDS,
    MAX_INSTRUCTION,
    MAX_WORDS,
)
from .interviews_api import KINDS, PHASES
from .keys_api import MAX_NAME
from .new_interview import (
    DEFAULT_EXPIRES_SECONDS,
    LEAST_EXPIRES_SECONDS,
    LEAST_SECONDS,
    MAX_INSTRUCTIONS,
    MAX_KEY,
    MAX_METADATA_BYTES,
    MAX_REFERENCE,
    MAX_SECONDS,
    VOICE_ID,
)
from .openapi_parts import (
    ID,
    INTERVIEW_ID,
    MAYBE_MOMENT,
    MAYBE_NUMBER,
    MAYBE_OBJECT,
    MAYBE_TEXT,
    MAYBE_WHOLE,
    MINE,
    MOMENT,
    OPERATOR,
    PAGING,
    TEXT,
    answer,
    fields,
    json_body,
    operation,
    parameter,
    ref,
    refusals,
)

_PLAN: Final = fields(
    {
        "instructions": {**TEXT, "minLength": 1, "maxLength": MAX_INSTRUCTIONS},
        "voice": {
            "oneOf": [
                {"enum": list(VOICES)},
                fields({"id": {**TEXT, "pattern": f"^{VOICE_ID}$"}}, closed=True),
            ],
            "default": "marin",
            "description": "A voice of the service, or the id of one made for you there.",
        },
        "model": {"type": ["string", "null"], "pattern": "^gpt-realtime[a-z0-9.-]{0,48}$"},
        "language": {"type": ["string", "null"], "pattern": "^[a-z]{2,3}(-[A-Za-z0-9]{2,8})?$"},
        "tools": {
            "type": ["array", "null"],
            "items": {"enum": list(BUILT_IN)},
            "uniqueItems": True,
            "description": "What the interviewer may call; all if left out.",
        },
    },
    "voice",
    "model",
    "language",
    "tools",
    closed=True,
)

_SWITCH: Final[Json] = {"type": "boolean", "default": False}

_LIMITS: Final = fields(
    {
        "max_seconds": {
            "type": "integer",
            "minimum": LEAST_SECONDS,
            "maximum": MAX_SECONDS,
            "default": MAX_SECONDS,
            "description": "How long the interview may last.",
        },
        "expires_in_seconds": {
            "type": "integer",
            "minimum": LEAST_EXPIRES_SECONDS,
            "maximum": LONGEST_LIFE_SECONDS,
            "default": DEFAULT_EXPIRES_SECONDS,
            "description": "How long the invitation is good.",
        },
    },
    "max_seconds",
    "expires_in_seconds",
    closed=True,
)

_CALLBACK_EVENTS: Final[Json] = {
    "type": ["array", "null"],
    "items": {"enum": [*FACTS, "*"]},
    "maxItems": 50,
    "description": "Types of notices to send; null sends all but `transcript.turn`.",
}

_INTERVIEW: Final[Json] = {
    "id": ID,
    "origin": {"enum": [INVITED, OPEN]},
    "phase": {"enum": list(PHASES)},
    "reason": {**MAYBE_TEXT, "description": "Why it is ending or has ended."},
    "persona": {**MAYBE_TEXT, "description": "Null where a plan was given."},
    "plan": MAYBE_OBJECT,
    "candidate_reference": MAYBE_TEXT,
    "metadata": MAYBE_OBJECT,
    "limits": MAYBE_OBJECT,
    "consent": {
        "oneOf": [
            fields(
                {
                    "policy": {"enum": [one.value for one in Policy]},
                    "at": {**MAYBE_MOMENT, "description": "When it was given; null before."},
                    "version": {**MAYBE_TEXT, "description": "Of the text that was agreed to."},
                    "sha256": {**MAYBE_TEXT, "description": "Of that text, in UTF-8."},
                }
            ),
            {"type": "null"},
        ],
        "description": "Whether the candidate must agree to being recorded, and did.",
    },
    "callback": {
        "type": ["object", "null"],
        "properties": {"url": TEXT, "events": {"type": ["array", "null"], "items": TEXT}},
    },
    "created_at": MAYBE_MOMENT,
    "started_at": MAYBE_MOMENT,
    "ended_at": MAYBE_MOMENT,
    "expires_at": {**MAYBE_MOMENT, "description": "Until when it can be joined first."},
    "seconds": {**MAYBE_NUMBER, "description": "From the start to the end."},
    "usage": {**MAYBE_OBJECT, "description": "What the voice service counted."},
}

SCHEMAS: Final[Json] = {
    "Error": fields(
        {
            "error": fields(
                {
                    "code": {**TEXT, "description": "Stable; listed in docs/errors.md."},
                    "message": {**TEXT, "description": "One sentence for a person."},
                    "field": {**TEXT, "description": "The field at fault, dotted."},
                },
                "field",
            )
        }
    ),
    "FlatError": fields({"error": TEXT, "message": TEXT, "code": TEXT}),
    "OpenAIError": fields(
        {"error": fields({"message": TEXT, "type": TEXT, "param": MAYBE_TEXT, "code": MAYBE_TEXT})}
    ),
    "NewInterview": fields(
        {
            "persona": {
                "type": ["string", "null"],
                "maxLength": 100,
                "description": "A name that /api/personas lists; the default one if left out.",
            },
            "plan": {
                "oneOf": [_PLAN, {"type": "null"}],
                "description": "An interviewer described here, instead of a persona.",
            },
            "candidate_reference": {"type": ["string", "null"], "maxLength": MAX_REFERENCE},
            "metadata": {
                **MAYBE_OBJECT,
                "description": f"Yours, given back as it is; {MAX_METADATA_BYTES} bytes at most.",
            },
            "limits": _LIMITS,
            "callback": {
                "oneOf": [
                    fields(
                        {
                            "url": {**TEXT, "format": "uri", "maxLength": 2048},
                            "secret": {
                                **MAYBE_TEXT,
                                "description": "`whsec_` and 24 to 64 bytes in base64.",
                            },
                            "events": _CALLBACK_EVENTS,
                        },
                        "secret",
                        "events",
                        closed=True,
                    ),
                    {"type": "null"},
                ]
            },
            "trusted": {
                "type": "boolean",
                "default": False,
                "description": "Whether whoever comes by its token may configure the session.",
            },
            "consent": {
                "enum": ["required", "given", None],
                "description": "`required`: the candidate must agree to being recorded before "
                "anything is; `given`: you have that agreement already; null: the server's choice.",
            },
            "idempotency_key": {"type": ["string", "null"], "minLength": 1, "maxLength": MAX_KEY},
        },
        *("persona", "plan", "candidate_reference", "metadata", "limits", "callback", "trusted"),
        "consent",
        "idempotency_key",
        closed=True,
    ),
    "Interview": fields(_INTERVIEW),
    "CreatedInterview": fields(
        {
            **_INTERVIEW,
            "join_url": {**TEXT, "description": "For the candidate; holds the token."},
            "join_token": {**MAYBE_TEXT, "description": "Null where others issue the tokens."},
            "sdk_key": {**MAYBE_TEXT, "description": "The token as a key for OpenAI's SDKs."},
        }
    ),
    "WholeInterview": fields(
        {
            **_INTERVIEW,
            "statistics": {**MAYBE_OBJECT, "description": "While this process knows it."},
            "files": {"type": "array", "items": TEXT},
            "finishing": {**MAYBE_OBJECT, "description": "How far its recording is, once over."},
        }
    ),
    "Instruct": fields(
        {
            "text": {**TEXT, "minLength": 1, "maxLength": MAX_INSTRUCTION},
            "respond": {
                **_SWITCH,
                "description": "Whether the model is to speak, once nobody does.",
            },
            "interrupt": {
                **_SWITCH,
                "description": "With `respond`: whether what is being said is stopped for it.",
            },
        },
        "respond",
        "interrupt",
        closed=True,
    ),
    "Say": fields(
        {
            "text": {**TEXT, "minLength": 1, "maxLength": MAX_WORDS},
            "interrupt": {
                **_SWITCH,
                "description": "Whether what is being said is stopped for it.",
            },
        },
        "interrupt",
        closed=True,
    ),
    "EndInterview": fields(
        {
            "say": {
                **MAYBE_TEXT,
                "minLength": 1,
                "maxLength": MAX_WORDS,
                "description": "The goodbye, word for word.",
            },
            "politely": {
                **_SWITCH,
                "description": "Whether the interviewer says goodbye in its own words.",
            },
            "seconds": {
                "type": ["integer", "null"],
                "minimum": 1,
                "maximum": MAX_GOODBYE_SECONDS,
                "description": f"For the goodbye; {DEFAULT_GOODBYE_SECONDS} if left out.",
            },
        },
        "say",
        "politely",
        "seconds",
        closed=True,
    ),
    "Control": fields(
        {
            "item_id": {**MAYBE_TEXT, "description": "Of the instruction in the conversation."},
            "response_id": {**MAYBE_TEXT, "description": "Of the reply, once it began."},
        }
    ),
    "Transcript": fields(
        {
            "schema": {"type": "integer"},
            "session_id": TEXT,
            "started_at": MOMENT,
            "final": {"type": "boolean", "description": "False while more may be said."},
            "turns": {
                "type": "array",
                "items": fields(
                    {
                        "item_id": TEXT,
                        "speaker": {"enum": ["candidate", "interviewer"]},
                        "text": TEXT,
                        "kind": {"enum": ["speech", "text"]},
                        "start_ms": MAYBE_WHOLE,
                        "end_ms": MAYBE_WHOLE,
                        "status": {"enum": ["partial", "complete", "interrupted", "failed"]},
                        "heard_ms": MAYBE_WHOLE,
                        "heard_text": MAYBE_TEXT,
                        "estimated": {
                            "type": "boolean",
                            "description": "Whether `heard_text` is cut in proportion to time.",
                        },
                    }
                ),
            },
            "marks": {
                "type": "array",
                "items": fields(
                    {
                        "kind": {"enum": ["tool_call", "silence", "instruction", "dictated"]},
                        "after": {**MAYBE_TEXT, "description": "The turn before it."},
                        "start_ms": {"type": "integer"},
                        "end_ms": {"type": "integer"},
                        "item_id": TEXT,
                        "name": TEXT,
                        "call_id": MAYBE_TEXT,
                    },
                    "item_id",
                    "name",
                    "call_id",
                ),
            },
        }
    ),
    "Scopes": {
        "type": "array",
        "items": {"enum": [*Scope]},
        "minItems": 1,
        "description": "What a key opens; each operation names the scopes of which it needs one.",
    },
    "Key": fields(
        {
            "id": TEXT,
            "name": TEXT,
            "scopes": ref("Scopes"),
            "created_at": MOMENT,
            "last_used_at": MAYBE_MOMENT,
            "revoked_at": MAYBE_MOMENT,
        }
    ),
    "Consent": fields(
        {
            "sessionId": TEXT,
            "required": {"type": "boolean", "description": "Nothing begins until it is given."},
            "agreed": {"type": "boolean"},
            "at": MAYBE_MOMENT,
            "version": {**TEXT, "description": "Of the text; sent back with the agreement."},
            "text": {**TEXT, "description": "Plain text; an empty line parts paragraphs."},
        }
    ),
    "SdpAnswer": fields(
        {
            "sessionId": TEXT,
            "sdpAnswer": TEXT,
            "answer": fields({"type": {"const": "answer"}, "sdp": TEXT}),
            "resumeToken": {**TEXT, "description": "For coming back; invited candidates only."},
        },
        "resumeToken",
    ),
}


def _transcript(*kinds: str) -> Json:
    """The operation that gives a transcript in one of these forms."""
    json_type = KINDS["json"]
    schemas: Json = {
        KINDS[kind]: {"schema": ref("Transcript") if KINDS[kind] == json_type else TEXT}
        for kind in kinds
    }
    parts: Json = {KINDS[kind]: {"schema": TEXT} for kind in kinds}
    refused = [*MINE, *(["406"] if len(kinds) > 1 else []), "410", "416", "500"]
    return {
        "get": operation(
            "interviews",
            "The transcript; of an interview that runs, as far as it is."
            + (" The Accept header says in which form." if len(kinds) > 1 else ""),
            {
                "200": {"description": "The transcript.", "content": schemas},
                "206": {"description": "The part that was asked for.", "content": parts},
                "304": {"description": "The caller has it."},
                **refusals(*refused),
            },
            parameters=[INTERVIEW_ID],
            **OPERATOR,
        )
    }


def _control(summary: str, body: str) -> Json:
    """An operation that takes part in an interview."""
    headers: Json = {"Idempotent-Replayed": {"schema": TEXT}}
    return {
        "post": operation(
            "interviews",
            summary,
            {
                "200": answer("The service has taken it.", ref("Control"), headers),
                "202": answer("It waits until it can be said.", ref("Control"), headers),
                **refusals(*MINE, "409", "413", "415", "422", "502"),
            },
            parameters=[
                INTERVIEW_ID,
                parameter(
                    "Idempotency-Key",
                    "header",
                    {**TEXT, "minLength": 1, "maxLength": MAX_KEY},
                    "Makes it safe to send the same request again.",
                ),
            ],
            requestBody=json_body(ref(body)),
            **OPERATOR,
        )
    }


INTERVIEWS: Final[Json] = {
    "/api/interviews": {
        "post": operation(
            "interviews",
            "Make an interview and the link for its candidate.",
            {
                "201": answer(
                    "Made; or made before, by a request with the same idempotency key.",
                    ref("CreatedInterview"),
                    {"Location": {"schema": TEXT}, "Idempotent-Replayed": {"schema": TEXT}},
                ),
                **refusals("400", "401", "409", "413", "415", "422", "429", "503"),
            },
            parameters=[
                parameter(
                    "Idempotency-Key",
                    "header",
                    {**TEXT, "minLength": 1, "maxLength": MAX_KEY},
                    "Makes it safe to send the same request again.",
                )
            ],
            requestBody=json_body(ref("NewInterview")),
            **OPERATOR,
        ),
        "get": operation(
            "interviews",
            "List interviews, newest first.",
            {
                "200": answer(
                    "One page.",
                    fields(
                        {
                            "interviews": {"type": "array", "items": ref("Interview")},
                            "next_cursor": MAYBE_TEXT,
                        }
                    ),
                ),
                **refusals("401", "422", "429", "503"),
            },
            parameters=[
                parameter("phase", "query", {"enum": list(PHASES)}),
                parameter("created_after", "query", MOMENT, "From this moment on."),
                parameter("created_before", "query", MOMENT, "Before this moment."),
                parameter("candidate_reference", "query", {**TEXT, "maxLength": MAX_REFERENCE}),
                *PAGING,
            ],
            **OPERATOR,
        ),
    },
    "/api/interviews/{interview_id}": {
        "get": operation(
            "interviews",
            "One interview, running or over.",
            {"200": answer("The interview.", ref("WholeInterview")), **refusals(*MINE)},
            parameters=[INTERVIEW_ID],
            **OPERATOR,
        ),
        "delete": operation(
            "interviews",
            "Erase what was said, recorded and known of a candidate.",
            {
                "200": answer("Erased, now or earlier.", ref("Erasure")),
                "202": answer("Erased here; copies in the store are to go.", ref("Erasure")),
                **refusals(*MINE, "409"),
            },
            parameters=[
                INTERVIEW_ID,
                parameter(
                    "end",
                    "query",
                    {"type": "boolean", "default": False},
                    "Whether one that runs is ended first; it is refused otherwise.",
                ),
            ],
            **OPERATOR,
        ),
    },
    "/api/interviews/{interview_id}/end": {
        "post": operation(
            "interviews",
            "End an interview; answers when it is over, or 15 seconds after the goodbye.",
            {
                "200": answer("The interview.", ref("WholeInterview")),
                **refusals(*MINE, "409", "413", "415", "422"),
            },
            parameters=[INTERVIEW_ID],
            requestBody=json_body(ref("EndInterview"), required=False),
            **OPERATOR,
        ),
    },
    "/api/interviews/{interview_id}/instruct": _control(
        "Tell the model something that the candidate does not hear.", "Instruct"
    ),
    "/api/interviews/{interview_id}/say": _control(
        "Have the interviewer say these words; answers when it begins.", "Say"
    ),
    "/api/interviews/{interview_id}/events": {
        "get": operation(
            "interviews",
            "The interview as it happens, as server-sent events.",
            {
                "200": {
                    "description": "Events until the interview ends.",
                    "content": {"text/event-stream": {"schema": TEXT}},
                },
                "204": {"description": "It is over, and nothing is left to be told."},
                **refusals(*MINE, "409"),
            },
            parameters=[
                INTERVIEW_ID,
                parameter(
                    "Last-Event-ID",
                    "header",
                    TEXT,
                    "The number of the event that was read last; what came after it is sent again.",
                ),
            ],
            **OPERATOR,
        ),
    },
    "/api/interviews/{interview_id}/transcript": _transcript(*KINDS),
    **{f"/api/interviews/{{interview_id}}/transcript.{kind}": _transcript(kind) for kind in KINDS},
}

KEYS: Final[Json] = {
    "/api/keys": {
        "post": operation(
            "keys",
            "Make a key for operators. This answer alone holds it.",
            {
                "201": answer("Made.", {"allOf": [ref("Key"), fields({"key": TEXT})]}),
                **refusals("400", "401", "413", "415", "422", "429", "503"),
            },
            requestBody=json_body(
                fields(
                    {
                        "name": {**TEXT, "minLength": 1, "maxLength": MAX_NAME},
                        "scopes": {
                            "oneOf": [ref("Scopes"), {"type": "null"}],
                            "description": "None that the key which asks has not; as many as "
                            "that one has, if left out.",
                        },
                    },
                    "scopes",
                    closed=True,
                )
            ),
            **OPERATOR,
        ),
        "get": operation(
            "keys",
            "List keys, without what they are.",
            {
                "200": answer("All.", fields({"keys": {"type": "array", "items": ref("Key")}})),
                **refusals("401", "429", "503"),
            },
            **OPERATOR,
        ),
    },
    "/api/keys/{key_id}": {
        "delete": operation(
            "keys",
            "Revoke a key.",
            {"200": answer("Revoked.", ref("Key")), **refusals("401", "404", "429", "503")},
            parameters=[parameter("key_id", "path", {**TEXT, "pattern": "^[0-9a-f]{16}$"})],
            **OPERATOR,
        ),
    },
}
