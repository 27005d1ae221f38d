"""The image's health check: asks the server in the same container whether it answers.

``python -m interview_peer.container.health`` ends with 0 when ``GET /health`` answers 200 within
three seconds, and with 1 and a sentence when it does not. A server that drains is healthy: whether
it takes new interviews is another question (``/readyz``).

It runs four times a minute beside live audio. So it imports neither the settings nor any library,
and reads the two names it needs from the environment by itself; ``.env`` is not looked at.
"""

from __future__ import annotations

import http.client
import os
import sys
from collections.abc import Mapping

TIMEOUT_SECONDS = 3.0

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
"""An address that stands for all of a machine's, and where to knock instead."""


def problem(environment: Mapping[str, str]) -> str | None:
    """What is wrong with the server that this environment started; None when it answers."""
    host = environment.get("INTERVIEW_HOST", "")
    port = environment.get("PORT") or "8080"
    if not port.isdecimal() or port == "0":
        return f"PORT is {port}: without a fixed port there is nowhere to ask."
    connection = http.client.HTTPConnection(
        _ANY.get(host, host), int(port), timeout=TIMEOUT_SECONDS
    )
    try:
        connection.request("GET", "/health", headers={"Connection": "close"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"The server does not answer on port {port}: {error or type(error).__name__}."
    finally:
        connection.close()
    return None if status == 200 else f"The server answers with {status}."


if __name__ == "__main__":
    sys.exit(problem(os.environ))
