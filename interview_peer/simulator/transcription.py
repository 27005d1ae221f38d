"""The pretended transcription of what the candidate said. Plain code.

Nothing here understands speech, and the text says so.
"""

from __future__ import annotations

from collections.abc import Callable

from .reply import USER_MS_PER_TOKEN, Event

TEXT_TOKENS = 8
_NAME = "conversation.item.input_audio_transcription"


def transcript_pieces(voiced_ms: int) -> list[str]:
    """What stands in for the words of a turn with so much voice in it."""
    return ["[simulated transcript: ", f"{voiced_ms / 1000:.1f} seconds", " of candidate speech]"]


def transcription(
    item_id: str, voiced_ms: int, padding: Callable[[], str], *, fails: bool
) -> list[Event]:
    """The events of one turn's transcription, in order; ``padding`` makes ``obfuscation``."""
    about = {"item_id": item_id, "content_index": 0}
    if fails:
        error = {
            "type": "server_error",
            "code": "audio_unintelligible",
            "message": "The simulator was told to fail here.",
            "param": "",
        }
        return [(f"{_NAME}.failed", about | {"error": error})]
    pieces = transcript_pieces(voiced_ms)
    events: list[Event] = [
        (f"{_NAME}.delta", about | {"delta": piece, "obfuscation": padding()}) for piece in pieces
    ]
    tokens = max(1, voiced_ms // USER_MS_PER_TOKEN)
    usage = {
        "type": "tokens",
        "total_tokens": tokens + TEXT_TOKENS,
        "input_tokens": tokens,
        "output_tokens": TEXT_TOKENS,
        "input_token_details": {"text_tokens": 0, "audio_tokens": tokens},
    }
    done = about | {"transcript": "".join(pieces), "usage": usage}
    events.append((f"{_NAME}.completed", done))
    return events
