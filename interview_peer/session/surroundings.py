"""What the interviews of one process share: sockets, disk, the voice service, and settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..core.gate import EVENTS_PER_SECOND
from ..core.redaction import Redactor
from ..core.speech_redaction import SpeechRedactor
from ..finishing.worker import Finisher
from ..media.descriptors import Descriptors
from ..media.meters import DelayMeter
from ..media.udp import UdpPort
from ..model.openai_realtime import RealtimeConnector
from ..state import happenings
from ..storage.worker import StorageWorker
from .reader import EventReader
from .tally import Tally


@dataclass(frozen=True)
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
    tally: Tally = field(default_factory=Tally)
    """Counts what outlives interviews."""
