"""The conversations that ``journals`` holds: one for each order of events that the service has.

Run it (``python -m tests.core.scenes``) to write them again after a change. It also writes the
transcripts that they are now replayed to: read those before keeping them, for the tests take them
as the truth.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from interview_peer.core.realtime import DICTATED, TAG
from interview_peer.core.replay import rebuild
from interview_peer.types import Json, SessionId

from .scribe import BEGAN, Scribe

FOLDER: Final = Path(__file__).parent / "journals"

Scene = Callable[[Scribe], None]

GREETING = ("Hello, ", "and ", "welcome. ", "Tell ", "me ", "about ", "yourself.")
QUESTION = ("What ", "did ", "you ", "build ", "there?")


def greeted(s: Scribe) -> None:
    """The session begins and the interviewer greets."""
    s.wait(0.12)
    s.session()
    s.wait(0.1)
    s.replies("resp_1", "item_1", *GREETING, audio_ms=2500)
    s.wait(1.8)
    s.sound("stopped", "resp_1")
    s.wait(0.6)


def session_start(s: Scribe) -> None:
    """An update is sent before the session is told of, and answered; nobody says a word."""
    s.client("session.update", session={"type": "realtime", "instructions": "Be brief."})
    s.wait(0.12)
    s.session()
    s.wait(0.05)
    s.session("session.updated", prefix_padding_ms=200)
    s.wait(3.0)
    s.end("client_request")


def ordinary_turn(s: Scribe) -> None:
    """A greeting, a turn, a reply that is heard to its end."""
    greeted(s)
    s.speaks("item_2", 2.4)
    s.begins("resp_2")
    s.heard_piece("item_2", "I write ", "software.")
    s.heard("item_2", "I write software.")
    s.wait(0.1)
    s.opens("resp_2", "item_3")
    s.says("resp_2", "item_3", *QUESTION[:4])
    s.sound("started", "resp_2")
    s.says("resp_2", "item_3", *QUESTION[4:])
    s.closes("resp_2", "item_3")
    s.done("resp_2", "item_3", audio_ms=1600)
    s.limits()
    s.wait(1.5)
    s.sound("stopped", "resp_2")
    s.wait(6.0)
    s.end("client_request")


def padding_changes(s: Scribe) -> None:
    """The times of speech include what the session said at that time."""
    greeted(s)
    s.speaks("item_2", 1.0)
    s.heard("item_2", "Yes.")
    s.session("session.updated", prefix_padding_ms=100, silence_duration_ms=200)
    s.wait(1.0)
    s.speech_starts("item_3")
    s.wait(1.5)
    s.speech_stops("item_3")
    s.commits("item_3")
    s.heard("item_3", "And no.")
    s.wait(0.5)
    s.end("client_request")


def interrupted_after_generation(s: Scribe) -> None:
    """Variant A: all is generated, the sound still plays when the candidate speaks."""
    greeted(s)
    s.replies("resp_2", "item_2", *QUESTION, audio_ms=2000)
    s.wait(0.56)
    s.speech_starts("item_3", ago=0.15)
    s.sound("cleared", "resp_2")
    s.truncates("item_2", 800)
    s.wait(2.0)
    s.speech_stops("item_3")
    s.commits("item_3")
    s.begins("resp_3")
    s.heard("item_3", "A compiler, in fact.")
    s.opens("resp_3", "item_4")
    s.says("resp_3", "item_4", "Oh, ", "nice.")
    s.sound("started", "resp_3")
    s.closes("resp_3", "item_4")
    s.done("resp_3", "item_4", audio_ms=700)
    s.wait(0.7)
    s.sound("stopped", "resp_3")
    s.wait(0.5)
    s.end("client_request")


def interrupted_while_generating(position: int) -> Scene:
    """Variant B: the sound is cut before, between or after what closes the reply."""

    def scene(s: Scribe) -> None:
        greeted(s)
        s.begins("resp_2")
        s.opens("resp_2", "item_2")
        s.says("resp_2", "item_2", *QUESTION[:3])
        s.sound("started", "resp_2")
        s.says("resp_2", "item_2", QUESTION[3])
        s.wait(0.4)
        s.speech_starts("item_3", ago=0.15)
        closing = len(s.lines)
        s.closes("resp_2", "item_2", status="incomplete")
        why: Json = {"reason": "turn_detected"}
        s.done("resp_2", "item_2", status="cancelled", details=why, audio_ms=1000)
        closed = len(s.lines)
        s.sound("cleared", "resp_2")
        s.truncates("item_2", 500)
        cut = s.lines[closed:]
        del s.lines[closed:]
        place = closing + position * (closed - closing) // 2
        s.lines[place:place] = cut
        s.wait(1.5)
        s.speech_stops("item_3")
        s.commits("item_3")
        s.heard("item_3", "Sorry, I did not hear you.")
        s.wait(1.0)
        s.end("client_request")

    scene.__doc__ = interrupted_while_generating.__doc__
    return scene


def interrupted_by_the_client(s: Scribe) -> None:
    """The page stops the reply: cancelled, then cleared."""
    greeted(s)
    s.begins("resp_2")
    s.opens("resp_2", "item_2")
    s.says("resp_2", "item_2", *QUESTION[:3])
    s.sound("started", "resp_2")
    s.wait(0.7)
    s.client("response.cancel")
    s.client("output_audio_buffer.clear")
    s.wait(0.03)
    s.closes("resp_2", "item_2", status="incomplete")
    why: Json = {"reason": "client_cancelled"}
    s.done("resp_2", "item_2", status="cancelled", details=why, audio_ms=1400)
    s.sound("cleared", "resp_2")
    s.truncates("item_2", 700)
    s.wait(2.0)
    s.end("client_request")


def cut_without_truncation(s: Scribe) -> None:
    """The sound is cleared and nothing says how much was heard: our own clock does."""
    greeted(s)
    s.replies("resp_2", "item_2", *QUESTION, audio_ms=2000)
    s.wait(0.26)
    s.client("output_audio_buffer.clear")
    s.sound("cleared", "resp_2")
    s.wait(2.0)
    s.end("client_request")


def function_call(s: Scribe) -> None:
    """The interviewer asks for a tool, gets its result, and goes on."""
    greeted(s)
    s.speaks("item_2", 1.5)
    s.heard("item_2", "Ask me about scale.")
    s.begins("resp_2")
    s.wait(0.1)
    s.calls("resp_2", "item_3", "look_up_question", "call_1")
    s.done("resp_2", "item_3")
    s.answers_call("item_4", "call_1", '{"question": "How large was it?"}')
    s.client("response.create")
    s.replies("resp_3", "item_5", "How ", "large ", "was ", "it?", audio_ms=900)
    s.wait(0.7)
    s.sound("stopped", "resp_3")
    s.wait(0.5)
    s.end("client_request")


def speech_and_calls_in_one_reply(s: Scribe) -> None:
    """A reply says something first and then asks for two tools at once."""
    greeted(s)
    s.begins("resp_2")
    s.opens("resp_2", "item_2")
    s.says("resp_2", "item_2", "One ", "moment.")
    s.sound("started", "resp_2")
    s.closes("resp_2", "item_2")
    s.calls("resp_2", "item_3", "look_up_question", "call_1", index=1)
    s.calls("resp_2", "item_4", "look_up_question", "call_2", index=2)
    s.done("resp_2", "item_2", "item_3", "item_4", audio_ms=600)
    s.wait(0.5)
    s.sound("stopped", "resp_2")
    s.answers_call("item_5", "call_1", "{}")
    s.answers_call("item_6", "call_2", "{}")
    s.wait(0.5)
    s.end("client_request")


def idle_timeout(s: Scribe) -> None:
    """The candidate says nothing; the silence becomes an item, and a reply follows it."""
    greeted(s)
    s.wait(5.4)
    heard = round((s.now - 0.04) * 1000)
    s.service(
        "input_audio_buffer.timeout_triggered",
        audio_start_ms=heard - 6000,
        audio_end_ms=heard,
        item_id="item_2",
    )
    s.commits("item_2")
    s.replies("resp_2", "item_3", "Are ", "you ", "still ", "there?", audio_ms=1000)
    s.heard("item_2", "")
    s.wait(0.8)
    s.sound("stopped", "resp_2")
    s.wait(0.5)
    s.end("client_request")


def expiry_told(s: Scribe) -> None:
    """The hour is over: an error says so, then the channel closes, in the middle of a reply."""
    greeted(s)
    s.replies("resp_2", "item_2", *QUESTION, audio_ms=2000)
    s.wait(0.36)
    s.error("session_expired", "Your session hit the maximum duration of 60 minutes.")
    s.wait(0.1)
    s.end("model_expired")


def expiry_untold(s: Scribe) -> None:
    """The hour is over: the channel just closes, while the candidate speaks."""
    greeted(s)
    s.speaks("item_2", 1.2)
    s.heard_piece("item_2", "As I ", "said")
    s.wait(0.4)
    s.speech_starts("item_3")
    s.wait(0.8)
    s.end("model_expired")


def errors(s: Scribe) -> None:
    """Errors, news and nonsense end nothing and are nobody's turn; a reply that fails midway."""
    greeted(s)
    s.client("response.cancel", event_id="mine_1")
    s.error(
        "response_cancel_not_active",
        "Cancellation failed: no active response found",
        event_id="mine_1",
    )
    s.error("item_delete_invalid_item_id", "The item with id 'x' does not exist.", param="item_id")
    s.service("x_future.event", item_id="item_1", more={"deep": [1, None]})
    s.begins("resp_2")
    s.opens("resp_2", "item_2")
    s.says("resp_2", "item_2", "Let ", "us")
    s.sound("started", "resp_2")
    s.wait(0.2)
    failure: Json = {"error": {"type": "server_error", "code": "rate_limit_exceeded"}}
    s.done("resp_2", status="failed", details=failure)
    s.sound("stopped", "resp_2")
    s.begins("resp_3")
    s.done("resp_3", status="failed", details=failure)
    s.wait(0.5)
    s.end("client_request")


def late_transcription(s: Scribe) -> None:
    """What the candidate said is known only after the reply to it was heard."""
    greeted(s)
    s.speaks("item_2", 1.5)
    s.replies("resp_2", "item_3", *QUESTION, audio_ms=1500)
    s.wait(1.3)
    s.sound("stopped", "resp_2")
    s.wait(0.3)
    s.heard_piece("item_2", "I write ", "compilers.")
    s.heard("item_2", "I write compilers.")
    s.wait(0.5)
    s.end("client_request")


def failed_transcription(s: Scribe) -> None:
    """One turn cannot be transcribed, after a piece of it was; another never is."""
    greeted(s)
    s.speaks("item_2", 1.5)
    s.replies("resp_2", "item_3", "Pardon?", audio_ms=500)
    s.heard_piece("item_2", "Hrm")
    s.not_heard("item_2")
    s.wait(0.5)
    s.sound("stopped", "resp_2")
    s.speaks("item_4", 1.0)
    s.wait(1.0)
    s.end("client_request")


def out_of_order(s: Scribe) -> None:
    """Two turns at once: texts cross, and a sound's end comes within the next reply."""
    greeted(s)
    s.speaks("item_2", 1.0)
    s.begins("resp_2")
    s.speech_starts("item_3")
    s.done("resp_2", status="cancelled", details={"reason": "turn_detected"})
    s.wait(1.2)
    s.speech_stops("item_3")
    s.commits("item_3")
    s.begins("resp_3")
    s.heard_piece("item_3", "And ", "a linker.")
    s.opens("resp_3", "item_4")
    s.heard("item_3", "And a linker.")
    s.says("resp_3", "item_4", *QUESTION[:3])
    s.heard_piece("item_2", "A com", "piler.")
    s.sound("started", "resp_3")
    s.says("resp_3", "item_4", *QUESTION[3:])
    s.closes("resp_3", "item_4")
    s.done("resp_3", "item_4", audio_ms=900)
    s.client("response.create")
    s.begins("resp_4")
    s.opens("resp_4", "item_5")
    s.wait(0.3)
    s.sound("stopped", "resp_3")
    s.says("resp_4", "item_5", "Take ", "your ", "time.")
    s.sound("started", "resp_4")
    s.closes("resp_4", "item_5")
    s.done("resp_4", "item_5", audio_ms=800)
    s.heard("item_2", "A compiler.")
    s.wait(0.7)
    s.sound("stopped", "resp_4")
    s.wait(0.5)
    s.end("client_request")


def text_turns(s: Scribe) -> None:
    """Typed by the candidate, written by the interviewer, put between, noted by the system."""
    greeted(s)
    s.writes("item_2", "I cannot speak here.")
    s.client("response.create", response={"output_modalities": ["text"]})
    s.begins("resp_2")
    s.opens("resp_2", "item_3", kind="text")
    s.says("resp_2", "item_3", "Then ", "we ", "write.")
    s.closes("resp_2", "item_3")
    s.done("resp_2", "item_3")
    s.writes("note_1", "Five minutes are left.", role="system")
    s.writes("item_4", "Earlier: I come from Lyon.", previous="item_1")
    s.writes("item_5", "\u00c0 bient\u00f4t \u2013 \U0001f44b")
    s.wait(0.5)
    s.end("client_request")


def taking_part(s: Scribe) -> None:
    """The interviewer is told something, has words put into its mouth, and ends the interview."""
    greeted(s)
    s.speaks("item_2", 1.0)
    s.replies("resp_2", "item_3", *QUESTION, audio_ms=1800)
    s.writes("item_told", "Ask about the team, then close.", role="system")
    s.client("output_audio_buffer.clear")
    s.sound("cleared", "resp_2")
    s.truncates("item_3", 500)
    s.client("response.create", response={"input": [], "metadata": {TAG: f"{DICTATED}1"}})
    s.replies("resp_3", "item_4", "Take ", "your ", "time.", audio_ms=800, tag=f"{DICTATED}1")
    s.heard("item_2", "A bridge.")
    s.wait(0.8)
    s.sound("stopped", "resp_3")
    s.begins("resp_4")
    s.opens("resp_4", "item_5")
    s.says("resp_4", "item_5", "Thank ", "you, ", "goodbye.")
    s.sound("started", "resp_4")
    s.closes("resp_4", "item_5")
    s.calls("resp_4", "item_6", "end_interview", "call_1", index=1)
    s.done("resp_4", "item_5", "item_6", audio_ms=900)
    s.answers_call("item_7", "call_1", '{"ok": true}')
    s.wait(0.7)
    s.sound("stopped", "resp_4")
    s.end("interviewer_ended")


def out_of_band(s: Scribe) -> None:
    """A reply that joins no conversation is no turn, unless it is heard."""
    greeted(s)
    s.client("response.create", response={"conversation": "none"})
    s.begins("resp_2", conversation=None)
    s.speaks("item_2", 1.0)
    s.opens("resp_2", "item_8", kind="text", aside=True)
    s.says("resp_2", "item_8", "Score: ", "7")
    s.closes("resp_2", "item_8")
    s.done("resp_2", "item_8", conversation=None)
    s.heard("item_2", "All of it.")
    s.begins("resp_3", conversation=None)
    s.opens("resp_3", "item_9", aside=True)
    s.says("resp_3", "item_9", "Please ", "go ", "on.")
    s.sound("started", "resp_3")
    s.closes("resp_3", "item_9")
    s.done("resp_3", "item_9", audio_ms=600, conversation=None)
    s.wait(0.6)
    s.sound("stopped", "resp_3")
    s.wait(0.5)
    s.end("client_request")


def deletions(s: Scribe) -> None:
    """Items are taken out; those after them stay in place; one is created again, changed."""
    greeted(s)
    s.speaks("item_2", 1.0)
    s.heard("item_2", "Forget this.")
    s.writes("item_3", "First version.")
    s.replies("resp_2", "item_4", "Very ", "well.", audio_ms=500)
    s.wait(0.5)
    s.sound("stopped", "resp_2")
    s.deletes("item_2")
    s.deletes("item_3")
    s.writes("item_3", "Second version.", previous="item_1")
    s.wait(0.5)
    s.end("client_request")


def detached(s: Scribe) -> None:
    """The page is gone in the middle of a reply; another is begun and stopped; then it is back."""
    greeted(s)
    s.replies("resp_2", "item_2", *QUESTION, audio_ms=2000)
    s.wait(0.3)
    s.ours("interview.phase", before="live", phase="detached")
    s.client("output_audio_buffer.clear")
    s.wait(0.2)
    s.sound("cleared", "resp_2")
    # The service counts what it played; nobody heard the last of it.
    s.truncates("item_2", 950)
    # The silence after the loss ends a turn, and the model answers it.
    s.wait(1.0)
    s.speaks("item_3", 0.6)
    s.heard("item_3", "Well, I")
    s.begins("resp_3")
    s.client("response.cancel")
    s.client("output_audio_buffer.clear")
    s.opens("resp_3", "item_4")
    s.says("resp_3", "item_4", "Go ", "on.")
    s.sound("started", "resp_3")
    s.wait(0.4)
    s.closes("resp_3", "item_4")
    s.done("resp_3", "item_4", audio_ms=400)
    s.sound("stopped", "resp_3")
    s.wait(1.0)
    s.ours("interview.phase", before="detached", phase="live")
    s.replies("resp_4", "item_5", "There ", "you ", "are.", audio_ms=800)
    s.wait(0.7)
    s.sound("stopped", "resp_4")
    s.wait(0.5)
    s.end("client_request")


def crashed(s: Scribe) -> None:
    """The server went down in the middle of things: nothing says that the interview ended."""
    greeted(s)
    s.speaks("item_2", 1.0)
    s.heard_piece("item_2", "It was ", "when")
    s.begins("resp_2")
    s.opens("resp_2", "item_3")
    s.says("resp_2", "item_3", *QUESTION[:3])
    s.sound("started", "resp_2")
    s.says("resp_2", "item_3", *QUESTION[3:])


SCENES: Final[dict[str, Scene]] = {
    scene.__name__: scene
    for scene in (
        *(session_start, ordinary_turn, padding_changes, interrupted_after_generation),
        *(interrupted_by_the_client, cut_without_truncation, function_call),
        *(speech_and_calls_in_one_reply, idle_timeout, expiry_told, expiry_untold, errors),
        *(late_transcription, failed_transcription, out_of_order, text_turns, out_of_band),
        *(deletions, crashed, taking_part, detached),
    )
} | {
    f"interrupted_while_generating_{where}": interrupted_while_generating(position)
    for position, where in enumerate(("cut_before", "cut_between", "cut_after"))
}


def journal(name: str) -> str:
    """The journal of a scene, as the scene makes it."""
    scribe = Scribe(name)
    SCENES[name](scribe)
    return scribe.text()


def replayed(lines: list[str], name: str) -> Json:
    """The transcript's document that a journal is replayed to."""
    return rebuild(lines).document(SessionId(name), BEGAN)


def write_all() -> None:
    """Write every journal and what it is replayed to."""
    for name in SCENES:
        text = journal(name)
        (FOLDER / f"{name}.jsonl").write_text(text, encoding="utf-8")
        document = json.dumps(replayed(text.splitlines(), name), ensure_ascii=False, indent=1)
        (FOLDER / f"{name}.json").write_text(document + "\n", encoding="utf-8")
    sys.stdout.write(f"{len(SCENES)} journals in {FOLDER}\n")


if __name__ == "__main__":
    write_all()
