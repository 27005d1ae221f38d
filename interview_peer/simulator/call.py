"""One call at the simulator: a leg, an ear, a mouth and the conversation between them.

Everything happens in callbacks on the event loop; the call owns the mouth's task and one timer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import secrets
import string
import time
from collections import deque
from collections.abc import Callable

from ..core.sdp import check_offer
from ..media.leg import ChannelClosed, Leg, MessageTooLarge
from ..types import Json
from .answer import as_the_service_writes_it, routing_ufrag, without_message_limit
from .commands import Command, Drop, HangUp, Limit, Listen, Play, Send, SendRaw, Stop
from .conversation import BINARY, MALFORMED, Conversation
from .ear import Ear
from .library import script_for
from .mouth import Mouth
from .settings import SimulatorSettings
from .wire import Wire

log = logging.getLogger(__name__)

KEPT = 200
"""So many of the client's last messages a call keeps for who asks."""

_BASE62 = string.digits + string.ascii_letters


def make_id(prefix: str) -> str:
    """A fresh id of the service's shape: the prefix and 21 letters and digits."""
    return prefix + "".join(secrets.choice(_BASE62) for _ in range(21))


class Call:
    """From offer to end. ``ended`` is called once, on the event loop, when the call is over.

    Whoever made the call must then ``close`` it; a call does not close itself.
    """

    def __init__(
        self,
        call_id: str,
        wire: Wire,
        session: Json,
        settings: SimulatorSettings,
        seed: str,
        ended: Callable[[Call, str], None],
    ) -> None:
        self.call_id = call_id
        self.settings = settings
        self.received: deque[str | bytes] = deque(maxlen=KEPT)
        """What the client sent last, oldest first."""
        self.received_count = 0
        self.sent_count = 0
        self.unsent = 0
        self._begun = self._now()
        self._wire = wire
        self._ended = ended
        self._over = False
        self._ear = Ear()
        self._ear.listen(session["audio"]["input"]["turn_detection"])
        script = script_for(session["instructions"])
        self._conversation = Conversation(session, script, settings, random.Random(seed), make_id)
        self._leg = Leg("simulator", wire, self)
        self._leg.engine.ufrag = routing_ufrag()
        self._leg.on_audio = self._audio
        self._mouth = Mouth(self._leg.send_audio, self._played_out, settings.idle_audio, call_id)
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None

    async def answer(self, offer_sdp: str) -> str:
        """Answer the offer; the call ends by itself if nobody connects in time.

        Raises InvalidSdp. The call must be closed after any exception.
        """
        if self.settings.oversized_events == "send":
            offer_sdp = without_message_limit(offer_sdp)
        answer = await self._leg.answer(check_offer(offer_sdp))
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(
            self.settings.connect_seconds, self.end, "nobody connected"
        )
        return as_the_service_writes_it(answer, ice_lite=self.settings.ice_lite)

    def end(self, reason: str) -> None:
        """Declare the call over. Only the first reason counts."""
        if self._over:
            return
        self._over = True
        self._cancel_timers()
        log.debug("simulated call over: %s", reason)
        self._ended(self, reason)

    async def close(self) -> None:
        """Let go of task, connection and socket. Idempotent."""
        self._over = True
        self._cancel_timers()
        await self._mouth.close()
        await self._leg.close()
        self._wire.close()

    # What whoever watches the call may do

    def expire(self, *, silently: bool = False) -> None:
        """End the session now, as at its hour: with the error ``session_expired``, or without."""
        self._perform(self._conversation.expire(silently=silently))

    def drop(self) -> None:
        """Lose the network now: no media, no answer to STUN. The call ends some seconds later."""
        self._wire.cut()

    def error(self, code: str, message: str) -> None:
        """Tell an ``error`` event that nothing the client sent has caused."""
        self._perform(self._conversation.fault(code, message))

    def send(self, message: str | bytes) -> None:
        """Send this message as it is, whatever it is; bytes make a binary frame."""
        self._perform([SendRaw(message)])

    def send_malformed(self) -> None:
        """Send texts that are not JSON, no object, or no event."""
        self._perform([SendRaw(message) for message in MALFORMED])

    def send_binary(self) -> None:
        """Send two binary frames, the second of them an event."""
        self._perform([SendRaw(message) for message in BINARY])

    def status(self) -> Json:
        """What is to be told about the call; times in seconds."""
        phase = "connected" if self._leg.connected else "connecting"
        if self._wire.is_cut:
            phase = "dropped"
        elif self._leg.channel_open:
            phase = "open"
        return {
            "id": self.call_id,
            "phase": phase,
            "seconds": round(self._now() - self._begun, 3),
            "heard_ms": self._ear.heard_ms,
            "lines_said": self._conversation.lines_said,
            "events": {
                "received": self.received_count,
                "sent": self.sent_count,
                "unsent": self.unsent,
            },
        }

    # What the leg tells

    def leg_connected(self, leg: Leg) -> None:
        """Sound can flow."""
        if self._over:
            return
        if self._deadline is not None:
            self._deadline.cancel()
        self._mouth.start()

    def leg_lost(self, leg: Leg, reason: str) -> None:
        """The client is gone."""
        self.end(f"connection lost: {reason}")

    def channel_opened(self, leg: Leg) -> None:
        """The client can hear events."""
        self._perform(self._conversation.opened(self._now(), time.time()))

    def channel_message(self, leg: Leg, data: str | bytes) -> None:
        """The client sent an event."""
        self.received.append(data)
        self.received_count += 1
        self._perform(self._conversation.client_message(self._now(), data))

    def channel_closed(self, leg: Leg) -> None:
        """The client closed its channel, which ends a call."""
        self.end("channel closed")

    # Inside

    def _audio(self, at: float, sequence: int, timestamp: int, payload: bytes) -> None:
        if self._over:
            return
        now = self._now()
        detections = self._ear.hear(sequence, timestamp, payload)
        self._perform(self._conversation.heard(now, self._ear.heard_ms))
        for detection in detections:
            self._perform(self._conversation.detected(now, detection))

    def _played_out(self, response_id: str) -> None:
        self._perform(self._conversation.played_out(self._now(), response_id))

    def _advance(self) -> None:
        self._timer = None
        self._perform(self._conversation.advance(self._now()))

    def _perform(self, commands: list[Command]) -> None:
        for command in commands:
            if self._over:
                return
            match command:
                case Send(event):
                    self._send(json.dumps(event, separators=(",", ":")))
                case SendRaw(message):
                    self._send(message)
                case Play(response_id, line):
                    self._mouth.play(response_id, line)
                case Limit(played_ms):
                    self._mouth.limit(played_ms)
                case Stop():
                    self._mouth.stop()
                case Listen(turn_detection):
                    self._ear.listen(turn_detection)
                case Drop():
                    self.drop()
                case HangUp(reason):
                    self.end(reason)
        self._set_timer()

    def _send(self, message: str | bytes) -> None:
        try:
            self._leg.send_message(message)
        except (ChannelClosed, MessageTooLarge):
            # A closed channel is reported by the leg; too large an event is only lost.
            self.unsent += 1
        else:
            self.sent_count += 1

    def _set_timer(self) -> None:
        due = self._conversation.next_due()
        if self._over or due is None:
            return
        if self._timer is not None:
            if self._timer.when() == due:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(due, self._advance)

    def _cancel_timers(self) -> None:
        for timer in (self._timer, self._deadline):
            if timer is not None:
                timer.cancel()
        self._timer = self._deadline = None

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
