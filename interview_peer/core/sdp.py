"""Session descriptions as text: what we accept, and what we change before they leave.

Works on lines, not on objects, so that what a browser is told is exactly what can be read here.
Not responsible for negotiating: that is aiortc's, behind ``media.leg``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from ..errors import (
    InvalidSdp,
    SdpTooLarge,
    SdpWithoutAudio,
    SdpWithoutFingerprint,
    UpstreamInvalidAnswer,
)

MAX_SDP_BYTES = 64 * 1024
"""A browser's offer is 2 to 6 kB."""
MAX_LINES: Final = 1_000
"""A browser's offer has fifty, and one more for each candidate. What is done with an offer costs
by its lines, so they are counted before anything else is done with it."""
MAX_ALIKE: Final = 64
"""Lines of one name, but for candidates: a browser's offer has at most as many as codecs. aiortc
pairs lines of some names with each other, which a thousand of each would make it do for seconds."""
LINE_ENDS: Final = ("\n", "\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029")
"""Where ``str.splitlines`` cuts, besides the pair of the first two."""

SUPPORTED_FINGERPRINTS = frozenset({"sha-256", "sha-384", "sha-512"})
OPUS_FMTP = "minptime=10;useinbandfec=1"
"""What browsers and OpenAI both write. Without it in offer and answer no encoder sends FEC."""

RTP_PAYLOAD_TYPES = frozenset(map(str, [*range(64), *range(96, 128)]))
"""Seven bits, without those that look like RTCP beside the marker bit (RFC 5761 section 4)."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A description that ``check_offer`` let through; it alone makes them."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Section:
    """One part of a description: the session's own lines (``kind`` is empty) or one ``m=``."""

    kind: str
    lines: tuple[str, ...]

    def values(self, attribute: str) -> Iterator[str]:
        """Yield the value of each ``a=attribute:value`` line."""
        prefix = f"a={attribute}:"
        for line in self.lines:
            if line.startswith(prefix):
                yield line[len(prefix) :].strip()


def split(text: str) -> list[Section]:
    """Cut a description at its ``m=`` lines; the first section holds the session's lines."""
    sections: list[tuple[str, list[str]]] = [("", [])]
    for line in text.splitlines():
        line = line.strip()
        if not line:
            continue
        if line.startswith("m="):
            sections.append((line[2:].split(" ", 1)[0], []))
        sections[-1][1].append(line)
    return [Section(kind, tuple(lines)) for kind, lines in sections]


def join(lines: list[str]) -> str:
    """Put lines together as the wire wants them: CRLF after each, the last included.

    libwebrtc refuses a description whose final line end is missing.
    """
    return "".join(f"{line}\r\n" for line in lines)


def check_offer(text: str) -> Offer:
    """Refuse an offer that could not lead to an interview.

    Wanted: at most 64 kB and 1,000 lines, 64 of them alike, one audio section with Opus, at most
    one data section, nothing else (a video section would start decoders), ICE credentials and a
    supported fingerprint. Costs a millisecond at most, whatever the text is.

    Raises:
        InvalidSdp: or one of its kinds; the sentence says what is missing.
    """
    if len(text) > MAX_SDP_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_SDP_BYTES:
        raise SdpTooLarge
    if _line_ends(text) > MAX_LINES:
        raise SdpTooLarge("The offer has more lines than this server takes.")
    if not text.lstrip().startswith("v=0"):
        raise InvalidSdp
    sections = split(text)
    media = sections[1:]
    audio = [section for section in media if section.kind == "audio"]
    if not audio or _opus_of(audio[0]) is None:
        raise SdpWithoutAudio
    if len(audio) > 1 or sum(section.kind == "application" for section in media) > 1:
        raise InvalidSdp("The offer may have one audio section and one data section, no more.")
    if any(section.kind not in ("audio", "application") for section in media):
        raise InvalidSdp("The offer may hold audio and a data channel only.")
    _check_alike(sections)
    _check_bundle(sections[0], media)
    _check_transport(sections[0], audio[0])
    return Offer(text)


def _line_ends(text: str) -> int:
    return sum(map(text.count, LINE_ENDS)) - text.count("\r\n")


def _check_alike(sections: Iterable[Section]) -> None:
    names = Counter(line.partition(":")[0] for section in sections for line in section.lines)
    del names["a=candidate"]
    if any(count > MAX_ALIKE for count in names.values()):
        raise InvalidSdp("The offer repeats one kind of line too often.")


def _check_bundle(session: Section, media: list[Section]) -> None:
    """A bundle must name sections that are there: aiortc takes the first one's transport for all
    and does not look whether there is one."""
    mids = [[line for line in part.lines if line.startswith("a=mid:")] for part in media]
    names = [name for part in mids for name in part]
    if any(len(part) > 1 for part in mids) or len(set(names)) < len(names):
        raise InvalidSdp("The offer's sections must each have one name of their own.")
    for group in session.values("group"):
        semantics, _, rest = group.partition(" ")
        tags = rest.split()
        if len(tags) > len(media):
            raise InvalidSdp("The offer groups more sections than it has.")
        if semantics == "BUNDLE" and any(f"a=mid:{tag}" not in names for tag in tags):
            raise InvalidSdp("The offer bundles a section that it does not have.")


def _check_transport(session: Section, audio: Section) -> None:
    fingerprints = [*session.values("fingerprint"), *audio.values("fingerprint")]
    if not any(value.split(" ", 1)[0].lower() in SUPPORTED_FINGERPRINTS for value in fingerprints):
        raise SdpWithoutFingerprint
    for attribute in ("ice-ufrag", "ice-pwd"):
        if not any([*session.values(attribute), *audio.values(attribute)]):
            raise InvalidSdp("The offer has no ICE credentials.")


def check_answer(text: str) -> None:
    """Refuse an upstream body that is not a usable answer.

    Raises:
        UpstreamInvalidAnswer: it is not SDP, or lacks audio, ICE credentials or fingerprint.
    """
    try:
        check_offer(text)
    except InvalidSdp:
        raise UpstreamInvalidAnswer from None


def for_engine(offer: Offer) -> str:
    """What the media engine is given of an offer: it without candidates, see there, and without
    the feedback of codecs, of which the engine has none for audio."""
    return without_candidates(offer.text, "a=rtcp-fb:")


def without_candidates(text: str, *others: str) -> str:
    """Drop the far end's candidates and its end-of-candidates line, and what begins as ``others``.

    The server then sends only to addresses that have proven the ICE password, so an offer
    cannot make it probe other hosts, and no ``.local`` name starts multicast queries.
    The end line must go too: with it and no candidate the ICE agent gives up at once.
    """
    dropped = ("a=candidate:", "a=end-of-candidates", "a=remote-candidates:", *others)
    return join([line for line in _lines(text) if not line.startswith(dropped)])


def candidate_lines(text: str) -> list[str]:
    """The ``candidate:…`` values for UDP in a description, each once, in order.

    TCP candidates are left out: the ICE agent cannot use them.
    """
    found: dict[str, None] = {}
    for line in _lines(text):
        if line.startswith("a=candidate:"):
            fields = line[len("a=") :].split()
            if len(fields) >= 8 and fields[2].lower() == "udp":
                found[" ".join(fields)] = None
    return list(found)


def opus_payload_type(text: str) -> int | None:
    """The RTP payload type that the first audio section gives to 48 kHz Opus."""
    audio = next((section for section in split(text) if section.kind == "audio"), None)
    return None if audio is None else _opus_of(audio)


def _opus_of(audio: Section) -> int | None:
    for value in audio.values("rtpmap"):
        number, _, encoding = value.partition(" ")
        if encoding.lower().startswith("opus/48000") and number in RTP_PAYLOAD_TYPES:
            return int(number)
    return None


def finish(text: str) -> str:
    """Make our own description ready to leave.

    - Fingerprints beyond sha-256 go: shorter, and every end takes the one that stays.
    - Opus is told to use in-band FEC, which aiortc leaves out of its answers.
    """
    payload_type = opus_payload_type(text)
    has_fmtp = any(line.startswith(f"a=fmtp:{payload_type} ") for line in _lines(text))
    lines: list[str] = []
    for line in _lines(text):
        if line.startswith(("a=fingerprint:sha-384", "a=fingerprint:sha-512")):
            continue
        if line.startswith(f"a=fmtp:{payload_type} "):
            line = f"a=fmtp:{payload_type} {OPUS_FMTP}"
        lines.append(line)
        if line.startswith(f"a=rtpmap:{payload_type} ") and not has_fmtp:
            lines.append(f"a=fmtp:{payload_type} {OPUS_FMTP}")
    return join(lines)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]
