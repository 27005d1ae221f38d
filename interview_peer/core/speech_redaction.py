"""Takes what identifies a person out of what was said, before it is written down anywhere.

Off unless a setting names patterns, or a function of the operator's own. Applied to the texts of
finished turns; text that is still growing is withheld, since half of a number looks like nothing.
The sound is not redacted. Not to be confused with `core.redaction`, which keeps the server's own
secrets out of what leaves it.
"""

from __future__ import annotations

import collections
import importlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from interview_peer.types import Json

Hook = Callable[[str], str]
"""Takes the text of a turn, returns what may be kept of it. Called on the event loop."""

WITHHELD: Final = "[withheld]"
"""Stands for a text that an operator's own function failed at."""

_TEXTS: Final = frozenset({"transcript", "text", "output", "arguments"})
"""Fields of events, at any depth, that hold whole texts."""

_PARTIAL: Final = (".delta", ".segment")
"""How the types of events end whose text is only a piece."""

_PIECES: Final = frozenset({"delta", "text", "transcript"})

_TOKENS: Final = "logprobs"
"""The text again, by tokens."""

_EMAIL: Final = re.compile(
    r"(?<![\w.+-])[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w-])"
)
_IBAN_START: Final = re.compile(r"(?<![^\W_])[A-Za-z]{2}\d{2}(?=[ -]?[A-Za-z0-9])")
_DIGITS: Final = re.compile(r"(?<!\d)\d(?:[ -]?\d){12,}")
_PHONE: Final = re.compile(r"(?<![\w+])(?:\+ ?|\( ?)?\d(?:[ ()./-]{0,3}\d){6,16}(?!\w)")
_DATE: Final = re.compile(r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}([./-])\d{1,2}\1\d{4}")

_IBAN_LENGTHS: Final[Mapping[str, int]] = {
    name: length
    for length, names in {
        15: "NO",
        16: "BE",
        18: "DK FI FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for name in names.split()
}
"""How long an IBAN of each country is, without spaces."""

_Span = tuple[int, int]


class SpeechRedactor:
    """Redacts texts, and the events that carry them.

    Pure but for the operator's function: the same text always gives the same.
    """

    def __init__(self, patterns: Iterable[str] = (), hook: Hook | None = None) -> None:
        """``patterns`` are names of ``PATTERNS``; ``hook`` sees what these leave."""
        self._patterns = [name for name in PATTERNS if name in set(patterns)]
        self._hook = hook

    def text(self, text: str, counts: collections.Counter[str]) -> str:
        """What may be kept of a whole text; what was taken out is counted by pattern."""
        for name in self._patterns:
            spans = [*PATTERNS[name](text)]
            if spans:
                counts[name] += len(spans)
            for start, end in reversed(spans):
                text = f"{text[:start]}[{name}]{text[end:]}"
        if self._hook is None or not text:
            return text
        try:
            kept = self._hook(text)
        except Exception:
            # It may have failed at the very thing that must not be kept; and its error may say it.
            kept = None
        if not isinstance(kept, str):
            counts["failed"] += 1
            return WITHHELD
        if kept != text:
            counts["hook"] += 1
        return kept

    def event(self, event: Json, counts: collections.Counter[str]) -> Json:
        """A copy of an event as it may be kept; the event itself is left as it is."""
        kind = event.get("type")
        partial = isinstance(kind, str) and kind.endswith(_PARTIAL)
        kept: Json = self._clean(event, partial, counts)
        response = kept.get("response")
        if isinstance(response, dict) and isinstance(response.get("instructions"), str):
            # Words that the interviewer is to say; a session's instructions are nobody's speech.
            response["instructions"] = self.text(response["instructions"], counts)
        return kept

    def _clean(self, value: Any, partial: bool, counts: collections.Counter[str]) -> Any:
        match value:
            case dict():
                return {
                    name: self._field(name, one, partial, counts) for name, one in value.items()
                }
            case list():
                return [self._clean(one, partial, counts) for one in value]
            case _:
                return value

    def _field(self, name: str, value: Any, partial: bool, counts: collections.Counter[str]) -> Any:
        if name == _TOKENS:
            return None
        if isinstance(value, str):
            if partial and name in _PIECES:
                if value:
                    counts["withheld"] += 1
                return ""
            return self.text(value, counts) if name in _TEXTS else value
        return self._clean(value, partial, counts)


def redactor(setting: str) -> SpeechRedactor | None:
    """What a setting asks for; None if it asks for nothing.

    ``all``, or names of ``PATTERNS`` separated by commas, or an import path ``module:function``
    of a `Hook`; these may be mixed. Raises ``ValueError`` with a sentence for anything else.
    """
    parts = [part.strip() for part in setting.split(",") if part.strip()]
    patterns: list[str] = []
    hooks: list[Hook] = []
    for part in parts:
        if part == "all":
            patterns += PATTERNS
        elif part in PATTERNS:
            patterns.append(part)
        elif ":" in part:
            hooks.append(_imported(part))
        else:
            raise ValueError(f"{part} is no pattern and no import path")
    if len(hooks) > 1:
        raise ValueError("only one function can be named")
    return SpeechRedactor(patterns, hooks[0] if hooks else None) if parts else None


def _imported(path: str) -> Hook:
    module, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for step in name.split("."):
            found = getattr(found, step)
    except Exception as error:
        raise ValueError(f"{path} cannot be imported ({type(error).__name__})") from None
    if not callable(found):
        raise ValueError(f"{path} is not a function")
    hook: Hook = found
    return hook


def _emails(text: str) -> Iterator[_Span]:
    for match in _EMAIL.finditer(text):
        yield match.span()


def _ibans(text: str) -> Iterator[_Span]:
    behind = 0
    for match in _IBAN_START.finditer(text):
        length = _IBAN_LENGTHS.get(match[0][:2].upper())
        if length is None or match.start() < behind:
            continue
        end = _after(text, match.start(), length)
        if end is not None and _is_iban(text[match.start() : end]):
            behind = end
            yield match.start(), end


def _after(text: str, start: int, count: int) -> int | None:
    """Where ``count`` letters and digits end, of which single spaces or hyphens stand between."""
    at, left = start, count
    while left:
        if at < len(text) and text[at] in " -" and at > start and text[at - 1] not in " -":
            at += 1
        if at >= len(text) or not (text[at].isascii() and text[at].isalnum()):
            return None
        at, left = at + 1, left - 1
    return None if text[at : at + 1].isalnum() else at


def _is_iban(text: str) -> bool:
    compact = text.replace(" ", "").replace("-", "").upper()
    number = "".join(str(int(sign, 36)) for sign in compact[4:] + compact[:4])
    return int(number) % 97 == 1


def _cards(text: str) -> Iterator[_Span]:
    for match in _DIGITS.finditer(text):
        places = [n for n in range(*match.span()) if text[n].isdigit()]
        first = 0
        while first <= len(places) - 13:
            # A number begins and ends where a group of digits does.
            begins = first == 0 or places[first] - places[first - 1] > 1
            length = _card_length(text, places, first) if begins else 0
            if length:
                yield places[first], places[first + length - 1] + 1
            first += length or 1


def _card_length(text: str, places: list[int], first: int) -> int:
    for length in range(min(19, len(places) - first), 12, -1):
        last = first + length - 1
        ends = last + 1 == len(places) or places[last + 1] - places[last] > 1
        if ends and _passes_luhn([int(text[n]) for n in places[first : last + 1]]):
            return length
    return 0


def _passes_luhn(digits: list[int]) -> bool:
    doubled = [sum(divmod(2 * one, 10)) for one in digits[-2::-2]]
    return any(digits) and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _phones(text: str) -> Iterator[_Span]:
    for match in _PHONE.finditer(text):
        if _is_phone(match[0]):
            yield match.span()


def _is_phone(text: str) -> bool:
    digits = sum(one.isdigit() for one in text)
    if not 7 <= digits <= 15 or _DATE.fullmatch(text):
        return False
    # Two years, or a sum of money, have seven digits as well.
    return text[0] in "+(0" or digits >= 9 or any(one in text for one in "-/")


PATTERNS: Final[Mapping[str, Callable[[str], Iterator[_Span]]]] = {
    "email": _emails,
    "iban": _ibans,
    "card": _cards,
    "phone": _phones,
}
"""By name, in the order they are applied: a card's number could pass for a phone's."""
