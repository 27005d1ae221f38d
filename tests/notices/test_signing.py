"""Signatures, verified by the public library."""

from __future__ import annotations

import base64
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from interview_peer.notices import signing
from interview_peer.notices.signing import BadSecret

BODY = '{"text":"Grüße, 你好"}'.encode()


def test_the_public_library_takes_our_signatures() -> None:
    secret = signing.new_secret()
    headers = signing.headers("msg_1", BODY, [secret], int(time.time()))
    assert Webhook(secret).verify(BODY, headers) == {"text": "Grüße, 你好"}


def test_with_two_secrets_each_holder_can_verify() -> None:
    old, new = signing.new_secret(), signing.new_secret()
    headers = signing.headers("msg_1", BODY, [new, old], int(time.time()))
    assert len(headers["webhook-signature"].split(" ")) == 2
    for secret in (old, new):
        Webhook(secret).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(signing.new_secret()).verify(BODY, headers)


@pytest.mark.parametrize("part", ["webhook-id", "webhook-timestamp", "webhook-signature", "body"])
def test_whatever_is_changed_breaks_the_signature(part: str) -> None:
    secret = signing.new_secret()
    now = int(time.time())
    headers = signing.headers("msg_1", BODY, [secret], now)
    other = signing.headers("msg_2", BODY + b" ", [secret], now + 1)
    body = BODY + b" " if part == "body" else BODY
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, headers if part == "body" else {**headers, part: other[part]})


def test_the_same_as_the_public_librarys_own_signature() -> None:
    from datetime import UTC, datetime

    secret = signing.new_secret()
    at = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
    theirs = Webhook(secret).sign("msg_1", at, BODY.decode())
    ours = signing.headers("msg_1", BODY, [secret], int(at.timestamp()))
    assert ours["webhook-signature"] == theirs


def test_new_secrets_differ_and_hold_32_bytes() -> None:
    secrets = {signing.new_secret() for _ in range(20)}
    assert len(secrets) == 20
    assert {len(signing.key_of(secret)) for secret in secrets} == {32}


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "whsec_!!!!",
        "whsec_ü",
        "whsec_" + base64.b64encode(b"x" * 23).decode(),
        "whsec_" + base64.b64encode(b"x" * 65).decode(),
        base64.b64encode(b"x" * 32).decode(),
        "whsk_" + base64.b64encode(b"x" * 32).decode(),
    ],
)
def test_what_is_no_secret_is_refused_without_repeating_it(secret: str) -> None:
    with pytest.raises(BadSecret) as refused:
        signing.key_of(secret)
    assert secret.removeprefix("whsec_") in ("", "!!!!") or secret not in str(refused.value)
