"""Which server process answers a request about an interview, where several share a database.

Rules alone: what a request is about is read from its method and path, who holds the interview is
told by the database, and the step that follows is decided here. A request is answered where it
arrived, sent back to Fly.io's proxy for another machine (``fly-replay``), or passed on over HTTP
with a signed header that says from whom it came.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

PASSED_ON: Final = "Interview-Peer-Passed-On"
"""Tells a server that another one of the service passed the request on, and from whom it came."""

REPLAYED: Final = ("fly-replay-src", "fly-replay-failed")
"""What Fly.io's proxy adds to a request that was sent on, or came back because it could not be."""

MOST_HOPS: Final = 2
"""How often a request is passed on: an interview may change its holder in between, once."""
MOST_REPLAYED_BYTES: Final = 1_000_000
"""Fly.io's proxy sends no longer body on."""
REPLAY_SECONDS: Final = 5
"""How long it may try."""

_HOP_BY_HOP: Final = frozenset(
    (
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization"),
        *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    )
)
_TOLD_ANEW: Final = frozenset(
    (
        *("content-length", "expect", "forwarded", "x-forwarded-for", "x-real-ip"),
        *("fly-client-ip", "fly-force-instance-id", "fly-prefer-instance-id"),
        PASSED_ON.lower(),
    )
)
_NOT_TOLD_BACK: Final = frozenset(("fly-replay", "fly-replay-cache"))

_ID: Final = "([A-Za-z0-9_-]{1,64})"
_ABOUT: Final = re.compile(
    f"/(?:ws/{_ID}|api/sessions/{_ID}|api/consent/{_ID}|v1/realtime/calls/rtc_{_ID}/hangup|"
    f"api/interviews/{_ID}(?:/(?P<part>[a-z]+)[^/]*(?:/[^/]*)?)?)",
)


class Kind(enum.Enum):
    """What a request needs of the process that holds the interview."""

    LIVE = "live"
    """The interview itself."""
    TOLD = "told"
    """What the database could tell too, if need be."""
    FILES = "files"
    """Its recording, which lies in a folder of that process or in a store."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a request is about."""

    interview_id: str
    kind: Kind


def subject_of(method: str, path: str) -> Subject | None:
    """The interview that a request names in its path; None if it names none."""
    match = _ABOUT.fullmatch(path)
    if match is None:
        return None
    name = next(group for group in match.groups() if group is not None)
    part = match["part"]
    if path.startswith("/api/interviews/") and method in ("GET", "HEAD"):
        if part in (None, "transcript", "deliveries"):
            return Subject(name, Kind.TOLD)
        if part in ("recording", "waveform"):
            return Subject(name, Kind.FILES)
    return Subject(name, Kind.LIVE)


@dataclass(frozen=True, slots=True)
class Machine:
    """Another process of the service, as the database knows it."""

    id: str
    place: str | None
    """The name of its data folder."""
    heard: bool
    """Whether it said lately that it lives."""
    address: str | None = None
    """Where others reach it, ``http://host:port``; None if it did not say."""
    instance: str | None = None
    """Its id at Fly.io."""
    key: str | None = None
    """What requests that are passed on to it are signed with."""


@dataclass(frozen=True, slots=True)
class Held:
    """What the database knows of an interview's whereabouts."""

    node_id: str | None
    """The process that holds it."""
    place: str | None
    """The folder that has its files."""
    runs: bool
    """Whether it began and is not over."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who should answer."""

    machine: Machine | None
    """None if the database does not know it any more."""
    needed: bool
    """Whether the interview runs there, so that nobody else can act on it."""


def holder_of(held: Held, node_id: str, place: str, machines: Iterable[Machine]) -> Holder | None:
    """Who should answer for an interview; None where it is this process, or may be.

    Args:
        node_id: the name of this process.
        place: the name of its data folder.
        machines: those that the interview's row names, or that have its folder.
    """
    known = [one for one in machines if one.id != node_id]
    if held.node_id == node_id:
        return None
    if held.node_id is not None:
        there = next((one for one in known if one.id == held.node_id), None)
        return Holder(there, held.runs)
    if held.place in (None, place):
        return None
    beside = [one for one in known if one.place == held.place]
    return Holder(next((one for one in beside if one.heard), None), needed=False)


@dataclass(frozen=True, slots=True)
class Here:
    """Answer it here. ``partly``: what lies elsewhere cannot be reached."""

    partly: bool = False


@dataclass(frozen=True, slots=True)
class Replay:
    """Let Fly.io's proxy send it to that machine."""

    instance: str

    @property
    def header(self) -> str:
        """The value of ``fly-replay``."""
        return f"instance={self.instance};timeout={REPLAY_SECONDS}s;fallback=force_self"


@dataclass(frozen=True, slots=True)
class PassOn:
    """Pass it on over HTTP."""

    machine: Machine


class Refusal(enum.Enum):
    """Nobody can answer it here."""

    UNREACHABLE = "unreachable"
    """Whoever holds the interview does not answer; it may again, or is given up in a while."""
    ELSEWHERE = "elsewhere"
    """Whoever holds it did not say how it is reached."""


Step = Here | Replay | PassOn | Refusal


def next_step(
    holder: Holder, kind: Kind, *, on_fly: bool, hops: int, replayed: bool, body_bytes: int
) -> Step:
    """What is done with a request that somebody else should answer.

    Args:
        on_fly: whether this process runs at Fly.io.
        hops: how often the request was passed on before it came here.
        replayed: whether Fly.io's proxy sent it on before.
        body_bytes: the length of its body.
    """
    machine = holder.machine
    if machine is None or not machine.heard or hops >= MOST_HOPS:
        return without(holder, kind, Refusal.UNREACHABLE)
    fits = body_bytes <= MOST_REPLAYED_BYTES
    # What was sent on once and comes here all the same would come here again.
    if on_fly and machine.instance is not None and not (replayed or hops) and fits:
        return Replay(machine.instance)
    if machine.address is not None and machine.key is not None:
        return PassOn(machine)
    return without(holder, kind, Refusal.ELSEWHERE)


def without(holder: Holder, kind: Kind, why: Refusal) -> Step:
    """What is done where the holder cannot be asked."""
    if holder.needed and kind is not Kind.TOLD:
        return why
    return Here(partly=kind is Kind.FILES)


@dataclass(frozen=True, slots=True)
class Passed:
    """From whom a request came that was passed on, and how often it was."""

    caller: str
    hops: int


def sign(passed: Passed, key: str, method: str, target: str) -> str:
    """The value of ``PASSED_ON``. ``key`` is the receiving process's; ``target`` is path and query.

    The key is made anew at each start of that process and known to those who read its database.
    """
    caller = passed.caller or "-"
    return f"{passed.hops} {caller} {_signature(passed.hops, caller, key, method, target)}"


def check(value: str, key: str, method: str, target: str) -> Passed | None:
    """What the header says; None if no process that knows ``key`` signed it for this request."""
    parts = value.split(" ")
    if len(parts) != 3 or len(value) > 200 or not value.isascii():
        return None
    hops, caller, signature = parts
    if not re.fullmatch("[1-9]", hops):
        return None
    wanted = _signature(int(hops), caller, key, method, target)
    if not hmac.compare_digest(signature, wanted):
        return None
    return Passed("" if caller == "-" else caller, int(hops))


def _signature(hops: int, caller: str, key: str, method: str, target: str) -> str:
    text = "\n".join((method, target, str(hops), caller))
    return hmac.new(key.encode(), text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def handed_on(
    headers: Iterable[tuple[str, str]], *, without: Iterable[str] = ()
) -> list[tuple[str, str]]:
    """The headers of a request that are passed on with it.

    Not those of the connection alone, nor what others said of the caller: the signed header does.
    ``without`` names further ones.
    """
    pairs = list(headers)
    left_out = _connections(pairs) | _TOLD_ANEW | {name.lower() for name in without}
    return [
        (name, value)
        for name, value in pairs
        if name.lower() not in left_out and not name.lower().startswith("sec-websocket-")
    ]


def handed_back(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers of an answer that are given back with it."""
    pairs = list(headers)
    left_out = _connections(pairs) | _NOT_TOLD_BACK
    return [(name, value) for name, value in pairs if name.lower() not in left_out]


def _connections(headers: Iterable[tuple[str, str]]) -> frozenset[str]:
    """The headers that are about one connection, those that ``Connection`` names among them."""
    named = {
        one.strip().lower()
        for name, value in headers
        if name.lower() == "connection"
        for one in value.split(",")
    }
    # Nobody may have what is ours to add, or needed, left out by naming it.
    return _HOP_BY_HOP | (named - {"host", "authorization", "origin", "content-type"})
