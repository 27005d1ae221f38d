"""The server's figures as Prometheus' metrics, made when they are asked for.

Nothing is counted here: at each scrape what the rooms count for themselves is read and given a
name, so a metric costs audio nothing. Names follow Prometheus: ``interview_peer_``, base units, one
``_total`` for what never falls. Labels take few values, all known here or made by the program:
never an interview's id, an address or a text of somebody else's. docs/metrics.md lists all.
"""

from __future__ import annotations

import dataclasses
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from .. import __version__
from ..core.flood import Flood
from ..core.lifecycle import OVER, Phase
from ..core.rtcp import CLOCK_RATE
from ..errors import UpstreamError
from ..media.descriptors import Descriptors
from ..media.forwarder import ForwarderCounters
from ..media.meters import BOUNDS, LAG_BOUNDS, DelayMeter, LoopWatch
from ..media.udp import UdpPort
from ..notices.depth import Depth
from ..session.interview import Interview
from ..session.registry import Interviews
from ..session.tally import LEGS, SETUP_BOUNDS, Tally
from ..types import Json

PREFIX: Final = "interview_peer_"

_UPSTREAM: tuple[type[UpstreamError], ...] = (UpstreamError, *UpstreamError.__subclasses__())
UPSTREAM_CODES: Final = tuple(
    error.code for error in _UPSTREAM if error.code.startswith("UPSTREAM_")
)
"""What can go wrong with the voice service; told from the start, so that a first time shows."""

DROPS: Final = tuple(
    field.name
    for field in dataclasses.fields(ForwarderCounters)
    if field.name not in ("forwarded", "filled", "rebased")
)
"""Why a packet that came is not sent on."""


@dataclass(frozen=True)
class Sources:
    """Whose figures they are."""

    interviews: Interviews
    tally: Tally
    browser_port: UdpPort
    to_browser: DelayMeter
    loop_watch: LoopWatch
    descriptors: Descriptors
    capacity: int
    """Interviews that may run at once."""
    draining: Callable[[], bool]
    recordings: Callable[[], Json]
    """As ``Archive.statistics``."""
    chronicle: Callable[[], Json]
    """As ``Chronicle.statistics``."""
    notices: Callable[[], Json]
    """As ``Notices.statistics``."""
    limits: Callable[[], Json]
    """As ``Limits.statistics``."""
    tasks: Callable[[], int]
    """How many tasks the event loop has."""
    forwarder: str
    """``native`` or ``python``."""


class ServerCollector(Collector):
    """Reads ``Sources`` on the event loop; ``depth`` is what was last learned of the outbox."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self.depth: Depth | None = None
        self._lost = dict.fromkeys(LEGS, 0)

    def describe(self) -> Iterator[Metric]:
        """Nothing: names are checked by the tests, not at the start."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Every metric, with its samples of this moment."""
        sources = self._sources
        known = sources.interviews.known()
        sources.interviews.settle()
        yield from _build(sources)
        yield from self._interviews(known)
        yield from self._media(known)
        yield from _loop(sources)
        yield from _recordings(sources.recordings())
        yield from _state(sources.chronicle(), sources.notices(), self.depth)
        yield _counter(
            "requests_refused",
            "Requests, sockets and messages refused by a limit.",
            sources.limits(),
            "limit",
        )

    def _interviews(self, known: Sequence[Interview]) -> Iterator[Metric]:
        sources, tally = self._sources, self._sources.tally
        phases = {phase.value: 0 for phase in Phase if phase not in OVER}
        for interview in known:
            if interview.phase not in OVER:
                phases[interview.phase.value] += 1
        yield _gauge("interviews", "Interviews that are not over.", phases, "phase")
        yield _gauge("interviews_capacity", "Interviews that may run at once.", sources.capacity)
        yield _gauge("draining", "1 while no new interviews are taken.", float(sources.draining()))
        ended = CounterMetricFamily(
            f"{PREFIX}interviews_ended",
            "Interviews that are over.",
            labels=("phase", "reason"),
        )
        for (phase, reason), count in sorted(tally.ended.items(), key=str):
            ended.add_metric((phase.value, reason.value), count)
        yield ended
        yield _counter(
            "offers_failed",
            "Offers that began an interview and could not be answered; UPSTREAM_ codes are the "
            "voice service's.",
            {**dict.fromkeys(UPSTREAM_CODES, 0), **tally.refused},
            "code",
        )
        yield _histogram(
            "setup_seconds",
            "From a browser's offer until audio can flow both ways.",
            {"": (SETUP_BOUNDS, tally.setup_buckets, tally.setup_seconds)},
        )

    def _media(self, known: Sequence[Interview]) -> Iterator[Metric]:
        sources = self._sources
        meters = {"to_model": sources.browser_port.delay, "to_browser": sources.to_browser}
        yield _histogram(
            "added_delay_seconds",
            "From a packet's arrival to its sending; a sample of the packets.",
            {name: (BOUNDS, meter.buckets, meter.total) for name, meter in meters.items()},
            "direction",
        )
        yield _counter(
            "packets_late",
            "Packets that were held longer than 5 ms.",
            {name: meter.late for name, meter in meters.items()},
            "direction",
        )
        ways = sources.tally.directions(known)
        for metric, field, told in (
            ("packets_forwarded", "forwarded", "Audio packets sent on."),
            ("packets_filled", "filled", "Packets of silence sent in the place of none."),
        ):
            values = {name: getattr(way, field) for name, way in ways.items()}
            yield _counter(metric, told, values, "direction")
        dropped = CounterMetricFamily(
            f"{PREFIX}packets_dropped",
            "Audio packets that were not sent on.",
            labels=("direction", "reason"),
        )
        for name, way in ways.items():
            for reason in DROPS:
                dropped.add_metric((name, reason), getattr(way, reason))
        yield dropped
        yield _counter(
            "datagrams_dropped",
            "Datagrams on the browsers' port that belong to nobody or could not be read.",
            dict(sources.browser_port.dropped),
            "reason",
        )
        yield _counter(
            "connections_flooded",
            "Browsers' connections ended because they sent far too much.",
            {flood.value: sources.tally.flooded[flood] for flood in Flood},
            "by",
        )
        yield from self._legs(known)

    def _legs(self, known: Sequence[Interview]) -> Iterator[Metric]:
        totals = self._sources.tally.legs(known)
        for leg, total in totals.items():
            # A packet that comes late is lost no more, and a counter may not fall.
            self._lost[leg] = max(self._lost[leg], total.lost_packets)
        for metric, told, values in (
            (
                "rtp_received_packets",
                "Audio packets received.",
                {leg: total.received_packets for leg, total in totals.items()},
            ),
            (
                "rtp_received_bytes",
                "Bytes of audio received, without headers.",
                {leg: total.received_bytes for leg, total in totals.items()},
            ),
            ("rtp_lost_packets", "Audio packets that never arrived.", self._lost),
            (
                "rtp_sent_packets",
                "Audio packets sent.",
                {leg: total.sent_packets for leg, total in totals.items()},
            ),
        ):
            yield _counter(metric, told, values, "leg")
        jitters: dict[str, list[float]] = {leg: [] for leg in LEGS}
        trips: dict[str, list[float]] = {leg: [] for leg in LEGS}
        for interview in known:
            for one in interview.legs:
                if one.reception.packets:
                    jitters[one.name].append(one.reception.jitter / CLOCK_RATE)
                if (trip := one.sending.round_trip) is not None:
                    trips[one.name].append(trip)
        for name, told, found in (
            ("rtp_jitter", "Jitter of what arrives", jitters),
            ("rtp_round_trip", "Way there and back, as the far end reports it", trips),
        ):
            for kind, choose in (("median", statistics.median), ("largest", max)):
                yield _gauge(
                    f"{name}_{kind}_seconds",
                    f"{told}: the {kind} of the interviews that run.",
                    {leg: choose(values) for leg, values in found.items() if values},
                    "leg",
                )


def _build(sources: Sources) -> Iterator[Metric]:
    build = GaugeMetricFamily(
        f"{PREFIX}build_info",
        "Always 1; its labels tell what runs.",
        labels=("version", "python", "forwarder"),
    )
    build.add_metric((__version__, platform.python_version(), sources.forwarder), 1)
    yield build


def _loop(sources: Sources) -> Iterator[Metric]:
    watch = sources.loop_watch
    yield _gauge(
        "event_loop_lag_seconds",
        "The longest time that the event loop was held within the last ten to twenty seconds.",
        watch.recent(time.monotonic()),
    )
    yield _counter(
        "event_loop_holds",
        "How often the event loop was held longer than so many seconds.",
        {f"{bound:g}": watch.held_over(bound) for bound in LAG_BOUNDS},
        "over",
    )
    yield _gauge("tasks", "Tasks of the event loop.", sources.tasks())
    yield _counter(
        "descriptors_refused",
        "Interviews and connections refused because no more files could be open.",
        sources.descriptors.refused,
    )


def _recordings(told: Json) -> Iterator[Metric]:
    writing, finishing, keeping = told["writing"], told["finishing"], told["keeping"]
    yield _gauge("recorders", "Recordings that are being written.", writing["recorders"])
    yield _gauge(
        "recorder_backlog_seconds",
        "How long the recording that waits longest has not been written.",
        writing["flush_age_seconds"],
    )
    yield _counter("recorder_turns_skipped", "Turns left out: a busy disk.", writing["skipped"])
    yield _counter("recorder_failures", "Recordings the disk stopped.", writing["failures"])
    yield _counter("recorder_written_bytes", "Bytes of closed recordings.", writing["bytes"])
    yield _gauge(
        "finishing_folders",
        "Folders whose mix and manifest are still to be made.",
        {state: finishing[state] for state in ("waiting", "running", "held", "failed")},
        "state",
    )
    yield _counter("finishing_done", "Folders that were finished.", finishing["finished"])
    yield _counter("finishing_failures", "Finishings that failed.", finishing["failures"])
    yield _gauge("uploads_waiting", "Recordings that wait for the store.", keeping["waiting"])
    yield _counter("uploads", "Recordings moved to the store.", keeping["uploaded"])
    yield _counter("upload_retries", "Uploads that are tried again.", keeping["retries"])
    yield _counter("recordings_damaged", "Recordings found damaged.", keeping["damaged"])
    yield _counter("recordings_erased", "Recordings erased for their age.", keeping["erased"])


def _state(chronicle: Json, notices: Json, depth: Depth | None) -> Iterator[Metric]:
    yield _gauge("chronicle_waiting", "What is still to be written down.", chronicle["waiting"])
    yield _counter("chronicle_written", "What was written down.", chronicle["written"])
    yield _counter("chronicle_lost", "What could not be written down.", chronicle["lost"])
    yield _gauge(
        "database_away_seconds",
        "How long the database has not answered.",
        chronicle["away_seconds"],
    )
    yield _counter(
        "notice_attempts", "Attempts to deliver a notice.", notices["attempts"], "result"
    )
    if depth is None:
        # The database does not say: better no figure than the one of yesterday.
        return
    yield _gauge(
        "outbox_notices",
        "Deliveries that are still to be made, by all servers of this database.",
        depth.waiting,
        "state",
    )
    age = 0.0 if depth.oldest_at is None else max(0.0, time.time() - depth.oldest_at / 1e6)
    yield _gauge("outbox_oldest_seconds", "Age of the oldest one that is due.", age)


def _gauge(
    name: str, told: str, value: float | Mapping[str, float], label: str | None = None
) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, told, labels=(label,) if label else ())
    return _fill(family, value)


def _counter(
    name: str, told: str, value: float | Mapping[str, float], label: str | None = None
) -> Metric:
    family = CounterMetricFamily(PREFIX + name, told, labels=(label,) if label else ())
    return _fill(family, value)


def _fill(
    family: GaugeMetricFamily | CounterMetricFamily, value: float | Mapping[str, float]
) -> Metric:
    if isinstance(value, Mapping):
        for label in sorted(value):
            family.add_metric((label,), value[label])
    else:
        family.add_metric((), value)
    return family


def _histogram(
    name: str,
    told: str,
    values: Mapping[str, tuple[Iterable[float], Sequence[int], float]],
    label: str | None = None,
) -> Metric:
    family = HistogramMetricFamily(PREFIX + name, told, labels=(label,) if label else ())
    for value, (bounds, counts, total) in values.items():
        seen, buckets = 0, []
        for bound, count in zip((*bounds, float("inf")), counts, strict=True):
            seen += count
            buckets.append(("+Inf" if bound == float("inf") else f"{bound:g}", float(seen)))
        family.add_metric((value,) if label else (), buckets, total)
    return family
