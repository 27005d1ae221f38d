"""Requests that are answered with an error body, and the reading of what calls are made of."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import BodyPartReader, MultipartReader, web

from ..types import Json

MAX_BODY_BYTES = 1024 * 1024
WHIP_MESSAGE = "Invalid SDP offer. Please try again with a WHIP-compliant offer."
_TYPES = {"insufficient_quota": "insufficient_quota"}


class Refusal(Exception):
    """A request is answered with an error body."""

    def __init__(
        self, status: int, code: str | None, message: str, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        fallback = "invalid_request_error" if status < 500 else "server_error"
        self.body: Json = {
            "message": message,
            "type": _TYPES.get(code or "", fallback),
            "param": param,
            "code": code,
        }


async def json_body(request: web.Request) -> Any:
    """The decoded body, None for an empty one. Raises Refusal."""
    data = await request.read()
    if not data:
        return None
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise Refusal(400, "invalid_json", "The body is not valid JSON.") from None


async def offer_and_session(request: web.Request) -> tuple[str, Any]:
    """The offer's text and the decoded ``session`` part, None where there is none."""
    if request.content_type == "application/sdp":
        return _text(await request.read()), None
    if request.content_type != "multipart/form-data":
        message = "Expected multipart/form-data or application/sdp."
        raise Refusal(400, "invalid_value", message, None)
    parts = await _parts(request)
    if "sdp" not in parts:
        message = "Missing required parameter: 'sdp'."
        raise Refusal(400, "missing_required_parameter", message, "sdp")
    session = None
    if "session" in parts:
        try:
            session = json.loads(parts["session"])
        except (ValueError, RecursionError):
            message = "Invalid type for 'session': expected an object."
            raise Refusal(400, "invalid_type", message, "session") from None
        if session is None:
            raise Refusal(400, "invalid_type", "Expected an object, got null.", "session")
    return _text(parts["sdp"]), session


async def _parts(request: web.Request) -> dict[str, bytes]:
    """Every part of a form by name, whatever it calls its own content type."""
    parts: dict[str, bytes] = {}
    size = 0
    try:
        reader = await request.multipart()
        while (part := await reader.next()) is not None:
            if isinstance(part, MultipartReader):
                raise Refusal(400, "invalid_value", "A part of the form is a form itself.")
            assert isinstance(part, BodyPartReader)
            data = bytearray()
            while chunk := await part.read_chunk():
                data += chunk
                size += len(chunk)
                if size > MAX_BODY_BYTES:
                    raise Refusal(413, "too_large", "The form is too large.")
            parts[part.name or ""] = bytes(data)
    except ValueError:
        raise Refusal(400, "invalid_value", "The form could not be read.") from None
    for name in parts:
        if name not in ("sdp", "session"):
            raise Refusal(400, "unknown_parameter", f"Unknown parameter: '{name}'.", name)
    return parts


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Refusal(400, "invalid_offer", WHIP_MESSAGE) from None
