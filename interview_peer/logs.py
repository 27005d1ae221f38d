"""How the server logs: one line a record, with fields, and never a secret.

For a person a line is text with ``key=value``; for a program one JSON object.

Everything that leaves through :func:`configure`'s handler (message, fields, traceback, whichever
library wrote it) passes :func:`redact` last. Which events deserve a line is not decided here.
"""

from __future__ import annotations

import errno
import json
import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, TextIO
from urllib.parse import quote

MASK = "***"

_NOISY_LIBRARIES = ("alembic", "aioice", "aiortc")
_TALKATIVE_LIBRARIES = ("aiosqlite", "asyncpg", "sqlalchemy")
"""At DEBUG they print every value that is written: names, and what was said."""
_ACCESS_LOGGER = "aiohttp.access"
_LOGGING_ARGUMENTS = frozenset(("exc_info", "stack_info", "stacklevel", "extra"))

# The named group stays and tells the reader what was there; the rest of the match is masked.
_SECRET_SHAPES = re.compile(
    r"""
      (?P<ice> ice-(?:pwd|ufrag): ) [A-Za-z0-9+/]+
    | (?: (?<![A-Za-z0-9]) | (?<=\\[nrt]) )     # a word begins, be it behind a printed \n
      (?:
        (?P<bearer> Bearer\s+ ) [^\s"',;\\]+
      | (?P<prefix> sk- | ek_ | ip[kr]_ | whsec_ ) [A-Za-z0-9+/=_-]+ (?: \.[A-Za-z0-9_-]+ )*
      | (?P<jwt> eyJ ) [A-Za-z0-9_-]{6,} (?: \.[A-Za-z0-9_-]* ){0,2}
      )
    """,
    re.VERBOSE | re.IGNORECASE,
)
# A session description from its first line on, with real line ends or with printed ones: addresses,
# fingerprints and ICE credentials of one person's machine. Looked back at, the line end is found
# in one pass: any pair of repetitions would try every way to share a run of newlines.
_DESCRIPTION = re.compile(
    r"v=0 (?: (?: \s* (?<= [\r\n] ) | (?: \\+[rn] )+ ) [a-z]= [^\r\n\\\"']* )+", re.VERBOSE
)
_QUERY = re.compile(r"\?[^\s\"]*")
_QUERY_IN_JSON = re.compile(r"\?[^\s\"\\]*")

_RECORD_ATTRIBUTES = frozenset(
    (*logging.LogRecord("", 0, "", 0, "", (), None).__dict__, "message", "asctime", "taskName")
)

_secrets: set[str] = set()
_secret_pattern: re.Pattern[str] | None = None


def register_secret(value: str | None) -> None:
    """Mask ``value`` wherever it is logged from now on, as it is, URL-encoded or JSON-escaped."""
    global _secret_pattern
    if not value:
        return
    _secrets.update((value, quote(value, safe=""), json.dumps(value)[1:-1]))
    # The longest first: a secret may begin with another one.
    ordered = sorted(_secrets, key=len, reverse=True)
    _secret_pattern = re.compile("|".join(map(re.escape, ordered)))


def redact(text: str) -> str:
    """``text`` with registered secrets, keys, tokens and session descriptions masked."""
    if _secret_pattern is not None:
        text = _secret_pattern.sub(MASK, text)
    text = _DESCRIPTION.sub(f"v=0 {MASK}", text)
    return _SECRET_SHAPES.sub(lambda match: f"{match[match.lastgroup or 0]}{MASK}", text)


class Log(logging.LoggerAdapter[logging.Logger]):
    """A logger that carries fields: ``log.info("interview ended", seconds=12.5)``.

    The message is constant; what varies goes into keyword arguments and prints as ``key=value``
    behind it.
    """

    def __init__(self, logger: logging.Logger, **fields: object) -> None:
        super().__init__(logger, fields)
        self._fields = fields

    def bind(self, **fields: object) -> Log:
        """A logger that carries these fields too (``session=…``, ``leg=…``)."""
        return Log(self.logger, **{**self._fields, **fields})

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Split a call's keywords into logging's own and fields."""
        own = {name: kwargs[name] for name in kwargs if name in _LOGGING_ARGUMENTS}
        fields = {name: kwargs[name] for name in kwargs if name not in _LOGGING_ARGUMENTS}
        own["extra"] = {**(own.get("extra") or {}), "fields": {**self._fields, **fields}}
        return msg, own


def get(name: str, **fields: object) -> Log:
    """The logger of a module (pass ``__name__``), carrying ``fields``."""
    return Log(logging.getLogger(name), **fields)


def word_for(error: BaseException) -> str:
    """One word for what went wrong: the system's name for a refusal of the disk's (``ENOSPC``,
    ``EROFS``), or else the kind of error. Never its text, which can show a path or what was said.

    Python has classes of its own for few of the system's errors: without their names a full disk
    is an ``OSError`` like any other.
    """
    number = error.errno if isinstance(error, OSError) else None
    return errno.errorcode.get(number or 0, type(error).__name__)


class LineFormatter(logging.Formatter):
    """``time LEVEL logger: message key=value``; only a traceback takes further lines."""

    def format(self, record: logging.LogRecord) -> str:
        """The whole record as redacted text."""
        message = _one_line(record.getMessage())
        words = [message, *(f"{name}={_value(value)}" for name, value in _fields(record).items())]
        text = " ".join(words)
        if record.name == _ACCESS_LOGGER:
            # A query string may carry a token, and aiohttp repeats the request line in its fields.
            text = _QUERY.sub("", text)
        line = f"{_time(record)} {record.levelname} {record.name}: {text}"
        return redact("\n".join([line, *_tracebacks(self, record)]))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``logger``, ``event``, and the fields beside
    them; a traceback is one text in ``traceback``."""

    def format(self, record: logging.LogRecord) -> str:
        """The whole record as one redacted line."""
        own = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if traceback := "\n".join(_tracebacks(self, record)):
            own["traceback"] = traceback
        # A field may not pass for one of ours.
        fields = {name + "_" * (name in own): value for name, value in _fields(record).items()}
        line = json.dumps({**own, **fields}, ensure_ascii=False, default=str)
        if record.name == _ACCESS_LOGGER:
            line = _QUERY_IN_JSON.sub("", line)
        return redact(line)


FORMATTERS: Final[Mapping[str, type[logging.Formatter]]] = MappingProxyType(
    {"text": LineFormatter, "json": JsonFormatter}
)


def configure(level: str, stream: TextIO | None = None, *, form: str = "text") -> None:
    """Log to ``stream`` (stderr) from ``level`` on, replacing any handler set before.

    ``form`` is ``text``, ``json``, or ``auto``: text on a terminal, JSON anywhere else.

    The WebRTC libraries print a line for each packet at DEBUG, aiohttp one for each request at
    INFO, Alembic its plugins and steps: they are heard at level debug alone. Those that talk to
    the database are never heard below WARNING.
    """
    target = stream or sys.stderr
    handler = logging.StreamHandler(target)
    if form == "auto":
        form = "text" if target.isatty() else "json"
    handler.setFormatter(FORMATTERS[form]())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    quiet = logging.NOTSET if level.lower() == "debug" else logging.WARNING
    for name in (*_NOISY_LIBRARIES, _ACCESS_LOGGER):
        logging.getLogger(name).setLevel(quiet)
    for name in _TALKATIVE_LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)


def last_line(sentence: str) -> str:
    """``sentence`` in the form that is set: as it is, or as a JSON object of level critical.

    Takes no lock and writes nothing, so that the handler of a signal may ask for it.
    """
    record = logging.LogRecord(__name__, logging.CRITICAL, "", 0, sentence, None, None)
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, JsonFormatter):
            return handler.formatter.format(record)
    return sentence


def _time(record: logging.LogRecord) -> str:
    time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return f"{time[:-6]}Z"


def _fields(record: logging.LogRecord) -> dict[str, object]:
    # ``extra={…}`` of a plain logger lands in the record as attributes of its own.
    fields = {
        name: value for name, value in record.__dict__.items() if name not in _RECORD_ATTRIBUTES
    }
    fields.update(fields.pop("fields", None) or {})
    return fields


def _tracebacks(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    found = []
    if record.exc_info:
        found.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        found.append(formatter.formatStack(record.stack_info))
    return found


def _one_line(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _value(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    plain = text and not re.search(r"[\s\"=\x00-\x1f]", text)
    return text if plain else json.dumps(text, ensure_ascii=False)
