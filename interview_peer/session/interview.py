"""One interview: its phase, and what follows when a leg comes, goes or comes back, or it must end.

The lifecycle decides what may follow what; this module obeys it, and has its parts do the work:
``entry`` knows by what candidates come in, ``connections`` makes and closes legs, ``bridge`` lets
sound and events flow between them, ``hold`` waits for a browser that is gone, ``recording`` keeps
what passed, ``control`` speaks to the model, ``limit_watch`` minds time and tokens, ``reporter``
tells everybody else. Not responsible for how a client talks to us (``web``), nor for finding an
interview by its id (``session.registry``).
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from .. import logs
from ..core.consent import Consent, digest
from ..core.flood import Flood
from ..core.gate import Client
from ..core.lifecycle import WAITING, Happening, Lifecycle, Phase, Reason
from ..core.limits import tokens_of
from ..core.persona import Persona
from ..core.realtime import ModelEvent
from ..core.sdp import Offer
from ..errors import (
    ConnectionFlooded,
    ConsentRequired,
    Draining,
    InterviewPeerError,
    OutOfDescriptors,
    SessionBusy,
    SessionEnded,
    UpstreamError,
    UpstreamTimeout,
)
from ..media.engine import CLOSED_BY_FAR_END
from ..media.forwarder import Forwarder, ForwarderCounters
from ..media.leg import Leg
from ..tasks import Tasks
from ..types import INVITED, OPEN, Json, SessionId
from .bridge import Bridge
from .connections import CLOSE_SECONDS, Connections, Terms
from .control import Control
from .deadline import Deadline
from .entry import Entry
from .farewell import Farewell
from .feed import Feed
from .finished import Files
from .hold import Hold
from .limit_watch import LimitWatch
from .recording import Recording
from .relay import EventRelay
from .reporter import Observer, Reporter
from .surroundings import Surroundings
from .tools import Toolbox

EVENTS_SECONDS: Final = 20.0
"""How long the ending waits for events that are still being read."""

MODEL_GONE: Final = frozenset({Reason.MODEL_LOST, Reason.MODEL_CLOSED, Reason.MODEL_EXPIRED})

_WITH_MODEL: Final = frozenset({Phase.CONNECTING, Phase.LIVE, Phase.DETACHED})


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
        self.entry = Entry(session_id, around.tell)
        """By what candidates come in."""
        self.consent: Consent | None = None
        """The agreement to be recorded, once there is one."""

        self._around = around
        self._life = Lifecycle()
        self._log = logs.get(__name__, session=session_id)
        self._tasks = Tasks(session_id)
        self._touched = time.monotonic()
        self._offered_at = 0.0
        self._negotiation: asyncio.Task[str] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._calling_off: asyncio.Task[bool] | None = None
        self._connected_by = Deadline()
        # The model must always hear something, or its speech detection waits for ever.
        up, down = Forwarder(fill=True), Forwarder()
        self._recording = Recording(session_id, around, up, down, self._tasks)
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
            self._recording.heard_at,
            self.feed.piece,
            around.speech,
            self._told_by_model,
            around.events_per_second,
        )
        self._bridge = Bridge(up, down, self._relay, around.tally)
        self._reporter = Reporter(
            session_id,
            self._recording,
            self.feed,
            around.tell,
            lambda: self.origin == INVITED,
            self._log,
        )
        self.control = Control(self._relay.to_model)
        """What the server itself says to the model."""
        self._farewell = Farewell(self.control, self._tasks, self.end_soon, self._log)
        self._tools = Toolbox(self.control, self._farewell, self._tasks, self.end_soon, self._log)
        self._connections = Connections(
            session_id,
            around,
            self,
            self._bridge,
            self._relay.gate,
            self._tools,
            self._tasks,
            self._log,
        )
        self._hold = Hold(
            around.hold_seconds,
            around.connect_seconds,
            lambda: self.end_soon(Reason.BROWSER_GONE),
            self._connections.close_later,
        )
        self.limits = LimitWatch(
            around.max_seconds,
            around.max_tokens,
            self.control,
            self._farewell,
            self._tasks,
            self._log,
            warn=self._reporter.warning,
            part=lambda reason, seconds, words: self.end_politely_soon(
                reason, seconds, instruction=words
            ),
            end=self.end_soon,
        )
        """What this server allows it."""

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
    def call_id(self) -> str | None:
        """The voice service's name for the call; None while there is none."""
        return self._connections.call.id

    @property
    def last_activity(self) -> float:
        """When (monotonic) the browser last sent sound, or anybody a message.

        Neither ICE checks nor the model's own silence count: they go on for ever.
        """
        return max(self._touched, self._bridge.last_activity)

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
        return self._reporter.watched

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
        self._reporter.observe(observer)

    def unobserve(self, observer: Observer) -> None:
        """Stop telling ``observer``."""
        self._reporter.unobserve(observer)

    def state(self) -> Json:
        """The ``state`` message for where the interview stands."""
        return self._reporter.state(self.phase, self.reason)

    def settle(self) -> None:
        """Bring the meters up to date with what native code forwarded."""
        self._bridge.settle()

    @property
    def legs(self) -> list[Leg]:
        """Those it has now, the browser's first."""
        bridge = self._bridge
        return [leg for leg in (bridge.browser, self._hold.coming, bridge.model) if leg]

    @property
    def directions(self) -> dict[str, ForwarderCounters]:
        """What was forwarded each way so far."""
        return self._bridge.directions

    def statistics(self) -> Json:
        """What each leg and each direction has carried so far; for operators."""
        return {
            **self._bridge.statistics(),
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
        self, offer: Offer, token: str | None = None, *, trusted: bool = False
    ) -> str:
        """Answer a browser's offer: the first makes both legs, a later one brings it back.

        The answer is given only once the model's service has accepted the call, so its refusal
        *is* the reply; then both legs must connect before the deadline. Until a browser is
        connected an invited candidate may offer again: the answer may have been lost on its way.

        Args:
            token: the ``jti`` of the join token that was shown with it; used up by connecting.
            trusted: whether what was shown says that this browser may configure the session.

        Raises:
            InvalidSdp: the offer passed for good, and cannot be answered.
            ConsentRequired: the candidate must agree to being recorded first.
            SessionEnded, SessionBusy: not now.
            Draining: the server ends before anybody was connected.
            OutOfDescriptors: the session may offer again.
            TokenUsed: somebody came in by this token.
            UpstreamError: the service refused or failed; the session may offer again.
        """
        if self._life.over:
            raise SessionEnded
        if self.phase is Phase.CONSENT:
            raise ConsentRequired
        self.entry.check(token)
        again = self.phase is Phase.CONNECTING
        if self._is_called_off():
            raise Draining
        if self._negotiation is not None or (again and not self._may_offer_again()):
            raise SessionBusy
        self.touch()
        self.entry.show(token)
        if again:
            work = self._offer_again(offer, trusted)
        elif self.phase is Phase.CREATED:
            # Before anything is begun: what runs already may need what is left.
            self._around.descriptors.require()
            # In this very step: who counts the running interviews must see it.
            self._happen(Happening.OFFER_TAKEN)
            work = self._start(offer, trusted)
        else:
            work = self._come_back(offer, trusted)
        self._negotiation = self._tasks.start(work, "negotiate")
        self._negotiation.add_done_callback(self._negotiated)
        try:
            return await asyncio.shield(self._negotiation)
        except asyncio.CancelledError:
            if self._is_called_off() and not self._life.over:
                raise Draining from None
            if self.reason in MODEL_GONE:
                raise UpstreamError from None
            if self._life.over:
                raise SessionEnded from None
            raise

    def _negotiated(self, negotiation: asyncio.Task[str]) -> None:
        self._negotiation = None

    def _terms(self, trusted: bool) -> Terms:
        """What a browser may do that comes now."""
        persona = self.persona
        if self.origin != INVITED:
            client = Client.OPEN
        elif persona.gate_trusted or trusted:
            client = Client.TRUSTED
        else:
            client = Client.INVITED
        return Terms(client, tuple(persona.gate_allow), tuple(persona.gate_deny))

    async def _start(self, offer: Offer, trusted: bool) -> str:
        """Make both legs at once; on any failure nothing of them is left."""
        self._offered_at = time.monotonic()
        deadline = asyncio.get_running_loop().time() + self._around.connect_seconds
        # An open client's kit trips over calls of tools that it does not have.
        is_ours = self.origin == INVITED
        tools = tuple(self.persona.tools) if is_ours else ()
        try:
            session = self.persona.session(self._around.model or self.model, with_tools=is_ours)
            answer = await self._connections.make_both(
                offer, self._terms(trusted), session, tools, deadline
            )
            self._recording.begin(self.persona.name, self.consent)
        except BaseException as error:
            self._happen(Happening.NEGOTIATION_FAILED)
            if not self._life.over:
                # While ending, the ending closes them.
                await self._connections.undo()
            if isinstance(error, OutOfDescriptors):
                self._around.descriptors.count()
            if isinstance(error, TimeoutError):
                error = UpstreamTimeout()
            if isinstance(error, InterviewPeerError):
                self._around.tally.refused[error.code] += 1
            raise error from None
        self._connected_by.set(deadline, self._connect_timed_out)
        self._check_connected()
        return answer

    def _may_offer_again(self) -> bool:
        """Whether the first answer may have been lost: only for those who are known by a token."""
        browser = self._bridge.browser
        return self.origin == INVITED and browser is not None and not browser.connected

    async def _offer_again(self, offer: Offer, trusted: bool) -> str:
        """Answer a candidate whom the first answer did not reach; the call stays as it is.

        The new leg takes the place of the old one, so there is never more than one.
        """
        leg = self._connections.new_browser(self._terms(trusted))
        try:
            answer = await leg.answer(offer)
            if self._life.over:
                raise SessionEnded
            if self.phase is not Phase.CONNECTING or not self._may_offer_again():
                # The first answer had arrived after all.
                raise SessionBusy
        except BaseException:
            await self._bridge.close(leg)
            raise
        self._connected_by.set_in(self._around.connect_seconds, self._connect_timed_out)
        self._connections.replace_browser(leg)
        return answer

    async def _come_back(self, offer: Offer, trusted: bool) -> str:
        """Answer a browser that returns; its leg takes over once it is connected."""
        if self._hold.coming is not None:
            await self._bridge.close(self._hold.coming)
        leg = self._connections.new_browser(self._terms(trusted))
        self._hold.expect(leg)
        try:
            return await leg.answer(offer)
        except BaseException:
            self._hold.missed()
            await self._bridge.close(leg)
            raise

    # -- what legs tell (LegListener) -----------------------------------------------------------

    def leg_connected(self, leg: Leg) -> None:
        """Go live when both legs stand, or let a returning browser take over."""
        self._log.info("leg connected", extra={"leg": leg.name})
        if self._life.over:
            # It is being closed with the others.
            return
        if leg is self._hold.coming:
            self.entry.use()
            self._take_over(leg)
        else:
            if leg is self._bridge.browser:
                self.entry.use()
            self._check_connected()

    def leg_lost(self, leg: Leg, reason: str) -> None:
        """Decide what the loss of a leg means; one that is no longer ours means nothing."""
        self._log.info("leg lost", extra={"leg": leg.name, "why": reason})
        if leg.flood is not None:
            self._flooded(leg, leg.flood)
        if leg is self._hold.coming:
            self._connections.close_later(leg)
            self._hold.missed()
        elif leg is self._bridge.browser:
            self._browser_lost()
        elif leg is self._bridge.model:
            self._model_gone(in_order=reason == CLOSED_BY_FAR_END)
        else:
            self._connections.close_later(leg)

    def _flooded(self, leg: Leg, flood: Flood) -> None:
        """Tell a browser why we end its connection, which then is lost like any other.

        The interview is held for it, as it goes on without a WebSocket that floods: a mistake in a
        page costs the candidate no interview. Who comes back has the same budget, and has used up
        one of the interview's offers.
        """
        error = ConnectionFlooded()
        self._around.tally.flooded[flood] += 1
        self._bridge.refuse(leg, error.code.lower(), error.message)
        self._reporter.flooded(flood, error, time.monotonic())

    def channel_opened(self, leg: Leg) -> None:
        """Send what waited for the channel."""
        self._bridge.opened(leg)

    def channel_message(self, leg: Leg, data: str | bytes) -> None:
        """Relay one event."""
        self._bridge.message(leg, data)

    def _told_by_model(self, event: ModelEvent) -> None:
        self.control.take(event)
        self._tools.take(event)
        session = self._connections.call.session
        session.heard(event, time.monotonic(), time.time())
        if session.expired and self.phase in _WITH_MODEL:
            self._model_gone(in_order=True)

    def _model_gone(self, *, in_order: bool) -> None:
        """End without the model; a goodbye that is being said ends as it would have anyway."""
        session = self._connections.call.session
        reason = session.reason(time.monotonic(), in_order=in_order)
        self._happen(Happening.MODEL_LOST, self._farewell.reason or reason)

    def channel_closed(self, leg: Leg) -> None:
        """The model closing its channel is the end of its session; a browser may open another."""
        self._log.debug("event channel closed", extra={"leg": leg.name})
        if leg is self._bridge.model:
            self._model_gone(in_order=True)

    # -- coming and going -----------------------------------------------------------------------

    def _check_connected(self) -> None:
        browser, model = self._bridge.browser, self._bridge.model
        # The reply must have gone out first: until then there is no deadline.
        if self.phase is not Phase.CONNECTING or not self._connected_by.is_set:
            return
        if browser is not None and browser.connected and model is not None and model.connected:
            self._connected_by.cancel()
            self._happen(Happening.CONNECTED)

    def _connect_timed_out(self) -> None:
        browser = self._bridge.browser
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
        self._happen(Happening.BROWSER_LOST)
        self._connections.drop_browser()
        self.control.leave()
        if self._farewell.reason is not None:
            # Nobody hears the goodbye any more.
            self.end_soon(self._farewell.reason)
        else:
            self._hold.begin()

    def _take_over(self, leg: Leg) -> None:
        """The returning browser's leg is up: it takes the place of the one before."""
        self._hold.arrived()
        self._connections.replace_browser(leg)
        if self.phase is Phase.DETACHED:
            self._happen(Happening.BROWSER_BACK)
            self.control.come_back()

    # -- the lifecycle --------------------------------------------------------------------------

    def _happen(self, happening: Happening, reason: Reason | None = None) -> None:
        """Apply one happening and do what its new phase asks for."""
        before = self.phase
        if not self._life.handle(happening, reason):
            return
        phase, now = self.phase, time.monotonic()
        if happening is Happening.CONNECTED:
            self._around.tally.set_up(now - self._offered_at)
        if phase is Phase.ENDING:
            # It takes its first step after this one: whatever goes wrong below, it ends.
            self._ending = self._tasks.start(self._finish(), "end")
        if phase in (Phase.LIVE, Phase.DETACHED, Phase.ENDING):
            self._relay.transcript.note_phase(phase.value, self._recording.since_start(now))
        self._reporter.phase(happening, before, phase, self.reason, now)
        if phase is Phase.CREATED:
            self.entry.give_back()
        if phase is Phase.ENDING:
            self.control.close()
            self._connected_by.cancel()
            self._hold.stop()

    def _spoken(self) -> None:
        self._reporter.turns(self._relay.transcript.turns())

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

    @property
    def can_be_called_off(self) -> bool:
        """Whether an invited candidate is on the way in and not connected yet: nobody has spoken,
        and the invitation is still good."""
        browser = self._bridge.browser
        return (
            self.origin == INVITED
            and self.phase is Phase.CONNECTING
            and (browser is None or not browser.connected)
            and not self._relay.transcript.turns()
        )

    async def call_off(self) -> bool:
        """Let it be as if the first offer had failed, because the server ends: nothing of it is
        kept, and the candidate may come again by the same invitation, to another process too.

        False where it cannot be, or the disk refuses: then it is to be ended.
        """
        if self._calling_off is None:
            if not self.can_be_called_off:
                return False
            self._calling_off = self._tasks.start(self._call_off(), "call off")
        return await asyncio.shield(self._calling_off)

    def _is_called_off(self) -> bool:
        """Whether that happens now, or has happened."""
        return self._calling_off is not None

    async def _call_off(self) -> bool:
        called_off = False
        try:
            called_off = await self._undo_negotiation()
        except Exception:
            # Whoever ends the server ends it then.
            self._log.exception("the interview could not be called off")
        finally:
            if not called_off:
                self._calling_off = None
        return called_off

    async def _undo_negotiation(self) -> bool:
        negotiation = self._negotiation
        if negotiation is not None:
            negotiation.cancel()
            await asyncio.wait([negotiation])
        if self.phase is Phase.CREATED:
            # The offer was not answered yet, and is undone by its own failure.
            return True
        # The candidate may have been quicker.
        if not self.can_be_called_off:
            return False
        self._connected_by.cancel()
        await self._connections.undo()
        # Others may take the interview once it is given back: they must find no folder.
        if self._life.over or not await self._recording.discard() or self._life.over:
            return False
        self._happen(Happening.NEGOTIATION_FAILED)
        return True

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
        ends_at = self._connections.call.session.ends_at
        self.limits.look(
            self._recording.since_start(now),
            own_seconds=self.max_seconds,
            model_left=None if ends_at is None else ends_at - now,
            used=tokens_of(self._relay.usage),
        )

    async def _finish(self) -> None:
        """Close legs, then files: the one place where an interview's parts come down."""
        now = time.monotonic()
        files = Files()
        try:
            if self._negotiation is not None:
                self._negotiation.cancel()
                await asyncio.wait([self._negotiation])
            if self._calling_off is not None:
                # Somebody ended it meanwhile; it takes the files away, or leaves them all to us.
                await asyncio.wait([self._calling_off])
            now = time.monotonic()
            self._bridge.silence()
            await self._connections.close_all(self.legs)
            self._bridge.forget()
            # The leg of one who was coming back is closed with the others.
            self._hold.missed()
            await self._relay.finish(EVENTS_SECONDS)
            document = self._relay.transcript.document(self.id, self._recording.wall_started_at)
            files = await self._recording.end(now, document, self.reason)
        except Exception:
            self._log.exception("the interview did not end cleanly")
        finally:
            self.ended_at = time.monotonic()
            try:
                self._tell_end(now, files)
            except Exception:
                self._log.exception("the end of the interview was not told")
            await self._tasks.drain(CLOSE_SECONDS)
            self.finished.set()

    def _tell_end(self, now: float, files: Files) -> None:
        try:
            self._happen(Happening.FILES_CLOSED)
        finally:
            self._around.tally.over(self)
            turns = self._relay.transcript.turns()
            self._reporter.finished(now, self.phase, self.reason, self._relay.usage, turns, files)
