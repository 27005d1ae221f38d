"""The OpenAPI document of everything that is served over HTTP, kept by hand.

A test holds it against the router: every route is in it, and nothing else. What requests may hold
is checked elsewhere; here it is described.
"""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from .. import __version__
from ..core.persona import VOICES
from ..core.tokens import LONGEST_LIFE_SECONDS
from ..notices.types import FACTS
from ..types import Json
from .interviews_api import DEFAULT_LIMIT, MAX_LIMIT, PHASES
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
)

PATH: Final = "/api/openapi.json"

_TEXT: Final[Json] = {"type": "string"}
_MAYBE_TEXT: Final[Json] = {"type": ["string", "null"]}
_MAYBE_NUMBER: Final[Json] = {"type": ["number", "null"]}
_MOMENT: Final[Json] = {"type": "string", "format": "date-time"}
_MAYBE_MOMENT: Final[Json] = {"type": ["string", "null"], "format": "date-time"}
_MAYBE_OBJECT: Final[Json] = {"type": ["object", "null"]}
_ID: Final[Json] = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}

_SENTENCES: Final = {
    "400": "The request could not be understood.",
    "401": "A key or token is missing, wrong, expired or used.",
    "404": "There is nothing of that name.",
    "409": "The request does not fit the state that things are in.",
    "413": "The body is too large.",
    "415": "The path does not take that content type.",
    "422": "A field is missing or wrong; `field` names it.",
    "429": "Asked too often.",
    "500": "A defect of the server.",
    "502": "The voice service refused or failed.",
    "503": "The database, the voice service or the server cannot do it just now; try again.",
}


def ref(name: str) -> Json:
    """A reference to one of the schemas."""
    return {"$ref": f"#/components/schemas/{name}"}


def fields(properties: Json, *optional: str, closed: bool = False) -> Json:
    """An object whose fields are all there, but for the optional ones."""
    made: Json = {"type": "object", "properties": properties}
    required = [name for name in properties if name not in optional]
    if required:
        made["required"] = required
    if closed:
        made["additionalProperties"] = False
    return made


def answer(sentence: str, schema: Json, headers: Json | None = None) -> Json:
    """A JSON answer."""
    made: Json = {"description": sentence, "content": {"application/json": {"schema": schema}}}
    return made if headers is None else {**made, "headers": headers}


def refusals(*statuses: str, form: str = "Error") -> Json:
    """Answers that tell an error, in one of the three forms."""
    return {status: answer(_SENTENCES[status], ref(form)) for status in statuses}


def json_body(schema: Json, *, required: bool = True) -> Json:
    """A request body in JSON."""
    return {"required": required, "content": {"application/json": {"schema": schema}}}


def parameter(name: str, place: str, schema: Json, sentence: str = "") -> Json:
    """A parameter of the path, the query or a header."""
    made: Json = {"name": name, "in": place, "schema": schema, "required": place == "path"}
    return {**made, "description": sentence} if sentence else made


def operation(tag: str, summary: str, responses: Json, **rest: Any) -> Json:
    """One operation."""
    return {"tags": [tag], "summary": summary, "responses": responses, **rest}


OPERATOR: Final[Json] = {"security": [{"adminKey": []}]}
CANDIDATE: Final[Json] = {"security": [{}, {"joinToken": []}]}

_INTERVIEW_ID: Final = parameter("interview_id", "path", _ID)
_MINE: Final = ("400", "401", "404", "429", "503")
"""How any operation on one interview can be refused."""

_PLAN: Final = fields(
    {
        "instructions": {**_TEXT, "minLength": 1, "maxLength": MAX_INSTRUCTIONS},
        "voice": {"enum": list(VOICES), "default": "marin"},
        "model": {"type": ["string", "null"], "pattern": "^gpt-realtime[a-z0-9.-]{0,48}$"},
        "language": {"type": ["string", "null"], "pattern": "^[a-z]{2,3}(-[A-Za-z0-9]{2,8})?$"},
    },
    "voice",
    "model",
    "language",
    closed=True,
)

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
    "id": _ID,
    "origin": {"enum": ["api", "open"]},
    "phase": {"enum": list(PHASES)},
    "reason": {**_MAYBE_TEXT, "description": "Why it is ending or has ended."},
    "persona": {**_MAYBE_TEXT, "description": "Null where a plan was given."},
    "plan": _MAYBE_OBJECT,
    "candidate_reference": _MAYBE_TEXT,
    "metadata": _MAYBE_OBJECT,
    "limits": _MAYBE_OBJECT,
    "callback": {
        "type": ["object", "null"],
        "properties": {"url": _TEXT, "events": {"type": ["array", "null"], "items": _TEXT}},
    },
    "created_at": _MAYBE_MOMENT,
    "started_at": _MAYBE_MOMENT,
    "ended_at": _MAYBE_MOMENT,
    "expires_at": {**_MAYBE_MOMENT, "description": "Until when it can be joined first."},
    "seconds": {**_MAYBE_NUMBER, "description": "From the start to the end."},
    "usage": {**_MAYBE_OBJECT, "description": "What the voice service counted."},
}

SCHEMAS: Final[Json] = {
    "Error": fields(
        {
            "error": fields(
                {
                    "code": {**_TEXT, "description": "Stable; listed in docs/errors.md."},
                    "message": {**_TEXT, "description": "One sentence for a person."},
                    "field": {**_TEXT, "description": "The field at fault, dotted."},
                },
                "field",
            )
        }
    ),
    "FlatError": fields({"error": _TEXT, "message": _TEXT, "code": _TEXT}),
    "OpenAIError": fields(
        {
            "error": fields(
                {"message": _TEXT, "type": _TEXT, "param": _MAYBE_TEXT, "code": _MAYBE_TEXT}
            )
        }
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
                **_MAYBE_OBJECT,
                "description": f"Yours, given back as it is; {MAX_METADATA_BYTES} bytes at most.",
            },
            "limits": _LIMITS,
            "callback": {
                "oneOf": [
                    fields(
                        {
                            "url": {**_TEXT, "format": "uri", "maxLength": 2048},
                            "secret": {
                                **_MAYBE_TEXT,
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
            "idempotency_key": {"type": ["string", "null"], "minLength": 1, "maxLength": MAX_KEY},
        },
        *("persona", "plan", "candidate_reference", "metadata", "limits", "callback"),
        "idempotency_key",
        closed=True,
    ),
    "Interview": fields(_INTERVIEW),
    "CreatedInterview": fields(
        {
            **_INTERVIEW,
            "join_url": {**_TEXT, "description": "For the candidate; holds the token."},
            "join_token": {**_MAYBE_TEXT, "description": "Null where others issue the tokens."},
            "sdk_key": {**_MAYBE_TEXT, "description": "The token as a key for OpenAI's SDKs."},
        }
    ),
    "WholeInterview": fields(
        {
            **_INTERVIEW,
            "statistics": {**_MAYBE_OBJECT, "description": "While this process knows it."},
            "files": {"type": "array", "items": _TEXT},
        }
    ),
    "Transcript": fields(
        {
            "schema": {"type": "integer"},
            "session_id": _TEXT,
            "started_at": _MOMENT,
            "turns": {
                "type": "array",
                "items": fields(
                    {
                        "item_id": _TEXT,
                        "speaker": {"enum": ["candidate", "interviewer"]},
                        "text": _TEXT,
                        "started_at": _MAYBE_NUMBER,
                        "ended_at": _MAYBE_NUMBER,
                        "status": {"enum": ["partial", "complete", "interrupted", "failed"]},
                        "heard_ms": {"type": ["integer", "null"]},
                    }
                ),
            },
        }
    ),
    "Key": fields(
        {
            "id": _TEXT,
            "name": _TEXT,
            "created_at": _MOMENT,
            "last_used_at": _MAYBE_MOMENT,
            "revoked_at": _MAYBE_MOMENT,
        }
    ),
    "SdpAnswer": fields(
        {
            "sessionId": _TEXT,
            "sdpAnswer": _TEXT,
            "answer": fields({"type": {"const": "answer"}, "sdp": _TEXT}),
            "resumeToken": {**_TEXT, "description": "For coming back; invited candidates only."},
        },
        "resumeToken",
    ),
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
                    {"Location": {"schema": _TEXT}, "Idempotent-Replayed": {"schema": _TEXT}},
                ),
                **refusals("400", "401", "409", "413", "415", "422", "429", "503"),
            },
            parameters=[
                parameter(
                    "Idempotency-Key",
                    "header",
                    {**_TEXT, "minLength": 1, "maxLength": MAX_KEY},
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
                            "next_cursor": _MAYBE_TEXT,
                        }
                    ),
                ),
                **refusals("401", "422", "429", "503"),
            },
            parameters=[
                parameter("phase", "query", {"enum": list(PHASES)}),
                parameter("created_after", "query", _MOMENT, "From this moment on."),
                parameter("created_before", "query", _MOMENT, "Before this moment."),
                parameter("candidate_reference", "query", {**_TEXT, "maxLength": MAX_REFERENCE}),
                parameter(
                    "limit",
                    "query",
                    {
                        "type": "integer",
                        "minimum": 1,
                        "maximum": MAX_LIMIT,
                        "default": DEFAULT_LIMIT,
                    },
                ),
                parameter("cursor", "query", _TEXT, "`next_cursor` of the page before."),
            ],
            **OPERATOR,
        ),
    },
    "/api/interviews/{interview_id}": {
        "get": operation(
            "interviews",
            "One interview, running or over.",
            {"200": answer("The interview.", ref("WholeInterview")), **refusals(*_MINE)},
            parameters=[_INTERVIEW_ID],
            **OPERATOR,
        ),
        "delete": operation(
            "interviews",
            "End an interview and erase what was said, recorded and known of its candidate.",
            {
                "200": answer(
                    "Erased, now or earlier.",
                    fields(
                        {
                            "id": _ID,
                            "deleted_at": _MOMENT,
                            "files": {"type": "array", "items": _TEXT},
                            "turns": {"type": "integer"},
                        }
                    ),
                ),
                **refusals(*_MINE, "409"),
            },
            parameters=[_INTERVIEW_ID],
            **OPERATOR,
        ),
    },
    "/api/interviews/{interview_id}/end": {
        "post": operation(
            "interviews",
            "End an interview; answers when it is over, or after 15 seconds.",
            {"200": answer("The interview.", ref("WholeInterview")), **refusals(*_MINE, "409")},
            parameters=[_INTERVIEW_ID],
            **OPERATOR,
        ),
    },
    "/api/interviews/{interview_id}/transcript": {
        "get": operation(
            "interviews",
            "The finished transcript.",
            {"200": answer("The transcript.", ref("Transcript")), **refusals(*_MINE)},
            parameters=[_INTERVIEW_ID],
            **OPERATOR,
        ),
    },
}

KEYS: Final[Json] = {
    "/api/keys": {
        "post": operation(
            "keys",
            "Make a key for operators. This answer alone holds it.",
            {
                "201": answer("Made.", {"allOf": [ref("Key"), fields({"key": _TEXT})]}),
                **refusals("400", "401", "413", "415", "422", "429", "503"),
            },
            requestBody=json_body(
                fields({"name": {**_TEXT, "minLength": 1, "maxLength": MAX_NAME}}, closed=True)
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
            parameters=[parameter("key_id", "path", {**_TEXT, "pattern": "^[0-9a-f]{16}$"})],
            **OPERATOR,
        ),
    },
}

_FLAT: Final = "FlatError"
_SDP: Final[Json] = {"oneOf": [_TEXT, fields({"type": {"const": "offer"}, "sdp": _TEXT}, "type")]}
_JOINS: Final = ("400", "401", "404", "409", "413", "415", "429", "500", "502", "503")
"""How an offer can be refused. 500 is the voice service's setting being wrong."""

CANDIDATES: Final[Json] = {
    "/api/personas": {
        "get": operation(
            "candidates",
            "Who can interview.",
            {
                "200": answer(
                    "All.",
                    fields(
                        {
                            "default": _TEXT,
                            "personas": {
                                "type": "array",
                                "items": fields(
                                    {
                                        "name": _TEXT,
                                        "title": _TEXT,
                                        "description": _TEXT,
                                        "voice": _TEXT,
                                    }
                                ),
                            },
                        }
                    ),
                )
            },
        )
    },
    "/api/ice-servers": {
        "get": operation(
            "candidates",
            "Relays for the browser.",
            {
                "200": answer(
                    "What RTCPeerConnection takes.",
                    fields(
                        {
                            "iceServers": {"type": "array", "items": {"type": "object"}},
                            "iceTransportPolicy": _TEXT,
                            "ttl": {"type": "integer"},
                        }
                    ),
                ),
                **refusals("401", "429", "503"),
            },
            **CANDIDATE,
        )
    },
    "/api/sdp-exchange": {
        "post": operation(
            "candidates",
            "Answer an offer over HTTP.",
            {
                "200": answer("The answer.", ref("SdpAnswer")),
                **refusals(*_JOINS, form=_FLAT),
            },
            requestBody=json_body(
                fields(
                    {"sdpOffer": _SDP, "sessionId": _MAYBE_TEXT, "aiPersona": _MAYBE_TEXT},
                    "sessionId",
                    "aiPersona",
                )
            ),
            **CANDIDATE,
        )
    },
    "/api/generate-ephemeral-key": {
        "post": operation(
            "candidates",
            "Answer in the shape of an ephemeral key; the secret itself stays in the server.",
            {
                "200": answer(
                    "The answer.",
                    fields(
                        {
                            "success": {"const": True},
                            "expires_in": {"type": "integer"},
                            "client_secret": fields(
                                {"value": _TEXT, "expires_at": {"type": "integer"}}
                            ),
                        }
                    ),
                ),
                **refusals("400", "413", "415", form=_FLAT),
            },
            requestBody=json_body(
                fields(
                    {"sessionId": _MAYBE_TEXT, "voice": _MAYBE_TEXT, "model": _MAYBE_TEXT},
                    "sessionId",
                    "voice",
                    "model",
                )
            ),
        )
    },
    "/api/sessions/{session_id}": {
        "get": operation(
            "candidates",
            "Where a session stands.",
            {
                "200": answer(
                    "The session.",
                    fields(
                        {
                            "sessionId": _TEXT,
                            "connected": {"type": "integer"},
                            "lastActivity": {"type": "integer"},
                            "hasEphemeralKey": {"type": "boolean"},
                            "keyValid": {"type": "boolean"},
                            "phase": {"enum": list(PHASES)},
                            "reason": _MAYBE_TEXT,
                        }
                    ),
                ),
                **refusals("404", form=_FLAT),
            },
            parameters=[parameter("session_id", "path", _TEXT)],
        )
    },
    "/v1/realtime/calls": {
        "post": operation(
            "candidates",
            "Take an offer as OpenAI's own endpoint does.",
            {
                "201": {
                    "description": "The answer, as SDP.",
                    "content": {"application/sdp": {"schema": _TEXT}},
                    "headers": {"Location": {"schema": _TEXT}},
                },
                **refusals(*_JOINS, form="OpenAIError"),
            },
            requestBody={
                "required": True,
                "content": {
                    "application/sdp": {"schema": _TEXT},
                    "multipart/form-data": {
                        "schema": fields({"sdp": _TEXT, "session": {"type": "object"}}, "session")
                    },
                },
            },
            **CANDIDATE,
        )
    },
    "/v1/realtime/calls/{call_id}/hangup": {
        "post": operation(
            "candidates",
            "End a call.",
            {
                "200": {"description": "Ended."},
                **refusals("401", "404", "429", "503", form="OpenAIError"),
            },
            parameters=[parameter("call_id", "path", _TEXT)],
            **CANDIDATE,
        )
    },
}


def _file(summary: str, *kinds: str) -> Json:
    content = {kind: {"schema": _TEXT} for kind in kinds}
    return operation("pages", summary, {"200": {"description": "The file.", "content": content}})


def _socket(summary: str, *parameters: Json) -> Json:
    made = operation(
        "candidates",
        summary,
        {
            "101": {"description": "A WebSocket; its messages are in docs/protocol.md."},
            **refusals("400"),
        },
        **CANDIDATE,
    )
    return {**made, "parameters": list(parameters)} if parameters else made


_STATUS: Final[Json] = {"status": {"const": "ok"}}

SERVER: Final[Json] = {
    "/": {"get": _file("The page; or signalling, for a WebSocket.", "text/html")},
    "/i/{interview_id}": {
        "get": {
            **_file("The page, for an invited candidate.", "text/html"),
            "parameters": [parameter("interview_id", "path", _TEXT)],
        }
    },
    "/static/{path}": {
        "get": {
            **operation(
                "pages",
                "The page's files.",
                {
                    "200": {"description": "The file.", "content": {"*/*": {"schema": _TEXT}}},
                    **refusals("404"),
                },
            ),
            "parameters": [parameter("path", "path", _TEXT)],
        }
    },
    "/ws": {"get": _socket("Signalling.")},
    "/ws/{session_id}": {
        "get": _socket("Signalling of a known session.", parameter("session_id", "path", _TEXT))
    },
    "/health": {
        "get": operation(
            "server",
            "Whether the server answers.",
            {"200": answer("It does.", fields({**_STATUS, "timestamp": _MOMENT}))},
        )
    },
    "/healthz": {
        "get": operation(
            "server",
            "The same with figures.",
            {
                "200": answer(
                    "They are good.",
                    fields(
                        {
                            **_STATUS,
                            "uptime": {"type": "number"},
                            "sessions": {"type": "integer"},
                            "interviews": {"type": "integer"},
                            "media": {"type": "object"},
                            "env": {"type": "object"},
                        }
                    ),
                )
            },
        )
    },
    PATH: {
        "get": operation(
            "server", "This document.", {"200": answer("OpenAPI 3.1.", {"type": "object"})}
        )
    },
}


def document() -> Json:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "interview_peer",
            "version": __version__,
            "description": "Spoken AI interviews: made, joined, watched, ended and erased.",
        },
        "paths": {**INTERVIEWS, **KEYS, **CANDIDATES, **SERVER},
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "adminKey": {"type": "http", "scheme": "bearer"},
                "joinToken": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def add_to(app: web.Application) -> None:
    """Serve the document."""
    whole = document()

    async def serve(request: web.Request) -> web.Response:
        return web.json_response(whole)

    app.router.add_get(PATH, serve)
