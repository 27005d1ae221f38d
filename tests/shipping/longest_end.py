"""How long an orderly end may take at the very most, once no interview may go on any more."""

from __future__ import annotations

from typing import Any, Final
from unittest.mock import MagicMock

from interview_peer import app
from interview_peer.finishing import worker as finishing
from interview_peer.model import openai_realtime
from interview_peer.notices.worker import Limits
from interview_peer.session import announcer, drain, told
from interview_peer.state import chronicle, database, nodes
from interview_peer.storage import room
from interview_peer.web import partings, passing

_nothing: Any = MagicMock()
FINISHING_SECONDS: Final = sum(
    seconds for _, seconds in app.work_to_finish(_nothing, _nothing, _nothing)
)
SOCKETS_SECONDS: Final = (
    # aiohttp waits that long twice: before it cancels what is being answered, and then.
    passing.SOCKET_SECONDS + partings.CLOSE_SECONDS + 2 * app.REQUESTS_SECONDS
)
CLOSING_SECONDS: Final = (
    announcer.CLOSE_SECONDS
    + finishing.END_SECONDS
    + room.CLOSE_SECONDS
    + openai_realtime.GIVE_UP_SECONDS
    + openai_realtime.HANG_UP_SECONDS
    + chronicle.CLOSE_SECONDS
    + told.CLOSE_SECONDS
    # Those that claim, then those that send.
    + 2 * Limits().close_seconds
    + nodes.LAST_WORD_SECONDS
    + database.PATIENCE_SECONDS
)
LONGEST_END_SECONDS: Final = (
    drain.END_SECONDS + FINISHING_SECONDS + SOCKETS_SECONDS + CLOSING_SECONDS
)
