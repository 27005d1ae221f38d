"""The signalling WebSocket, as front ends of an ephemeral-key proxy speak it (docs/migration.md).

One reader per connection; answers leave through one bounded queue in the order they were made.
Closing the WebSocket never ends flowing media. Messages are listed in ``docs/protocol.md``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
from collections.abc import Callable
from typing import Any, Final

from aiohttp import WSCloseCode, WSMsgType, web

from ..core import tokens
from ..core.allowance import Bucket
from ..core.lifecycle import WAITING, Phase, Reason
from ..core.sdp import Offer, check_offer
from ..errors import (
    CallerError,
    ConsentOutdated,
    Draining,
    InterviewPeerError,
    InvalidJson,
    InvalidMessage,
    RateLimited,
    SessionBusy,
    SessionEnded,
    SessionNotFound,
    SocketReplaced,
    TokenInvalid,
    TokenRequired,
    TooLarge,
    UnknownMessageType,
)
from ..session.interview import Interview
from ..session.registry import Interviews
from ..tasks import Tasks
from ..types import Json
from . import messages
from .access import Admission, token_of
from .consents import status
from .cutting import cut_off, say_closed, told
from .http import watch
from .joining import Joining
from .limits import Limits
from .partings import Partings

log = logging.getLogger(__name__)

Watch = Callable[[Bucket | None, Callable[[], None]], None]
"""Holds a connection to what it may send; the second is told where it sends more."""

PING_SECONDS: Final = 20.0
OFFER_FAILED: Final = "SDP_EXCHANGE_FAILED"
"""The one code that front ends of a proxy act on; ``reason`` says which failure it was."""

TOLD: Final = ("sessionId", "agreed", "version", "at")
"""What of the consent's status is told to the socket that brought it."""

MAX_UNSENT: Final = 256
"""Messages waiting for a client that does not read; then it is disconnected."""
TOKEN_SECONDS: Final = 5.0
"""How long a client may take to show its token, where one is needed."""
INIT_SECONDS: Final = 2.0
"""How long one may take to name the interview that it comes back to, where none begins any more."""
CLOSE_SECONDS: Final = 1.0
"""How long a client may take to answer that the connection is closed: it is read meanwhile."""


class Signalling:
    """One WebSocket connection and the session it speaks for."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        interviews: Interviews,
        joining: Joining,
        limits: Limits,
        partings: Partings,
        hold_seconds: float,
        address: str | None = None,
        transport: asyncio.Transport | None = None,
        watch: Watch | None = None,
    ) -> None:
        """``transport`` is what the socket speaks through: whoever floods it is cut off there.

        ``watch`` counts what it sends in bytes: there are frames that never become a message.
        """
        self._socket = socket
        self._transport = transport
        self._watch = watch
        self._hold_seconds = hold_seconds
        self._interviews = interviews
        self._joining = joining
        self._limits = limits
        self._partings = partings
        self._pace = limits.messages()
        self._address = address
        self._admission: Admission | None = None
        self._missing: type[TokenRequired] | type[Draining] = TokenRequired
        self._interview: Interview | None = None
        self._outgoing: asyncio.Queue[Json | None] = asyncio.Queue(MAX_UNSENT)
        self._tasks = Tasks("signalling")
        self._offer: asyncio.Task[None] | None = None
        self._cut = False
        self._hung_up = False
        self._turned_away = False
        self._writer: asyncio.Task[None] | None = None

    async def run(self, session_id: str | None, token: str | None = None) -> None:
        """Greet, then serve until the connection closes or the interview ends.

        ``token`` is one that came with the request. Where a token is needed and none came, or no
        interview begins any more and none was named, the greeting waits for the ``init`` that
        brings it.
        """
        writer = self._writer = self._tasks.start(self._write(), "write")
        patience: asyncio.TimerHandle | None = None
        self._take_bytes(known=False)
        try:
            try:
                admission = await self._joining.access.admit(token, self._address)
                await self._enter(admission, session_id, must_exist=session_id is not None)
                self._ask_consent(self._current())
            except (TokenRequired, Draining) as refused:
                seconds = TOKEN_SECONDS
                if isinstance(refused, Draining):
                    if session_id is not None or token is not None:
                        raise
                    seconds = INIT_SECONDS
                    self._missing = Draining
                self._joining.unknown.enter(self, self._address)
                patience = asyncio.get_running_loop().call_later(seconds, self._without_init)
            await self._read()
        except RateLimited as error:
            await self._cut_off(error)
        except InterviewPeerError as error:
            self._refuse(error)
        except ConnectionError:
            # Anybody may go whenever they like; an answer to them finds nobody then.
            log.debug("a signalling client went while it was answered")
        finally:
            if patience is not None:
                patience.cancel()
            self._joining.unknown.leave(self)
            self._leave()
            self._hang_up()
            await asyncio.wait([writer], timeout=5)
            if self._offer is not None:
                self._offer.cancel()
            await self._tasks.drain(5)
            await self._socket.close()

    async def _enter(
        self, admission: Admission, wanted: str | None, *, must_exist: bool = False
    ) -> None:
        interview = await self._joining.enter(admission, wanted, must_exist=must_exist)
        self._joining.unknown.leave(self)
        if self._admission is None:
            self._take_bytes(known=True)
        before, self._admission = self._interview, admission
        if interview is before:
            return
        self._attach(interview)
        if before is not None and not before.watched:
            self._interviews.forget(before)

    def _without_init(self) -> None:
        if self._interview is None:
            self._refuse(self._missing())
            self._hang_up()

    @property
    def waits(self) -> bool:
        """Whether no interview has begun for this connection."""
        return self._interview is None or self._interview.phase in WAITING

    def turn_away(self) -> None:
        """Tell a client that no interview begins here any more, and close; again is harmless."""
        if self._hung_up:
            return
        self._turned_away = True
        if self._offer is not None and not self._offer.done():
            self._offer_failed(Draining())
        else:
            self._error(Draining())
        self._hang_up()

    def break_off(self) -> None:
        """Close the connection without another word."""
        if self._transport is not None:
            self._transport.abort()

    def _hang_up(self) -> None:
        """Close the connection after what is queued."""
        self._hung_up = True
        with contextlib.suppress(asyncio.QueueFull):
            self._outgoing.put_nowait(None)

    def _take_bytes(self, *, known: bool) -> None:
        if self._watch is not None:
            self._watch(self._limits.socket_intake(known=known), self._flooded)

    def _flooded(self) -> None:
        self._tasks.start(self._cut_off(self._pace.exceeded()), "cut off")

    def replace(self) -> None:
        """Make room for a newer socket of the same interview."""
        self._tasks.start(self._cut_off(SocketReplaced()), "make room")

    async def _cut_off(self, error: InterviewPeerError) -> None:
        """Tell a client that is not wanted why, and be rid of it."""
        writer = self._writer
        if self._cut or writer is None or self._transport is None or self._transport.is_closing():
            return
        self._transport.pause_reading()
        self._cut = True
        self._error(error)
        self._hang_up()
        await cut_off(self._transport, writer)

    def _attach(self, interview: Interview) -> None:
        self._leave()
        self._interview = interview
        interview.touch()
        self._limits.sockets.enter(interview.id, self)
        self.send(
            {
                "type": "session",
                "sessionId": interview.id,
                "message": "Connected to interview_peer",
                "holdSeconds": self._hold_seconds,
                "consentRequired": interview.phase is Phase.CONSENT,
            }
        )
        interview.observe(self._observed)
        if interview.phase is not Phase.CREATED:
            self.send(interview.state())
        if self._partings.begun and self.waits:
            self.turn_away()

    def _leave(self) -> None:
        if self._interview is not None:
            self._limits.sockets.leave(self._interview.id, self)
            self._interview.unobserve(self._observed)
            self._interview = None

    def _observed(self, message: Json) -> None:
        self.send(message)
        if message["type"] == "session_ended":
            # Front ends of a proxy expect it to close the connection after telling the end.
            self._hang_up()
        elif self._partings.begun and message["type"] == "state" and self.waits:
            # What was begun came to nothing, and cannot be begun anew.
            self.turn_away()

    def send(self, message: Json) -> None:
        """Queue a message; a client that does not read is cut off, not waited for."""
        try:
            self._outgoing.put_nowait(message)
        except asyncio.QueueFull:
            log.warning("a signalling client does not read and was disconnected")
            self._tasks.start(self._socket.close(), "cut off")

    def _error(self, error: InterviewPeerError) -> None:
        self.send(told(error))

    def _refuse(self, error: InterviewPeerError) -> None:
        if isinstance(error, Draining) and self.waits:
            # It came when others had been turned away, and would wait as much in vain.
            self.turn_away()
        else:
            self._error(error)

    def _offer_failed(self, error: InterviewPeerError) -> None:
        self.send(
            {
                "type": "error",
                "message": error.message,
                "code": OFFER_FAILED,
                "reason": error.code,
            }
        )

    async def _write(self) -> None:
        while (message := await self._outgoing.get()) is not None:
            try:
                await self._socket.send_str(json.dumps(message))
            except (ConnectionError, RuntimeError):
                return
        if self._cut:
            await say_closed(self._socket)
        else:
            code = WSCloseCode.GOING_AWAY if self._turned_away else WSCloseCode.OK
            await self._socket.close(code=code)

    async def _read(self) -> None:
        async for message in self._socket:
            # Whoever sends faster than a person could is told so and cut off, be it control
            # frames, of which a few bytes make one.
            self._pace.take()
            if message.type is WSMsgType.TEXT:
                await self._take(message.data)
            elif message.type is WSMsgType.BINARY:
                self._error(InvalidJson("Messages must be JSON in text frames."))
            elif message.type is WSMsgType.PING:
                await self._socket.pong(message.data)
            elif message.type is WSMsgType.PONG:
                continue  # Whatever arrives shows the heartbeat that somebody is there.
            else:
                log.info("a signalling client broke the protocol")
                return

    async def _take(self, text: str) -> None:
        """Act on one message; what is wrong with it is answered, and ends nothing: only who wants
        an interview that cannot begin any more is turned away."""
        try:
            if self._interview is None and len(text) > messages.SHORT_BYTES:
                raise TooLarge
            await self._dispatch(messages.of_socket(text, self._limits.message_bytes))
        except InterviewPeerError as error:
            self._refuse(error)

    async def _dispatch(self, message: Json) -> None:
        interview = self._interview
        if interview is not None:
            interview.touch()
        match message.get("type"):
            case "init":
                await self._init(message)
            case "sdp_offer":
                self._take_offer(message.get("offer"))
            case "ice_candidate":
                self.send(
                    {
                        "type": "ice_status",
                        "message": "Candidates are not needed: the answer holds the server's.",
                    }
                )
            case "consent":
                await self._consent(message)
            case "end_session" | "disconnect":
                await self._end(messages.optional_text(message, "sessionId"))
            case str():
                raise UnknownMessageType
            case _:
                raise InvalidMessage("The message has no type.")

    async def _init(self, message: Json) -> None:
        """Show a token, choose session and persona; a known session comes back to its interview."""
        wanted = messages.optional_text(message, "sessionId")
        text = messages.optional_text(message, "token")
        persona_name = messages.optional_text(message, "aiPersona")
        persona = self._interviews.personas.find(persona_name) if persona_name else None
        before = self._interview
        if text is not None:
            token = tokens.given(text)
            if token is None:
                raise TokenInvalid
            if self._offer is not None and not self._offer.done():
                raise SessionBusy
            await self._enter(await self._joining.access.admit(token, self._address), wanted)
        elif wanted is not None or self._interview is None:
            admission = self._admission or await self._joining.access.admit(None, self._address)
            await self._enter(admission, wanted)
        interview = self._current()
        # Whoever is invited meets the interviewer that the invitation names.
        is_open = self._admission is not None and self._admission.is_open
        if persona is not None and is_open:
            interview.meet(persona)
        if interview is not before or persona is not None:
            # Now it is known whose text it is.
            self._ask_consent(interview)

    def _ask_consent(self, interview: Interview) -> None:
        """Show the text, to whoever must agree to it."""
        if interview.phase is Phase.CONSENT:
            self.send(
                {
                    "type": "consent_required",
                    "sessionId": interview.id,
                    "version": interview.persona.consent_version,
                    "text": interview.persona.consent_text,
                }
            )

    async def _consent(self, message: Json) -> None:
        """What the candidate decided about being recorded."""
        agreed, version = messages.consent(message)
        interview = self._current()
        try:
            await self._joining.consents.decide(interview, agreed=agreed, version=version)
        except ConsentOutdated as error:
            self._error(error)
            self._ask_consent(interview)
        else:
            known = status(interview)
            self.send({"type": "consent", **{key: known[key] for key in TOLD}})

    def _take_offer(self, described: Any) -> None:
        try:
            text = messages.offer_sdp(described)
            if self._offer is not None and not self._offer.done():
                raise SessionBusy
            interview, admission = self._current(), self._admission
            self._limits.offer(self._address, text)
            self._limits.offer_for(interview.id)
            offer = check_offer(text)
        except Draining as error:
            self._refuse(error)
            return
        except InterviewPeerError as error:
            self._offer_failed(error)
            return
        assert admission is not None
        # Answering takes a round trip to the model's service; a disconnect must be heard meanwhile.
        self._offer = self._tasks.start(self._answer(admission, interview, offer), "answer offer")

    async def _answer(self, admission: Admission, interview: Interview, offer: Offer) -> None:
        try:
            answer, resume = await self._joining.answer(admission, interview, offer)
        except InterviewPeerError as error:
            self._offer_failed(error)
        except Exception:
            log.exception("an offer failed by a fault of ours")
            self._offer_failed(InterviewPeerError())
        else:
            message: Json = {
                "type": "sdp_answer",
                "answer": {"type": "answer", "sdp": answer},
                "sessionId": interview.id,
            }
            if resume is not None:
                message["resumeToken"] = resume
            self.send(message)

    async def _end(self, session_id: str | None) -> None:
        interview = self._current()
        if session_id is not None and session_id != interview.id:
            raise SessionNotFound
        if interview.finished.is_set():
            message: Json = {"type": "session_ended", "sessionId": interview.id}
            if interview.reason is not None:
                message["reason"] = interview.reason.value
            self._observed(message)
        else:
            # What had ended is ended here too, and tells so by itself.
            with contextlib.suppress(SessionEnded):
                await self._joining.consents.check_unused(interview)
                interview.end_soon(Reason.CLIENT_REQUEST)

    def _current(self) -> Interview:
        if self._interview is None:
            raise self._missing
        return self._interview


async def handle(
    request: web.Request,
    interviews: Interviews,
    joining: Joining,
    limits: Limits,
    partings: Partings,
    hold_seconds: float,
) -> web.StreamResponse:
    """Serve one WebSocket; ``hold_seconds`` is told to pages, which come back within it."""
    socket = web.WebSocketResponse(
        timeout=CLOSE_SECONDS,
        heartbeat=PING_SECONDS,
        # Pings are answered here, where they count like all that is sent.
        autoping=False,
        max_msg_size=2 * limits.message_bytes,
        compress=False,
    )
    if not socket.can_prepare(request).ok:
        raise CallerError("This address is a WebSocket: connect with one.")
    limits.socket(request.remote)
    limits.sockets.open()
    try:
        await socket.prepare(request)
        signalling = Signalling(
            socket,
            interviews,
            joining,
            limits,
            partings,
            hold_seconds,
            request.remote,
            request.transport,
            functools.partial(watch, request),
        )
        partings.enter(signalling)
        try:
            await signalling.run(request.match_info.get("session_id"), token_of(request))
        finally:
            partings.leave(signalling)
    finally:
        limits.sockets.closed()
    return socket
