"""What the server itself says to the model: instructions, words to be spoken, the goodbye.

Each request waits for the service's word that it was taken, or for its refusal, and never longer
than its time. Requests for something to be said go one after the other, each when nobody speaks.
Not responsible for who may ask (``web``), nor for when an interview ends (``session.interview``).
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import secrets
from collections.abc import Callable, Iterator
from typing import Final

from ..core.floor import Ending, Floor
from ..core.realtime import (
    DICTATED,
    TAG,
    ItemAdded,
    ItemDone,
    ModelError,
    ModelEvent,
    PlayoutStarted,
    ReplyStarted,
)
from ..errors import (
    InterviewNotLive,
    ModelRefused,
    SessionEnded,
    TooMuchToSay,
    UpstreamTimeout,
)
from ..types import ItemId, Json, ResponseId

ANSWER_SECONDS: Final = 5.0
"""How long the service may take to answer one event."""

QUIET_SECONDS: Final = 60.0
"""How long words wait for their moment. A reply whose end is never told must not block for ever."""

CLEARED_SECONDS: Final = 2.0
"""How long the service may take to stop what is interrupted."""

MAX_WAITING: Final = 4
"""Requests to speak that may wait for their turn."""

EVENT_PREFIX: Final = "server_"
"""What the ids of our own events begin with."""

_ACTIVE: Final = "conversation_already_has_active_response"

_EXACTLY: Final = (
    "Say exactly the following words, in the language they are written in, and nothing else: no "
    "greeting, no comment, no answer to them.\n\n"
)


_WITHOUT_TOOLS: Final[Json] = {"tool_choice": "none"}


class _Refused(Exception):
    """The service answered an event of ours with an error."""

    def __init__(self, code: str | None) -> None:
        super().__init__()
        self.code = code


class Control:
    """The server's own voice in one conversation. All methods belong to the event loop."""

    def __init__(self, send: Callable[[Json], bool]) -> None:
        """``send`` gives an event to the model; false if its channel is not open."""
        self.counters: collections.Counter[str] = collections.Counter()
        self.floor = Floor()
        self._send = send
        self._waits: dict[asyncio.Future[ModelEvent], tuple[str, Callable[[ModelEvent], bool]]] = {}
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._endings: collections.deque[Ending] = collections.deque(maxlen=16)
        self._ended = 0
        self._is_parting = False
        self._is_away = False
        self._speakers: set[asyncio.Timeout] = set()
        """Of each request to speak that goes on, by which it can be made to fail."""
        self._is_closed = False

    def take(self, event: ModelEvent) -> None:
        """Take in what the model told; every event, in order."""
        ending = self.floor.feed(event)
        if ending is not None:
            self._endings.append(ending)
            self._ended += 1
        if self._is_away and isinstance(event, ReplyStarted | PlayoutStarted):
            # The model took what it heard last, or a silence, for a turn to answer.
            self._hush()
        if not self._waits:
            return
        for future, (event_id, wanted) in tuple(self._waits.items()):
            if future.done():
                continue
            if isinstance(event, ModelError):
                if event_id and event.event_id == event_id:
                    future.set_exception(_Refused(event.code))
            elif wanted(event):
                future.set_result(event)

    def leave(self) -> None:
        """Let nothing be said until ``come_back``: nobody hears it.

        What is being said stops, also what the model begins by itself. Requests to speak fail with
        ``InterviewNotLive``.
        """
        self._is_away = True
        self._hush()
        now = asyncio.get_running_loop().time()
        for limit in self._speakers:
            limit.reschedule(now)
        # Another leaving must not find those whose time is over already.
        self._speakers.clear()

    def come_back(self) -> None:
        """Somebody hears it again."""
        self._is_away = False

    def close(self) -> None:
        """Let nobody wait any longer: the conversation is over."""
        self._is_closed = True
        for future in tuple(self._waits):
            if not future.done():
                future.set_exception(SessionEnded())

    # -- what may be asked for ------------------------------------------------------------------

    async def instruct(self, text: str) -> ItemId:
        """Put a system message at the conversation's end; the model heeds it from now on.

        Raises:
            InterviewNotLive: the model cannot be told anything now.
            ModelRefused, UpstreamTimeout: it did not take it, or did not say so in time.
            SessionEnded: the interview ended meanwhile.
        """
        item_id = ItemId(_fresh("item_"))
        item = {
            "id": item_id,
            "type": "message",
            "role": "system",
            "content": [{"type": "input_text", "text": text}],
        }
        await self.insert(item)
        self.counters["instructed"] += 1
        return item_id

    async def insert(self, item: Json) -> None:
        """Put an item, which must have an id, at the conversation's end. Raises as ``instruct``."""

        def is_in(event: ModelEvent) -> bool:
            return isinstance(event, ItemAdded | ItemDone) and event.item_id == item["id"]

        try:
            await self._ask({"type": "conversation.item.create", "item": item}, is_in)
        except _Refused:
            self.counters["refused"] += 1
            raise ModelRefused from None

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Keep a place among those who wait to speak, for a ``respond`` that is still to come.

        Raises:
            TooMuchToSay: enough waits already.
            InterviewNotLive: nobody is there to hear it.
        """
        if self._is_away:
            raise InterviewNotLive
        if self._waiting >= MAX_WAITING:
            self.counters["too_much"] += 1
            raise TooMuchToSay
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def respond(
        self, *, interrupt: bool = False, tools: bool = True, placed: bool = False
    ) -> ResponseId:
        """Have the model speak, in its own words; ``tools`` may be called with it.

        Who is ``placed`` has a ``place`` already. Returns and raises as ``say``.
        """
        response = {} if tools else dict(_WITHOUT_TOOLS)
        if placed:
            return await self._speak(response, interrupt)
        with self.place():
            return await self._speak(response, interrupt)

    async def say(self, text: str, *, interrupt: bool = False) -> ResponseId:
        """Have the interviewer say these words; returns when it begins.

        Waits until nobody speaks, behind earlier requests, unless it is to ``interrupt``: then what
        is being said stops at once.

        Raises:
            TooMuchToSay: enough waits already.
            InterviewNotLive, ModelRefused, UpstreamTimeout, SessionEnded: as ``instruct``.
        """
        with self.place():
            return await self._speak(_exactly(text), interrupt)

    async def part(self, seconds: float, *, instruction: str = "", words: str = "") -> None:
        """Let the interviewer say goodbye; returns when that was heard, or cannot be.

        Half of the ``seconds`` are left to what is being said; then that is interrupted. The caller
        sees to it that it takes no longer than all of them. A goodbye that the candidate interrupts
        is followed by the model's answer, which counts as the goodbye then.

        Args:
            instruction: a system message to the model; nothing if empty.
            words: what it says exactly; its own words if empty.

        Raises as ``instruct``.
        """
        self._is_parting = True
        half = asyncio.get_running_loop().time() + seconds / 2
        if instruction:
            await self.instruct(instruction)
        try:
            async with asyncio.timeout_at(half):
                await self._quiet()
        except TimeoutError:
            await self._interrupt()
        ended = self._ended
        await self._begin_reply(_exactly(words) if words else _WITHOUT_TOOLS, parting=True)
        while await self.next_ending(ended) is Ending.CUT:
            ended = self._ended

    async def next_ending(self, ended: int) -> Ending:
        """How the first reply after the first ``ended`` (`ended`) of all came to its end; waits."""
        while self._ended <= ended:
            await self._wait(lambda event: self._ended > ended)
        behind = min(self._ended - ended, len(self._endings))
        return self._endings[-behind]

    @property
    def ended(self) -> int:
        """How many replies came to their end so far."""
        return self._ended

    # -- how --------------------------------------------------------------------------------------

    async def _speak(self, response: Json, interrupt: bool) -> ResponseId:
        if self._is_away:
            raise InterviewNotLive
        try:
            async with asyncio.timeout(None) as left:
                self._speakers.add(left)
                try:
                    response_id = await self._speak_in_turn(response, interrupt)
                finally:
                    self._speakers.discard(left)
        except TimeoutError:
            self.counters["unheard"] += 1
            raise InterviewNotLive from None
        self.counters["said"] += 1
        return response_id

    async def _speak_in_turn(self, response: Json, interrupt: bool) -> ResponseId:
        async with self._turn:
            if interrupt:
                await self._interrupt()
            else:
                try:
                    async with asyncio.timeout(QUIET_SECONDS):
                        await self._quiet()
                except TimeoutError:
                    # Better over something than never.
                    self.counters["impatient"] += 1
            return await self._begin_reply(response)

    async def _quiet(self) -> None:
        while not self.floor.free:
            await self._wait(lambda event: self.floor.free)

    def _hush(self) -> None:
        """Stop what is being made and heard, without waiting; a closed channel carries nothing."""
        floor = self.floor
        try:
            if floor.generating:
                self._tell({"type": "response.cancel"})
            if floor.generating or floor.sounding:
                self._tell({"type": "output_audio_buffer.clear"})
        except (InterviewNotLive, SessionEnded):
            return

    async def _interrupt(self) -> None:
        """Stop what is being made and heard."""
        floor = self.floor
        if not (floor.generating or floor.sounding):
            return
        self.counters["interrupted"] += 1
        if floor.generating:
            self._tell({"type": "response.cancel"})
        self._tell({"type": "output_audio_buffer.clear"})
        try:
            async with asyncio.timeout(CLEARED_SECONDS):
                await self._wait(lambda event: not (floor.generating or floor.sounding))
        except TimeoutError:
            self.counters["not_interrupted"] += 1

    async def _begin_reply(self, response: Json, *, parting: bool = False) -> ResponseId:
        """Ask for a reply until it begins; the service allows one at a time."""
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                while True:
                    if self._is_parting and not parting:
                        raise SessionEnded
                    if self._is_away and not parting:
                        raise InterviewNotLive
                    ended = self._ended
                    response_id = await self._try_reply(response)
                    if response_id is not None:
                        return response_id
                    # The candidate had ended a turn at that moment, and is answered first.
                    await self.next_ending(ended)
                    await self._quiet()
        except TimeoutError:
            self.counters["unanswered"] += 1
            raise UpstreamTimeout from None

    async def _try_reply(self, response: Json) -> ResponseId | None:
        """Ask for a reply; None if another one is being made."""
        tag = secrets.token_hex(8)
        if "instructions" in response:
            tag = DICTATED + tag
        settings = {"conversation": "auto", "metadata": {TAG: tag}}
        event = {"type": "response.create", "response": {**response, **settings}}

        def is_it(event: ModelEvent) -> bool:
            return isinstance(event, ReplyStarted) and event.tag == tag

        try:
            began = await self._ask(event, is_it)
        except _Refused as refused:
            if refused.code == _ACTIVE:
                self.counters["active"] += 1
                return None
            self.counters["refused"] += 1
            raise ModelRefused from None
        assert isinstance(began, ReplyStarted)
        return began.response_id

    def _tell(self, event: Json) -> str:
        """Send an event; returns the id it was given. Raises ``InterviewNotLive``."""
        if self._is_closed:
            raise SessionEnded
        event_id = _fresh(EVENT_PREFIX)
        if not self._send({**event, "event_id": event_id}):
            raise InterviewNotLive
        return event_id

    async def _ask(self, event: Json, wanted: Callable[[ModelEvent], bool]) -> ModelEvent:
        """Send an event and wait for the one that answers it."""
        event_id = self._tell(event)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._wait(wanted, event_id)
        except TimeoutError:
            self.counters["unanswered"] += 1
            raise UpstreamTimeout from None

    async def _wait(self, wanted: Callable[[ModelEvent], bool], event_id: str = "") -> ModelEvent:
        """The next event of this kind; an error about ``event_id`` is raised."""
        if self._is_closed:
            raise SessionEnded
        future: asyncio.Future[ModelEvent] = asyncio.get_running_loop().create_future()
        self._waits[future] = event_id, wanted
        try:
            return await future
        finally:
            del self._waits[future]


def _exactly(words: str) -> Json:
    # Without the conversation before it the model has nothing to answer or to add to.
    return {**_WITHOUT_TOOLS, "instructions": _EXACTLY + words, "input": []}


def _fresh(prefix: str) -> str:
    """An id of at most 32 characters, which is what the service takes."""
    return prefix + secrets.token_hex(12)
