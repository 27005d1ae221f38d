"""Writes the answer to an offer the way the real service writes its own. Plain code.

Our stack's answers differ from the service's in nearly every line that a client might lean on: they
have a fingerprint and the candidates in each section, header extensions and an end of candidates.
"""

from __future__ import annotations

import secrets
import string

from ..core import sdp

MAX_MESSAGE_SIZE = 1_073_741_823
TCP_PORT = 443
_ICE = string.ascii_letters + string.digits


def routing_ufrag() -> str:
    """A user name fragment of the service's kind: it holds slashes."""
    parts = ("".join(secrets.choice(_ICE) for _ in range(length)) for length in (6, 4, 16))
    return "/".join(parts)


def as_the_service_writes_it(answer: str, *, ice_lite: bool) -> str:
    """The same answer in the service's form.

    One sha-256 fingerprint for the session, candidates in the first section alone, each with the
    fragment behind it and one for TCP beside it, no end of candidates, no header extension, no
    feedback. ``ice_lite`` is announced, not kept: our side sends checks all the same.
    """
    session, *media = sdp.split(answer)
    first = media[0]
    lines = [
        "v=0",
        *(line for line in session.lines if line.startswith("o=")),
        "s=-",
        "t=0 0",
        "a=msid-semantic:WMS *",
        *(line for line in first.lines if line.startswith("a=fingerprint:sha-256")),
        *(["a=ice-lite"] if ice_lite else []),
        "a=extmap-allow-mixed",
        *(f"a=group:{group}" for group in session.values("group")),
    ]
    for section in media:
        candidates = _candidates(section) if section is first else []
        write = _audio if section.kind == "audio" else _channel
        lines += write(section, candidates)
    return sdp.join(lines)


def without_message_limit(offer: str) -> str:
    """The offer as if its sender took in messages of any size."""
    lines = [
        f"a=max-message-size:{MAX_MESSAGE_SIZE}" if line.startswith("a=max-message-size:") else line
        for line in offer.splitlines()
    ]
    return sdp.join(lines)


def _audio(section: sdp.Section, candidates: list[str]) -> list[str]:
    kind = sdp.opus_payload_type(sdp.join(list(section.lines)))
    ssrc = next(section.values("ssrc"), "1").split(" ")[0]
    return [
        f"m=audio 9 UDP/TLS/RTP/SAVPF {kind}",
        *_common(section),
        "a=rtcp-mux",
        "a=rtcp-rsize",
        f"a=rtpmap:{kind} opus/48000/2",
        f"a=fmtp:{kind} {sdp.OPUS_FMTP}",
        f"a=ssrc:{ssrc} cname:realtimeapi",
        f"a=ssrc:{ssrc} msid:realtimeapi audio",
        f"a=ssrc:{ssrc} mslabel:realtimeapi",
        f"a=ssrc:{ssrc} label:audio",
        "a=msid:realtimeapi audio",
        next((line for line in section.lines if line in _DIRECTIONS), "a=sendrecv"),
        *candidates,
    ]


def _channel(section: sdp.Section, candidates: list[str]) -> list[str]:
    return [
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        *_common(section),
        "a=sendrecv",
        "a=sctp-port:5000",
        f"a=max-message-size:{MAX_MESSAGE_SIZE}",
        *candidates,
    ]


def _common(section: sdp.Section) -> list[str]:
    names = ("mid", "ice-ufrag", "ice-pwd")
    kept = [f"a={name}:{value}" for name in names for value in section.values(name)]
    return ["c=IN IP4 0.0.0.0", "a=setup:active", *kept]


def _candidates(section: sdp.Section) -> list[str]:
    """Each UDP candidate and a TCP one of the same address, which nobody answers."""
    ufrag = next(section.values("ice-ufrag"), "")
    lines = []
    for number, value in enumerate(section.values("candidate")):
        fields = value.split(" ")
        priority, address, port = fields[3:6]
        udp = f"{2 * number + 1} 1 udp {priority} {address} {port} typ host"
        tcp = f"{2 * number + 2} 1 tcp 1671430143 {address} {TCP_PORT} typ host tcptype passive"
        lines += [f"a=candidate:{line} ufrag {ufrag}" for line in (udp, tcp)]
    return lines


_DIRECTIONS = ("a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive")
