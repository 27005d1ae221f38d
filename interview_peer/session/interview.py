"""One interview: its legs, what flows between them, and how it comes and goes.

The lifecycle decides what may follow what; this module obeys it with real legs, timers and files.
Not responsible for how a client talks to us (``web``), nor for finding an interview by its id
(``session.registry``).
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Final

from .. import logs
from ..core import sdp
from ..core.consent import Consent, digest
from ..core.gate import EVENTS_PER_SECOND, Client
from ..core.lifecycle import WAITING, Happening, Lifecycle, Phase, Reason
from ..core.limits import GOODBYES, Limits, Over, Parting, Warned, tokens_of
from ..core.model_session import ModelSession
from ..core.persona import Persona
from ..core.realtime import ModelEvent
from ..core.redaction import Redactor
from ..core.speech_redaction import SpeechRedactor
from ..core.turns import turn_document
from ..core.turnwatch import TurnWatch
from ..errors import (
    ConfigurationError,
    ConnectTimeout,
    ConsentRequired,
    InterviewPeerError,
    OutOfDescriptors,
    SessionBusy,
    SessionEnded,
    TokenUsed,
    UpstreamError,
    UpstreamTimeout,
)
from ..finishing.worker import Finisher
from ..media.descriptors import Descriptors
from ..media.engine import CLOSED_BY_FAR_END
from ..media.forwarder import Forwarder, ForwarderCounters
from ..media.leg import Leg
from ..media.meters import DelayMeter
from ..media.udp import UdpPort
from ..model.openai_realtime import Call, RealtimeConnector
from ..state import happenings
from ..storage.worker import StorageWorker
from ..tasks import Tasks
from ..types import INVITED, OPEN, Json, SessionId
from .control import Control
from .farewell import Farewell
from .feed import Feed
from .finished import Files
from .reader import EventReader
from .recording import Recording
from .relay import EventRelay
from .tally import Tally
from .tools import Toolbox

Observer = Callable[[Json], None]
"""Takes a signalling message (``state``, ``session_ended``, ``error``); must return at once."""

CLOSE_SECONDS: Final = 10.0
"""How long one leg or the hang-up may take to close before the ending goes on without it."""


FAILURE_SENTENCES: Final = {
    Reason.CONNECT_TIMEOUT: ConnectTimeout.sentence,
    Reason.BROWSER_FAILED: (
        "The audio connection broke while it was being made. Please connect again."
    ),
    Reason.MODEL_UNREACHABLE: (
        "The voice service could not be connected in time. Please try again later."
    ),
    Reason.MODEL_LOST: "The connection to the voice service was lost. Please connect again.",
    Reason.MODEL_CLOSED: "The voice service ended the connection. Please connect again.",
    Reason.INTERNAL: InterviewPeerError.sentence,
}
"""What a candidate is told when an interview fails; the code is the reason in upper case."""


MODEL_GONE: Final = frozenset({Reason.MODEL_LOST, Reason.MODEL_CLOSED, Reason.MODEL_EXPIRED})

_WITH_MODEL: Final = frozenset({Phase.CONNECTING, Phase.LIVE, Phase.DETACHED})

EVENTS_SECONDS: Final = 20.0
"""How long the ending waits for events that are still being read."""


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What every interview of this process shares."""

    connector: RealtimeConnector
    browser_port: UdpPort
    model_host: Callable[[], str]
    """Gives the address that the next model leg binds its own socket to."""
    use_native: bool
    """Whether native code may forward audio."""
    model_delay: DelayMeter
    """Of everything that comes from the models."""
    descriptors: Descriptors
    storage: StorageWorker
    finishing: Finisher
    data_dir: Path
    redactor: Redactor
    """Masks the server's own secrets."""
    speech: SpeechRedactor | None
    """What is taken out of texts before they are kept; None takes nothing."""
    reader: EventReader
    model: str | None
    """Model for every interview, in place of the persona's."""
    connect_seconds: float
    hold_seconds: float
    tell: Callable[[happenings.Happening], None]
    """The chronicle's; returns at once."""
    max_seconds: float | None = None
    """How long any interview may last from its first offer on; None has no limit."""
    max_tokens: int | None = None
    """How many tokens it may use, by the service's count; None has no limit."""
    events_per_second: int = EVENTS_PER_SECOND
    """Events that one browser may send; 0 counts none."""
    node_id: str = "alone"
    """The name of this process, for its next start to know what it left."""
    tally: Tally = dataclasses.field(default_factory=Tally)
    """Counts what outlives interviews."""


class Interview:
    """One conversation, from its first offer to its finished files.

    ``answer_offer`` starts it, or brings its browser back; ``end`` ends it from any phase and
    waits until nothing is left open. Observers are told of each phase in order.
    """

    def __init__(self, session_id: SessionId, persona: Persona, around: Surroundings) -> None:
        self.id = session_id
        self.persona = persona
        self.origin = OPEN
        """"api" for one that an integrator made; an open client's becomes known by its offer."""
        self.max_seconds: float | None = None
        """How long it may last from its first offer on; None has no limit of its own."""
        self.model: str | None = None
        """Model a client asked for, if the server has none of its own."""
        self.created_at = time.time()
        self.key_asked_at: float | None = None
        """When (Unix seconds) a client asked for an ephemeral key and was told it is held."""
        self.ended_at: float | None = None
        """When (monotonic) the last file was closed."""
        self.finished = asyncio.Event()
        self.call_id: str | None = None

        self.claim: str | None = None
        """By which taking the database has it that this process holds it; only invited ones."""
        self.consent: Consent | None = None
        """The agreement to be recorded, once there is one."""
        self.used_tokens: set[str] = set()
        """Join tokens (their ``jti``) that somebody came in by."""

        self._around = around
        self._shown_tokens: set[str] = set()
        self._life = Lifecycle()
        self._log = logs.get(__name__, session=session_id)
        self._tasks = Tasks(session_id)
        self._observers: list[Observer] = []
        self._touched = time.monotonic()
        self._browser: Leg | None = None
        self._next_browser: Leg | None = None
        self._trusted_legs: weakref.WeakSet[Leg] = weakref.WeakSet()
        self._model_leg: Leg | None = None
        self._negotiation: asyncio.Task[str] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._hold: asyncio.TimerHandle | None = None
        self._held_until = 0.0
        # The model must always hear something, or its speech detection waits for ever.
        self._up = Forwarder(fill=True)
        self._down = Forwarder()
        self._recording = Recording(
            session_id,
            around.data_dir,
            around.node_id,
            around.storage,
            around.finishing,
            around.tell,
            self._up,
            self._down,
            self._tasks,
        )
        self.feed = Feed()
        """What is told to those who follow it live."""
        self._relay = EventRelay(
            self._recording.journal,
            self._recording.since_start,
            around.redactor,
            around.reader,
            self._tasks,
            self._log,
            self._spoken,
            self._heard_at,
            self.feed.piece,
            around.speech,
            self._told_by_model,
            around.events_per_second,
        )
        self.control = Control(self._relay.to_model)
        """What the server itself says to the model."""
        self._farewell = Farewell(self.control, self._tasks, self.end_soon, self._log)
        self._tools = Toolbox(self.control, self._farewell, self._tasks, self.end_soon, self._log)
        self._model_session = ModelSession()
        self._limits = Limits()
        self._turn_watch = TurnWatch()
        self._live_since: float | None = None
        self._offered_at = 0.0

    # -- what others may know -----------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """Where the interview stands."""
        return self._life.phase

    @property
    def reason(self) -> Reason | None:
        """Why it is ending or has ended."""
        return self._life.reason

    @property
    def last_activity(self) -> float:
        """When (monotonic) the browser last sent sound, or anybody a message.

        Neither ICE checks nor the model's own silence count: they go on for ever.
        """
        heard = self._browser.reception.last_at if self._browser is not None else 0.0
        return max(self._touched, self._relay.last_event_at, heard)

    @property
    def recording_failed(self) -> str | None:
        """One word for what stopped the recording before the end, or made a hole in it; None while
        all is well."""
        return self._recording.failed

    @property
    def seconds(self) -> float:
        """How long it has lasted since its first offer was answered; 0 before."""
        return self._recording.elapsed()

    @property
    def watched(self) -> bool:
        """Whether any signalling connection follows this interview."""
        return bool(self._observers)

    def transcript_so_far(self) -> Json | None:
        """The transcript's document as it is now; None before the recording began."""
        if not self._recording.began:
            return None
        transcript = self._relay.transcript
        return transcript.document(self.id, self._recording.wall_started_at, final=False)

    def touch(self) -> None:
        """Note that a message came over signalling."""
        self._touched = time.monotonic()

    def observe(self, observer: Observer) -> None:
        """Tell ``observer`` what happens from now on."""
        self._observers.append(observer)

    def unobserve(self, observer: Observer) -> None:
        """Stop telling ``observer``."""
        if observer in self._observers:
            self._observers.remove(observer)

    def state(self) -> Json:
        """The ``state`` message for where the interview stands."""
        message: Json = {"type": "state", "phase": self.phase.value, "sessionId": self.id}
        if self.reason is not None:
            message["reason"] = self.reason.value
        return message

    def settle(self) -> None:
        """Bring the meters up to date with what native code forwarded."""
        self._up.settle()
        self._down.settle()

    @property
    def legs(self) -> list[Leg]:
        """Those it has now, the browser's first."""
        return [leg for leg in (self._browser, self._next_browser, self._model_leg) if leg]

    @property
    def directions(self) -> dict[str, ForwarderCounters]:
        """What was forwarded each way so far."""
        return {"to_model": self._up.counters, "to_browser": self._down.counters}

    def statistics(self) -> Json:
        """What each leg and each direction has carried so far; for operators."""
        legs = {"browser": self._browser, "model": self._model_leg}
        return {
            "legs": {name: leg.statistics() for name, leg in legs.items() if leg is not None},
            "to_model": dataclasses.asdict(self._up.counters),
            "to_browser": dataclasses.asdict(self._down.counters),
            "events": dict(self._relay.counters),
            "control": dict(self.control.counters),
            "followers": dict(self.feed.counters),
        }

    # -- consent ------------------------------------------------------------------------------

    def ask_consent(self) -> None:
        """Take no offer before the candidate has agreed to being recorded; again is harmless."""
        if self.phase is Phase.CREATED and self.consent is None:
            self._happen(Happening.CONSENT_ASKED)

    def meet(self, persona: Persona) -> None:
        """Have another interviewer, while nothing has begun; not one whose text is another than
        the candidate agreed to."""
        agreed = self.consent is None or self.consent.sha256 == digest(persona.consent_text)
        if self.phase in WAITING and agreed:
            self.persona = persona

    def agree(self, consent: Consent) -> None:
        """The candidate agreed; the first agreement stays."""
        self.consent = self.consent or consent
        if self.phase is Phase.CONSENT:
            self._happen(Happening.CONSENT_GIVEN)

    # -- negotiation --------------------------------------------------------------------------

    async def answer_offer(
        self, offer_sdp: str, token: str | None = None, *, trusted: bool = False
    ) -> str:
        """Answer a browser's offer: the first makes both legs, a later one brings it back.

        The answer is given only once the model's service has accepted the call, so its refusal
        *is* the reply; then both legs must connect before the deadline. Until a browser is
        connected an invited candidate may offer again: the answer may have been lost on its way.

        Args:
            token: the ``jti`` of the join token that was shown with it; used up by connecting.
            trusted: whether what was shown says that this browser may configure the session.

        Raises:
            InvalidSdp: or one of its kinds; nothing was started.
            ConsentRequired: the candidate must agree to being recorded first.
            SessionEnded, SessionBusy: not now.
            OutOfDescriptors: the session may offer again.
            TokenUsed: somebody came in by this token.
            UpstreamError: the service refused or failed; the session may offer again.
        """
        if self._life.over:
            raise SessionEnded
        if self.phase is Phase.CONSENT:
            raise ConsentRequired
        if token in self.used_tokens:
            raise TokenUsed
        again = self.phase is Phase.CONNECTING
        if self._negotiation is not None or (again and not self._may_offer_again()):
            raise SessionBusy
        sdp.check_offer(offer_sdp)
        self.touch()
        if token is not None:
            self._shown_tokens.add(token)
        if again:
            work = self._offer_again(offer_sdp, trusted)
        elif self._model_leg is None:
            # Before anything is begun: what runs already may need what is left.
            self._around.descriptors.require()
            # In this very step: who counts the running interviews must see it.
            self._happen(Happening.OFFER_TAKEN)
            work = self._start(offer_sdp, trusted)
        else:
            work = self._come_back(offer_sdp, trusted)
        self._negotiation = self._tasks.start(work, "negotiate")
        self._negotiation.add_done_callback(self._negotiated)
        try:
            return await asyncio.shield(self._negotiation)
        except asyncio.CancelledError:
            if self.reason in MODEL_GONE:
                raise UpstreamError from None
            if self._life.over:
                raise SessionEnded from None
            raise

    def _negotiated(self, negotiation: asyncio.Task[str]) -> None:
        self._negotiation = None

    def _new_browser_leg(self, trusted: bool) -> Leg:
        leg = Leg("browser", self._around.browser_port, self, dtls_server=True)
        if trusted:
            self._trusted_legs.add(leg)
        return leg

    def _set_gate(self, leg: Leg) -> None:
        """Let the gate stand as it does for this browser, before its first event."""
        persona = self.persona
        if self.origin != INVITED:
            client = Client.OPEN
        elif persona.gate_trusted or leg in self._trusted_legs:
            client = Client.TRUSTED
        else:
            client = Client.INVITED
        self._relay.gate.serve(client, persona.gate_allow, persona.gate_deny)
        # Whoever may configure the session may have brought tools of its own.
        self._tools.is_alone = client is Client.INVITED

    async def _start(self, offer_sdp: str, trusted: bool) -> str:
        """Make both legs at once; on any failure nothing of them is left."""
        loop = asyncio.get_running_loop()
        self._offered_at = time.monotonic()
        deadline = loop.time() + self._around.connect_seconds
        browser = self._browser = self._new_browser_leg(trusted)
        self._set_gate(browser)
        try:
            async with asyncio.timeout_at(deadline):
                try:
                    async with asyncio.TaskGroup() as group:
                        answer = group.create_task(
                            browser.answer(offer_sdp), name=f"answer browser {self.id}"
                        )
                        group.create_task(self._call_model(), name=f"call model {self.id}")
                except* InterviewPeerError as errors:
                    raise _first(errors) from None
            self._recording.begin(self.persona.name, self.consent)
        except BaseException as error:
            await self._abandon_negotiation()
            if isinstance(error, OutOfDescriptors):
                self._around.descriptors.count()
            if isinstance(error, TimeoutError):
                error = UpstreamTimeout()
            if isinstance(error, InterviewPeerError):
                self._around.tally.refused[error.code] += 1
            raise error from None
        self._deadline = loop.call_at(deadline, self._connect_timed_out)
        self._check_connected()
        return answer.result()

    async def _call_model(self) -> None:
        """Offer the model's leg to the service and apply its answer."""
        around = self._around
        port = await UdpPort.open(
            around.model_host(), delay=around.model_delay, use_native=around.use_native
        )
        leg = Leg("model", port, self, own_port=True)
        self._model_leg, self._model_session = leg, ModelSession()
        self._up.connect(self._browser, leg)
        self._down.connect(leg, self._browser)
        self._relay.bind(self._browser, leg)
        offer = await leg.offer()
        # An open client's kit trips over calls of tools that it does not have.
        is_ours = self.origin == INVITED
        self._relay.gate.given = tuple(self.persona.tools) if is_ours else ()
        self._tools.given = frozenset(self._relay.gate.given)
        session = self.persona.session(around.model or self.model, with_tools=is_ours)
        call: Call = await around.connector.create_call(offer, session)
        self.call_id = call.id
        await leg.accept(call.answer_sdp)

    async def _abandon_negotiation(self) -> None:
        """Undo a negotiation that failed before its reply; the client may try again."""
        self._happen(Happening.NEGOTIATION_FAILED)
        browser, model, call_id = self._browser, self._model_leg, self.call_id
        if not self._life.over:
            # While ending, the ending closes them.
            self._browser = self._model_leg = self.call_id = None
            self._relay.bind(None, None)
            self._up.connect(None, None)
            self._down.connect(None, None)
            # Shielded, so that a cancelled caller leaves nothing half-open either.
            closing = self._tasks.start(self._close_all(call_id, browser, model), "abandon")
            await asyncio.shield(closing)

    def _may_offer_again(self) -> bool:
        """Whether the first answer may have been lost: only for those who are known by a token."""
        return self.origin == INVITED and self._browser is not None and not self._browser.connected

    async def _offer_again(self, offer_sdp: str, trusted: bool) -> str:
        """Answer a candidate whom the first answer did not reach; the call stays as it is.

        The new leg takes the place of the old one, so there is never more than one.
        """
        leg = self._new_browser_leg(trusted)
        try:
            answer = await leg.answer(offer_sdp)
            if self._life.over:
                raise SessionEnded
            if self.phase is not Phase.CONNECTING or not self._may_offer_again():
                # The first answer had arrived after all.
                raise SessionBusy
        except BaseException:
            await self._close_leg(leg)
            raise
        old, self._browser = self._browser, leg
        self._set_gate(leg)
        self._relay.bind(leg, self._model_leg)
        self._up.connect(leg, self._model_leg)
        self._down.connect(self._model_leg, leg)
        self._set_deadline(self._connect_timed_out)
        if old is not None:
            self._close_later(old)
        return answer

    async def _come_back(self, offer_sdp: str, trusted: bool) -> str:
        """Answer a browser that returns; its leg takes over once it is connected."""
        if self._next_browser is not None:
            await self._close_leg(self._next_browser)
        leg = self._next_browser = self._new_browser_leg(trusted)
        self._cancel_hold()
        self._set_deadline(self._return_timed_out)
        try:
            return await leg.answer(offer_sdp)
        except BaseException:
            self._next_browser = None
            self._return_over()
            await self._close_leg(leg)
            raise

    # -- what legs tell (LegListener) -----------------------------------------------------------

    def leg_connected(self, leg: Leg) -> None:
        """Go live when both legs stand, or let a returning browser take over."""
        self._log.info("leg connected", extra={"leg": leg.name})
        if self._life.over:
            # It is being closed with the others.
            return
        if leg is self._next_browser:
            self._use_up_tokens()
            self._take_over(leg)
        else:
            if leg is self._browser:
                self._use_up_tokens()
            self._check_connected()

    def leg_lost(self, leg: Leg, reason: str) -> None:
        """Decide what the loss of a leg means; one that is no longer ours means nothing."""
        self._log.info("leg lost", extra={"leg": leg.name, "why": reason})
        if leg is self._next_browser:
            self._next_browser = None
            self._close_later(leg)
            self._return_over()
        elif leg is self._browser:
            self._browser_lost()
        elif leg is self._model_leg:
            self._model_gone(in_order=reason == CLOSED_BY_FAR_END)
        else:
            self._close_later(leg)

    def channel_opened(self, leg: Leg) -> None:
        """Send what waited for the channel."""
        self._relay.opened(leg)

    def channel_message(self, leg: Leg, data: str | bytes) -> None:
        """Relay one event."""
        if leg is self._browser:
            self._relay.from_browser(data)
        elif leg is self._model_leg:
            self._relay.from_model(data)

    def _told_by_model(self, event: ModelEvent) -> None:
        self.control.take(event)
        self._tools.take(event)
        self._model_session.heard(event, time.monotonic(), time.time())
        if self._model_session.expired and self.phase in _WITH_MODEL:
            self._model_gone(in_order=True)

    def _model_gone(self, *, in_order: bool) -> None:
        """End without the model; a goodbye that is being said ends as it would have anyway."""
        reason = self._model_session.reason(time.monotonic(), in_order=in_order)
        self._happen(Happening.MODEL_LOST, self._farewell.reason or reason)

    def channel_closed(self, leg: Leg) -> None:
        """The model closing its channel is the end of its session; a browser may open another."""
        self._log.debug("event channel closed", extra={"leg": leg.name})
        if leg is self._model_leg:
            self._model_gone(in_order=True)

    # -- coming and going -----------------------------------------------------------------------

    def _use_up_tokens(self) -> None:
        """Somebody is connected, and so has the answer and what brings them back."""
        for token in sorted(self._shown_tokens):
            self.used_tokens.add(token)
            self._around.tell(happenings.Entered(interview_id=self.id, token=token))
        self._shown_tokens.clear()

    def give_back(self) -> None:
        """Let the first offer be made again, on another node too; harmless to repeat."""
        claim, self.claim = self.claim, None
        if claim is not None:
            self._around.tell(happenings.Released(interview_id=self.id, claim=claim))

    def _check_connected(self) -> None:
        browser, model = self._browser, self._model_leg
        # The reply must have gone out first: until then ``_deadline`` is not set.
        if self.phase is not Phase.CONNECTING or self._deadline is None:
            return
        if browser is not None and browser.connected and model is not None and model.connected:
            self._cancel_deadline()
            self._happen(Happening.CONNECTED)

    def _connect_timed_out(self) -> None:
        self._deadline = None
        browser = self._browser
        # The candidate can mend the one, and can do nothing about the other.
        at_fault = browser is None or not browser.connected
        reason = Reason.CONNECT_TIMEOUT if at_fault else Reason.MODEL_UNREACHABLE
        self._happen(Happening.CONNECT_TIMED_OUT, reason)

    def _browser_lost(self) -> None:
        if self.phase is Phase.CONNECTING:
            self._happen(Happening.BROWSER_LOST, Reason.BROWSER_FAILED)
        elif self.phase is Phase.LIVE:
            self._detach()

    def _detach(self) -> None:
        """The browser is gone: stop the model's reply and hold its leg for a while."""
        self._held_until = asyncio.get_running_loop().time() + self._around.hold_seconds
        self._happen(Happening.BROWSER_LOST)
        gone, self._browser = self._browser, None
        self._relay.bind(None, self._model_leg)
        self._up.connect(None, self._model_leg)
        self._down.connect(self._model_leg, None)
        self.control.leave()
        if gone is not None:
            self._close_later(gone)
        if self._farewell.reason is not None:
            # Nobody hears the goodbye any more.
            self.end_soon(self._farewell.reason)
        elif self._next_browser is None:
            self._hold_model()

    def _hold_model(self) -> None:
        """Let the model go when its time is over: returns that fail do not prolong it."""
        loop = asyncio.get_running_loop()
        self._cancel_hold()
        if self._held_until > loop.time():
            self._hold = loop.call_at(self._held_until, self._hold_over)
        else:
            self._hold_over()

    def _hold_over(self) -> None:
        self._hold = None
        if self.phase is Phase.DETACHED:
            self._happen(Happening.END_REQUESTED, Reason.BROWSER_GONE)

    def _take_over(self, leg: Leg) -> None:
        """The returning browser's leg is up: point both directions at it, then close the old."""
        old, self._browser, self._next_browser = self._browser, leg, None
        self._cancel_deadline()
        self._set_gate(leg)
        self._relay.bind(leg, self._model_leg)
        self._up.connect(leg, self._model_leg)
        self._down.connect(self._model_leg, leg)
        if old is not None:
            self._close_later(old)
        if self.phase is Phase.DETACHED:
            self._happen(Happening.BROWSER_BACK)
            self.control.come_back()

    def _return_timed_out(self) -> None:
        self._deadline = None
        leg, self._next_browser = self._next_browser, None
        if leg is not None:
            self._close_later(leg)
        self._return_over()

    def _return_over(self) -> None:
        """A return failed: the model is held for what is left of its time."""
        self._cancel_deadline()
        if self.phase is Phase.DETACHED:
            self._hold_model()

    def _set_deadline(self, passed: Callable[[], None]) -> None:
        self._cancel_deadline()
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._around.connect_seconds, passed)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _cancel_hold(self) -> None:
        if self._hold is not None:
            self._hold.cancel()
            self._hold = None

    # -- the lifecycle --------------------------------------------------------------------------

    def _happen(self, happening: Happening, reason: Reason | None = None) -> None:
        """Apply one happening and do what its new phase asks for."""
        before = self.phase
        if not self._life.handle(happening, reason):
            return
        phase = self.phase
        extra: Json = {"before": before.value, "phase": phase.value}
        if self.reason is not None:
            extra["reason"] = self.reason.value
        self._log.info("phase", extra=extra)
        now = time.monotonic()
        if happening is Happening.CONNECTED:
            self._around.tally.set_up(now - self._offered_at)
        self._recording.journal(None, now, {"type": "interview.phase", **extra})
        if phase in (Phase.LIVE, Phase.DETACHED, Phase.ENDING):
            self._relay.transcript.note_phase(phase.value, self._recording.since_start(now))
        if phase is Phase.ENDING and self.reason in FAILURE_SENTENCES:
            self._tell(
                {
                    "type": "error",
                    "code": self.reason.value.upper(),
                    "message": FAILURE_SENTENCES[self.reason],
                }
            )
        self._tell(self.state())
        self.feed.phase(phase.value, self.reason.value if self.reason is not None else None)
        self._chronicle(happening, phase)
        if phase is Phase.ENDING:
            self.control.close()
            self._cancel_deadline()
            self._cancel_hold()
            self._ending = self._tasks.start(self._finish(), "end")

    def _chronicle(self, happening: Happening, phase: Phase) -> None:
        """Have a new phase written down. An open client's interview begins with its files."""
        if not (self._recording.began or self.origin == INVITED):
            return
        match phase:
            case Phase.CREATED:
                self.give_back()
            case Phase.LIVE if happening is Happening.CONNECTED:
                self._live_since = time.monotonic()
                self._around.tell(happenings.Started(interview_id=self.id))
            case Phase.LIVE:
                self._around.tell(happenings.Returned(interview_id=self.id))
            case Phase.DETACHED:
                self._around.tell(happenings.Detached(interview_id=self.id))
            case Phase.ENDING if self.reason is not None:
                self._around.tell(happenings.Ending(interview_id=self.id, reason=self.reason))
            case _:
                # Made by its creator, opened by its files, finished by ``_finish``.
                pass

    def _spoken(self, *, over: bool = False) -> None:
        """Have what is new in the conversation written down."""
        if not self._recording.began:
            return
        news = self._turn_watch.look(self._relay.transcript.turns(), over=over)
        if news is not None:
            self.feed.turns(news.position, [turn_document(turn) for turn in news.turns])
            self._around.tell(
                happenings.Turns(
                    interview_id=self.id,
                    position=news.position,
                    turns=news.turns,
                    settled=news.settled,
                )
            )

    async def end(self, reason: Reason) -> None:
        """End the interview, from whatever phase, and wait until nothing of it is left open."""
        self._happen(Happening.END_REQUESTED, reason)
        await self.finished.wait()

    def end_soon(self, reason: Reason) -> None:
        """The same without waiting."""
        self._happen(Happening.END_REQUESTED, reason)

    async def end_politely(self, reason: Reason, *, instruction: str, seconds: float) -> None:
        """End the interview after a goodbye, and wait as ``end`` does.

        The model gets ``instruction`` as a system message and says goodbye in its own words. Half
        of the time is left to what is being said; then that is interrupted. The ending begins when
        the goodbye was heard, and after ``seconds`` at the latest: also if the model does not
        answer. Where nobody would hear it, it begins at once. A second call can only make the time
        shorter.
        """
        self.end_politely_soon(reason, seconds, instruction=instruction)
        await self.finished.wait()

    def end_politely_soon(
        self, reason: Reason, seconds: float, *, instruction: str = "", words: str = ""
    ) -> None:
        """The same without waiting; the goodbye is ``words`` exactly where they are given."""
        if self.phase is Phase.LIVE:
            self._farewell.begin(reason, seconds, instruction=instruction, words=words)
        else:
            self.end_soon(reason)

    def keep_limits(self, now: float) -> None:
        """Warn, part or end, if the time or the use so far asks for it at ``now`` (monotonic)."""
        if self.phase not in (Phase.LIVE, Phase.DETACHED):
            return
        limits = (self.max_seconds, self._around.max_seconds)
        ends_at = self._model_session.ends_at
        step = self._limits.look(
            self._recording.since_start(now),
            longest=min((one for one in limits if one is not None), default=None),
            model_left=None if ends_at is None else ends_at - now,
            used=tokens_of(self._relay.usage),
            most=self._around.max_tokens,
        )
        parting_for = self._farewell.reason
        match step:
            case Warned() if parting_for is None:
                self._warn(step)
            case Parting(reason, seconds):
                self.end_politely_soon(reason, seconds, instruction=GOODBYES[reason])
            case Over(reason):
                self.end_soon(parting_for or reason)
            case _:
                pass

    def _warn(self, warned: Warned) -> None:
        """Tell the page and the model that the end is near."""
        self._log.info("the end is near", extra={"reason": warned.reason.value})
        message: Json = {"type": "warning", "sessionId": self.id, "reason": warned.reason.value}
        if warned.seconds is not None:
            message["seconds"] = warned.seconds
        self._tell(message)
        self._tasks.start(self._instruct(warned.instruction), "warn the model of")

    async def _instruct(self, text: str) -> None:
        try:
            await self.control.instruct(text)
        except InterviewPeerError as error:
            # It ends all the same, only less gracefully.
            self._log.info("the model was not warned", extra={"code": error.code})

    async def _finish(self) -> None:
        """Close legs, then files: the one place where an interview's parts come down."""
        now = time.monotonic()
        files = Files()
        try:
            if self._negotiation is not None:
                self._negotiation.cancel()
                await asyncio.wait([self._negotiation])
            now = time.monotonic()
            self._up.connect(None, None)
            self._down.connect(None, None)
            await self._close_all(self.call_id, self._browser, self._next_browser, self._model_leg)
            self._browser = self._next_browser = self._model_leg = None
            await self._relay.finish(EVENTS_SECONDS)
            document = self._relay.transcript.document(self.id, self._recording.wall_started_at)
            files = await self._recording.end(now, document, self.reason)
        except Exception:
            self._log.exception("the interview did not end cleanly")
        finally:
            self.ended_at = time.monotonic()
            self._happen(Happening.FILES_CLOSED)
            self._around.tally.over(self)
            self._chronicle_end(now, files)
            message: Json = {"type": "session_ended", "sessionId": self.id}
            if self.reason is not None:
                message["reason"] = self.reason.value
            self._tell(message)
            self._observers.clear()
            self.feed.end(self.reason.value if self.reason is not None else None)
            await self._tasks.drain(CLOSE_SECONDS)
            self.finished.set()

    def _chronicle_end(self, now: float, files: Files) -> None:
        if not (self._recording.began or self.origin == INVITED):
            return
        self._spoken(over=True)
        self._around.tell(
            happenings.Finished(
                interview_id=self.id,
                phase=self.phase,
                reason=self.reason or Reason.INTERNAL,
                opened_at=self._recording.wall_started_at if self._recording.began else None,
                seconds=None if self._live_since is None else round(now - self._live_since, 3),
                usage=self._relay.usage or None,
                turns=tuple(self._relay.transcript.turns()) if self._recording.began else None,
                transcript=files.transcript,
                recording_failed=files.failed,
            )
        )

    async def _close_all(self, call_id: str | None, *legs: Leg | None) -> None:
        """Close legs and hang up at once, each within its time; errors are logged, not raised."""
        work = [self._close_leg(leg) for leg in legs if leg is not None]
        if call_id is not None:
            work.append(self._around.connector.hang_up(call_id))
        for result in await asyncio.gather(
            *(asyncio.wait_for(one, CLOSE_SECONDS) for one in work), return_exceptions=True
        ):
            if isinstance(result, BaseException):
                self._log.warning("closing failed", extra={"error": type(result).__name__})

    def _close_later(self, leg: Leg) -> None:
        self._tasks.start(self._close_leg(leg), "close leg of")

    async def _close_leg(self, leg: Leg) -> None:
        self.settle()
        self._around.tally.closed(leg)
        await leg.close()

    def _tell(self, message: Json) -> None:
        for observer in tuple(self._observers):
            observer(message)

    def _heard_at(self, audio_ms: int) -> float | None:
        """Where in the recording that is which the model heard so far into all it heard."""
        at = self._up.sent_at(audio_ms)
        return None if at is None or not self._recording.began else self._recording.since_start(at)


def _first(errors: BaseExceptionGroup[InterviewPeerError]) -> InterviewPeerError:
    """The error to tell: an upstream refusal before anything else."""
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            return _first(error)
        if not isinstance(error, ConfigurationError):
            return error
    return InterviewPeerError()
