"""The metrics of a server that holds an interview: their form, their figures, their documents."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from interview_peer.app import Server, running
from interview_peer.errors import StartFailed
from interview_peer.settings import Settings
from interview_peer.simulator.server import SimulatorSettings, start_simulator
from tests.shipping.test_fly import CONFIG
from tests.support.caller import calling
from tests.support.inprocess import live, serving
from tests.support.server import ROOT
from tests.support.waiting import eventually
from tests.test_house import table

OURS = "interview_peer_"
UNITS = ("seconds", "bytes")
NOT_BASE_UNITS = ("milliseconds", "ms", "minutes", "hours", "kilobytes", "kb", "mb", "percent")


@dataclass(frozen=True)
class Scrape:
    """One answer of ``/metrics``."""

    content_type: str
    text: str

    @property
    def families(self) -> list[Metric]:
        return list(text_string_to_metric_families(self.text))

    def value(self, name: str, **labels: str) -> float:
        """The sample of that name with these labels."""
        found = [
            sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == OURS + name and labels.items() <= sample.labels.items()
        ]
        assert len(found) == 1, f"{name} {labels}: {found}"
        return found[0]


async def scrape(server: Server) -> Scrape:
    address = f"http://127.0.0.1:{server.metrics_port}/metrics"
    async with aiohttp.ClientSession() as http, http.get(address) as answer:
        assert answer.status == 200
        return Scrape(answer.headers["Content-Type"], await answer.text())


@dataclass(frozen=True)
class Story:
    """The same server before, in and after an interview."""

    before: Scrape
    live: Scrape
    after: Scrape
    forgotten: Scrape


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    async def tell() -> Story:
        folder = tmp_path_factory.mktemp("data")
        # Nobody listens there, so notices wait.
        receiver: dict[str, Any] = {
            "webhook_url": "http://127.0.0.1:9/",
            "webhook_allow": ("127.0.0.0/8",),
            "webhook_secret": SecretStr("whsec_" + base64.b64encode(bytes(32)).decode()),
        }
        async with serving(folder, metrics_port=0, record_keep_seconds=0, **receiver) as server:
            before = await scrape(server)
            async with calling(server.url) as caller:
                await caller.open()
                await caller.connect()
                await caller.sound(20)
                live = await scrape(server)
                interview = server.interviews.find(caller.session_id)
                await caller.send({"type": "end_session"})
                await caller.message("session_ended")
            await interview.finished.wait()
            after = await scrape(server)

            async def known() -> int:
                return len(server.interviews)

            await eventually(known, within=10, what="a forgotten session", good=lambda n: n == 0)
            return Story(before, live, after, await scrape(server))

    return asyncio.run(tell())


def test_running_interviews_are_told_by_their_phase(story: Story) -> None:
    assert story.before.value("interviews", phase="live") == 0
    assert story.live.value("interviews", phase="live") == 1
    assert story.after.value("interviews", phase="live") == 0


def test_an_end_is_counted_with_its_reason(story: Story) -> None:
    ended = {"phase": "ended", "reason": "client_request"}
    assert story.after.value("interviews_ended_total", **ended) == 1
    assert story.forgotten.value("interviews_ended_total", **ended) == 1


def test_set_up_is_timed_once(story: Story) -> None:
    assert story.before.value("setup_seconds_count") == 0
    assert story.live.value("setup_seconds_count") == 1
    assert 0 < story.live.value("setup_seconds_sum") < 15


@pytest.mark.parametrize("direction", ["to_model", "to_browser"])
def test_packets_of_an_interview_outlive_it(story: Story, direction: str) -> None:
    name = "packets_forwarded_total"
    assert story.before.value(name, direction=direction) == 0
    # Twenty packets of sound were heard before.
    assert story.live.value(name, direction=direction) >= 20
    after = story.after.value(name, direction=direction)
    assert after >= story.live.value(name, direction=direction)
    assert story.forgotten.value(name, direction=direction) == after


@pytest.mark.parametrize("leg", ["browser", "model"])
def test_what_legs_carried_outlives_them(story: Story, leg: str) -> None:
    for name in (
        "rtp_received_packets_total",
        "rtp_received_bytes_total",
        "rtp_sent_packets_total",
    ):
        live, after = story.live.value(name, leg=leg), story.after.value(name, leg=leg)
        assert 0 < live <= after
        assert story.forgotten.value(name, leg=leg) == after
    assert story.live.value("rtp_lost_packets_total", leg=leg) == 0


def test_jitter_is_told_of_running_interviews_alone(story: Story) -> None:
    assert 0 < story.live.value("rtp_jitter_largest_seconds", leg="browser") < 1
    with pytest.raises(AssertionError):
        story.after.value("rtp_jitter_largest_seconds", leg="browser")


def test_no_counter_ever_falls(story: Story) -> None:
    seen: dict[tuple[str, str], float] = {}
    for one in (story.before, story.live, story.after, story.forgotten):
        for family in one.families:
            for sample in family.samples if family.type in ("counter", "histogram") else ():
                key = (sample.name, json.dumps(sample.labels, sort_keys=True))
                assert sample.value >= seen.get(key, 0.0), key
                seen[key] = sample.value
        lost = [key for key in seen if key[0] not in one.text]
        assert lost == []


def test_notices_that_wait_are_told_with_their_age(story: Story) -> None:
    assert story.before.value("outbox_notices", state="due") == 0
    assert story.before.value("outbox_oldest_seconds") == 0
    assert story.forgotten.value("outbox_notices", state="due") >= 2
    assert 0 < story.forgotten.value("outbox_oldest_seconds") < 60


async def test_a_refusal_of_the_voice_service_is_counted_by_its_code(tmp_path: Path) -> None:
    simulator = await start_simulator(SimulatorSettings(api_key="sk-right"))
    settings = live(simulator.base_url, key="sk-wrong", metrics_port=0)
    try:
        async with serving(tmp_path, **settings) as server, calling(server.url) as caller:
            await caller.open()
            offer = {"type": "offer", "sdp": await caller.offer()}
            await caller.send({"type": "sdp_offer", "offer": offer})
            assert await caller.refusal() == "UPSTREAM_AUTH_FAILED"
            one = await scrape(server)
            assert one.value("offers_failed_total", code="UPSTREAM_AUTH_FAILED") == 1
            assert one.value("offers_failed_total", code="UPSTREAM_TIMEOUT") == 0
    finally:
        await simulator.close()


def test_failures_of_the_voice_service_are_there_before_they_happen(story: Story) -> None:
    assert story.before.value("offers_failed_total", code="UPSTREAM_RATE_LIMITED") == 0
    assert story.before.value("offers_failed_total", code="UPSTREAM_AUTH_FAILED") == 0


def test_the_answer_is_in_prometheus_text_form(story: Story) -> None:
    assert story.live.content_type.startswith("text/plain; version=")


def test_names_and_units_follow_the_conventions(story: Story) -> None:
    wrong = []
    for family in story.live.families:
        name, told = family.name, f"{family.name}: {family.documentation}"
        if not name.startswith(OURS):
            assert name.startswith("process_"), name
            continue
        words = name.split("_")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or "__" in name:
            wrong.append(f"{told} (letters)")
        if set(words) & set(NOT_BASE_UNITS) or any(unit in words[:-1] for unit in UNITS):
            wrong.append(f"{told} (unit)")
        if not family.documentation.endswith("."):
            wrong.append(f"{told} (help)")
        # The parser takes _total off the names of counters, and of nothing else.
        if words[-1] in ("total", "count", "sum", "bucket") or family.type == "unknown":
            wrong.append(f"{told} (type)")
        if family.type == "counter":
            assert {sample.name for sample in family.samples} <= {f"{name}_total"}
        labels = {label for sample in family.samples for label in sample.labels}
        if labels & {"quantile", *(("le",) if family.type != "histogram" else ())}:
            wrong.append(f"{told} (label)")
    assert wrong == []


def test_no_label_can_take_many_values(story: Story) -> None:
    for family in story.after.families:
        for sample in family.samples:
            for label, value in sample.labels.items():
                assert re.fullmatch(r"[A-Za-z0-9_.+]{1,40}", value), (sample.name, label, value)
    series = sum(len(family.samples) for family in story.after.families)
    assert series < 250


def test_every_metric_is_documented_with_type_and_labels(story: Story) -> None:
    written = {
        row[0]: (row[1], row[2].replace("`", "")) for row in table("docs/metrics.md", "| metric |")
    }
    there: dict[str, tuple[str, str]] = {}
    for family in story.live.families:
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        name = family.name + ("_total" if family.type == "counter" else "")
        if name.startswith(OURS):
            there[name] = (family.type, ", ".join(labels) or "–")
    # Without an end or an attempt there is no sample that shows the labels.
    there[f"{OURS}interviews_ended_total"] = ("counter", "phase, reason")
    there[f"{OURS}notice_attempts_total"] = ("counter", "result")
    there[f"{OURS}datagrams_dropped_total"] = ("counter", "reason")
    # The far end's first report may not have come yet.
    for kind in ("median", "largest"):
        there[f"{OURS}rtp_round_trip_{kind}_seconds"] = ("gauge", "leg")
    assert written == there


def expressions(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["expr"]] if "expr" in node else []
        return own + [found for value in node.values() for found in expressions(value)]
    return (
        [found for value in node for found in expressions(value)] if isinstance(node, list) else []
    )


def names_of(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:interview_peer|process)_[a-z_]+", expression))


def existing(story: Story) -> set[str]:
    names = {row[0] for row in table("docs/metrics.md", "| metric |")}
    names |= {sample.name for family in story.live.families for sample in family.samples}
    return names


def test_the_dashboard_asks_for_metrics_that_exist(story: Story) -> None:
    dashboard = json.loads((ROOT / "deploy" / "grafana.json").read_text(encoding="utf-8"))
    asked = expressions(dashboard)
    assert len(asked) > 15
    assert all(names_of(one) for one in asked)
    assert set().union(*map(names_of, asked)) - existing(story) == set()
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [tuple(panel["gridPos"].values()) for panel in panels]
    assert len(set(places)) == len(places)


def test_the_alerts_of_the_document_ask_for_metrics_that_exist(story: Story) -> None:
    alerts = [row[1] for row in table("docs/metrics.md", "| alert |")]
    assert len(alerts) >= 5
    for one in alerts:
        assert names_of(one) and names_of(one) <= existing(story), one


async def test_a_taken_port_ends_the_start_with_its_name(tmp_path: Path) -> None:
    async with serving(tmp_path / "first", metrics_port=0) as first:
        settings = Settings(
            simulation=True,
            port=0,
            udp_host="127.0.0.1",
            udp_port=0,
            data_dir=tmp_path / "second",
            metrics_port=first.metrics_port,
        )
        with pytest.raises(StartFailed) as caught:
            async with running(settings):
                pass
        assert str(caught.value) == (
            f"INTERVIEW_METRICS_PORT {first.metrics_port} on {settings.host} is already in use; "
            "stop what uses it, or set INTERVIEW_METRICS_PORT to another."
        )


async def test_nothing_is_served_unless_a_port_is_set(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        assert server.metrics_port is None
        async with aiohttp.ClientSession() as http, http.get(server.url + "/metrics") as answer:
            assert answer.status == 404


def test_fly_reads_the_port_that_is_served_and_publishes_it_nowhere() -> None:
    port = int(CONFIG["env"]["INTERVIEW_METRICS_PORT"])
    assert CONFIG["metrics"] == {"port": port, "path": "/metrics"}
    published = [service["internal_port"] for service in CONFIG["services"]]
    assert port not in [CONFIG["http_service"]["internal_port"], *published]
