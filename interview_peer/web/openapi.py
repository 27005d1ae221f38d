"""The OpenAPI document of everything that is served over HTTP, kept by hand.

A test holds it against the router: every route is in it, and nothing else. What requests may hold
is checked elsewhere; here it is described. This module has what candidates and the server itself
use, ``openapi_operators``, ``openapi_recordings``, ``openapi_audit`` and ``openapi_webhooks`` the
rest.
"""

from __future__ import annotations

import json
from typing import Final

from aiohttp import web

from .. import __version__
from ..core import scopes
from ..types import Json
from . import client_secrets, openapi_audit, openapi_recordings, openapi_webhooks
from .forms import PROXY_PATHS
from .interviews_api import PHASES
from .openapi_operators import INTERVIEWS, KEYS, SCHEMAS
from .openapi_parts import (
    CANDIDATE,
    MAYBE_MOMENT,
    MAYBE_TEXT,
    MOMENT,
    OPERATOR,
    TEXT,
    answer,
    fields,
    json_body,
    operation,
    parameter,
    ref,
    refusals,
)

PATH: Final = "/api/openapi.json"

_OPERATORS_KEY: Final = "adminKey"
_FLAT: Final = "FlatError"
_SDP: Final[Json] = {"oneOf": [TEXT, fields({"type": {"const": "offer"}, "sdp": TEXT}, "type")]}
_JOINS: Final = ("400", "401", "403", "404", "409", "413", "415", "429", "500", "502", "503")
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
                            "default": TEXT,
                            "consentRequired": {
                                "type": "boolean",
                                "description": "Whether those without a token must agree, too.",
                            },
                            "personas": {
                                "type": "array",
                                "items": fields(
                                    {
                                        "name": TEXT,
                                        "title": TEXT,
                                        "description": TEXT,
                                        "voice": TEXT,
                                    }
                                ),
                            },
                        }
                    ),
                )
            },
        )
    },
    "/api/consent/{session_id}": {
        "get": operation(
            "candidates",
            "What a candidate must agree to before anything is recorded.",
            {
                "200": answer("The text, and whether it was agreed to.", ref("Consent")),
                **refusals("400", "401", "404", "409", "429", "503"),
            },
            parameters=[parameter("session_id", "path", TEXT)],
            **CANDIDATE,
        ),
        "post": operation(
            "candidates",
            "Agree to it, or refuse, which ends the interview.",
            {
                "200": answer("What was decided.", ref("Consent")),
                "409": answer(
                    "Another version of the text, which comes along, or too late.",
                    fields({"error": {"type": "object"}, "consent": ref("Consent")}, "consent"),
                ),
                **refusals("400", "401", "404", "413", "415", "429", "503"),
            },
            parameters=[parameter("session_id", "path", TEXT)],
            requestBody=json_body(
                fields({"agreed": {"type": "boolean"}, "version": MAYBE_TEXT}, "version")
            ),
            **CANDIDATE,
        ),
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
                            "iceTransportPolicy": TEXT,
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
                    {"sdpOffer": _SDP, "sessionId": MAYBE_TEXT, "aiPersona": MAYBE_TEXT},
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
                                {"value": TEXT, "expires_at": {"type": "integer"}}
                            ),
                        }
                    ),
                ),
                **refusals("400", "413", "415", "429", "503", form=_FLAT),
            },
            requestBody=json_body(
                fields(
                    {"sessionId": MAYBE_TEXT, "voice": MAYBE_TEXT, "model": MAYBE_TEXT},
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
                            "sessionId": TEXT,
                            "connected": {"type": "integer"},
                            "lastActivity": {"type": "integer"},
                            "hasEphemeralKey": {"type": "boolean"},
                            "keyValid": {"type": "boolean"},
                            "phase": {"enum": list(PHASES)},
                            "reason": MAYBE_TEXT,
                        }
                    ),
                ),
                **refusals("401", "404", "429", "503", form=_FLAT),
            },
            parameters=[parameter("session_id", "path", TEXT)],
            **CANDIDATE,
        )
    },
    "/v1/realtime/calls": {
        "post": operation(
            "candidates",
            "Take an offer as OpenAI's own endpoint does.",
            {
                "201": {
                    "description": "The answer, as SDP.",
                    "content": {"application/sdp": {"schema": TEXT}},
                    "headers": {"Location": {"schema": TEXT}},
                },
                **refusals(*_JOINS, form="OpenAIError"),
            },
            requestBody={
                "required": True,
                "content": {
                    "application/sdp": {"schema": TEXT},
                    "multipart/form-data": {
                        "schema": fields({"sdp": TEXT, "session": {"type": "object"}}, "session")
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
            parameters=[parameter("call_id", "path", TEXT)],
            security=[{}, {"joinToken": []}, {"adminKey": []}],
        )
    },
}

_FREE: Final[Json] = {"type": ["object", "null"]}

BACK_ENDS: Final[Json] = {
    "/v1/realtime/client_secrets": {
        "post": operation(
            "interviews",
            "Make an interview, and a key for its candidate's SDK, as OpenAI's endpoint does.",
            {
                "200": answer(
                    "The key, a join token of this server.",
                    fields(
                        {
                            "value": {**TEXT, "pattern": "^ek_"},
                            "expires_at": {"type": "integer"},
                            "session": {"type": "object"},
                        }
                    ),
                    {"Idempotent-Replayed": {"schema": {"const": "true"}}},
                ),
                **refusals("400", "401", "409", "413", "415", "429", "503", form="OpenAIError"),
            },
            requestBody=json_body(
                fields(
                    {
                        "expires_after": {
                            **_FREE,
                            "properties": {
                                "anchor": {"const": "created_at"},
                                "seconds": {
                                    "type": "integer",
                                    "minimum": client_secrets.LEAST_SECONDS,
                                    "maximum": client_secrets.MOST_SECONDS,
                                    "default": client_secrets.DEFAULT_SECONDS,
                                },
                            },
                            "additionalProperties": False,
                        },
                        "session": {
                            **_FREE,
                            "description": "As OpenAI has it; docs/api.md tells what is used.",
                        },
                        "interview": {
                            **_FREE,
                            "description": "Further fields, as of `POST /api/interviews`.",
                        },
                    },
                    "expires_after",
                    "session",
                    "interview",
                    closed=True,
                )
            ),
            parameters=[parameter("Idempotency-Key", "header", TEXT)],
            **OPERATOR,
        )
    }
}


def _file(summary: str, *kinds: str) -> Json:
    content = {kind: {"schema": TEXT} for kind in kinds}
    return operation("pages", summary, {"200": {"description": "The file.", "content": content}})


def _socket(summary: str, *parameters: Json) -> Json:
    made = operation(
        "candidates",
        summary,
        {
            "101": {"description": "A WebSocket; its messages are in docs/protocol.md."},
            **refusals("400", "429", "503"),
        },
        **CANDIDATE,
    )
    return {**made, "parameters": list(parameters)} if parameters else made


_STATUS: Final[Json] = {"status": {"const": "ok"}}
_READINESS: Final = fields(
    {
        "status": {"enum": ["ready", "not_ready"]},
        "reasons": {"type": "array", "items": TEXT},
    }
)

SERVER: Final[Json] = {
    "/": {"get": _file("The page; or signalling, for a WebSocket.", "text/html")},
    "/i/{interview_id}": {
        "get": {
            **_file("The page, for an invited candidate.", "text/html"),
            "parameters": [parameter("interview_id", "path", TEXT)],
        }
    },
    "/static/{path}": {
        "get": {
            **operation(
                "pages",
                "The page's files.",
                {
                    "200": {"description": "The file.", "content": {"*/*": {"schema": TEXT}}},
                    **refusals("404"),
                },
            ),
            "parameters": [parameter("path", "path", TEXT)],
        }
    },
    "/ws": {"get": _socket("Signalling.")},
    "/ws/{session_id}": {
        "get": _socket("Signalling of a known session.", parameter("session_id", "path", TEXT))
    },
    "/health": {
        "get": operation(
            "server",
            "Whether the server answers.",
            {"200": answer("It does.", fields({**_STATUS, "timestamp": MOMENT}))},
        )
    },
    "/readyz": {
        "get": operation(
            "server",
            "Whether new interviews should be sent here.",
            {
                "200": answer("They should.", _READINESS),
                "503": answer("They should not, for these reasons.", _READINESS),
            },
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
                            "tasks": {"type": "integer"},
                            "without_token": {"type": "object"},
                            "refused": {"type": "object"},
                            "passed_on": {"type": "object"},
                            "media": {"type": "object"},
                            "recordings": {"type": "object"},
                            "chronicle": {"type": "object"},
                            "notices": {"type": "object"},
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


_DRAIN: Final = fields(
    {
        "state": {"enum": ["serving", "draining", "drained"]},
        "interviews": {"type": "integer"},
        "since": MAYBE_MOMENT,
        "until": MAYBE_MOMENT,
        "exit": {"type": "boolean"},
    }
)

_OPERATORS: Final[Json] = {
    "/api/drain": {
        "get": operation(
            "operators",
            "How far the server is with emptying itself.",
            {"200": answer("This far.", _DRAIN), **refusals("401", "429", "503")},
            **OPERATOR,
        ),
        "post": operation(
            "operators",
            "Let no interview begin any more and those that run finish; again changes the limit.",
            {
                "202": answer("It has begun.", _DRAIN),
                **refusals("400", "401", "413", "415", "422", "429", "503"),
            },
            requestBody=json_body(
                fields(
                    {
                        "seconds": {"type": ["number", "null"], "minimum": 0, "maximum": 86_400},
                        "exit": {"type": "boolean"},
                    },
                    "seconds",
                    "exit",
                    closed=True,
                ),
                required=False,
            ),
            **OPERATOR,
        ),
    },
    **INTERVIEWS,
    **openapi_recordings.RECORDINGS,
    **KEYS,
    **openapi_audit.AUDIT,
    **openapi_webhooks.WEBHOOKS,
}


def _scoped(paths: Json) -> Json:
    """The paths, with the scopes of which a key needs one: each is a way in of its own."""
    return {
        path: {method: _scoped_operation(method, path, one) for method, one in item.items()}
        for path, item in paths.items()
    }


def _scoped_operation(method: str, path: str, operation: Json) -> Json:
    if not _is_operators(operation):
        return operation
    wanted = scopes.listed(scopes.needed(method.upper(), path))
    others = [way for way in operation["security"] if _OPERATORS_KEY not in way]
    named = " or ".join(f"`{name}`" for name in wanted)
    return {
        **operation,
        "description": f"A key needs the scope {named}.",
        "security": [*others, *({_OPERATORS_KEY: [name]} for name in wanted)],
    }


def _is_operators(operation: Json) -> bool:
    return any(_OPERATORS_KEY in way for way in operation.get("security", ()))


def _refusing(paths: Json) -> Json:
    """The paths, with what keys without the scope are told, and pages of other origins where
    something is changed."""
    return {
        path: {
            method: one
            if method == "get" and "101" not in one["responses"] and not _is_operators(one)
            else {**one, "responses": {**one["responses"], **refusals("403", form=_form_of(path))}}
            for method, one in item.items()
        }
        for path, item in paths.items()
    }


def _form_of(path: str) -> str:
    if path.startswith("/v1/"):
        return "OpenAIError"
    return _FLAT if path.startswith(PROXY_PATHS) else "Error"


def document() -> Json:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "interview_peer",
            "version": __version__,
            "description": "Spoken AI interviews: made, joined, watched, ended and erased.",
        },
        "paths": _refusing(_scoped({**_OPERATORS, **BACK_ENDS, **CANDIDATES, **SERVER})),
        "components": {
            "schemas": {
                **SCHEMAS,
                **openapi_recordings.SCHEMAS,
                **openapi_audit.SCHEMAS,
                **openapi_webhooks.SCHEMAS,
            },
            "securitySchemes": {
                "adminKey": {"type": "http", "scheme": "bearer"},
                "joinToken": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def add_to(app: web.Application) -> None:
    """Serve the document."""
    # Written once: it is some hundred kB, which anybody may ask for as often as they like.
    whole = json.dumps(document()).encode()

    async def serve(request: web.Request) -> web.Response:
        return web.Response(body=whole, content_type="application/json", charset="utf-8")

    app.router.add_get(PATH, serve)
