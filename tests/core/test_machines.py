"""Which process answers a request about an interview, and what is believed of one passed on."""

from __future__ import annotations

import dataclasses

import pytest

from interview_peer.core.machines import (
    MOST_HOPS,
    MOST_REPLAYED_BYTES,
    PASSED_ON,
    Held,
    Here,
    Holder,
    Kind,
    Machine,
    Passed,
    PassOn,
    Refusal,
    Replay,
    Step,
    Subject,
    check,
    handed_back,
    handed_on,
    holder_of,
    next_step,
    sign,
    subject_of,
)

BESIDE = Machine(
    "node_b", "place_b", heard=True, address="http://10.0.0.2:8080", instance="9185", key="k" * 64
)
SILENT = dataclasses.replace(BESIDE, heard=False)
RUNS, OVER = Holder(BESIDE, needed=True), Holder(BESIDE, needed=False)


def step(
    holder: Holder,
    kind: Kind = Kind.LIVE,
    *,
    on_fly: bool = False,
    hops: int = 0,
    replayed: bool = False,
    body_bytes: int = 0,
) -> Step:
    return next_step(
        holder, kind, on_fly=on_fly, hops=hops, replayed=replayed, body_bytes=body_bytes
    )


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", "/ws/one", Kind.LIVE),
        ("GET", "/api/sessions/one", Kind.LIVE),
        ("POST", "/api/consent/one", Kind.LIVE),
        ("POST", "/v1/realtime/calls/rtc_one/hangup", Kind.LIVE),
        ("POST", "/api/interviews/one/say", Kind.LIVE),
        ("POST", "/api/interviews/one/end", Kind.LIVE),
        ("GET", "/api/interviews/one/events", Kind.LIVE),
        ("DELETE", "/api/interviews/one", Kind.LIVE),
        ("GET", "/api/interviews/one", Kind.TOLD),
        ("GET", "/api/interviews/one/transcript", Kind.TOLD),
        ("GET", "/api/interviews/one/transcript.vtt", Kind.TOLD),
        ("GET", "/api/interviews/one/deliveries", Kind.TOLD),
        ("GET", "/api/interviews/one/recording", Kind.FILES),
        ("HEAD", "/api/interviews/one/recording/mixed", Kind.FILES),
        ("GET", "/api/interviews/one/waveform", Kind.FILES),
    ],
)
def test_a_request_names_its_interview_in_its_path(method: str, path: str, kind: Kind) -> None:
    assert subject_of(method, path) == Subject("one", kind)


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/ws", "/ws/", "/api/interviews", "/api/interviews/", "/i/one", "/healthz"),
        *("/api/interviews/o.ne", "/api/interviews/one/../two", "//evil/api/interviews/one"),
        *("/v1/realtime/calls/one/hangup", "/ws/one/two", "/api/interviews/" + "x" * 65),
        "/api/interviews/one\n",
    ],
)
def test_other_paths_are_answered_where_they_arrive(path: str) -> None:
    assert subject_of("GET", path) is None


def test_who_answers_is_the_holder_then_whoever_has_the_folder_then_anybody() -> None:
    other = dataclasses.replace(BESIDE, id="node_c", place="place_c")
    both = [BESIDE, other]

    def ask(held: Held) -> Holder | None:
        return holder_of(held, "node_a", "place_a", both)

    assert ask(Held(None, None, runs=False)) is None
    assert ask(Held("node_a", "place_a", runs=True)) is None
    assert ask(Held(None, "place_a", runs=False)) is None
    assert ask(Held("node_b", "place_c", runs=True)) == Holder(BESIDE, needed=True)
    assert ask(Held("node_b", None, runs=False)) == Holder(BESIDE, needed=False)
    assert ask(Held(None, "place_c", runs=False)) == Holder(other, needed=False)
    assert ask(Held("node_gone", "place_a", runs=True)) == Holder(None, needed=True)
    assert ask(Held(None, "place_gone", runs=False)) == Holder(None, needed=False)


def test_a_folder_is_asked_for_at_a_process_that_lives() -> None:
    again = dataclasses.replace(BESIDE, id="node_b2")
    held = Held(None, "place_b", runs=False)
    assert holder_of(held, "node_a", "place_a", [SILENT, again]) == Holder(again, needed=False)


@pytest.mark.parametrize("kind", Kind)
def test_a_request_is_passed_on_to_whoever_holds_its_interview(kind: Kind) -> None:
    assert step(RUNS, kind) == step(OVER, kind) == PassOn(BESIDE)


def test_on_fly_the_proxy_is_asked_to_send_it_there() -> None:
    replay = step(RUNS, on_fly=True, body_bytes=MOST_REPLAYED_BYTES)
    assert isinstance(replay, Replay)
    assert replay.header == "instance=9185;timeout=5s;fallback=force_self"


def test_what_fly_would_not_send_on_or_did_already_is_passed_on() -> None:
    assert step(RUNS, on_fly=True, body_bytes=MOST_REPLAYED_BYTES + 1) == PassOn(BESIDE)
    assert step(RUNS, on_fly=True, replayed=True) == PassOn(BESIDE)
    assert step(RUNS, on_fly=True, hops=1) == PassOn(BESIDE)
    unnamed = dataclasses.replace(BESIDE, instance=None)
    assert step(Holder(unnamed, needed=True), on_fly=True) == PassOn(unnamed)


def test_a_request_does_not_go_round_and_round() -> None:
    assert step(RUNS, hops=MOST_HOPS - 1) == PassOn(BESIDE)
    assert step(RUNS, hops=MOST_HOPS) is Refusal.UNREACHABLE
    assert step(RUNS, hops=MOST_HOPS, on_fly=True) is Refusal.UNREACHABLE


@pytest.mark.parametrize("machine", [None, SILENT])
def test_of_a_holder_that_is_gone_only_what_the_database_has_is_told(
    machine: Machine | None,
) -> None:
    runs, over = Holder(machine, needed=True), Holder(machine, needed=False)
    assert step(runs, Kind.LIVE) is step(runs, Kind.FILES) is Refusal.UNREACHABLE
    assert step(runs, Kind.TOLD) == step(over, Kind.TOLD) == step(over, Kind.LIVE) == Here()
    assert step(over, Kind.FILES) == Here(partly=True)


def test_a_holder_that_did_not_say_where_it_is_cannot_be_asked() -> None:
    hidden = dataclasses.replace(BESIDE, address=None)
    assert step(Holder(hidden, needed=True)) is Refusal.ELSEWHERE
    assert step(Holder(hidden, needed=True), Kind.TOLD) == Here()
    assert step(Holder(hidden, needed=False)) == Here()


def test_only_who_knows_the_key_can_say_from_whom_a_request_came() -> None:
    target = "/api/interviews/one?end=true"
    value = sign(Passed("2001:db8::7", 1), "key", "DELETE", target)
    assert check(value, "key", "DELETE", target) == Passed("2001:db8::7", 1)
    nobody = sign(Passed("", 2), "key", "DELETE", target)
    assert check(nobody, "key", "DELETE", target) == Passed("", 2)
    assert check(value, "other", "DELETE", target) is None
    assert check(value, "key", "GET", target) is None
    assert check(value, "key", "DELETE", "/api/interviews/two?end=true") is None
    _, _, signature = value.split(" ")
    for forged in (
        f"2 2001:db8::7 {signature}",
        f"1 203.0.113.9 {signature}",
        f"1 2001:db8::7 {signature[:-1]}",
        *("", "1", "1 x", f"0 2001:db8::7 {signature}", f"-1 2001:db8::7 {signature}"),
        f"1 2001:db8::7 {signature} more",
        f"1 \u00e9 {signature}",
        "1 " + "x" * 300 + f" {signature}",
    ):
        assert check(forged, "key", "DELETE", target) is None, forged


def test_what_is_about_one_connection_or_says_who_asks_is_not_handed_on() -> None:
    asked = [
        *(("Host", "interviews.example.org"), ("Authorization", "Bearer key")),
        *(("Connection", "keep-alive, X-Secret, Authorization"), ("X-Secret", "1")),
        *(("Transfer-Encoding", "chunked"), ("Content-Length", "3"), ("Upgrade", "websocket")),
        *(("Sec-WebSocket-Key", "abc"), ("X-Forwarded-For", "203.0.113.9")),
        *(("Forwarded", "for=x"), ("True-Client-IP", "203.0.113.9"), (PASSED_ON, "1 x y")),
        *(("fly-force-instance-id", "x"), ("Last-Event-ID", "7"), ("Range", "bytes=0-1")),
    ]
    assert handed_on(asked, without=("true-client-ip",)) == [
        ("Host", "interviews.example.org"),
        ("Authorization", "Bearer key"),
        ("Last-Event-ID", "7"),
        ("Range", "bytes=0-1"),
    ]


def test_of_an_answer_all_but_the_connections_own_comes_back() -> None:
    answer = [
        *(("Content-Length", "5"), ("Content-Range", "bytes 0-4/9"), ("Keep-Alive", "timeout=5")),
        *(("Transfer-Encoding", "chunked"), ("fly-replay", "app=evil"), ("ETag", "x")),
    ]
    kept = [("Content-Length", "5"), ("Content-Range", "bytes 0-4/9"), ("ETag", "x")]
    assert handed_back(answer) == kept
