"""OpenAI's way in: calls made and hung up as its own clients do, once they are pointed here."""

from __future__ import annotations

from typing import Final

from aiohttp import BodyPartReader, MultipartReader, StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError

from ..core.lifecycle import OVER, Reason
from ..core.sdp import MAX_LINES
from ..errors import (
    CallerError,
    InvalidMessage,
    InvalidSdp,
    SdpTooLarge,
    SessionNotFound,
    TokenRequired,
    TooLarge,
    UnsupportedContentType,
)
from ..session.interview import Interview
from ..session.registry import Interviews
from . import forms, messages
from .access import bearer
from .joining import Joining

PATH: Final = "/v1/realtime/calls"
CALL_PREFIX: Final = "rtc_"
"""OpenAI's call ids begin so, and its clients may look."""
PARTS: Final = ("sdp", "session")
MAX_FORM_LINES: Final = 4 * MAX_LINES
"""An offer's, and those of a session that is written for people to read."""


class CallsApi:
    """The routes of calls."""

    def __init__(self, interviews: Interviews, joining: Joining) -> None:
        self._interviews = interviews
        self._joining = joining

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.router.add_post(PATH, self.create)
        app.router.add_post(PATH + "/{call_id}/hangup", self.hang_up)

    async def create(self, request: web.Request) -> web.Response:
        """Take an offer as OpenAI's own endpoint does: bare SDP, or multipart."""
        admission = await self._joining.admit(request)
        offer = self._joining.take_offer(request, await _offer(request))
        interview = await self._joining.enter(admission, None)
        answer, _ = await self._joining.answer_or_forget(request, admission, interview, offer)
        return web.Response(
            status=201,
            text=answer,
            content_type="application/sdp",
            headers={"Location": f"{PATH}/{CALL_PREFIX}{interview.id}"},
        )

    async def hang_up(self, request: web.Request) -> web.Response:
        """End a call; a second time it is not found, as at OpenAI.

        An invited candidate's call is ended by its token or by an operator's key. Another call,
        on a server that is open to all, is ended by whoever knows its id.
        """
        call_id = request.match_info["call_id"]
        interview = self._find(call_id)
        try:
            await self._joining.check_own(request, call_id.removeprefix(CALL_PREFIX))
        except TokenRequired:
            if bearer(request) is None:
                raise
            await self._joining.access.check_operator(request)
        if interview is None or interview.phase in OVER:
            raise SessionNotFound
        await self._joining.consents.check_unused(interview)
        interview.end_soon(Reason.CLIENT_REQUEST)
        return web.Response(status=200)

    def _find(self, call_id: str) -> Interview | None:
        if not call_id.startswith(CALL_PREFIX):
            return None
        try:
            return self._interviews.find(call_id.removeprefix(CALL_PREFIX))
        except SessionNotFound:
            return None


async def _offer(request: web.Request) -> str:
    """The offer of a create call; a session that comes with it is not the client's to choose."""
    if request.content_type == "application/sdp":
        text = await forms.read_text(request)
    elif request.content_type == "multipart/form-data":
        text = await _multipart_offer(request)
    else:
        raise UnsupportedContentType("This path takes application/sdp or multipart/form-data.")
    if not text.strip():
        raise InvalidSdp
    return text


async def _multipart_offer(request: web.Request) -> str:
    found: dict[str, str] = {}
    try:
        async for part in await _parts(request):
            if not isinstance(part, BodyPartReader) or part.name not in PARTS:
                raise InvalidMessage("The parts are sdp and session.")
            if part.name in found:
                raise InvalidMessage("The parts sdp and session may come once each.")
            forms.check_uncompressed(part)
            found[part.name] = (await part.read(decode=True)).decode("utf-8")
        if not isinstance(messages.load(found.get("session", "{}")), dict):
            raise InvalidMessage("The part session must be a JSON object.")
    except CallerError:
        raise
    except web.HTTPRequestEntityTooLarge:
        raise TooLarge from None
    except (ValueError, RuntimeError, HttpProcessingError):
        # A RuntimeError stands for a Content-Transfer-Encoding that is not known.
        raise InvalidMessage("The multipart body could not be read.") from None
    if "sdp" not in found:
        raise InvalidSdp("The part sdp is missing.")
    return found["sdp"]


async def _parts(request: web.Request) -> MultipartReader:
    """The parts of a body that is read whole: it may have to be passed on to another process."""
    body = await request.read()
    if body.count(b"\n") > MAX_FORM_LINES:
        # What stands before the first part is read line by line, to be thrown away.
        raise SdpTooLarge("The form has more lines than this server takes.")
    stream = StreamReader(request.protocol, 2 * len(body) + 1)
    stream.feed_data(body)
    stream.feed_eof()
    return MultipartReader(request.headers, stream)
