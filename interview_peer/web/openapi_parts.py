"""What the OpenAPI document is put together from: small functions, and shapes that recur."""

from __future__ import annotations

from typing import Any, Final

from ..types import Json
from .paging import DEFAULT_LIMIT, MAX_LIMIT

TEXT: Final[Json] = {"type": "string"}
MAYBE_TEXT: Final[Json] = {"type": ["string", "null"]}
MAYBE_NUMBER: Final[Json] = {"type": ["number", "null"]}
MAYBE_WHOLE: Final[Json] = {"type": ["integer", "null"]}
MOMENT: Final[Json] = {"type": "string", "format": "date-time"}
MAYBE_MOMENT: Final[Json] = {"type": ["string", "null"], "format": "date-time"}
MAYBE_OBJECT: Final[Json] = {"type": ["object", "null"]}
ID: Final[Json] = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}

SENTENCES: Final = {
    "400": "The request could not be understood.",
    "401": "A key or token is missing, wrong, expired or used.",
    "403": "The key has no scope that is needed, the candidate has not agreed to being recorded, "
    "or a page of this origin may not ask.",
    "404": "There is nothing of that name.",
    "406": "The path has no form that the `Accept` header names.",
    "409": "The request does not fit the state that things are in.",
    "410": "It was erased for good.",
    "413": "The body is too large.",
    "415": "The path does not take that content type.",
    "416": "The range lies outside of the file.",
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
    return {status: answer(SENTENCES[status], ref(form)) for status in statuses}


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


PAGING: Final = (
    parameter(
        "limit",
        "query",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    ),
    parameter("cursor", "query", TEXT, "`next_cursor` of the page before."),
)
"""What every list takes."""

OPERATOR: Final[Json] = {"security": [{"adminKey": []}]}
CANDIDATE: Final[Json] = {"security": [{}, {"joinToken": []}]}

INTERVIEW_ID: Final = parameter("interview_id", "path", ID)
MINE: Final = ("400", "401", "404", "429", "503")
"""How any operation on one interview can be refused."""
