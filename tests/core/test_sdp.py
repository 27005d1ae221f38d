"""Session descriptions: what is refused, what is taken out, what leaves."""

from __future__ import annotations

import pytest

from interview_peer.core import sdp
from interview_peer.errors import (
    InvalidSdp,
    SdpTooLarge,
    SdpWithoutAudio,
    SdpWithoutFingerprint,
    UpstreamInvalidAnswer,
)

FINGERPRINT = "sha-256 " + ":".join(f"{byte:02X}" for byte in range(32))

BROWSER_OFFER = sdp.join(
    [
        "v=0",
        "o=- 4611731400430051336 2 IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
        "a=group:BUNDLE 0 1",
        "a=extmap-allow-mixed",
        "a=msid-semantic: WMS 7f3b",
        "m=audio 54609 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126",
        "c=IN IP4 203.0.113.7",
        "a=rtcp:9 IN IP4 0.0.0.0",
        "a=candidate:1467250027 1 udp 2122260223 203.0.113.7 54609 typ host generation 0",
        "a=candidate:2 1 udp 2122194687 0a1b2c3d-4e5f-4a6b-8c7d-0e1f2a3b4c5d.local 51000 typ host",
        "a=candidate:435653019 1 tcp 1518280447 203.0.113.7 9 typ host tcptype active",
        "a=end-of-candidates",
        "a=ice-ufrag:nVy2",
        "a=ice-pwd:0Xg6gHj1cJzUHmvmlOKtGgRH",
        "a=ice-options:trickle",
        f"a=fingerprint:{FINGERPRINT}",
        "a=setup:actpass",
        "a=mid:0",
        "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level",
        "a=sendrecv",
        "a=msid:7f3b 2c1d",
        "a=rtcp-mux",
        "a=rtcp-rsize",
        "a=rtpmap:111 opus/48000/2",
        "a=rtcp-fb:111 transport-cc",
        "a=fmtp:111 minptime=10;useinbandfec=1",
        "a=rtpmap:63 red/48000/2",
        "a=fmtp:63 111/111",
        "a=rtpmap:9 G722/8000",
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:8 PCMA/8000",
        "a=rtpmap:13 CN/8000",
        "a=rtpmap:110 telephone-event/48000",
        "a=rtpmap:126 telephone-event/8000",
        "a=ssrc:3735928559 cname:qT0b",
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        "c=IN IP4 0.0.0.0",
        "a=ice-ufrag:nVy2",
        "a=ice-pwd:0Xg6gHj1cJzUHmvmlOKtGgRH",
        f"a=fingerprint:{FINGERPRINT}",
        "a=setup:actpass",
        "a=mid:1",
        "a=sctp-port:5000",
        "a=max-message-size:262144",
    ]
)

MODEL_ANSWER = sdp.join(
    [
        "v=0",
        "o=- 8201749930016123345 1786900001 IN IP4 0.0.0.0",
        "s=-",
        "t=0 0",
        "a=msid-semantic:WMS *",
        f"a=fingerprint:{FINGERPRINT}",
        "a=ice-lite",
        "a=extmap-allow-mixed",
        "a=group:BUNDLE 0 1",
        "m=audio 9 UDP/TLS/RTP/SAVPF 96",
        "c=IN IP4 0.0.0.0",
        "a=setup:active",
        "a=mid:0",
        "a=ice-ufrag:pQ7x/e03/vW2kM",
        "a=ice-pwd:Zk4TnB8sQ1vRw6YcXe3LmD0aUg5HiJf9",
        "a=rtcp-mux",
        "a=rtcp-rsize",
        "a=rtpmap:96 opus/48000/2",
        "a=fmtp:96 minptime=10;useinbandfec=1",
        "a=ssrc:1122334455 cname:realtimeapi",
        "a=sendrecv",
        "a=candidate:11 1 udp 2130706431 192.0.2.20 3478 typ host ufrag pQ7x/e03/vW2kM",
        "a=candidate:12 1 tcp 1671430143 192.0.2.20 443 typ host tcptype passive"
        " ufrag pQ7x/e03/vW2kM",
        "a=candidate:13 1 udp 2130706431 192.0.2.21 3478 typ host ufrag pQ7x/e03/vW2kM",
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        "c=IN IP4 0.0.0.0",
        "a=setup:active",
        "a=mid:1",
        "a=sendrecv",
        "a=sctp-port:5000",
        "a=max-message-size:1073741823",
        "a=ice-ufrag:pQ7x/e03/vW2kM",
        "a=ice-pwd:Zk4TnB8sQ1vRw6YcXe3LmD0aUg5HiJf9",
    ]
)


CANDIDATE = "a=candidate:1467250027 1 udp 2122260223 203.0.113.7 54609 typ host generation 0\r\n"


def without(text: str, *beginnings: str) -> str:
    return sdp.join([line for line in text.splitlines() if not line.startswith(beginnings)])


AUDIO_ONLY = BROWSER_OFFER[: BROWSER_OFFER.index("m=application")]
DATA_ONLY = (
    BROWSER_OFFER[: BROWSER_OFFER.index("m=audio")]
    + BROWSER_OFFER[BROWSER_OFFER.index("m=application") :]
)
VIDEO = "m=video 9 UDP/TLS/RTP/SAVPF 97\r\na=rtpmap:97 VP8/90000\r\n"
SESSION_LEVEL_SECRETS = without(
    BROWSER_OFFER, "a=fingerprint:", "a=ice-ufrag:", "a=ice-pwd:"
).replace(
    "t=0 0\r\n",
    f"t=0 0\r\na=fingerprint:{FINGERPRINT}\r\na=ice-ufrag:nVy2\r\n"
    "a=ice-pwd:0Xg6gHj1cJzUHmvmlOKtGgRH\r\n",
)


@pytest.mark.parametrize(
    "offer",
    [
        BROWSER_OFFER,
        BROWSER_OFFER.replace("\r\n", "\n"),
        BROWSER_OFFER.rstrip(),
        "\n" + BROWSER_OFFER,
        AUDIO_ONLY.replace("BUNDLE 0 1", "BUNDLE 0"),
        without(BROWSER_OFFER, "a=group", "a=mid"),
        BROWSER_OFFER.replace("BUNDLE 0 1", ""),
        without(BROWSER_OFFER, "a=candidate:", "a=end-of-candidates"),
        SESSION_LEVEL_SECRETS,
        BROWSER_OFFER.replace("sha-256 ", "SHA-256 "),
        BROWSER_OFFER.replace("sha-256 ", "sha-512 "),
        BROWSER_OFFER.replace("opus/48000/2", "OPUS/48000/2"),
        BROWSER_OFFER.replace("nVy2", "nV/+y2"),
        BROWSER_OFFER.replace("t=0 0", "t=0 0\r\na=x-padding:" + "x" * 60_000),
        BROWSER_OFFER.replace("a=rtcp-mux", "a=rtcp-mux" + "\r\n" + CANDIDATE * 500),
    ],
    ids=[
        "as Chromium writes it",
        "bare line feeds",
        "no final line end",
        "blank line before",
        "audio alone",
        "sections that are not bundled",
        "group of nothing",
        "no candidates",
        "fingerprint and credentials at session level",
        "fingerprint name in capitals",
        "longer fingerprint",
        "codec name in capitals",
        "slash and plus in the ufrag",
        "just below 64 kB",
        "hundreds of candidates",
    ],
)
def test_offer_that_can_be_answered_is_accepted(offer: str) -> None:
    assert sdp.check_offer(offer).text == offer


@pytest.mark.parametrize(
    ("offer", "error"),
    [
        ("", InvalidSdp),
        ("hello", InvalidSdp),
        ("v=0", SdpWithoutAudio),
        ('{"type": "offer"}', InvalidSdp),
        ("\ud800", InvalidSdp),
        (BROWSER_OFFER + "a=x:" + "x" * 65_536, SdpTooLarge),
        ("v=0\r\n" + "\u00e4" * 40_000, SdpTooLarge),
        (BROWSER_OFFER + "a\r\n" * 1_000, SdpTooLarge),
        (BROWSER_OFFER + "a\u2028" * 1_000, SdpTooLarge),
        (BROWSER_OFFER + "\x0b" * 1_000, SdpTooLarge),
        (
            BROWSER_OFFER.replace("a=rtcp-mux", "a=rtcp-mux\r\n" + "a=rtcp-fb:* nack\r\n" * 65),
            InvalidSdp,
        ),
        (BROWSER_OFFER.replace("BUNDLE 0 1", "BUNDLE 0 1 0"), InvalidSdp),
        (DATA_ONLY, SdpWithoutAudio),
        (without(BROWSER_OFFER, "a=rtpmap:111"), SdpWithoutAudio),
        (BROWSER_OFFER.replace("rtpmap:111", "rtpmap:300"), SdpWithoutAudio),
        (BROWSER_OFFER.replace("rtpmap:111", "rtpmap:72"), SdpWithoutAudio),
        (BROWSER_OFFER.replace("rtpmap:111", "rtpmap:\u00b2"), SdpWithoutAudio),
        (BROWSER_OFFER.replace("rtpmap:111", "rtpmap:" + "1" * 5000), SdpWithoutAudio),
        (AUDIO_ONLY + AUDIO_ONLY[AUDIO_ONLY.index("m=audio") :], InvalidSdp),
        (BROWSER_OFFER + BROWSER_OFFER[BROWSER_OFFER.index("m=application") :], InvalidSdp),
        (BROWSER_OFFER + VIDEO, InvalidSdp),
        (BROWSER_OFFER.replace("BUNDLE 0 1", "BUNDLE 7 8"), InvalidSdp),
        (BROWSER_OFFER.replace("a=mid:0", "a=mid:1"), InvalidSdp),
        (BROWSER_OFFER.replace("a=mid:0", "a=mid: 0"), InvalidSdp),
        (BROWSER_OFFER.replace("a=mid:0", "a=mid:0\r\na=mid:7"), InvalidSdp),
        (without(BROWSER_OFFER, "a=mid"), InvalidSdp),
        (without(BROWSER_OFFER, "a=fingerprint:"), SdpWithoutFingerprint),
        (BROWSER_OFFER.replace("sha-256 ", "md5 "), SdpWithoutFingerprint),
        (without(BROWSER_OFFER, "a=ice-ufrag:"), InvalidSdp),
        (without(BROWSER_OFFER, "a=ice-pwd:"), InvalidSdp),
    ],
)
def test_offer_that_cannot_be_answered_is_refused_by_its_kind(
    offer: str, error: type[InvalidSdp]
) -> None:
    with pytest.raises(InvalidSdp) as caught:
        sdp.check_offer(offer)
    assert type(caught.value) is error


def test_lines_are_counted_before_any_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    cut: list[str] = []
    real = sdp.split

    def split(text: str) -> list[sdp.Section]:
        cut.append(text)
        return real(text)

    monkeypatch.setattr(sdp, "split", split)
    sdp.check_offer(BROWSER_OFFER)
    assert cut == [BROWSER_OFFER], "cut once"
    for end in ("\r\n", *sdp.LINE_ENDS):
        with pytest.raises(SdpTooLarge):
            sdp.check_offer(BROWSER_OFFER + f"a{end}" * 1_000)
    assert cut == [BROWSER_OFFER]


def test_every_end_of_a_line_is_counted() -> None:
    ends = {chr(code) for code in range(0x10000) if len(f"a{chr(code)}b".splitlines()) > 1}
    assert ends == set(sdp.LINE_ENDS)


def test_the_engine_is_given_neither_candidates_nor_feedback() -> None:
    given = sdp.for_engine(sdp.check_offer(BROWSER_OFFER)).splitlines()
    left_out = ("a=candidate:", "a=end-of-candidates", "a=rtcp-fb:")
    assert given == [one for one in BROWSER_OFFER.splitlines() if not one.startswith(left_out)]


def test_an_offer_shows_nothing_of_itself() -> None:
    assert "nVy2" not in repr(sdp.check_offer(BROWSER_OFFER))


def test_refusal_says_what_to_change_and_repeats_nothing_of_the_offer() -> None:
    with pytest.raises(InvalidSdp) as caught:
        sdp.check_offer(BROWSER_OFFER + VIDEO)
    assert caught.value.message == "The offer may hold audio and a data channel only."
    with pytest.raises(InvalidSdp) as caught:
        sdp.check_offer(without(BROWSER_OFFER, "a=ice-pwd:"))
    assert caught.value.message == "The offer has no ICE credentials."


def test_answer_of_the_model_is_accepted_with_its_session_level_fingerprint() -> None:
    sdp.check_answer(MODEL_ANSWER)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "<html><body>502 Bad Gateway</body></html>",
        '{"error": {"message": "no"}}',
        without(MODEL_ANSWER, "a=fingerprint:"),
        without(MODEL_ANSWER, "a=ice-ufrag:"),
        MODEL_ANSWER[: MODEL_ANSWER.index("m=audio")],
        MODEL_ANSWER + "x" * 70_000,
    ],
)
def test_upstream_body_that_is_no_usable_answer_is_upstreams_fault(answer: str) -> None:
    with pytest.raises(UpstreamInvalidAnswer):
        sdp.check_answer(answer)


def test_candidates_and_their_end_are_taken_out_and_nothing_else() -> None:
    before = BROWSER_OFFER.splitlines()
    after = sdp.without_candidates(BROWSER_OFFER)
    removed = [line for line in before if line not in after.splitlines()]
    assert [line.split(":")[0] for line in removed] == ["a=candidate"] * 3 + ["a=end-of-candidates"]
    assert after.splitlines() == [line for line in before if line not in removed]
    assert after.endswith("\r\n")


@pytest.mark.parametrize("separator", ["\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\n "])
def test_no_line_end_hides_a_candidate(separator: str) -> None:
    smuggled = BROWSER_OFFER.replace(
        "s=-\r\n",
        f"s=-{separator}a=candidate:9 1 udp 1 169.254.169.254 80 typ host{separator}b=AS:1\r\n",
    )
    assert "candidate" not in sdp.without_candidates(smuggled)


def test_candidate_lines_are_those_for_udp_each_once_in_order() -> None:
    doubled = MODEL_ANSWER + "\r\n".join(
        line for line in MODEL_ANSWER.splitlines() if line.startswith("a=candidate:")
    )
    assert sdp.candidate_lines(doubled) == [
        "candidate:11 1 udp 2130706431 192.0.2.20 3478 typ host ufrag pQ7x/e03/vW2kM",
        "candidate:13 1 udp 2130706431 192.0.2.21 3478 typ host ufrag pQ7x/e03/vW2kM",
    ]


@pytest.mark.parametrize("line", ["a=candidate:", "a=candidate:1 1 udp", "a=candidate: x y z"])
def test_candidate_line_that_is_cut_short_is_passed_over(line: str) -> None:
    assert sdp.candidate_lines(f"v=0\r\n{line}\r\n") == []


def test_opus_payload_type_is_that_of_the_first_audio_section() -> None:
    assert sdp.opus_payload_type(BROWSER_OFFER) == 111
    assert sdp.opus_payload_type(MODEL_ANSWER) == 96
    assert sdp.opus_payload_type(DATA_ONLY) is None
    second = "m=audio 9 X 98\r\na=rtpmap:98 opus/48000/2\r\n"
    first = "m=audio 9 X 0\r\na=rtpmap:0 PCMU/8000\r\n"
    assert sdp.opus_payload_type(first + second) is None


def test_finished_description_keeps_one_fingerprint_and_tells_opus_of_fec() -> None:
    ours = sdp.join(
        [
            "v=0",
            "m=audio 9 UDP/TLS/RTP/SAVPF 111",
            "a=rtpmap:111 opus/48000/2",
            f"a=fingerprint:{FINGERPRINT}",
            "a=fingerprint:sha-384 AA:BB",
            "a=fingerprint:sha-512 CC:DD",
            "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
            f"a=fingerprint:{FINGERPRINT}",
            "a=fingerprint:sha-384 AA:BB",
        ]
    )
    assert sdp.finish(ours).splitlines() == [
        "v=0",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111",
        "a=rtpmap:111 opus/48000/2",
        "a=fmtp:111 minptime=10;useinbandfec=1",
        f"a=fingerprint:{FINGERPRINT}",
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        f"a=fingerprint:{FINGERPRINT}",
    ]


def test_finishing_replaces_parameters_of_opus_and_is_idempotent() -> None:
    once = sdp.finish(
        "v=0\nm=audio 9 X 96\na=rtpmap:96 opus/48000/2\na=fmtp:96 usedtx=1\na=fmtp:97 x=1\n"
    )
    assert once.splitlines()[3:] == ["a=fmtp:96 minptime=10;useinbandfec=1", "a=fmtp:97 x=1"]
    assert sdp.finish(once) == once


def test_sections_hold_their_own_lines_and_the_first_holds_the_sessions() -> None:
    session, audio, data = sdp.split(BROWSER_OFFER)
    assert (session.kind, audio.kind, data.kind) == ("", "audio", "application")
    assert "s=-" in session.lines
    assert list(audio.values("mid")) == ["0"]
    assert list(data.values("sctp-port")) == ["5000"]
