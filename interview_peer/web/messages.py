"""What clients send over signalling, checked at the edge and turned into values."""

from __future__ import annotations

from typing import Any

from ..core.persona import VOICES
from ..errors import InvalidMessage, InvalidSdp
from ..types import Json


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
