"""Notices on their way: retries, order, isolation, what answers lead to."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import delete, select, text, update
from standardwebhooks import Webhook

from interview_peer.core import backoff
from interview_peer.notices import signing
from interview_peer.notices.ledger import SECOND
from interview_peer.notices.outbox import erase
from interview_peer.notices.types import (
    InterviewCreated,
    InterviewDeleted,
    InterviewEnded,
    InterviewFailed,
    InterviewStarted,
    TranscriptCompleted,
    TranscriptTurn,
)
from interview_peer.notices.worker import Limits, _Destination
from interview_peer.state.database import Database
from interview_peer.state.schema import deliveries, endpoints, from_us, notices

from .office import DAY, HOUR, MINUTE, SECRET, ManualClock, Office, working
from .receiver import Got, Receiver, never, ok, status


async def test_a_notice_arrives_signed(database: Database, receiver: Receiver) -> None:
    office = Office(database)
    interview = await office.interview()
    notice_id = await office.tell(interview)
    async with working(database, receiver.url) as worker:
        assert await worker.drain() is None
    (got,) = receiver.got
    assert got.id == notice_id
    Webhook(SECRET).verify(got.body, got.headers)
    assert got.notice["data"] == {"interview_id": interview, "sequence": 1, "reason": "lost"}
    assert got.headers["Content-Type"] == "application/json"
    assert await office.states() == {"delivered": 1}


async def test_nothing_is_sent_of_what_was_rolled_back(
    database: Database, receiver: Receiver
) -> None:
    office = Office(database)
    interview = await office.interview()

    async def write_and_break() -> None:
        from interview_peer.notices.types import InterviewReconnecting, Notice

        async with database.begin() as tx:
            await office.outbox.write(tx, Notice(interview, InterviewReconnecting("x")), 1)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await write_and_break()
    await office.tell(interview)
    async with working(database, receiver.url) as worker:
        await worker.drain()
    assert [got.sequence for got in receiver.got] == [1]


async def test_a_receiver_that_was_down_for_two_days_gets_everything(
    database: Database, receiver: Receiver
) -> None:
    clock = ManualClock()
    office = Office(database, clock)
    began = clock.now
    interviews = [await office.interview() for _ in range(4)]
    ids = await office.tell_many(interviews, 5)
    receiver.answer = status(500)
    chances = random.Random(4)
    late: list[str] = []
    async with working(database, receiver.url, now=clock) as worker:
        worker._ledger._chance = chances.random
        # Two days without an answer that counts; one more notice comes while it is down.
        while (due := await worker.drain()) is not None and due < began + 2 * DAY:
            clock.now = max(due, clock.now)
            if not late and clock.now > began + DAY:
                late.append(await office.tell(interviews[0]))
        tried = len(receiver.got)
        assert await office.states() == {"due": 21}
        clock.now = began + 2 * DAY
        receiver.answer = ok
        while (due := await worker.drain()) is not None:
            clock.now = due
    assert await office.states() == {"delivered": 21}
    delivered = receiver.got[tried:]
    assert {got.id for got in delivered} == {*ids, *late}
    # All within the schedule's three days, jitter included.
    assert clock.now - began < 4 * DAY
    for one in ids:
        assert (await office.delivery(one)).attempts <= backoff.MAX_ATTEMPTS


async def test_a_notice_that_nobody_takes_is_tried_ten_times_and_kept(
    database: Database, receiver: Receiver
) -> None:
    clock = ManualClock()
    office = Office(database, clock)
    notice_id = await office.tell(await office.interview())
    receiver.answer = status(500)
    began = clock.now
    async with working(database, receiver.url, now=clock) as worker:
        while (due := await worker.drain()) is not None:
            clock.now = due
    row = await office.delivery(notice_id)
    assert (row.state, row.attempts, row.last_status) == ("dead", 10, 500)
    assert receiver.ids == [notice_id] * 10
    at = [(one.at - began) / SECOND for one in await office.attempts()]
    pauses = [after - before for before, after in itertools.pairwise(at)]
    assert pauses == pytest.approx(backoff.DELAYS)
    assert len({got.headers["webhook-timestamp"] for got in receiver.got}) == 10
    assert len({got.body for got in receiver.got}) == 1


# -- order


async def test_order_holds_within_each_interview(database: Database, receiver: Receiver) -> None:
    office = Office(database)
    interviews = [await office.interview() for _ in range(6)]
    await office.tell_many(interviews, 12)
    pauses = random.Random(7)

    async def answer(got: Got) -> web.StreamResponse:
        await asyncio.sleep(pauses.random() / 100)
        return web.Response(status=200)

    receiver.answer = answer
    async with working(database, receiver.url) as worker:
        assert await worker.drain() is None
    assert receiver.most_open > 1
    order: dict[str, list[int]] = defaultdict(list)
    for got in receiver.got:
        order[got.interview].append(got.sequence)
    assert dict(order) == {one: list(range(1, 13)) for one in interviews}


async def test_later_notices_wait_five_minutes_behind_a_failing_one_then_overtake(
    database: Database, receiver: Receiver
) -> None:
    clock = ManualClock()
    office = Office(database, clock)
    interview = await office.interview()
    first, second = [await office.tell(interview) for _ in range(2)]
    began = clock.now

    async def answer(got: Got) -> web.StreamResponse:
        return web.Response(status=500 if got.id == first else 200)

    receiver.answer = answer
    seen: list[tuple[str, float]] = []
    async with working(database, receiver.url, now=clock) as worker:
        while (due := await worker.drain()) is not None and clock.now < began + HOUR:
            seen += [(got.id, (clock.now - began) / MINUTE) for got in receiver.got[len(seen) :]]
            clock.now = due
    arrivals = [at for who, at in seen if who == second]
    assert arrivals == [pytest.approx(5.0, abs=0.01)]
    assert [at for who, at in seen if who == first][0] == 0.0


async def test_a_notice_behind_a_failing_one_goes_out_as_soon_as_that_one_did(
    database: Database, receiver: Receiver
) -> None:
    clock = ManualClock()
    office = Office(database, clock)
    interview = await office.interview()
    ids = await office.tell_many([interview], 3)
    receiver.answer = status(500)
    async with working(database, receiver.url, now=clock) as worker:
        due = await worker.drain()
        assert receiver.ids == ids[:1]
        receiver.answer = ok
        assert due is not None
        clock.now = due
        assert await worker.drain() is None
    assert receiver.ids == [ids[0], *ids]


async def test_a_chain_of_waiting_notices_waits_five_minutes_in_all(
    database: Database, receiver: Receiver
) -> None:
    clock = ManualClock()
    office = Office(database, clock)
    interview = await office.interview()
    ids = await office.tell_many([interview], 4)
    receiver.answer = status(500)
    began = clock.now
    first: dict[str, int] = {}
    async with working(database, receiver.url, now=clock) as worker:
        while (due := await worker.drain()) is not None and len(first) < 4:
            for got in receiver.got:
                first.setdefault(got.id, clock.now - began)
            clock.now = due
    assert [first[one] / MINUTE <= 5.2 for one in ids] == [True] * 4


async def test_a_failing_interview_does_not_hold_another(
    database: Database, receiver: Receiver
) -> None:
    office = Office(database)
    bad, good = await office.interview(), await office.interview()
    await office.tell_many([bad, good], 2)

    async def answer(got: Got) -> web.StreamResponse:
        return web.Response(status=500 if got.interview == bad else 200)

    receiver.answer = answer
    async with working(database, receiver.url) as worker:
        await worker.drain()
    assert [got.sequence for got in receiver.got if got.interview == good] == [1, 2]
    assert await office.states() == {"delivered": 2, "due": 2}


# -- what answers mean


async def test_retry_after_is_obeyed_for_the_whole_receiver(
    database: Database, receiver: Receiver
) -> None:
    clock = ManualClock()
    office = Office(database, clock)
    first = await office.tell(await office.interview())
    receiver.answer = status(429, **{"Retry-After": "1000"})
    began = clock.now
    async with working(database, receiver.url, now=clock) as worker:
        assert await worker.drain() == began + 1000 * SECOND
        other = await office.tell(await office.interview())
        clock.now += 999 * SECOND
        assert await worker.drain() == began + 1000 * SECOND
        assert receiver.ids == [first]
        receiver.answer = ok
        clock.now += SECOND
        assert await worker.drain() is None
    assert sorted(receiver.ids[1:]) == sorted([first, other])


async def test_retry_after_as_a_date_is_obeyed(database: Database, receiver: Receiver) -> None:
    clock = ManualClock()
    office = Office(database, clock)
    await office.tell(await office.interview())
    later = from_us(clock.now + 2 * HOUR).strftime("%a, %d %b %Y %H:%M:%S GMT")
    receiver.answer = status(503, **{"Retry-After": later})
    async with working(database, receiver.url, now=clock) as worker:
        assert await worker.drain() == clock.now + 2 * HOUR


async def test_410_switches_an_endpoint_off_and_keeps_what_waits_for_it(
    database: Database, receiver: Receiver
) -> None:
    office = Office(database, has_default=False)
    endpoint = await office.endpoint(receiver.url)
    interview = await office.interview()
    ids = await office.tell_many([interview], 3)
    receiver.answer = status(410)
    async with working(database) as worker:
        assert await worker.drain() is None
        assert receiver.ids == ids[:1]
        await office.tell(interview)
        assert await worker.drain() is None
    assert len(receiver.got) == 1
    assert await office.states() == {"dead": 1, "paused": 3}
    async with database.begin() as tx:
        row = (await tx.execute(select(endpoints).where(endpoints.c.id == endpoint))).one()
    assert (row.active, row.disabled_reason) == (False, "gone")


async def test_410_is_logged_and_counted_by_the_sort_of_receiver_without_its_address(
    database: Database, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    office = Office(database)
    callback = {"url": receiver.url + "/callback", "secret": SECRET, "events": None}
    await office.endpoint(receiver.url + "/kept")
    interview = await office.interview(callback)
    await office.tell_many([interview], 2)
    receiver.answer = status(410)
    async with working(database, receiver.url) as worker:
        assert await worker.drain() is None
    assert worker.gone == {"default": 1, "callback": 1, "endpoint": 1}
    told = [one for one in caplog.records if "answered 410" in one.getMessage()]
    assert sorted(one.__dict__["receiver"] for one in told) == ["callback", "default"]
    assert {one.__dict__["session"] for one in told} == {interview}
    assert "127.0.0.1" not in str([one.__dict__ for one in told])


async def test_410_from_a_callback_ends_what_that_interview_had_for_it(
    database: Database, receiver: Receiver
) -> None:
    office = Office(database, has_default=False)
    callback = {"url": receiver.url, "secret": SECRET, "events": None}
    one, other = await office.interview(callback), await office.interview(callback)
    await office.tell_many([one, other], 2)

    async def answer(got: Got) -> web.StreamResponse:
        return web.Response(status=410 if got.interview == one else 200)

    receiver.answer = answer
    async with working(database) as worker:
        assert await worker.drain() is None
    assert await office.states() == {"dead": 2, "delivered": 2}
    assert [got.sequence for got in receiver.got if got.interview == other] == [1, 2]


async def test_after_410_what_comes_later_of_that_interview_is_kept_and_not_sent(
    database: Database, receiver: Receiver
) -> None:
    office = Office(database)
    callback = {"url": receiver.url + "/own", "secret": SECRET, "events": None}
    one, other = await office.interview(callback), await office.interview(callback)

    async def answer(got: Got) -> web.StreamResponse:
        gone = got.interview == one and got.path.endswith("/own")
        return web.Response(status=410 if gone else 200)

    receiver.answer = answer
    async with working(database, receiver.url + "/default") as worker:
        for _ in range(3):
            await office.tell_many([one, other], 1)
            assert await worker.drain() is None
    sent = Counter((got.interview, got.path.rpartition("/")[2]) for got in receiver.got)
    assert sent == {(one, "own"): 1, (one, "default"): 3, (other, "own"): 3, (other, "default"): 3}
    assert await office.states() == {"dead": 3, "delivered": 9}


async def test_a_receiver_that_does_not_answer_is_left_after_the_time_limit(
    database: Database, receiver: Receiver
) -> None:
    office = Office(database)
    notice_id = await office.tell(await office.interview())
    receiver.answer = never
    async with working(database, receiver.url, seconds=0.2) as worker:
        await worker.drain()
    row = await office.delivery(notice_id)
    assert (row.state, row.last_status, row.last_error) == ("due", None, "timeout")


async def test_an_endpoint_that_took_nothing_for_five_days_is_switched_off(
    database: Database, receiver: Receiver
) -> None:
    clock = ManualClock()
    office = Office(database, clock, has_default=False)
    endpoint = await office.endpoint(receiver.url)
    receiver.answer = status(500)
    began = clock.now
    async with working(database, now=clock) as worker:
        for day in range(10):
            clock.now = max(clock.now, began + day * DAY)
            await office.tell(await office.interview())
            while (due := await worker.drain()) is not None and due < began + (day + 1) * DAY:
                clock.now = due
    async with database.begin() as tx:
        row = (await tx.execute(select(endpoints).where(endpoints.c.id == endpoint))).one()
    assert (row.active, row.disabled_reason) == (False, "failing")
    assert clock.now - began > 5 * DAY
    assert "due" not in await office.states()


# -- isolation


async def test_a_receiver_that_hangs_slows_only_itself(
    database: Database, receiver: Receiver
) -> None:
    office = Office(database, has_default=False)
    hanging = [await Receiver(answer=never).start() for _ in range(12)]
    try:
        for one in hanging:
            await office.endpoint(one.url)
        await office.endpoint(receiver.url)
        async with working(database, seconds=20) as worker:
            worker.start()
            ids = await office.tell_many([await office.interview() for _ in range(5)], 4)
            worker.wake()
            await receiver.has(len(ids), within=15)
            assert sum(one.open_now for one in hanging) >= 12
            assert max(one.most_open for one in hanging) <= worker.limits.per_destination
    finally:
        for one in hanging:
            await one.close()


async def test_few_requests_at_once_reach_one_receiver(
    database: Database, receiver: Receiver
) -> None:
    office = Office(database)
    await office.tell_many([await office.interview() for _ in range(30)], 1)

    async def answer(got: Got) -> web.StreamResponse:
        await asyncio.sleep(0.01)
        return web.Response()

    receiver.answer = answer
    async with working(database, receiver.url) as worker:
        await worker.drain()
    assert len(receiver.got) == 30
    assert receiver.most_open == worker.limits.per_destination


async def test_a_receiver_that_is_down_is_asked_less_and_less(
    database: Database, receiver: Receiver
) -> None:
    clock = ManualClock()
    office = Office(database, clock)
    await office.tell_many([await office.interview() for _ in range(200)], 1)
    receiver.answer = status(500)
    began = clock.now
    async with working(database, receiver.url, now=clock) as worker:
        while (due := await worker.drain()) is not None and due < began + 10 * MINUTE:
            clock.now = due
    assert len(receiver.got) < 30


# -- where to


async def test_endpoints_get_the_types_they_named(database: Database, receiver: Receiver) -> None:
    office = Office(database, has_default=False)
    turn = TranscriptTurn(0, "item", "candidate", "Hello.", "complete")
    failed = InterviewFailed("model", from_us(1))
    for path, events in {
        "most": None,
        "all": ["*"],
        "turns": ["transcript.turn"],
        "none": ["interview.ended"],
    }.items():
        await office.endpoint(f"{receiver.url}/{path}", events=events)
    interview = await office.interview()
    await office.tell(interview, failed)
    await office.tell(interview, turn)
    async with working(database) as worker:
        await worker.drain()
    got = sorted((got.path, got.notice["type"]) for got in receiver.got)
    assert got == [
        ("/hook/all", "interview.failed"),
        ("/hook/all", "transcript.turn"),
        ("/hook/most", "interview.failed"),
        ("/hook/turns", "transcript.turn"),
    ]


async def test_settings_callback_and_endpoint_each_get_a_notice(
    database: Database, receiver: Receiver
) -> None:
    office = Office(database)
    own = signing.new_secret()
    kept = signing.new_secret()
    await office.endpoint(f"{receiver.url}/kept", secrets=[{"secret": kept, "until": None}])
    interview = await office.interview({"url": f"{receiver.url}/own", "secret": own})
    notice_id = await office.tell(interview)
    async with working(database, f"{receiver.url}/default") as worker:
        await worker.drain()
    assert set(receiver.ids) == {notice_id}
    for path, secret in {"default": SECRET, "own": own, "kept": kept}.items():
        (got,) = [got for got in receiver.got if got.path == f"/hook/{path}"]
        Webhook(secret).verify(got.body, got.headers)


async def test_turns_nobody_asked_for_are_not_kept(database: Database) -> None:
    office = Office(database)
    interview = await office.interview()
    await office.tell(interview, TranscriptTurn(0, "item", "candidate", "Hello.", "complete"))
    async with database.begin() as tx:
        assert (await tx.execute(select(notices.c.id))).all() == []


async def test_while_a_secret_is_replaced_both_sign(database: Database, receiver: Receiver) -> None:
    clock = ManualClock()
    old, new, gone = (signing.new_secret() for _ in range(3))
    office = Office(database, has_default=False)
    secrets = [
        {"secret": new, "until": None},
        {"secret": old, "until": 1 << 60},
        {"secret": gone, "until": clock.now},
    ]
    await office.endpoint(receiver.url, secrets=secrets)
    await office.tell(await office.interview())
    async with working(database) as worker:
        await worker.drain()
    (got,) = receiver.got
    assert len(got.headers["webhook-signature"].split(" ")) == 2
    for secret in (old, new):
        Webhook(secret).verify(got.body, got.headers)
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(gone).verify(got.body, got.headers)


# -- erasing


async def test_what_was_said_is_not_sent_after_it_was_erased(
    database: Database, receiver: Receiver
) -> None:
    office = Office(database)
    interview = await office.interview()
    await office.tell(interview)
    await office.tell(interview, TranscriptCompleted(1, {"turns": [{"text": "secret words"}]}))
    async with database.begin() as tx:
        assert await erase(tx, interview) == 1
    await office.tell(interview, InterviewDeleted())
    async with working(database, receiver.url) as worker:
        assert await worker.drain() is None
    told = [(got.sequence, got.notice["type"]) for got in receiver.got]
    assert told == [(1, "interview.reconnecting"), (3, "interview.deleted")]
    assert all(b"secret words" not in got.body for got in receiver.got)


async def test_what_is_known_of_a_candidate_is_not_sent_after_it_was_erased(
    database: Database, receiver: Receiver
) -> None:
    office = Office(database)
    interview = await office.interview()
    mine: dict[str, Any] = {"candidate_reference": "mark-1", "metadata": {"name": "mark-2"}}
    created = InterviewCreated("api", persona="engineer", **mine)
    ended = InterviewEnded("idle", datetime.now(UTC), seconds=2.5, usage={"n": 1}, **mine)
    failed = InterviewFailed("upstream", datetime.now(UTC), **mine)
    for fact in (created, InterviewStarted(datetime.now(UTC), **mine), ended, failed):
        await office.tell(interview, fact)
    other = await office.interview()
    await office.tell(other, created)
    async with database.begin() as tx:
        assert await erase(tx, interview) == 0
    async with working(database, receiver.url) as worker:
        assert await worker.drain() is None
    for got in receiver.got:
        assert (b"mark-" in got.body) == (got.interview == other)
    (told,) = [one.notice for one in receiver.got if one.notice["type"] == "interview.ended"]
    assert (told["data"]["seconds"], told["data"]["usage"]) == (2.5, {"n": 1})
    assert len(receiver.got) == 5


async def test_what_was_claimed_before_an_erasure_is_sent_without_what_was_erased(
    database: Database, receiver: Receiver
) -> None:
    office = Office(database)
    interview = await office.interview()
    await office.tell(interview)
    for _ in range(2):
        await office.tell(interview, InterviewCreated("api", candidate_reference="mark"))
    await office.tell(interview, TranscriptCompleted(1, {"turns": [{"text": "mark"}]}))

    async def answer(got: Got) -> web.StreamResponse:
        if len(receiver.got) == 1:
            async with database.begin() as tx:
                await erase(tx, interview)
        return web.Response()

    receiver.answer = answer
    # Quick before, so that several are claimed in advance.
    limits = Limits(lease_seconds=10, close_seconds=0.2, fresh_seconds=0, ahead=8)
    async with working(database, receiver.url, limits=limits) as worker:
        worker._places["default"] = _Destination(last_ms=1)
        assert await worker.drain() is None
    assert [got.sequence for got in receiver.got] == [1, 2, 3]
    assert all(b"mark" not in got.body for got in receiver.got)


async def test_a_delivery_erased_while_it_is_on_its_way_disturbs_nothing(
    database: Database, receiver: Receiver
) -> None:
    office = Office(database)
    await office.tell_many([await office.interview() for _ in range(2)], 1)

    async def answer(got: Got) -> web.StreamResponse:
        if len(receiver.got) == 1:
            async with database.begin() as tx:
                await tx.execute(delete(notices).where(notices.c.id == got.id))
        return web.Response()

    receiver.answer = answer
    async with working(database, receiver.url) as worker:
        assert await worker.drain() is None
    assert await office.states() == {"delivered": 1}
    assert len(await office.attempts()) == 1


# -- running


async def test_a_running_worker_delivers_what_is_written_and_stops_cleanly(
    database: Database, receiver: Receiver
) -> None:
    office = Office(database)
    async with working(database, receiver.url) as worker:
        worker.start()
        interview = await office.interview()
        for number in range(1, 6):
            await office.tell(interview)
            worker.wake()
            await receiver.has(number)
    assert [got.sequence for got in receiver.got] == [1, 2, 3, 4, 5]
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("notices")]
    assert await office.states() == {"delivered": 5}


async def test_closing_gives_back_what_was_not_sent(database: Database, receiver: Receiver) -> None:
    office = Office(database)
    await office.tell_many([await office.interview() for _ in range(9)], 1)
    receiver.answer = never
    async with working(database, receiver.url, seconds=30) as worker:
        worker.start()
        await receiver.has(1)
    receiver.answer = ok
    async with database.begin() as tx:
        leased = await tx.execute(
            select(deliveries.c.id).where(deliveries.c.lease_owner.is_not(None))
        )
        assert leased.all() == []
    async with working(database, receiver.url) as worker:
        assert await worker.drain() is None
    assert await office.states() == {"delivered": 9}


async def test_two_workers_never_send_one_notice_twice(
    postgres_url: str,
    receiver: Receiver,
    open_database: Callable[[str], Awaitable[Database]],
) -> None:
    first, second = await open_database(postgres_url), await open_database(postgres_url)
    office = Office(first)
    interviews = [await office.interview() for _ in range(40)]
    ids = await office.tell_many(interviews, 10)

    async def answer(got: Got) -> web.StreamResponse:
        await asyncio.sleep(0)
        return web.Response()

    receiver.answer = answer
    async with working(first, receiver.url) as one, working(second, receiver.url) as two:
        one.start()
        two.start()
        await office.come_to({"delivered": len(ids)}, within=40)
        assert one.counts["delivered"] > 0
        assert two.counts["delivered"] > 0
    assert receiver.twice_at_once == []
    assert sorted(receiver.ids) == sorted(ids)
    order: dict[str, list[int]] = defaultdict(list)
    for got in receiver.got:
        order[got.interview].append(got.sequence)
    assert all(sequence == list(range(1, 11)) for sequence in order.values())


async def test_a_lease_that_ran_out_is_taken_by_another_worker(
    database: Database, receiver: Receiver
) -> None:
    clock = ManualClock()
    office = Office(database, clock)
    notice_id = await office.tell(await office.interview())
    async with database.begin() as tx:
        await tx.execute(
            update(deliveries).values(
                lease_owner="dead", lease_until=clock.now + MINUTE, next_at=clock.now + MINUTE
            )
        )
    async with working(database, receiver.url, now=clock) as worker:
        assert await worker.drain() == clock.now + MINUTE
        assert receiver.got == []
        clock.now += MINUTE
        await worker.drain()
    assert receiver.ids == [notice_id]


async def test_a_database_that_was_away_loses_no_outcome(
    database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from interview_peer.errors import StateUnavailable

    office = Office(database)
    await office.tell(await office.interview())
    limits = Limits(lease_seconds=10, unavailable_seconds=0.01, close_seconds=0.2)
    failures = 3
    async with working(database, receiver.url, limits=limits) as worker:
        settle = worker._ledger.settle

        async def sometimes(*arguments: object) -> None:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise StateUnavailable
            await settle(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(worker._ledger, "settle", sometimes)
        worker.start()
        await office.come_to({"delivered": 1})
    assert failures < 0
    assert len(receiver.got) == 1


async def test_a_backlog_is_looked_through_by_index_alone(database: Database) -> None:
    from interview_peer.notices import ledger

    explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
    async with database.begin() as tx:
        if not database.is_sqlite:
            await tx.execute(text("SET LOCAL enable_seqscan = off"))
        plan = await tx.execute(text(explain + str(ledger._DESTINATIONS)))
        lines = [str(row) for row in plan]
    assert not any("SCAN deliveries" in line or "Seq Scan" in line for line in lines), lines
