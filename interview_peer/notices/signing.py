"""Signatures of notices by the Standard Webhooks specification, and the secrets they are made with.

Signed is the exact body that is sent. Which secrets are in force is decided elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Final

PREFIX: Final = "whsec_"
SHORTEST: Final = 24
LONGEST: Final = 64
"""Bytes of a secret, by the specification."""


class BadSecret(ValueError):
    """The text is not ``whsec_`` and 24 to 64 bytes in base64."""


def new_secret() -> str:
    """A secret of 32 random bytes."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def key_of(secret: str) -> bytes:
    """The bytes of a secret. Raises ``BadSecret``, whose text does not repeat it."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        key = b""
    if not secret.startswith(PREFIX) or not SHORTEST <= len(key) <= LONGEST:
        raise BadSecret("A secret is whsec_ followed by 24 to 64 bytes in base64.")
    return key


def headers(
    notice_id: str, body: bytes, secrets_in_force: Sequence[str], now: int
) -> dict[str, str]:
    """The three headers of one attempt, made ``now`` (Unix seconds), signed with each secret."""
    signed = f"{notice_id}.{now}.".encode() + body
    signatures = (
        "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        for key in map(key_of, secrets_in_force)
    )
    return {
        "webhook-id": notice_id,
        "webhook-timestamp": str(now),
        "webhook-signature": " ".join(signatures),
    }
