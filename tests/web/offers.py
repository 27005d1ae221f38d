"""Offers, good and spoilt, as texts."""

from __future__ import annotations

MARK = "Qm4rkQ"
"""Planted in every spoilt offer and message: no answer may repeat it."""

GOOD = "\r\n".join(
    [
        "v=0",
        f"o=- {MARK} 2 IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
        "a=group:BUNDLE 0 1",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111",
        "c=IN IP4 0.0.0.0",
        "a=rtcp:9 IN IP4 0.0.0.0",
        f"a=ice-ufrag:{MARK}",
        f"a=ice-pwd:{MARK}{MARK}{MARK}{MARK}",
        "a=fingerprint:sha-256 " + ":".join(["AB"] * 32),
        "a=setup:actpass",
        "a=mid:0",
        "a=sendrecv",
        "a=rtcp-mux",
        "a=rtpmap:111 opus/48000/2",
        "a=fmtp:111 minptime=10;useinbandfec=1",
        f"a=ssrc:1 cname:{MARK}",
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        "c=IN IP4 0.0.0.0",
        f"a=ice-ufrag:{MARK}",
        f"a=ice-pwd:{MARK}{MARK}{MARK}{MARK}",
        "a=fingerprint:sha-256 " + ":".join(["AB"] * 32),
        "a=setup:actpass",
        "a=mid:1",
        "a=sctp-port:5000",
        "",
    ]
)
"""An offer that is answered; nobody stands behind it."""

_AUDIO = GOOD[GOOD.index("m=audio") : GOOD.index("m=application")]
_DATA = GOOD[GOOD.index("m=application") :]


def _without(start: str) -> str:
    return "".join(line for line in GOOD.splitlines(True) if not line.startswith(start))


SPOILT: dict[str, tuple[str, str]] = {
    "not SDP": (f"hello {MARK}", "INVALID_SDP"),
    "another version": (GOOD.replace("v=0", "v=1"), "INVALID_SDP"),
    "no section": (GOOD[: GOOD.index("m=audio")], "SDP_NO_AUDIO"),
    "no audio": (GOOD.replace(_AUDIO, ""), "SDP_NO_AUDIO"),
    "no Opus": (GOOD.replace("opus/48000/2", "PCMU/8000"), "SDP_NO_AUDIO"),
    "no fingerprint": (_without("a=fingerprint"), "SDP_NO_FINGERPRINT"),
    "sha-1 alone": (
        GOOD.replace("a=fingerprint:sha-256", "a=fingerprint:sha-1"),
        "SDP_NO_FINGERPRINT",
    ),
    "no ICE user": (_without("a=ice-ufrag"), "INVALID_SDP"),
    "no ICE password": (_without("a=ice-pwd"), "INVALID_SDP"),
    "two audio sections": (
        GOOD.replace(_DATA, _AUDIO.replace("a=mid:0", "a=mid:2") + _DATA),
        "INVALID_SDP",
    ),
    "two data sections": (GOOD + _DATA.replace("a=mid:1", "a=mid:2"), "INVALID_SDP"),
    "video": (
        GOOD + _AUDIO.replace("m=audio", "m=video").replace("a=mid:0", "a=mid:2"),
        "INVALID_SDP",
    ),
    "over 64 kB": (GOOD + "a=x:" + "y" * 70_000 + "\r\n", "SDP_TOO_LARGE"),
    "over 64 kB of characters of two bytes": (GOOD + "a=x:" + "\u00e9" * 40_000, "SDP_TOO_LARGE"),
    "more lines than an offer has": (GOOD + "a=x\r\n" * 1_000, "SDP_TOO_LARGE"),
    "lines that are repeated": (GOOD + "a=x\r\n" * 65, "INVALID_SDP"),
    "more in a group than there is": (
        GOOD.replace("BUNDLE 0 1", "BUNDLE" + " 0" * 3),
        "INVALID_SDP",
    ),
    "a port that is none": (GOOD.replace("m=audio 9", f"m=audio {MARK}"), "INVALID_SDP"),
    "no direction of DTLS": (_without("a=setup"), "INVALID_SDP"),
    "an unknown direction of DTLS": (GOOD.replace("actpass", MARK), "INVALID_SDP"),
    "a payload type that is none": (GOOD.replace("a=fmtp:111", f"a=fmtp:{MARK}"), "INVALID_SDP"),
}
"""Name to offer and code."""
