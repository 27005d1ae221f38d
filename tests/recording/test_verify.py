"""Every damage that is planted is found and named; a folder without any is passed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from interview_peer.cli import main
from interview_peer.core.ogg import OggOpusMuxer, checksum
from interview_peer.finishing import manifest
from interview_peer.finishing.verify import verify
from interview_peer.types import Json

from .folders import finished


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("verify")).path


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def change(path: Path, edit: Callable[[Json], object]) -> None:
    document = json.loads(path.read_bytes())
    edit(document)
    path.write_text(json.dumps(document))


def rehash(folder: Path) -> None:
    """Make the manifest's hashes right again, so that other checks must find the damage."""

    def edit(document: Json) -> None:
        for entry in document["files"]:
            found = manifest.describe(folder / entry["name"])
            entry.update(bytes=found.bytes, sha256=found.sha256)

    change(folder / "manifest.json", edit)


def page_starts(data: bytes) -> list[int]:
    return [at for at in range(len(data)) if data[at : at + 4] == b"OggS"]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def flip_sound(folder: Path) -> None:
    flip(folder / "candidate.ogg", 9_000)


def drop_page(folder: Path) -> None:
    path = folder / "interviewer.ogg"
    data = path.read_bytes()
    starts = page_starts(data)
    path.write_bytes(data[: starts[5]] + data[starts[6] :])


def wrong_granule(folder: Path) -> None:
    path = folder / "candidate.ogg"
    data = bytearray(path.read_bytes())
    start, end = page_starts(bytes(data))[4:6]
    page = data[start:end]
    page[6:14] = (int.from_bytes(page[6:14], "little") + 960).to_bytes(8, "little")
    page[22:26] = bytes(4)
    page[22:26] = checksum(bytes(page))
    data[start:end] = page
    path.write_bytes(data)


def cut_end(folder: Path) -> None:
    path = folder / "candidate.ogg"
    path.write_bytes(path.read_bytes()[:-2_000])


def cut_at_page(folder: Path) -> None:
    path = folder / "candidate.ogg"
    data = path.read_bytes()
    path.write_bytes(data[: page_starts(data)[-1]])


def append(folder: Path) -> None:
    with (folder / "interviewer.ogg").open("ab") as file:
        file.write(b"more")


def second_stream(folder: Path) -> None:
    muxer = OggOpusMuxer(99)
    with (folder / "interviewer.ogg").open("ab") as file:
        file.write(muxer.headers() + muxer.end())


def no_header(folder: Path) -> None:
    path = folder / "candidate.ogg"
    data = path.read_bytes()
    path.write_bytes(data[page_starts(data)[2] :])


def short_mix(folder: Path) -> None:
    shutil.copy(finished(folder.parent, "short", until=3.0).path / "mixed.webm", folder)


def no_mix(folder: Path) -> None:
    (folder / "mixed.webm").write_bytes(b"\x1aE\xdf\xa3 nothing")


def short_waveform(folder: Path) -> None:
    change(folder / "waveform.json", lambda one: one["candidate"].clear())


def another_word(folder: Path) -> None:
    change(folder / "transcript.json", lambda one: one["turns"][0].update(text="Something else."))


def another_caption(folder: Path) -> None:
    path = folder / "transcript.vtt"
    path.write_text(path.read_text().replace("Bridges", "Tunnels"))


def turn_gone(folder: Path) -> None:
    change(folder / "transcript.json", lambda one: one["turns"].pop())


def torn_journal(folder: Path) -> None:
    path = folder / "events.jsonl"
    path.write_bytes(path.read_bytes()[:-20])


def another_interview(folder: Path) -> None:
    path = folder / "events.jsonl"
    path.write_text(path.read_text().replace('"session_id":"one"', '"session_id":"two"'))


def another_transcript(folder: Path) -> None:
    change(folder / "transcript.json", lambda one: one.update(session_id="two"))


def later_transcript(folder: Path) -> None:
    change(
        folder / "transcript.json", lambda one: one.update(started_at="2026-01-01T12:00:00.010Z")
    )


def later_journal(folder: Path) -> None:
    path = folder / "events.jsonl"
    path.write_text(path.read_text().replace("T12:00:00.000Z", "T12:00:01.000Z", 1))


PLANTED: list[tuple[Callable[[Path], None], str]] = [
    (flip_sound, "candidate.ogg: 1902 bytes before byte 10262 are no whole page"),
    (drop_page, "interviewer.ogg: page 5 is missing before page 6"),
    (wrong_granule, "candidate.ogg: page 4 ends at"),
    (cut_end, "candidate.ogg: the last"),
    (cut_at_page, "candidate.ogg: the stream is not closed"),
    (append, "interviewer.ogg: the last 4 bytes are no whole page"),
    (second_stream, "interviewer.ogg: page 0 belongs to another stream"),
    (no_header, "candidate.ogg: there is no Ogg Opus header"),
    (short_mix, "mixed.webm lasts 3.0"),
    (no_mix, "mixed.webm cannot be read as WebM"),
    (short_waveform, "waveform.json draws 0.00 s of the candidate"),
    (another_word, "transcript.json: turn 1 has another text"),
    (another_caption, "transcript.vtt does not say what transcript.json says"),
    (turn_gone, "transcript.json has 1 turns, the journal gives 2"),
    (torn_journal, "events.jsonl: line 7 is no JSON"),
    (another_interview, "events.jsonl is of another interview"),
    (another_transcript, "transcript.json is of another interview"),
    (later_transcript, "transcript.json begins at another moment"),
    (later_journal, "events.jsonl begins at another moment"),
]


@pytest.mark.parametrize(("plant", "said"), PLANTED, ids=lambda one: getattr(one, "__name__", ""))
def test_damage_is_named_even_where_the_hashes_fit(
    folder: Path, plant: Callable[[Path], None], said: str
) -> None:
    plant(folder)
    rehash(folder)
    found = verify(folder)
    assert any(problem.startswith(said) for problem in found), found


@pytest.mark.parametrize("plant", [plant for plant, _ in PLANTED], ids=lambda one: one.__name__)
def test_a_changed_file_does_not_fit_its_hash(folder: Path, plant: Callable[[Path], None]) -> None:
    plant(folder)
    found = verify(folder)
    assert any("was changed" in one or "bytes instead of" in one for one in found), found


@pytest.mark.parametrize(
    "name",
    [
        "candidate.ogg",
        "interviewer.ogg",
        "events.jsonl",
        "transcript.json",
        "transcript.srt",
        "mixed.webm",
        "waveform.json",
    ],
)
def test_a_file_that_is_gone_or_unlisted_is_named(folder: Path, name: str) -> None:
    (folder / name).rename(folder / "elsewhere.bin")
    found = verify(folder)
    assert f"{name} is missing" in found
    assert "elsewhere.bin is not in the manifest" in found


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda one: one.update(schema=99), "not of a schema"),
        (lambda one: one.pop("files"), "does not list its files"),
        (lambda one: one["files"][0].update(name="../one/candidate.ogg"), "outside of the folder"),
        (lambda one: one.update(seconds="long"), "does not say how long"),
        (lambda one: one.update(seconds=9.0), "the recording 9.000 s"),
        (lambda one: one["speakers"]["candidate"].update(seconds=9.0), "the manifest says 9.000 s"),
        (lambda one: one["speakers"].pop("interviewer"), "not say how long interviewer.ogg is"),
        (lambda one: one.update(started_at="2026-01-01T12:00:00.500Z"), "events.jsonl begins at"),
        (lambda one: one.update(started_at="noon"), "not say when the recording began"),
        (lambda one: one["files"].pop(0), "candidate.ogg is missing from the manifest"),
    ],
)
def test_a_manifest_that_is_wrong_is_told(
    folder: Path, edit: Callable[[Json], object], said: str
) -> None:
    change(folder / "manifest.json", edit)
    assert any(said in problem for problem in verify(folder)), verify(folder)


def test_a_manifest_that_is_missing_or_no_json_is_told(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")
    assert verify(folder) == ["manifest.json cannot be read as JSON (JSONDecodeError)."]
    (folder / "manifest.json").unlink()
    assert verify(folder) == ["There is no manifest.json: the folder is not finished."]


def test_the_command_says_all_is_well_or_what_is_wrong(folder: Path) -> None:
    well = CliRunner().invoke(main, ["verify", str(folder)])
    assert (well.exit_code, well.output) == (0, f"{folder}: all is as the manifest says.\n")
    flip_sound(folder)
    wrong = CliRunner().invoke(main, ["verify", str(folder)])
    assert wrong.exit_code == 1
    assert "candidate.ogg was changed: its SHA-256 is another" in wrong.stdout
    assert CliRunner().invoke(main, ["verify", str(folder / "nowhere")]).exit_code == 1
    # Beside interviews' folders, and under a name that no interview has.
    unlike = folder.parent / "lost+found"
    unlike.mkdir()
    assert "not finished" in CliRunner().invoke(main, ["verify", str(unlike)]).stdout
