"""The OpenAPI document's part for webhooks: endpoints and deliveries."""

from __future__ import annotations

from typing import Final

from ..notices.desk import MAX_DESCRIPTION, MAX_KEY, MAX_PAGE
from ..notices.outbox import STATES
from ..notices.types import FACTS
from ..types import Json
from .openapi_parts import (
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

_EVENTS: Final[Json] = {"type": ["array", "null"], "items": {"enum": [*FACTS, "*"]}}
_ENDPOINT: Final[Json] = {
    "url": {**TEXT, "format": "uri", "maxLength": 2048},
    "events": {**_EVENTS, "description": "Types of notices; null takes what most want."},
    "description": {"type": ["string", "null"], "maxLength": MAX_DESCRIPTION},
}
_ANY_ID: Final = parameter("id", "path", {**TEXT, "maxLength": 64})
_PAGE: Final = [
    parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE}),
    parameter("cursor", "query", TEXT, "`next_cursor` of the page before."),
]
_ASKED: Final = ("401", "404", "429", "503")
_GIVEN: Final = ("400", "401", "413", "415", "422", "429", "503")

SCHEMAS: Final[Json] = {
    "Webhook": fields(
        {
            "id": TEXT,
            "url": TEXT,
            "events": {"type": ["array", "null"], "items": TEXT},
            "description": MAYBE_TEXT,
            "active": {"type": "boolean"},
            "disabled_reason": MAYBE_TEXT,
            "created_at": MOMENT,
            "secrets_in_force": {"type": "integer"},
        }
    ),
    "Delivery": fields(
        {
            "id": TEXT,
            "notice_id": TEXT,
            "type": TEXT,
            "interview_id": MAYBE_TEXT,
            "sequence": {"type": ["integer", "null"]},
            "endpoint_id": MAYBE_TEXT,
            "url": MAYBE_TEXT,
            "state": {"enum": list(STATES)},
            "attempts": {"type": "integer"},
            "created_at": MOMENT,
            "next_attempt_at": MAYBE_MOMENT,
            "delivered_at": MAYBE_MOMENT,
            "last_status": {"type": ["integer", "null"]},
            "last_error": MAYBE_TEXT,
        }
    ),
}

_WITH_SECRET: Final[Json] = {"allOf": [ref("Webhook"), fields({"secret": TEXT})]}
_DELIVERIES: Final = fields(
    {"deliveries": {"type": "array", "items": ref("Delivery")}, "next_cursor": MAYBE_TEXT}
)
_DUE: Final = answer("Due again.", ref("Delivery"))

WEBHOOKS: Final[Json] = {
    "/api/webhooks": {
        "get": operation(
            "webhooks",
            "List the endpoints that notices go to.",
            {
                "200": answer(
                    "All.", fields({"webhooks": {"type": "array", "items": ref("Webhook")}})
                ),
                **refusals("401", "429", "503"),
            },
            **OPERATOR,
        ),
        "post": operation(
            "webhooks",
            "Keep an endpoint. This answer alone holds its secret.",
            {
                "201": answer("Kept.", _WITH_SECRET, {"Location": {"schema": TEXT}}),
                **refusals(*_GIVEN, "409"),
            },
            parameters=[
                parameter(
                    "Idempotency-Key",
                    "header",
                    {**TEXT, "minLength": 1, "maxLength": MAX_KEY},
                    "Makes it safe to send the same request again.",
                )
            ],
            requestBody=json_body(
                fields(
                    {
                        **_ENDPOINT,
                        "secret": {
                            **MAYBE_TEXT,
                            "description": "`whsec_` and 24 to 64 bytes in base64; made if null.",
                        },
                    },
                    "events",
                    "description",
                    "secret",
                    closed=True,
                )
            ),
            **OPERATOR,
        ),
    },
    "/api/webhooks/{id}": {
        "get": operation(
            "webhooks",
            "One endpoint, and how its deliveries stand.",
            {
                "200": answer(
                    "The endpoint.",
                    {"allOf": [ref("Webhook"), fields({"deliveries": {"type": "object"}})]},
                ),
                **refusals(*_ASKED),
            },
            parameters=[_ANY_ID],
            **OPERATOR,
        ),
        "patch": operation(
            "webhooks",
            "Change an endpoint.",
            {"200": answer("Changed.", ref("Webhook")), **refusals(*_GIVEN, "404")},
            parameters=[_ANY_ID],
            requestBody=json_body(
                fields(
                    {**_ENDPOINT, "active": {"type": "boolean"}},
                    "url",
                    "events",
                    "description",
                    "active",
                    closed=True,
                )
            ),
            **OPERATOR,
        ),
        "delete": operation(
            "webhooks",
            "Forget an endpoint and what waits for it.",
            {"204": {"description": "Forgotten."}, **refusals(*_ASKED)},
            parameters=[_ANY_ID],
            **OPERATOR,
        ),
    },
    "/api/webhooks/{id}/rotate": {
        "post": operation(
            "webhooks",
            "Give an endpoint a new secret; the one before goes on signing for a day.",
            {"200": answer("The new secret.", _WITH_SECRET), **refusals(*_ASKED)},
            parameters=[_ANY_ID],
            **OPERATOR,
        )
    },
    "/api/webhooks/{id}/test": {
        "post": operation(
            "webhooks",
            "Send a test notice.",
            {"202": answer("On its way.", ref("Delivery")), **refusals(*_ASKED, "422")},
            parameters=[_ANY_ID],
            **OPERATOR,
        )
    },
    "/api/webhooks/deliveries": {
        "get": operation(
            "webhooks",
            "List deliveries, newest first.",
            {"200": answer("One page.", _DELIVERIES), **refusals("401", "422", "429", "503")},
            parameters=[
                parameter("state", "query", {"enum": list(STATES)}),
                parameter("endpoint_id", "query", TEXT),
                parameter("interview_id", "query", TEXT),
                *_PAGE,
            ],
            **OPERATOR,
        )
    },
    "/api/webhooks/deliveries/{id}": {
        "get": operation(
            "webhooks",
            "One delivery with its body and attempts.",
            {
                "200": answer(
                    "The delivery.",
                    {
                        "allOf": [
                            ref("Delivery"),
                            fields(
                                {
                                    "body": TEXT,
                                    "tried": {"type": "array", "items": {"type": "object"}},
                                }
                            ),
                        ]
                    },
                ),
                **refusals(*_ASKED),
            },
            parameters=[_ANY_ID],
            **OPERATOR,
        )
    },
    "/api/webhooks/deliveries/{id}/retry": {
        "post": operation(
            "webhooks",
            "Send a delivery again, from the beginning of the schedule.",
            {"202": _DUE, **refusals(*_ASKED)},
            parameters=[_ANY_ID],
            **OPERATOR,
        )
    },
    "/api/webhooks/replay": {
        "post": operation(
            "webhooks",
            "Send again what did not arrive since some time.",
            {
                "202": answer(
                    "How many are due; with a `next_cursor` the same request goes on from there.",
                    fields({"due": {"type": "integer"}, "next_cursor": MAYBE_TEXT}),
                ),
                **refusals(*_GIVEN, "404"),
            },
            requestBody=json_body(
                fields(
                    {
                        "since": MOMENT,
                        "until": MAYBE_MOMENT,
                        "endpoint_id": MAYBE_TEXT,
                        "all": {"type": "boolean", "default": False},
                        "cursor": {
                            **MAYBE_TEXT,
                            "description": "`next_cursor` of the request before.",
                        },
                    },
                    "until",
                    "endpoint_id",
                    "all",
                    "cursor",
                    closed=True,
                )
            ),
            **OPERATOR,
        )
    },
    "/api/interviews/{id}/deliveries": {
        "get": operation(
            "webhooks",
            "The deliveries of one interview, newest first.",
            {"200": answer("One page.", _DELIVERIES), **refusals(*_ASKED, "422")},
            parameters=[_ANY_ID, *_PAGE],
            **OPERATOR,
        )
    },
}
