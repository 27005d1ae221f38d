"""Relays: how they may be written down, and what a browser is told of them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import traceback
from typing import Any

import pytest
from pydantic import SecretStr

from interview_peer.core import turn
from interview_peer.core.turn import IceServer, for_browser, read_servers, signed

SECRET = "north wind and sun"
CREDENTIAL = "hunter2-hunter2"


def test_addresses_with_commas_are_one_server_each_and_named_once() -> None:
    text = " stun:stun.example.org , TURN:192.0.2.7:3478?transport=tcp,, turns:[2001:db8::1]:443,"
    assert read_servers(text + "stun:stun.example.org") == (
        IceServer(("stun:stun.example.org",)),
        IceServer(("turn:192.0.2.7:3478?transport=tcp",)),
        IceServer(("turns:[2001:db8::1]:443",)),
    )


@pytest.mark.parametrize("urls", ["turn:relay.example.org", ["turn:relay.example.org"]])
def test_json_objects_are_read_as_browsers_write_them(urls: Any) -> None:
    given = [{"urls": urls, "username": "me", "credential": CREDENTIAL}, {"urls": "stun:a.b"}]
    own, plain = read_servers(json.dumps(given))
    assert own == IceServer(("turn:relay.example.org",), "me", SecretStr(CREDENTIAL))
    assert plain == IceServer(("stun:a.b",))
    assert read_servers(given) == read_servers((own, plain)) == (own, plain)


def test_nothing_given_is_no_server() -> None:
    assert read_servers("") == read_servers("[]") == read_servers(()) == ()


def one(**fields: Any) -> str:
    return json.dumps([fields])


@pytest.mark.parametrize(
    "value",
    [
        "relay.example.org",
        "http://relay.example.org",
        "turn://relay.example.org",
        "turn:",
        "turn:a b",
        "turn:me@relay.example.org",
        "turn:relay.example.org/path",
        "turn:relay.example.org:0",
        "turn:relay.example.org:65536",
        "turn:relay.example.org:port",
        "turn:relay.example.org?transport=sctp",
        "turn:relay.example.org?transport=udp&x=1",
        "stun:stun.example.org?transport=udp",
        "turn:192.0.2.300",
        "turn:192.0.2",
        "turn:[2001:db8::g]",
        "turn:[192.0.2.1]",
        "turn:2001:db8::1",
        "turn:relay.example.org\nturn:b",
        "turn:" + "a." * 150,
        ",".join(f"stun:s{number}.example.org" for number in range(turn.MAX_SERVERS + 1)),
        "[",
        "[" * 100_000,
        "[1]",
        "[[]]",
        '{"urls": "stun:a"}',
        one(),
        one(urls=[]),
        one(urls=1),
        one(urls=[1]),
        one(urls=["stun:a"] * (turn.MAX_URLS + 1)),
        one(urls="stun:a", url="stun:a"),
        one(urls="turn:a", username="me"),
        one(urls="turn:a", credential=CREDENTIAL),
        one(urls="turn:a", username="", credential=CREDENTIAL),
        one(urls="turn:a", username="me", credential=""),
        one(urls="turn:a", username=1, credential=CREDENTIAL),
        one(urls="turn:a", username="me", credential=["x"]),
        one(urls="turn:a", username="m\ne", credential=CREDENTIAL),
        one(urls="turn:a", username="me", credential="x\0"),
        one(urls="turn:a", username="é" * 255, credential=CREDENTIAL),
        one(urls="turn:a", username="me", credential="x" * 513),
        7,
        None,
        {"urls": "stun:a"},
    ],
)
def test_what_a_browser_would_refuse_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):
        read_servers(value)


@pytest.mark.parametrize(
    "value",
    [
        one(urls="turn:a b", username="me", credential=CREDENTIAL),
        one(urls="turn:a", username="me", credential=f"{CREDENTIAL}\n"),
        one(urls="turn:a", username="me", credential=CREDENTIAL) + "]",
    ],
)
def test_refusal_never_repeats_a_credential(value: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_servers(value)
    assert CREDENTIAL not in "".join(traceback.format_exception(caught.value))


def test_relays_without_a_credential_share_one_that_expires_and_is_signed() -> None:
    servers = read_servers(
        '[{"urls": ["turn:a", "turns:a?transport=tcp"]}, {"urls": "stun:b"}, {"urls": "turn:c"}]'
    )
    first, plain, second = for_browser(servers, SECRET, 600, 1_700_000_000.9, "zq7")
    assert first["urls"] == ["turn:a", "turns:a?transport=tcp"]
    assert first["username"] == second["username"] == "1700000600:zq7"
    expected = hmac.new(SECRET.encode(), b"1700000600:zq7", hashlib.sha1).digest()
    assert base64.b64decode(first["credential"]) == expected
    assert second["credential"] == first["credential"]
    assert plain == {"urls": ["stun:b"]}


def test_signature_is_the_one_that_openssl_makes() -> None:
    # printf '1700000600:zq7' | openssl dgst -sha1 -hmac 'north wind and sun' -binary | base64
    assert signed(SECRET, "1700000600:zq7") == "y4iBklWjFVIkP+/YOYrd3nB6S2U="


def test_relay_with_a_credential_of_its_own_keeps_it() -> None:
    servers = read_servers([{"urls": "turn:a", "username": "me", "credential": CREDENTIAL}])
    assert for_browser(servers, SECRET, 600, 0.0, "x") == [
        {"urls": ["turn:a"], "username": "me", "credential": CREDENTIAL}
    ]


def test_printed_server_shows_no_credential() -> None:
    (server,) = read_servers([{"urls": "turn:a", "username": "me", "credential": CREDENTIAL}])
    assert CREDENTIAL not in f"{server!r} {server}"


def test_only_a_relay_without_its_own_credential_needs_one() -> None:
    servers = read_servers(
        [
            {"urls": ["stun:a", "turns:a"]},
            {"urls": "stun:a"},
            {"urls": "turn:a", "username": "me", "credential": CREDENTIAL},
        ]
    )
    assert [server.needs_credential for server in servers] == [True, False, False]
