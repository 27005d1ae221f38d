"""Joins the browser's leg and the model's: sound both ways, and events.

Either leg may be replaced while the other goes on. Not responsible for when that is done
(``session.interview``), nor for how a packet or an event passes (``media.forwarder``,
``session.relay``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json

from ..core.refusal import error_event
from ..media.forwarder import Forwarder, ForwarderCounters
from ..media.leg import ChannelClosed, Leg, MessageTooLarge
from ..types import Json
from .relay import EventRelay
from .tally import Tally


class Bridge:
    """The two legs of one interview that are joined now, and what flows between them."""

    def __init__(self, up: Forwarder, down: Forwarder, relay: EventRelay, tally: Tally) -> None:
        """``up`` carries sound from the browser to the model, ``down`` the other way."""
        self.browser: Leg | None = None
        self.model: Leg | None = None
        self.up = up
        self.down = down
        self._relay = relay
        self._tally = tally

    def join(self, browser: Leg | None, model: Leg | None) -> None:
        """Let sound and events flow between these from now on; None where nobody is."""
        self.browser, self.model = browser, model
        self._relay.bind(browser, model)
        self.up.connect(browser, model)
        self.down.connect(model, browser)

    def silence(self) -> None:
        """Let no sound flow any more; events that are on their way are still taken."""
        self.up.connect(None, None)
        self.down.connect(None, None)

    def forget(self) -> None:
        """Have no legs any more: they are closed. What they sent last may still be read."""
        self.browser = self.model = None

    async def close(self, leg: Leg) -> None:
        """Close a leg, be it joined or not, once all that it carried is counted."""
        self.settle()
        self._tally.closed(leg)
        await leg.close()

    # -- what comes by the event channels ---------------------------------------------------------

    def opened(self, leg: Leg) -> None:
        """A leg's event channel opened: send what waited for it."""
        self._relay.opened(leg)

    def message(self, leg: Leg, data: str | bytes) -> None:
        """Relay one event; none of a leg that is not joined."""
        if leg is self.browser:
            self._relay.from_browser(data)
        elif leg is self.model:
            self._relay.from_model(data)

    def refuse(self, leg: Leg, code: str, sentence: str) -> None:
        """Send a leg an error event past all others, if it can still be sent any."""
        with contextlib.suppress(ChannelClosed, MessageTooLarge):
            leg.send_text(json.dumps(error_event(code, sentence)))

    # -- what it carried --------------------------------------------------------------------------

    def settle(self) -> None:
        """Bring the meters up to date with what native code forwarded."""
        self.up.settle()
        self.down.settle()

    @property
    def last_activity(self) -> float:
        """When (monotonic) the browser last sent sound, or either side an event; 0 for never."""
        heard = self.browser.reception.last_at if self.browser is not None else 0.0
        return max(self._relay.last_event_at, heard)

    @property
    def directions(self) -> dict[str, ForwarderCounters]:
        """What was forwarded each way so far."""
        return {"to_model": self.up.counters, "to_browser": self.down.counters}

    def statistics(self) -> Json:
        """What each leg, each direction and the event channel has carried so far."""
        legs = {"browser": self.browser, "model": self.model}
        directions = {name: dataclasses.asdict(one) for name, one in self.directions.items()}
        return {
            "legs": {name: leg.statistics() for name, leg in legs.items() if leg is not None},
            **directions,
            "events": dict(self._relay.counters),
        }
