"""Who may take part in an interview: the one question, asked wherever something is handed out."""

from __future__ import annotations

from aiohttp import web


def may_join(request: web.Request) -> bool:
    """Whether the caller may open or enter an interview.

    Everyone may: signalling, too, opens an interview for whoever reaches the server, and the
    operator's key is never the page's. What candidates will have to show is asked here.
    """
    return True
