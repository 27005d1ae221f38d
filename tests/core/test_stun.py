"""STUN messages: the RFC's own examples, and what is not STUN."""

from __future__ import annotations

import pytest

from interview_peer.core import stun

TRANSACTION = bytes.fromhex("b7e7a701bc34d686fa87dfae")
# RFC 5769 sections 2.2 and 2.3, their XOR-MAPPED-ADDRESS alone.
IPV4 = "0101000c2112a442b7e7a701bc34d686fa87dfae002000080001a147e112a643"
IPV6 = "010100182112a442b7e7a701bc34d686fa87dfae002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9"


@pytest.mark.parametrize(
    ("message", "address"),
    [(IPV4, ("192.0.2.1", 32853)), (IPV6, ("2001:db8:1234:5678:11:2233:4455:6677", 32853))],
)
def test_a_mapped_address_is_read(message: str, address: stun.Address) -> None:
    answer = stun.read(bytes.fromhex(message))
    assert answer.is_success
    assert (answer.transaction, answer.mapped, answer.error) == (TRANSACTION, address, None)


def test_a_request_is_signed_as_the_rfc_shows() -> None:
    # RFC 5769 section 2.4 without its non-ASCII user name: the key of RFC 8489 section 9.2.2.
    credential = stun.Credential("user", "pass", "realm", b"nonce")
    assert credential.key.hex() == "8493fbc53ba582fb4c044c456bdc40eb"
    signed = stun.allocate(TRANSACTION, credential)
    answer = stun.read(signed)
    assert stun.length_of(signed[:20]) == len(signed)
    assert answer.attributes[0x0006] == b"user"
    assert len(answer.attributes[0x0008]) == 20


def test_a_refusal_tells_code_realm_and_nonce() -> None:
    attributes = bytes.fromhex("00090004000004010014000172000000001500026e6f0000")
    head = bytes.fromhex("01130018") + bytes.fromhex("2112a442") + TRANSACTION
    answer = stun.read(head + attributes)
    assert not answer.is_success
    assert (answer.error, answer.realm, answer.nonce) == (401, "r", b"no")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01\x01",
        bytes.fromhex(IPV4)[:-1],
        bytes.fromhex(IPV4) + b"\0",
        b"\x81" + bytes.fromhex(IPV4)[1:],
        bytes.fromhex(IPV4.replace("2112a442", "2112a443")),
        bytes.fromhex(IPV4.replace("00200008", "00200009")),
        bytes.fromhex("01010ffc") + bytes.fromhex(IPV4)[4:],
    ],
)
def test_what_is_no_whole_message_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"STUN|attribute"):
        stun.read(data)


@pytest.mark.parametrize("value", ["", "0001", "0003a147e112a643", "0002a147e112a643"])
def test_an_address_that_is_none_is_not_made_up(value: str) -> None:
    answer = stun.Answer(0x0101, TRANSACTION, {0x0020: bytes.fromhex(value)})
    assert answer.mapped is None
