"""The repository agrees with itself: documents, lock files, package, commands."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from interview_peer import __version__, errors
from interview_peer.core import realtime
from interview_peer.core.transcript import Transcript
from interview_peer.core.turns import TurnStatus
from interview_peer.media import native
from interview_peer.session.reporter import FAILURE_SENTENCES
from interview_peer.settings import Settings, env_name
from interview_peer.types import ItemId, SessionId
from interview_peer.web.signalling import OFFER_FAILED
from tests.conftest import pytest_xdist_auto_num_workers
from tests.support.server import clean_environment

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock")


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def table(document: str, heading: str) -> list[list[str]]:
    """The cells of the rows under the table heading that begins with ``heading``."""
    lines = iter((ROOT / document).read_text(encoding="utf-8").splitlines())
    for line in lines:
        if line.startswith(heading):
            break
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    assert rows, f"{document} has no table under {heading!r}"
    return rows


def default_of(field: str) -> str:
    default = Settings.model_fields[field].default
    if default is None or default == ():
        return "–"
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)


def test_readme_lists_every_setting_with_its_default() -> None:
    written = {row[0]: row[1] for row in table("README.md", "| name | default |")}
    assert written == {env_name(field): default_of(field) for field in Settings.model_fields}


def test_example_env_file_names_settings_alone() -> None:
    text = (ROOT / ".env.example").read_text()
    names = re.findall(r"^#?([A-Z_]+)=", text, re.MULTILINE)
    assert names
    assert set(names) <= {env_name(field) for field in Settings.model_fields}


def error_classes(
    top: type[errors.InterviewPeerError] = errors.InterviewPeerError,
) -> Iterator[type[errors.InterviewPeerError]]:
    if top.__module__ == errors.__name__:
        yield top
    for below in top.__subclasses__():
        yield from error_classes(below)


def test_error_list_names_every_code_with_its_status() -> None:
    rows = table("docs/errors.md", "| code | status |")
    written = [(row[0], row[1], row[3]) for row in rows]
    assert sorted(written) == sorted(
        (error.code, str(error.status), error.openai_code or "–") for error in error_classes()
    )


def test_error_list_names_every_code_that_is_told_on_the_socket_alone() -> None:
    everywhere = {row[0] for row in table("docs/errors.md", "| code | status |")}
    written = [row[0] for row in table("docs/errors.md", "| code on the WebSocket |")]
    told = {OFFER_FAILED, *(reason.value.upper() for reason in FAILURE_SENTENCES)}
    assert sorted(written) == sorted(told - everywhere)


def test_the_tree_of_errors_names_every_class() -> None:
    tree, _, _ = (errors.__doc__ or "").partition("``code``")
    classes = {error.__name__ for error in error_classes()}
    assert classes - set(re.findall(r"\w+", tree)) == set()


def test_error_codes_are_given_once() -> None:
    codes = [error.code for error in error_classes()]
    assert len(codes) == len(set(codes))


def pins(lock: str) -> dict[str, str]:
    """Name and version of everything a lock file installs."""
    text = (ROOT / lock).read_text().replace("\\\n", " ")
    found: dict[str, str] = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            requirement, *hashes = re.split(r"\s+--hash=", line)
            name, version = re.split(r"\s*;", requirement)[0].split("==")
            assert hashes, f"{name} in {lock} has no hash"
            assert all(re.fullmatch(r"sha256:[0-9a-f]{64}\s*", digest) for digest in hashes)
            found[canonicalize_name(name.strip())] = version.strip()
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_names_no_index_and_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    options = {line.split()[0] for line in text.splitlines() if line.startswith("-")}
    assert options == set()


def test_locks_hold_one_version_of_everything() -> None:
    runtime, dev, build = (pins(lock) for lock in LOCKS)
    assert runtime.items() <= dev.items()
    assert build.items() <= dev.items()


def test_locks_satisfy_what_the_project_asks_for() -> None:
    groups = project()["dependency-groups"]
    wanted = {
        "requirements.lock": project()["project"]["dependencies"],
        "requirements-build.lock": groups["build"],
        "requirements-dev.lock": [line for line in groups["dev"] if isinstance(line, str)],
    }
    for lock, lines in wanted.items():
        versions = pins(lock)
        for requirement in map(Requirement, lines):
            version = versions[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), f"{requirement} against {lock}"


def test_libraries_whose_private_parts_are_used_are_pinned_exactly() -> None:
    lines = project()["project"]["dependencies"]
    exact = {line.split("==")[0] for line in lines if "==" in line}
    assert exact == {"aiortc", "aioice", "pylibsrtp"}


def make_would(*arguments: str) -> str:
    """The last command of a ``make`` with these arguments."""
    dry = subprocess.run(
        ["make", "-n", *arguments],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return dry.stdout.strip().splitlines()[-1].strip()


def test_make_run_ends_in_the_serve_command(monkeypatch: pytest.MonkeyPatch) -> None:
    # As `make test ARGS="-k page"` leaves them to the tests it runs.
    monkeypatch.setenv("MAKEFLAGS", "w -- ARGS=-k\\ page")
    monkeypatch.setenv("MFLAGS", "-w")
    monkeypatch.setenv("MAKEOVERRIDES", "${-*-command-variables-*-}")
    monkeypatch.setenv("MAKELEVEL", "1")
    monkeypatch.setenv("ARGS", "-k page")
    assert make_would("run") == ".venv/bin/interview-peer serve --prefer-simulation"


def test_make_test_takes_several_at_a_time_unless_its_arguments_say_otherwise() -> None:
    shared = ".venv/bin/python -m pytest -n auto --maxschedchunk 1"
    assert make_would("test") == shared
    # The last word of an option counts.
    assert make_would("test", "ARGS=-n 0 -k page") == f"{shared} -n 0 -k page"


@pytest.mark.parametrize(("processors", "workers"), [(None, 2), (2, 3), (64, 6)])
def test_one_more_worker_than_processors_and_six_at_most(
    processors: int | None,
    workers: int,
    pytestconfig: pytest.Config,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: processors)
    assert pytest_xdist_auto_num_workers(pytestconfig) == workers


def test_ci_is_an_executable_script_that_parses() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111 == 0o111
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("code", [0, 1])
def test_ci_ends_with_the_test_runners_summary(tmp_path: Path, code: int) -> None:
    summary = "3 passed in 0.10s" if code == 0 else "1 failed, 2 passed in 0.10s"
    (tmp_path / ".ci").mkdir()
    script = tmp_path / ".ci" / "run"
    script.write_bytes((ROOT / ".ci" / "run").read_bytes())
    script.chmod(0o700)
    (tmp_path / "Makefile").write_text(
        f"check:\n\t@echo checked\ntest:\n\t@echo warned >&2\n\t@echo '{summary}'; exit {code}\n"
    )
    tools = tmp_path / "tools"
    tools.mkdir()
    # Nothing is missing on this machine.
    for name in ("chromium", "espeak-ng", "ip", "turnserver", "python3"):
        (tools / name).write_text("#!/bin/sh\n")
        (tools / name).chmod(0o700)
    done = subprocess.run(
        [script],
        env=clean_environment(PATH=f"{tools}:{os.environ['PATH']}", PYTHON="python3"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert (done.returncode != 0) == (code != 0)
    assert done.stdout.splitlines() == ["checked", "warned", summary]


def test_changelog_has_an_open_top_section() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"


def shipped(folder: Path, inside: str) -> set[str]:
    return {
        f"{inside}/{file.relative_to(folder).as_posix()}"
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


def test_wheel_holds_pages_personas_and_speech(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling is not installed: use make test")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    libraries = [name for name in held if name.startswith("interview_peer/media/_native.cpython")]
    if wheel.name == f"interview_peer-{__version__}-py3-none-any.whl":
        # What could be compiled here could have been compiled for the wheel.
        assert not native.BUILT
        assert libraries == []
    else:
        assert wheel.name.startswith(f"interview_peer-{__version__}-cp")
        assert len(libraries) == 1
    wanted = shipped(ROOT / "static", "interview_peer/static")
    wanted |= shipped(ROOT / "interview_peer", "interview_peer")
    assert "interview_peer/static/index.html" in held
    assert wanted - held == set()
    assert not any(name.startswith(("tests/", "static/")) for name in held)


def test_native_code_that_no_longer_compiles_leaves_none_of_before(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hatchling", reason="hatchling is not installed: use make test")
    builder: Any = importlib.import_module("hatch_build")
    room = tmp_path / builder.ROOM
    room.mkdir(parents=True)
    (room / "_native.c").write_text("#error this machine cannot\n")
    before = room / f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"
    before.write_bytes(b"made of an older source")
    os.utime(before, (1, 1))
    told: list[str] = []
    app = SimpleNamespace(display_warning=told.append)
    hook = builder.NativeForwarder(str(tmp_path), {}, None, None, "", "wheel", app)
    hook.initialize("editable", {})
    hook.finalize("editable", {}, "")
    assert [sentence.partition(":")[0] for sentence in told] == [
        "the native forwarder was not built"
    ]
    assert [file.name for file in room.iterdir()] == ["_native.c"]


def test_every_field_and_status_of_a_transcript_is_documented() -> None:
    transcript = Transcript()
    transcript.feed(realtime.SpeechStarted(ItemId("U"), 0), 0.0)
    document = transcript.document(SessionId("s"), datetime.now(UTC))
    page = "docs/recording-format.md"
    told = [row[0] for row in table(page, "| field | what it holds |")]
    assert sorted(told) == sorted(document)
    cells = [row[0].replace("`", "") for row in table(page, "| field of a turn | what it holds |")]
    assert sorted(", ".join(cells).split(", ")) == sorted(document["turns"][0])
    # A finished transcript has no partial turns.
    statuses = [row[0] for row in table(page, "| status | meaning |")]
    assert sorted(statuses) == sorted({one.value for one in TurnStatus} - {"partial"})
