"""What comes of an interview's limits: who is told, and how it ends."""

from __future__ import annotations

import pytest

from interview_peer import logs
from interview_peer.core.lifecycle import Reason
from interview_peer.core.limits import GOODBYES, Warned
from interview_peer.session import control as control_module
from interview_peer.session.farewell import Farewell
from interview_peer.session.limit_watch import LimitWatch
from interview_peer.tasks import Tasks

from .scripted_service import Service


class Watched:
    """A limit watch, and what it asked for."""

    def __init__(self, max_seconds: float | None, max_tokens: int | None) -> None:
        self.service = Service()
        self.tasks = Tasks("one")
        self.asked: list[object] = []
        log = logs.get(__name__)
        self.farewell = Farewell(self.service.control, self.tasks, self.asked.append, log)
        self.watch = LimitWatch(
            max_seconds,
            max_tokens,
            self.service.control,
            self.farewell,
            self.tasks,
            log,
            warn=self.asked.append,
            part=lambda reason, seconds, words: self.asked.append((reason, seconds, words)),
            end=self.asked.append,
        )

    def look(
        self, lasted: float, own: float | None = None, left: float | None = None, used: int = 0
    ) -> list[object]:
        """What a look asks for."""
        self.asked.clear()
        self.watch.look(lasted, own_seconds=own, model_left=left, used=used)
        return list(self.asked)


@pytest.mark.parametrize(("most", "own"), [(100.0, None), (None, 100.0), (100.0, 200.0)])
async def test_the_shortest_time_is_warned_of_then_ends_politely_then_at_once(
    most: float | None, own: float | None
) -> None:
    one = Watched(most, None)
    assert one.look(70, own) == []
    assert one.look(85, own) == [Warned(Reason.TIME_LIMIT, 15)]
    await one.tasks.drain(5)
    (event,) = one.service.sent
    assert "About 15 seconds" in event["item"]["content"][0]["text"]
    assert one.look(86, own) == []
    assert one.look(95, own) == [(Reason.TIME_LIMIT, 5.0, GOODBYES[Reason.TIME_LIMIT])]
    assert one.look(100, own) == [Reason.TIME_LIMIT]
    assert len(one.service.sent) == 1


async def test_whoever_says_goodbye_already_is_not_warned_and_keeps_the_reason() -> None:
    one = Watched(100.0, None)
    one.farewell.begin(Reason.OPERATOR_REQUEST, 3600, instruction="Goodbye.")
    assert one.look(85) == []
    assert one.look(100) == [Reason.OPERATOR_REQUEST]
    await one.tasks.drain(0)


async def test_limits_that_are_not_known_ask_for_nothing() -> None:
    one = Watched(None, None)
    assert one.look(10_000_000, used=10_000_000) == []
    assert one.look(3000, left=1) == [Reason.MODEL_EXPIRED]
    one.watch.max_tokens = 100
    assert one.look(3000, used=100)[0] == (
        Reason.USAGE_LIMIT,
        20.0,
        GOODBYES[Reason.USAGE_LIMIT],
    )


async def test_a_model_that_cannot_be_warned_is_no_fault(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(control_module, "ANSWER_SECONDS", 0.01)
    caplog.set_level("INFO")
    one = Watched(100.0, None)
    one.service.mute.add("conversation.item.create")
    assert one.look(85) == [Warned(Reason.TIME_LIMIT, 15)]
    await one.tasks.drain(5)
    assert "the model was not warned" in caplog.messages
