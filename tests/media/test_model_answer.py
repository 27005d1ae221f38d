"""An answer written as OpenAI writes it, around a far end that is really there."""

from __future__ import annotations

import pytest

from interview_peer.core import sdp
from interview_peer.media.leg import Leg
from tests.media.legs import Heard, own_port, packets_of, until

UFRAG = "kZ2q/u11/aB3cD"


def as_openai_writes_it(text: str, *, lite: bool, candidates: list[str]) -> str:
    """Rewrite our own far end's answer line by line into the service's form.

    One sha-256 fingerprint at session level only; candidates in the first section only, with the
    fragment behind each and one for TCP; no end of candidates; no fmtp but Opus'; a stream.
    """
    session, audio, data = sdp.split(text)
    (fingerprint, *_) = audio.values("fingerprint")
    (password, *_) = audio.values("ice-pwd")
    (ufrag, *_) = audio.values("ice-ufrag")
    (number, *_) = audio.values("rtpmap")
    kind = number.split(" ")[0]
    (size,) = [line for line in data.lines if line.startswith("a=sctp-port")]
    secrets = [f"a=ice-ufrag:{ufrag}", f"a=ice-pwd:{password}"]
    lines = [
        "v=0",
        "o=- 5577006791947779410 1786900000 IN IP4 0.0.0.0",
        "s=-",
        "t=0 0",
        "a=msid-semantic:WMS *",
        f"a=fingerprint:{fingerprint}",
        *(["a=ice-lite"] if lite else []),
        "a=extmap-allow-mixed",
        "a=group:BUNDLE 0 1",
        f"m=audio 9 UDP/TLS/RTP/SAVPF {kind}",
        "c=IN IP4 0.0.0.0",
        "a=setup:active",
        "a=mid:0",
        *secrets,
        "a=rtcp-mux",
        "a=rtcp-rsize",
        f"a=rtpmap:{kind} opus/48000/2",
        f"a=fmtp:{kind} minptime=10;useinbandfec=1",
        "a=ssrc:2882382797 cname:realtimeapi",
        "a=ssrc:2882382797 msid:realtimeapi audio",
        "a=ssrc:2882382797 mslabel:realtimeapi",
        "a=ssrc:2882382797 label:audio",
        "a=msid:realtimeapi audio",
        "a=sendrecv",
        *(f"{candidate} ufrag {ufrag}" for candidate in candidates),
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        "c=IN IP4 0.0.0.0",
        "a=setup:active",
        "a=mid:1",
        "a=sendrecv",
        size,
        "a=max-message-size:1073741823",
        *secrets,
    ]
    assert session.kind == ""
    return sdp.join(lines)


@pytest.mark.parametrize("lite", [True, False])
@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
async def test_answer_in_the_services_form_connects(lite: bool, line_end: str) -> None:
    ours_heard, model_heard = Heard(), Heard()
    ours = Leg("model", await own_port(), ours_heard, own_port=True)
    model = Leg("service", await own_port(), model_heard, own_port=True)
    model.engine.ufrag = UFRAG
    try:
        offer = await ours.offer()
        answer = await model.answer(sdp.check_offer(offer))
        assert f"a=ice-ufrag:{UFRAG}" in answer
        number = model.port.address[1]
        text = as_openai_writes_it(
            answer,
            lite=lite,
            candidates=[
                "a=candidate:1 1 tcp 1671430143 127.0.0.1 443 typ host tcptype passive",
                f"a=candidate:2 1 udp 2130706431 127.0.0.1 {number} typ host",
                "a=candidate:3 1 udp 2130706430 192.0.2.10 3478 typ host",
                "a=candidate:4 1 tcp 1671430142 192.0.2.10 443 typ host tcptype passive",
            ],
        ).replace("\r\n", line_end)
        before = model.engine.pc.remoteDescription.sdp
        assert "a=candidate" not in before, "only we know where to send"

        await ours.accept(text)

        await until(lambda: ours.channel_open and model.channel_open, "the channel")
        assert ours.connected
        assert ours.engine.remote == model.port.address
        assert ours.payload_type == model.payload_type
        heard = packets_of(model), packets_of(ours)
        ours.send_audio(1, 0, b"question")
        model.send_audio(1, 0, b"answer")
        await until(lambda: heard[0] and heard[1], "audio both ways")
        assert (heard[0][0][12:], heard[1][0][12:]) == (b"question", b"answer")
        # The size announced is beyond what aiortc assumes without it.
        ours.send_text("x" * 70_000)
        await until(lambda: model_heard.messages, "a large event")
        assert model_heard.messages == ["x" * 70_000]
    finally:
        await ours.close()
        await model.close()


async def test_our_offer_is_what_the_service_expects() -> None:
    leg = Leg("model", await own_port(), Heard(), own_port=True)
    offer = await leg.offer()
    session, audio, data = sdp.split(offer)
    assert (audio.kind, data.kind) == ("audio", "application"), "audio comes first"
    assert "a=sendrecv" in audio.lines
    assert list(audio.values("setup")) == ["actpass"]
    kinds = [line for line in audio.lines if line.startswith("a=rtpmap")]
    assert len(kinds) == 1 and "opus/48000/2" in kinds[0], "Opus alone"
    assert [value.split(" ")[1] for value in audio.values("fmtp")] == ["minptime=10;useinbandfec=1"]
    assert "usedtx" not in offer
    fingerprints = [*session.values("fingerprint"), *audio.values("fingerprint")]
    assert [value.split(" ")[0] for value in fingerprints] == ["sha-256"]
    assert offer.endswith("\r\n")
    assert sdp.candidate_lines(offer), "complete, without trickling"
    sdp.check_offer(offer)
    await leg.close()
