"""One call of the voice service: its leg, its id, and when its session ends by itself.

A call that could not be made is given up; another try is another call.
"""

from __future__ import annotations

from ..core.model_session import ModelSession
from ..media.leg import Leg, LegListener
from ..media.udp import UdpPort
from ..types import Json
from .surroundings import Surroundings


class ModelCall:
    """``open_leg``, then ``place``; ``hang_up`` from any point on. The leg is closed by whoever
    has it."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self.id: str | None = None
        """The service's name for it, once it was placed."""
        self.session = ModelSession()
        """What is known of the service's session."""

    async def open_leg(self, listener: LegListener) -> Leg:
        """Make the leg, on a socket of its own. Raises ``OutOfDescriptors``."""
        around = self._around
        port = await UdpPort.open(
            around.model_host(), delay=around.model_delay, use_native=around.use_native
        )
        return Leg("model", port, listener, own_port=True)

    async def place(self, leg: Leg, session: Json) -> None:
        """Offer the leg to the service, with this session, and apply its answer.

        Raises ``UpstreamError``: the service refused, failed, or answered what cannot be used.
        """
        call = await self._around.connector.create_call(await leg.offer(), session)
        self.id = call.id
        await leg.accept(call.answer_sdp)

    async def hang_up(self) -> None:
        """End it at the service, if it was placed there."""
        if self.id is not None:
            await self._around.connector.hang_up(self.id)
