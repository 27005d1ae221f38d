"""What clients send over signalling, checked at the edge and turned into values."""

from __future__ import annotations

import json
from typing import Any, Final

from ..core.persona import VOICES
from ..errors import InvalidJson, InvalidMessage, InvalidSdp, TooLarge
from ..types import Json

SHORT_BYTES: Final = 8 * 1024
"""Longest message that brings no offer: the longest of them brings a token."""
MAX_VALUES: Final = 4_000
"""Objects, lists and their elements in one text of JSON. A message has ten; a session in OpenAI's
shape, with the schemas of many tools, a thousand. It takes a hundred thousand to fill the longest
text, which the event loop would make for longer than a packet may wait."""


def load(text: str) -> Any:
    """The value of a text of JSON that anybody may have sent.

    Raises:
        ValueError: it is no JSON, or has too many values, which are counted before they are made.
    """
    # What stands within texts counts too, and is no more than a few commas.
    if sum(map(text.count, "{[,")) > MAX_VALUES:
        raise ValueError("too many values")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("too deep") from None


def parse(text: str) -> Json:
    """The JSON object that a text is. Raises ``InvalidJson``."""
    try:
        message = load(text)
    except ValueError:
        raise InvalidJson from None
    if not isinstance(message, dict):
        raise InvalidJson
    return message


def of_socket(text: str, most: int) -> Json:
    """A message of a WebSocket, of which an offer has ``most`` characters, another one fewer.

    Raises:
        InvalidJson: it is not a JSON object.
        TooLarge: it is too long for what it is.
    """
    if len(text) > most:
        raise TooLarge
    message = parse(text)
    if len(text) > SHORT_BYTES and message.get("type") != "sdp_offer":
        raise TooLarge
    return message


def optional_text(message: Json, key: str) -> str | None:
    """A text field that may be missing, null or empty.

    Raises:
        InvalidMessage: it is something else.
    """
    value = message.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise InvalidMessage(f"{key} must be a text.")
    return value


def offer_sdp(value: Any) -> str:
    """The SDP of an offer given as text or as ``{"type": "offer", "sdp": text}``.

    Raises:
        InvalidSdp: it is neither.
    """
    if isinstance(value, dict):
        if value.get("type", "offer") != "offer":
            raise InvalidSdp("The description's type must be offer.")
        value = value.get("sdp")
    if not isinstance(value, str) or not value.strip():
        raise InvalidSdp("The offer is missing: send it as a text or as {type, sdp}.")
    return value


def consent(message: Json) -> tuple[bool, str | None]:
    """Whether a candidate agrees to being recorded, and to which version of the text.

    Raises:
        InvalidMessage: it does not say, or agrees to no version.
    """
    agreed, version = message.get("agreed"), optional_text(message, "version")
    if not isinstance(agreed, bool):
        raise InvalidMessage("agreed must be true or false.")
    if agreed and version is None:
        raise InvalidMessage("version must be that of the text that was shown.")
    return agreed, version


def voice(value: str | None) -> str | None:
    """A voice's name as the service writes it.

    Raises:
        InvalidMessage: there is no such voice.
    """
    if value is None:
        return None
    if value.lower() not in VOICES:
        raise InvalidMessage(f"voice must be one of {', '.join(VOICES)}.")
    return value.lower()
