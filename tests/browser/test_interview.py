"""A whole interview in a real browser: page, server, simulated model, and the files it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from interview_peer.types import Json
from tests.support import audio, speech
from tests.support.chromium import Browser, Heard, browsing
from tests.support.server import ServerProcess
from tests.support.waiting import eventually

from . import dialogue
from .dialogue import CUT_SHORT, GREETING, LAST, NEVER_SAID

STOPS_WITHIN = 1.0
"""Seconds from the candidate's first sound to the interviewer's silence, in the page."""


async def test_an_interview_is_held_heard_interrupted_and_left_behind(
    server: ServerProcess, tmp_path: Path
) -> None:
    candidate = dialogue.candidate(tmp_path)
    async with browsing(candidate.wav) as browser:
        await browser.page.goto(server.url)
        await browser.page.get_by_role("button", name="Connect", exact=True).click()
        await browser.until("interviewPeer.state.stage === 'live'")
        session_id = await browser.ask("interviewPeer.state.sessionId")
        await browser.until("interviewPeer.state.level > 0.4", within=20)

        # The greeting and the last reply end; the one between is cut off.
        await browser.until_played_out(replies=2)
        local, remote = await browser.heard("local"), await browser.heard("remote")
        shown = await _shown_turns(browser)

        await browser.page.get_by_role("button", name="Disconnect").click()
        await browser.until("interviewPeer.state.stage === 'ended'")
        await browser.until("interviewPeer.state.phase === 'ended'", within=5)
        page_turns = await browser.ask("interviewPeer.transcript")
        page_events = await browser.events()
        assert await browser.ask("interviewPeer.peerConnection.connectionState") == "closed"
        assert await browser.page.get_by_role("alert").inner_text() == ""

    await eventually(
        lambda: server.phase(session_id), within=5, what="ended", good=lambda p: p == "ended"
    )

    _the_page_heard_the_interviewer(remote)
    _the_interviewer_stopped_when_interrupted(local, remote, candidate)
    _the_page_showed_both_in_order(shown)
    _the_recordings_hold_what_each_said(server.folder(session_id), candidate)
    _the_transcript_agrees_with_the_page(server.folder(session_id), session_id, page_turns)
    _the_journal_holds_what_the_page_got(server.folder(session_id), page_events)


async def test_an_interview_left_in_mid_sentence_reads_the_same_on_page_and_in_file(
    server: ServerProcess, tmp_path: Path
) -> None:
    silence = speech.write_wav(tmp_path / "silence.wav", [], tail=30)
    async with browsing(silence) as browser:
        await browser.page.goto(server.url)
        await browser.page.get_by_role("button", name="Connect", exact=True).click()
        await browser.until("interviewPeer.state.stage === 'live'")
        session_id = await browser.ask("interviewPeer.state.sessionId")
        # The words are all there long before they have been said.
        await browser.until("interviewPeer.transcript[0]?.status === 'complete'", within=20)
        await browser.page.get_by_role("button", name="Disconnect").click()
        await browser.until("interviewPeer.state.phase === 'ended'", within=10)
        page_turns = await browser.ask("interviewPeer.transcript")
    folder = server.folder(session_id)
    _the_transcript_agrees_with_the_page(folder, session_id, page_turns)
    document = json.loads((folder / "transcript.json").read_text(encoding="utf-8"))
    (turn,) = document["turns"]
    assert (turn["text"], turn["status"]) == (GREETING.text, "interrupted")
    assert turn["start_ms"] < turn["end_ms"] < turn["start_ms"] + GREETING.duration_ms
    assert GREETING.text.startswith(turn["heard_text"]) and turn["heard_text"] != GREETING.text


async def _shown_turns(browser: Browser) -> list[tuple[str, str]]:
    """Speaker and words of each turn as a person sees them."""
    turns: list[tuple[str, str]] = []
    for item in await browser.page.locator("#transcript > li").all():
        speaker = await item.locator(".speaker").inner_text()
        turns.append((speaker, await item.locator(".text").inner_text()))
    return turns


def _the_page_heard_the_interviewer(remote: Heard) -> None:
    greeting = audio.find(dialogue.spoken(GREETING), remote.samples)
    question = dialogue.question(remote.samples, greeting)
    last = audio.find(dialogue.spoken(LAST), remote.samples)
    never = audio.find(dialogue.spoken(NEVER_SAID), remote.samples)
    found = {"greeting": greeting, "question": question, "last": last, "never said": never}
    assert min(greeting.score, question.score, last.score) > audio.SAME, found
    assert never.score < audio.SAME, found
    assert greeting.at < question.at < last.at, found


def _the_interviewer_stopped_when_interrupted(
    local: Heard, remote: Heard, candidate: dialogue.Candidate
) -> None:
    # Both tracks were timed by the page's clock, so no clock of the server's is involved.
    began = local.started + audio.find(dialogue.words(candidate.interruption), local.samples).at
    greeting = audio.find(dialogue.spoken(GREETING), remote.samples)
    question = remote.started + dialogue.question(remote.samples, greeting).at
    ended = remote.started + audio.find(dialogue.spoken(LAST), remote.samples).at
    assert question < began < ended, "the interruption did not fall into the question"

    levels = audio.levels(remote.samples)
    times = remote.started + np.arange(len(levels)) * 0.02
    before = levels[(times > began - 0.5) & (times < began)]
    assert before.max() > audio.QUIET, "the interviewer was not speaking when interrupted"
    sounding = times[(levels > audio.QUIET) & (times > began) & (times < ended - 0.1)]
    silent_after = float(sounding[-1] - began) if len(sounding) else 0.0
    assert silent_after < STOPS_WITHIN, f"spoke on for {silent_after:.2f} s"
    # And it was the interruption that ended it, not the question's own end.
    whole = CUT_SHORT.duration_ms / 1000
    assert began + silent_after - question < whole - 0.3, "the question was over anyway"


def _the_page_showed_both_in_order(shown: list[tuple[str, str]]) -> None:
    assert [speaker for speaker, _ in shown] == [
        "Interviewer",
        "You",
        "Interviewer",
        "You",
        "Interviewer",
    ], shown
    assert shown[0][1] == GREETING.text
    assert shown[4][1] == LAST.text
    assert shown[2][1] and CUT_SHORT.text.startswith(shown[2][1].rstrip()), shown
    assert "simulated" in shown[1][1].lower() and "simulated" in shown[3][1].lower(), shown


def _the_recordings_hold_what_each_said(folder: Path, candidate: dialogue.Candidate) -> None:
    said = audio.decode(folder / "candidate.ogg")
    answer = audio.find(dialogue.words(candidate.answer), said)
    interruption = audio.find(dialogue.words(candidate.interruption), said)
    assert min(answer.score, interruption.score) > audio.SAME, (answer, interruption)
    # What lay between them in the source lies between them in the file.
    apart = candidate.interruption.at - candidate.answer.at
    assert abs(interruption.at - answer.at - apart) < 0.08, (answer, interruption, apart)

    replied = audio.decode(folder / "interviewer.ogg")
    lines = {line.file: audio.find(dialogue.spoken(line), replied) for line in (GREETING, LAST)}
    cut = dialogue.question(replied, lines[GREETING.file])
    assert min(cut.score, *(match.score for match in lines.values())) > audio.SAME, (lines, cut)

    # Neither holds the other's voice, nor what nobody said.
    strangers = [
        *audio.scores([dialogue.spoken(GREETING), dialogue.spoken(NEVER_SAID)], said),
        *audio.scores([dialogue.words(candidate.answer), dialogue.spoken(NEVER_SAID)], replied),
    ]
    assert max(strangers) < audio.SAME, strangers

    # One clock: greeting, answer, question, interruption, last, in both files together.
    order = [lines[GREETING.file].at, answer.at, cut.at, interruption.at, lines[LAST.file].at]
    assert order == sorted(order), order
    assert abs(len(said) - len(replied)) <= audio.HOP * 2, "the two files do not end together"


def _the_transcript_agrees_with_the_page(
    folder: Path, session_id: str, page_turns: list[Json]
) -> None:
    document = json.loads((folder / "transcript.json").read_text(encoding="utf-8"))
    assert document["session_id"] == session_id
    kept = [(turn["speaker"], turn["text"], turn["status"]) for turn in document["turns"]]
    assert kept == [(turn["speaker"], turn["text"], turn["status"]) for turn in page_turns]
    assert [turn["status"] for turn in page_turns].count("interrupted") == 1


def _the_journal_holds_what_the_page_got(folder: Path, page_events: list[Json]) -> None:
    lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    journal = [json.loads(line) for line in lines]
    assert journal[0]["event"]["type"] == "interview.started"
    relayed = [entry["event"] for entry in journal if entry["direction"] == "to_browser"]
    got = [(event["type"], event.get("event_id")) for event in page_events]
    # The model may have said more after the page had gone.
    kept = [(event["type"], event.get("event_id")) for event in relayed][: len(got)]
    assert kept == got
    types = [kind for kind, _ in got]
    assert types.count("session.created") == 1
    assert types.count("output_audio_buffer.cleared") == 1
    times = [entry["t"] for entry in journal]
    assert times == sorted(times)
