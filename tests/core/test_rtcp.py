"""RTCP: what is counted, what is reported, and that any bytes can be read."""

from __future__ import annotations

import random
import struct
import time

import pytest
from aiortc.rtp import RtcpPacket, RtcpRrPacket, RtcpSdesPacket, RtcpSrPacket

from interview_peer.core import rtcp

SSRC = 0x1234ABCD
WALL = 1_786_900_000.25
FRAME = 960


def fill(reception: rtcp.Reception, sequences: list[int], start: float = 100.0) -> float:
    """Receive one packet per sequence number, 20 ms apart; the time after the last."""
    at = start
    for sequence in sequences:
        reception.received(SSRC, sequence & 0xFFFF, (sequence * FRAME) & 0xFFFFFFFF, 80, at)
        at += 0.02
    return at


def block_of(data: bytes | None) -> rtcp.ReportBlock:
    """A report block as our own parser reads it, inside a receiver report."""
    assert data is not None
    (block,) = rtcp.parse(struct.pack("!BBHI", 0x81, 201, 7, 1) + data).blocks
    return block


def compound(sending: rtcp.Sending, block: bytes | None, at: float = 50.0) -> list[object]:
    """Our compound packet as an independent parser reads it."""
    return list(RtcpPacket.parse(rtcp.compound(sending, block, "interview_peer", at, WALL)))


def test_sender_report_is_complete_as_another_parser_reads_it() -> None:
    sending = rtcp.Sending(SSRC, packets=7, octets=560, last_timestamp=0xFFFFFF00, last_at=49.5)
    reception = rtcp.Reception()
    end = fill(reception, [65534, 65535, 65536, 65538])
    reception.sender_report(rtcp.SenderReport(SSRC, 0xAABBCCDD, 0, 0, 0), end)
    report, description = compound(sending, reception.report(end + 0.5))
    assert isinstance(report, RtcpSrPacket)
    assert isinstance(description, RtcpSdesPacket)
    info = report.sender_info
    assert report.ssrc == SSRC
    assert info.ntp_timestamp == ((1_786_900_000 + 2_208_988_800) << 32) + (1 << 30)
    assert info.rtp_timestamp == (0xFFFFFF00 + 24_000) & 0xFFFFFFFF
    assert (info.packet_count, info.octet_count) == (7, 560)
    (block,) = report.reports
    assert block.ssrc == SSRC
    assert block.fraction_lost == 256 // 5
    assert block.packets_lost == 1
    assert block.highest_sequence == 0x10002
    assert (block.lsr, block.dlsr) == (0xAABBCCDD, 0x8000)
    (chunk,) = description.chunks
    assert chunk.ssrc == SSRC
    assert chunk.items == [(1, b"interview_peer")]


def test_before_anything_was_sent_a_receiver_report_goes_out() -> None:
    reception = rtcp.Reception()
    end = fill(reception, [1, 2])
    report, _ = compound(rtcp.Sending(SSRC + 1), reception.report(end))
    assert isinstance(report, RtcpRrPacket)
    assert report.ssrc == SSRC + 1
    assert [block.ssrc for block in report.reports] == [SSRC]


def test_before_anything_was_received_there_is_no_block() -> None:
    assert rtcp.Reception().report(1.0) is None
    report, _ = compound(rtcp.Sending(SSRC), None)
    assert isinstance(report, RtcpRrPacket)
    assert report.reports == []


@pytest.mark.parametrize("name", ["", "a", "ab", "abc", "abcd", "x" * 255])
def test_description_of_any_length_ends_on_a_word(name: str) -> None:
    data = rtcp.compound(rtcp.Sending(SSRC), None, name, 0.0, WALL)
    assert len(data) % 4 == 0
    packets = RtcpPacket.parse(data)
    assert isinstance(packets[1], RtcpSdesPacket)
    assert packets[1].chunks[0].items == [(1, name.encode())]


def test_loss_is_counted_per_report_and_in_total() -> None:
    reception = rtcp.Reception()
    at = fill(reception, list(range(100)))
    assert block_of(reception.report(at)).fraction_lost == 0
    at = fill(reception, [n for n in range(100, 200) if n % 4], at)
    second = block_of(reception.report(at))
    # One in four of the numbers 100 to 199 is missing.
    assert (second.fraction_lost, second.cumulative_lost) == (0.25, 25)
    at = fill(reception, list(range(200, 300)), at)
    third = block_of(reception.report(at))
    assert (third.fraction_lost, third.cumulative_lost) == (0, 25)


def test_report_without_new_packets_says_no_loss_in_its_interval() -> None:
    reception = rtcp.Reception()
    at = fill(reception, [0, 2])
    assert block_of(reception.report(at)).fraction_lost > 0
    assert block_of(reception.report(at + 1)).fraction_lost == 0


def test_duplicates_make_the_total_negative_and_the_fraction_zero() -> None:
    reception = rtcp.Reception()
    at = fill(reception, [1, 2, 2, 2, 3])
    block = block_of(reception.report(at))
    assert (block.cumulative_lost, block.fraction_lost) == (-2, 0)


def test_late_packet_repairs_the_total() -> None:
    reception = rtcp.Reception()
    fill(reception, [1, 3])
    assert reception.lost == 1
    fill(reception, [2])
    assert (reception.lost, reception.highest) == (0, 3)


def test_total_is_cut_to_its_24_bits_not_wrapped() -> None:
    reception = rtcp.Reception()
    at = fill(reception, [0])
    reception.highest = 1 << 24
    assert block_of(reception.report(at)).cumulative_lost == 0x7FFFFF
    reception.highest, reception.packets = 0, 1 << 24
    assert block_of(reception.report(at)).cumulative_lost == -0x800000


def test_sequence_wrap_extends_the_highest_number() -> None:
    reception = rtcp.Reception()
    fill(reception, list(range(65_530, 65_545)))
    assert reception.highest == 65_544
    assert (reception.expected, reception.lost) == (15, 0)


def test_whole_lost_interval_is_at_most_255_of_256() -> None:
    reception = rtcp.Reception()
    at = fill(reception, [0])
    reception.report(at)
    at = fill(reception, [30_000], at)
    assert block_of(reception.report(at, path_loss=1.0)).fraction_lost == 255 / 256


def test_loss_of_the_far_hop_is_carried_when_it_is_larger_than_our_own() -> None:
    def reported(sequences: list[int], path_loss: float) -> float:
        reception = rtcp.Reception()
        return block_of(reception.report(fill(reception, sequences), path_loss)).fraction_lost

    half = [0, 2, 4, 6, 7]
    assert reported([0, 1, 2, 3], 0.25) == 0.25
    assert reported(half, 0.25) == pytest.approx(3 / 8)
    assert reported(half, 0.5) == 0.5


def test_jitter_follows_the_rfcs_formula_on_an_example_worked_by_hand() -> None:
    reception = rtcp.Reception()
    # Sent every 960 units; arrived 0, 20, 50, 60 ms after the first: 0, 0, 480, 0 units late.
    for sequence, milliseconds in enumerate([0, 20, 50, 60]):
        reception.received(SSRC, sequence, sequence * FRAME, 80, 10 + milliseconds / 1000)
    # J = 0, then 480/16 = 30, then 30 + (480 - 30)/16 = 58.125.
    assert reception.jitter == pytest.approx(58.125, abs=0.01)
    assert block_of(reception.report(11.0)).jitter == 58


def test_steady_delay_is_no_jitter_and_a_pause_or_a_wrapped_clock_none_either() -> None:
    reception = rtcp.Reception()
    at = fill(reception, list(range(4_473_920, 4_473_930)))
    assert 4_473_930 * FRAME > 1 << 32 > 4_473_920 * FRAME
    assert reception.jitter == pytest.approx(0, abs=0.1)
    fill(reception, [4_473_930], at + 5.0)
    assert reception.jitter == pytest.approx(0, abs=0.1)


def test_new_stream_is_reported_from_its_own_start() -> None:
    reception = rtcp.Reception()
    at = fill(reception, [5, 9])
    reception.report(at)
    reception.sender_report(rtcp.SenderReport(SSRC, 0xABCD, 0, 0, 0), at)
    reception.received(SSRC + 1, 700, 0, 50, at)
    assert reception.ssrc == SSRC + 1
    block = block_of(reception.report(at + 1))
    assert (block.cumulative_lost, block.fraction_lost) == (0, 0)
    assert (block.last_sr, block.delay_since_last_sr) == (0, 0), "those are the old stream's"


def test_totals_go_on_over_a_new_stream() -> None:
    reception = rtcp.Reception()
    at = fill(reception, [5, 9])
    for sequence in (700, 702):
        reception.received(SSRC + 1, sequence, sequence * FRAME, 50, at)
    assert (reception.packets, reception.octets) == (4, 2 * 80 + 2 * 50)
    assert (reception.expected, reception.lost) == (8, 4)
    block = block_of(reception.report(at + 1))
    assert (block.cumulative_lost, block.fraction_lost) == (1, 85 / 256), "the new stream's alone"
    # A third stream, before which nothing was reported of the second's last packet.
    reception.received(SSRC + 2, 1, 0, 50, at)
    assert (reception.packets, reception.lost) == (5, 4)
    assert block_of(reception.report(at + 2)).cumulative_lost == 0


def test_round_trip_is_what_is_left_when_the_far_ends_delay_is_taken_off() -> None:
    sent, heard = WALL, WALL + 0.080
    sending = rtcp.Sending(SSRC, packets=1, last_at=50.0)
    (report,) = rtcp.parse(rtcp.compound(sending, None, "us", 50.0, sent)).sender_reports
    reception = rtcp.Reception()
    at = fill(reception, [1])
    reception.sender_report(report, at)
    # The far end holds the report for 50 ms, and 80 ms after sending its echo is here.
    block = block_of(reception.report(at + 0.050))
    sending.reported(block, rtcp.ntp_middle(heard))
    assert sending.round_trip == pytest.approx(0.030, abs=0.0001)
    assert sending.heard is block


def test_round_trip_survives_the_wrap_of_the_short_clock() -> None:
    sending = rtcp.Sending(SSRC)
    sending.reported(rtcp.ReportBlock(SSRC, 0, 0, 0, 0xFFFFFFF0, 0), 0x00008000 - 0x10)
    assert sending.round_trip == pytest.approx(0.5, abs=0.001)


def test_report_that_echoes_nothing_or_the_future_leaves_the_round_trip() -> None:
    sending = rtcp.Sending(SSRC, round_trip=0.02)
    sending.reported(rtcp.ReportBlock(SSRC, 0, 0, 0, 0, 0), 5 << 16)
    sending.reported(rtcp.ReportBlock(SSRC, 0, 0, 0, 9 << 16, 0), 5 << 16)
    assert sending.round_trip == 0.02


def test_goodbye_and_unknown_packets_are_read_past() -> None:
    sending = rtcp.Sending(SSRC, packets=1)
    extended = struct.pack("!BBHII", 0x80, 207, 2, 1, 0)
    goodbye = struct.pack("!BBHII", 0x82, 203, 2, 11, 22)
    ours = rtcp.compound(sending, None, "us", 0.0, WALL)
    received = rtcp.parse(extended + ours + goodbye)
    assert [report.ssrc for report in received.sender_reports] == [SSRC]
    assert received.goodbyes == (11, 22)


def test_block_count_beyond_the_packet_yields_the_blocks_that_are_there() -> None:
    reception = rtcp.Reception()
    block = reception.report(fill(reception, [1]))
    assert block is not None
    data = struct.pack("!BBHI", 0x9F, 201, 7, 1) + block
    assert len(rtcp.parse(data).blocks) == 1


def test_every_truncation_of_a_report_is_read_without_an_error() -> None:
    reception = rtcp.Reception()
    block = reception.report(fill(reception, [1, 2, 9]))
    whole = rtcp.compound(rtcp.Sending(SSRC, packets=3), block, "us", 0.0, WALL)
    full = rtcp.parse(whole)
    assert full.sender_reports and full.blocks
    for size in range(len(whole)):
        part = rtcp.parse(whole[:size])
        assert part.sender_reports in ((), full.sender_reports)
        assert part.blocks in ((), full.blocks)


def test_random_bytes_never_raise() -> None:
    chance = random.Random(20)
    reception = rtcp.Reception()
    block = reception.report(fill(reception, [1, 2, 9]))
    whole = rtcp.compound(rtcp.Sending(SSRC, packets=3), block, "us", 0.0, WALL)
    deadline = time.monotonic() + 2.0
    rounds = 0
    while rounds < 20_000 and time.monotonic() < deadline:
        rounds += 1
        data = bytearray(whole) if chance.random() < 0.7 else bytearray(chance.randbytes(60))
        for _ in range(chance.randrange(6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        received = rtcp.parse(bytes(data[: chance.randrange(len(data) + 1)]))
        for found in received.blocks:
            assert 0 <= found.fraction_lost < 1
            assert -0x800000 <= found.cumulative_lost <= 0x7FFFFF
    assert rounds > 1000
