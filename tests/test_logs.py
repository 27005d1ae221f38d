"""Log lines: their form, their fields, and what never gets into them."""

from __future__ import annotations

import errno
import io
import json
import logging
import re
import time
from collections.abc import Iterator

import jwt
import pytest

from interview_peer import logs
from interview_peer.core import tokens
from interview_peer.notices.signing import new_secret
from interview_peer.types import SessionId

NOISY = ("aioice", "aiortc", "aiohttp.access")
TALKATIVE = ("aiosqlite", "asyncpg", "sqlalchemy")
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"


@pytest.fixture(autouse=True)
def untouched_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in NOISY + TALKATIVE}
    monkeypatch.setattr(logs, "_secrets", set())
    monkeypatch.setattr(logs, "_secret_pattern", None)
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


@pytest.fixture
def stream() -> io.StringIO:
    stream = io.StringIO()
    logs.configure("debug", stream)
    return stream


def test_record_is_one_line_with_time_level_logger_message_and_fields(
    stream: io.StringIO,
) -> None:
    log = logs.get("interview_peer.session", session="abc").bind(leg="browser")
    log.info("leg is %s", "up", after=0.25, reason="no answer")
    time, rest = stream.getvalue().split(" ", 1)
    assert len(time) == len("2026-01-01T00:00:00.000Z")
    assert time.endswith("Z")
    assert rest == (
        "INFO interview_peer.session: leg is up "
        'session=abc leg=browser after=0.250 reason="no answer"\n'
    )


def test_binding_leaves_the_first_logger_as_it_was(stream: io.StringIO) -> None:
    log = logs.get("interview_peer.session", session="abc")
    log.bind(leg="model")
    log.info("phase")
    assert stream.getvalue().endswith(": phase session=abc\n")


def test_message_with_line_breaks_cannot_forge_a_second_record(stream: io.StringIO) -> None:
    logging.getLogger("x").info("first\r\n2026 ERROR forged %s", "a\nb")
    logs.get("x").info("second", value="a\nb")
    assert len(stream.getvalue().splitlines()) == 2


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        ("abc.def-123", "Authorization: Bearer abc.def-123"),
        ("abcdef", "{'authorization': 'bearer abcdef'}"),
        ("proj-A1b2_C3", "Incorrect key provided: sk-proj-A1b2_C3."),
        ("A1b2C3", "key_sk-A1b2C3 end"),
        ("A1b2C3", "back with ipr_A1b2C3"),
        ("A1b2C3", "key ipk_A1b2C3"),
        ("A1b2C3", "back with ipr_trusted.A1b2C3"),
        ("A1b2C3", "value=ek_ipr_trusted.A1b2C3. Then"),
        ("68ab12", "value=ek_68ab12"),
        ("MfKQ9r8+/=", "whsec_MfKQ9r8+/="),
        (JWT[3:], f"token={JWT}&x=1"),
        ("4uFr", "a=ice-ufrag:4uFr\\r\\na=mid:0"),
        ("5yF6WzZ9kAcX+/", "a=setup:x\\r\\na=ice-pwd:5yF6WzZ9kAcX+/\\r\\na=mid:0"),
    ],
)
def test_key_shaped_text_is_masked_wherever_it_stands(
    stream: io.StringIO, secret: str, text: str
) -> None:
    log = logging.getLogger("some.library")
    log.debug(text.replace("%", "%%"))
    log.debug("argument %s", text)
    log.debug("object %r", {"text": text})
    logs.get("interview_peer.x").info("field", text=text)
    try:
        raise ValueError(text)
    except ValueError:
        log.exception("traceback")
    written = stream.getvalue()
    assert secret not in written
    assert written.count(logs.MASK) == 5 + written.count("raise ValueError(text)" + logs.MASK)


def made_tokens() -> dict[str, str]:
    """A token of every kind that the server makes and gives somebody."""
    now = int(time.time())
    claims = tokens.claims_of(SessionId("one"), now, now + 60)
    made = {
        "resume": tokens.new_resume_token(),
        "trusted resume": tokens.new_resume_token(trusted=True),
        "operator": tokens.new_admin_key(),
        "webhook": new_secret(),
        "join": jwt.encode(claims, "a" * 32, algorithm="HS256"),
    }
    for_sdks = {f"{name} for an SDK": tokens.SDK_PREFIX + made[name] for name in ("resume", "join")}
    for_sdks["trusted for an SDK"] = tokens.SDK_PREFIX + made["trusted resume"]
    return made | for_sdks


@pytest.mark.parametrize("kind", list(made_tokens()))
def test_every_token_the_server_makes_is_masked_to_its_end(kind: str) -> None:
    # Random texts differ in where they have which character.
    for _ in range(50):
        token = made_tokens()[kind]
        for text in (f"x {token}", f"x {token}.", repr({"t": token}), f"/ws?token={token}&b=1"):
            left = logs.redact(text)
            telling = re.findall(r"[A-Za-z0-9_+/=-]{6,}", left.replace(logs.MASK, " "))
            assert not [one for one in telling if one.strip("/?=&") in token.split("_", 1)[-1]]
            assert logs.MASK in left


def test_ordinary_words_are_not_masked(stream: io.StringIO) -> None:
    text = "task-force asks-for a week_end; v=0 and a=mid:0; the bearer"
    logging.getLogger("x").info(text)
    assert stream.getvalue().endswith(f": {text}\n")


DESCRIPTION = (
    "v=0\r\no=- 81 2 IN IP4 198.51.100.7\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"
    "c=IN IP4 198.51.100.7\r\na=fingerprint:sha-256 AB:CD:EF\r\n"
    "a=candidate:1 1 udp 21 198.51.100.7 4000 typ host\r\n"
)


@pytest.mark.parametrize(
    "text",
    [
        DESCRIPTION,
        DESCRIPTION.replace("\r\n", "\n"),
        repr(DESCRIPTION),
        json.dumps({"type": "sdp_offer", "offer": {"sdp": DESCRIPTION}, "after": "kept"}),
        json.dumps({"nested": json.dumps({"sdp": DESCRIPTION})}),
    ],
    ids=["as it is", "bare line ends", "printed", "in JSON", "in JSON in JSON"],
)
def test_session_descriptions_are_masked_in_every_spelling(stream: io.StringIO, text: str) -> None:
    log = logging.getLogger("some.library")
    log.debug("setLocalDescription(%s)\n%s", "offer", text)
    log.debug("%r", text)
    logs.get("interview_peer.x").info("field", text=text)
    try:
        raise ValueError(text)
    except ValueError:
        log.exception("traceback")
    written = stream.getvalue()
    assert "198.51.100.7" not in written and "AB:CD" not in written
    assert written.count(f"v=0 {logs.MASK}") == 4
    if "kept" in text:
        assert written.count("kept") == 4


def test_a_description_after_blank_lines_is_masked() -> None:
    assert logs.redact("v=0\r\n \r\no=- 81 2 IN IP4 198.51.100.7") == f"v=0 {logs.MASK}"


@pytest.mark.parametrize("run", ["\n", "\r\n", " ", " \n", "\\n", "\\"], ids=repr)
def test_a_long_run_of_line_ends_costs_no_more_than_its_length(run: str) -> None:
    before = time.thread_time()
    text = f"v=0{run * 40_000}"
    assert logs.redact(text) == text
    # Trying every way to share them takes twenty seconds.
    assert time.thread_time() - before < 2


def test_libraries_of_the_database_never_print_what_is_written() -> None:
    stream = io.StringIO()
    logs.configure("debug", stream)
    for name in TALKATIVE:
        logging.getLogger(name).debug("INSERT %s", "spoken words")
        logging.getLogger(f"{name}.part").info("INSERT %s", "spoken words")
        logging.getLogger(name).warning("loud")
    assert "spoken" not in stream.getvalue()
    assert stream.getvalue().count("loud") == len(TALKATIVE)


def test_registered_secret_is_masked_in_every_spelling(stream: io.StringIO) -> None:
    logs.register_secret("plain")
    logs.register_secret('plain"& more')
    logs.register_secret(None)
    logs.register_secret("")
    logging.getLogger("x").info('1 plain 2 plain"& more 3 plain%22%26%20more 4 plain\\"& more 5')
    assert stream.getvalue().endswith(": 1 *** 2 *** 3 *** 4 *** 5\n")


def test_record_that_another_handler_formatted_before_is_masked_too(
    stream: io.StringIO,
) -> None:
    other = logging.StreamHandler(io.StringIO())
    logging.getLogger().handlers.insert(0, other)
    try:
        raise ValueError("sk-1234567890")
    except ValueError:
        logging.getLogger("x").exception("broke")
    assert "ValueError: sk-***" in stream.getvalue()
    assert "1234567890" not in stream.getvalue()


@pytest.mark.parametrize("name", NOISY)
def test_libraries_that_print_too_much_are_heard_at_debug_alone(name: str) -> None:
    stream = io.StringIO()
    logs.configure("info", stream)
    logging.getLogger(name).info("quiet")
    logging.getLogger(f"{name}.part").debug("quiet")
    logging.getLogger(name).warning("loud")
    assert stream.getvalue().count("\n") == 1
    logs.configure("debug", stream)
    logging.getLogger(name).debug("loud")
    assert stream.getvalue().count("loud") == 2


def test_level_below_the_configured_one_is_not_written() -> None:
    stream = io.StringIO()
    logs.configure("warning", stream)
    logging.getLogger("x").info("no")
    logging.getLogger("x").warning("yes")
    assert stream.getvalue().endswith("x: yes\n")
    assert stream.getvalue().count("\n") == 1


def test_configuring_again_replaces_the_handler(stream: io.StringIO) -> None:
    second = io.StringIO()
    logs.configure("info", second)
    logging.getLogger("x").info("once")
    assert stream.getvalue() == ""
    assert second.getvalue().count("once") == 1


def test_access_line_has_no_query_string(stream: io.StringIO) -> None:
    logging.getLogger("aiohttp.access").info(
        '127.0.0.1 "GET /ws?token=hidden HTTP/1.1" 101 "http://h/?t=hidden"'
    )
    assert stream.getvalue().endswith('127.0.0.1 "GET /ws HTTP/1.1" 101 "http://h/"\n')


def test_fields_of_an_access_line_have_no_query_string_either(stream: io.StringIO) -> None:
    logging.getLogger("aiohttp.access").info(
        "asked", extra={"first_request_line": "GET /ws?token=hidden HTTP/1.1"}
    )
    assert "GET /ws HTTP/1.1" in stream.getvalue()
    assert "hidden" not in stream.getvalue()


# -- one JSON object a line -------------------------------------------------------------------


class Terminal(io.StringIO):
    """A stream that a person looks at."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def json_stream() -> io.StringIO:
    stream = io.StringIO()
    logs.configure("debug", stream, form="json")
    return stream


def test_json_record_is_one_object_with_its_fields(json_stream: io.StringIO) -> None:
    log = logs.get("interview_peer.session.interview", session="abc")
    log.info("phase", extra={"before": "connecting", "phase": "live", "seconds": 0.25})
    (line,) = json_stream.getvalue().splitlines()
    told = json.loads(line)
    assert len(told.pop("time")) == len("2026-01-01T00:00:00.000Z")
    assert told == {
        "level": "info",
        "logger": "interview_peer.session.interview",
        "event": "phase",
        "session": "abc",
        "before": "connecting",
        "phase": "live",
        "seconds": 0.25,
    }


def test_json_record_of_several_lines_and_a_traceback_stays_one_line(
    json_stream: io.StringIO,
) -> None:
    try:
        raise ValueError('a "quoted"\nsentence')
    except ValueError:
        logging.getLogger("somebody").exception("it broke\nbadly")
    (line,) = json_stream.getvalue().splitlines()
    told = json.loads(line)
    assert told["event"] == "it broke\nbadly"
    assert told["traceback"].startswith("Traceback (most recent call last)")
    assert told["traceback"].endswith('ValueError: a "quoted"\nsentence')


def test_json_fields_cannot_pass_for_the_lines_own(json_stream: io.StringIO) -> None:
    logs.get("a").info("seen", time="noon", event="other")
    told = json.loads(json_stream.getvalue())
    assert told["time"].endswith("Z") and told["event"] == "seen"
    assert (told["time_"], told["event_"]) == ("noon", "other")


def test_json_values_of_any_kind_are_told(json_stream: io.StringIO) -> None:
    logs.get("a").info("seen", path=logging, nothing=None)
    told = json.loads(json_stream.getvalue())
    assert told["nothing"] is None
    assert told["path"].startswith("<module 'logging'")


def test_secrets_are_masked_in_json_too_and_it_can_still_be_read(
    json_stream: io.StringIO,
) -> None:
    secret = 'pass"word\\with/signs'
    logs.register_secret(secret)
    log = logs.get("a", key="sk-abc123")
    log.info("given %s", secret, header=f"Bearer {JWT}", nested={"token": JWT, "secret": secret})
    text = json_stream.getvalue()
    told = json.loads(text)
    assert told["event"] == "given ***"
    assert told["key"] == "sk-***"
    assert told["header"] == "Bearer ***"
    assert told["nested"]["secret"] == "***"
    assert JWT not in text and "abc123" not in text and "with/signs" not in text


def test_json_access_lines_lose_their_query(json_stream: io.StringIO) -> None:
    line = "GET /ws?token=abc HTTP/1.1"
    logging.getLogger("aiohttp.access").info("%s", line, extra={"first_request_line": line})
    told = json.loads(json_stream.getvalue())
    assert told["event"] == told["first_request_line"] == "GET /ws HTTP/1.1"


@pytest.mark.parametrize(("stream", "is_json"), [(io.StringIO(), True), (Terminal(), False)])
def test_who_looks_decides_the_form_unless_it_is_set(stream: io.StringIO, is_json: bool) -> None:
    logs.configure("info", stream, form="auto")
    logs.get("a").info("seen")
    assert stream.getvalue().startswith("{") is is_json


def test_a_disk_is_named_by_what_the_system_calls_its_refusal() -> None:
    full, closed = OSError(errno.ENOSPC, "no space"), PermissionError(errno.EACCES, "no")
    assert [logs.word_for(error) for error in (full, closed)] == ["ENOSPC", "EACCES"]
    others = (OSError("no number"), OSError(-3, "no name of the system's"), ValueError("said"))
    assert [logs.word_for(error) for error in others] == ["OSError", "OSError", "ValueError"]
