"""A transcript is had in the form that is asked for, while the interview runs and afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from interview_peer.app import Server
from interview_peer.types import Json
from tests.support.caller import Caller
from tests.support.operator import PATH, Operator
from tests.support.waiting import eventually

from .test_interviews import join

TYPES = {
    "json": "application/json",
    "txt": "text/plain; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
}


async def greeted(operator: Operator, candidate: Caller) -> Json:
    """An interview that runs, in which the interviewer has said something."""
    made = await operator.make()
    await join(candidate, made)
    await candidate.event("response.done")
    return made


async def finished(operator: Operator, made: Json) -> None:
    await operator.ask("POST", f"{PATH}/{made['id']}/end")

    async def state() -> Json:
        return dict((await operator.show(made))["finishing"] or {})

    await eventually(
        state, within=40, what="a finished recording", good=lambda one: one.get("state") == "done"
    )


async def test_a_running_interview_gives_what_was_said_so_far(
    served: Server, operator: Operator, candidate: Caller
) -> None:
    made = await operator.make()
    path = f"{PATH}/{made['id']}/transcript"
    none_yet = await operator.ask("GET", path)
    assert (none_yet.status, none_yet.json()["error"]["code"]) == (404, "NOT_FOUND")
    await join(candidate, made)
    await candidate.event("response.done")
    running = (await operator.ask("GET", path)).json()
    assert (running["final"], running["session_id"]) == (False, made["id"])
    assert running["turns"][0]["text"]
    captions = await operator.ask("GET", f"{path}.vtt")
    assert captions.status == 200 and captions.text.startswith("WEBVTT\n")


async def test_all_forms_of_a_finished_interview_are_files_of_it(
    served: Server, operator: Operator, candidate: Caller, tmp_path: Path
) -> None:
    made = await greeted(operator, candidate)
    await finished(operator, made)
    path = f"{PATH}/{made['id']}/transcript"
    folder = tmp_path / "interviews" / made["id"]
    for kind, content_type in TYPES.items():
        kept = (folder / f"transcript.{kind}").read_text(encoding="utf-8")
        by_suffix = await operator.ask("GET", f"{path}.{kind}", headers={"Accept": "text/html"})
        accept = {"Accept": content_type.partition(";")[0]}
        for reply in (by_suffix, await operator.ask("GET", path, headers=accept)):
            assert (reply.status, reply.headers["content-type"]) == (200, content_type)
            assert reply.text == kept
    assert "Interviewer" in kept


async def test_a_form_whose_file_is_lost_is_made_of_what_is_left(
    served: Server, operator: Operator, candidate: Caller, tmp_path: Path
) -> None:
    made = await greeted(operator, candidate)
    await finished(operator, made)
    path = f"{PATH}/{made['id']}/transcript"
    folder = tmp_path / "interviews" / made["id"]
    kept = (folder / "transcript.vtt").read_text(encoding="utf-8")
    (folder / "transcript.vtt").unlink()
    assert (await operator.ask("GET", f"{path}.vtt")).text == kept
    (folder / "transcript.json").unlink()
    assert "<v Interviewer>" in (await operator.ask("GET", f"{path}.vtt")).text


@pytest.mark.parametrize("accept", ["text/html", "image/*", "application/json;q=0"])
async def test_a_form_that_there_is_not_is_refused(plain: Operator, accept: str) -> None:
    made = await plain.make()
    path = f"{PATH}/{made['id']}/transcript"
    refused = await plain.ask("GET", path, headers={"Accept": accept})
    assert (refused.status, refused.json()["error"]["code"]) == (406, "NOT_ACCEPTABLE")
    assert (await plain.ask("GET", f"{path}.pdf")).status == 404
