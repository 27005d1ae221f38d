"""The documents against what there is: names, routes, commands, tasks, links, and every example.

Settings, error codes and fields of a transcript are compared in ``test_house.py``, metrics in
``metrics/test_metrics.py``, what docs/protocol.md says in ``web/test_protocol_document.py``.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click
import pytest
import yaml

from interview_peer.cli import main
from interview_peer.core.acts import Act
from interview_peer.core.lifecycle import Phase, Reason
from interview_peer.core.scopes import Scope
from interview_peer.doctor.examine import CHECKS
from interview_peer.session.reporter import FAILURE_SENTENCES
from interview_peer.settings import Settings, env_name
from interview_peer.web.openapi import document
from interview_peer.web.operations_api import DISK_UNUSABLE, RECOVERING
from interview_peer.web.signalling import OFFER_FAILED
from tests.test_house import error_classes

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "interview_peer"
DOCS = ROOT / "docs"
PAGES = ("README.md", *sorted(f"docs/{page.name}" for page in DOCS.glob("*.md")))
_FENCED = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    page: str
    kind: str
    text: str


@cache
def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def prose(page: str) -> str:
    """Without its fenced examples."""
    return _FENCED.sub("", text_of(page))


def blocks() -> list[Block]:
    return [
        Block(page, kind.strip(), text)
        for page in PAGES
        for kind, text in _FENCED.findall(text_of(page))
    ]


def anchors(page: str) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_a_heading(page: str) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in link:
            continue
        place, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / place).resolve() if place else ROOT / page
        name = target.relative_to(ROOT).as_posix() if target.is_relative_to(ROOT) else ""
        if not target.exists() or (anchor and anchor not in anchors(name)):
            broken.append(link)
    assert broken == []


def test_the_readme_lists_every_page_once() -> None:
    listed = re.findall(r"^\| \[[^\]]+\]\((docs/[a-z-]+\.md)\) \|", text_of("README.md"), re.M)
    assert sorted(listed) == [page for page in PAGES if page.startswith("docs/")]


def test_names_of_settings_and_codes_in_documents_are_such() -> None:
    known = {env_name(field) for field in Settings.model_fields}
    known |= {error.code for error in error_classes()}
    known |= {OFFER_FAILED, RECOVERING, DISK_UNUSABLE}
    known |= {reason.value.upper() for reason in FAILURE_SENTENCES}
    # Of the Compose file's own.
    known |= set(re.findall(r"^[A-Z_]+(?==)", text_of("deploy/compose.env.example"), re.M))
    told = {
        (page, name)
        for page in PAGES
        for name in (
            *re.findall(r"\bINTERVIEW_[A-Z0-9_]*[A-Z0-9]\b", text_of(page)),
            *re.findall(r"`([A-Z]+(?:_[A-Z0-9]+)+)`", text_of(page)),
        )
    }
    assert {(page, name) for page, name in told if name not in known} == set()


def test_every_scope_of_a_key_is_told() -> None:
    (_, _, told) = text_of("docs/api.md").partition("| scope |")
    rows = re.findall(r"^\| `(\w+)` \|", told.partition("\n\n")[0], re.MULTILINE)
    assert sorted(rows) == sorted(Scope)


def test_every_route_is_told_by_a_page() -> None:
    told = "\n".join(text_of(page) for page in PAGES)
    untold = []
    for path in document()["paths"]:
        # Pages name placeholders as they like, and leave out the beginning of neighbours.
        whole = re.sub(r"\{\w+\}", "[^/\\\\s`]+", path)
        last = path.rpartition("/")[2]
        short = re.escape(f"…/{last}") if "{" not in last else whole
        if not re.search(rf"(?:{whole}|{short})(?![\w/])", told):
            untold.append(path)
    assert untold == []


def commands(group: click.Group, above: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield f"{above}{name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{above}{name} ")


def test_the_readme_lists_every_command() -> None:
    (listed,) = (one.text for one in blocks() if one.text.startswith("interview-peer serve "))
    lines = listed.splitlines()
    for name, _ in commands(main):
        first, _, below = name.partition(" ")
        of_it = [line for line in lines if line.startswith(f"interview-peer {first}")]
        assert of_it, name
        assert re.search(rf"\b{below}\b", " ".join(of_it)), name


def test_commands_and_flags_in_documents_exist() -> None:
    known = dict(commands(main))
    wrong = []
    for page in PAGES:
        for line in re.findall(r"interview-peer ([a-z][^\n`|&)]*)", text_of(page)):
            words = line.split()
            command = known.get(" ".join(words[:2])) or known.get(words[0])
            if command is None:
                # Prose, an image's name in a command of Docker's, a unit of systemd's.
                if re.search(rf"`interview-peer {re.escape(words[0])}", text_of(page)):
                    wrong.append(line)
                continue
            options = {opt for one in command.params for opt in [*one.opts, *one.secondary_opts]}
            flags = set(re.findall(r"--[a-z][a-z-]+", line))
            wrong += [f"{words[0]} {flag}" for flag in flags - options - {"--help"}]
    assert wrong == []


def test_every_act_that_is_written_down_is_told() -> None:
    section = text_of("docs/operations.md").partition("\n## Audit\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[a-z_.`, ]+) \|", section, re.MULTILINE)
    told = [name for row in rows for name in re.findall(r"`([a-z_.]+)`", row)]
    assert sorted(told) == sorted(Act)


def test_the_doctors_checks_are_all_explained() -> None:
    table = text_of("docs/operations.md").partition("| check | what is tried |")[2]
    rows = re.findall(r"^\| `(\w+)` \|", table.partition("\n\n")[0], re.MULTILINE)
    assert rows == list(CHECKS)


def given_names() -> set[str]:
    """How tasks and threads of the package are called: the text before the first variable part."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        # Not parts of a server: the simulated service, the kit for tests, a command that ends.
        if file.relative_to(PACKAGE).parts[0] in ("simulator", "testing", "doctor"):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            if called == "start" and len(node.args) == 2 and isinstance(node.args[1], ast.Constant):
                # Of ``tasks.Tasks``, which adds its owner's name.
                found.add(str(node.args[1].value))
            for keyword in node.keywords:
                if keyword.arg != "name" or called not in ("create_task", "Thread"):
                    continue
                value = keyword.value
                if isinstance(value, ast.JoinedStr):
                    value = value.values[0]
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    found.add(value.value.strip())
    return found - {""}


def test_the_architecture_page_tells_who_owns_every_task() -> None:
    page = text_of("docs/architecture.md").partition("## Who owns which task")[2]
    table = page.partition("## How an interview ends")[0]
    told = re.findall(r"`([^`]+)`", table)
    names = given_names()
    assert len(names) > 15
    assert [name for name in sorted(names) if not any(one.startswith(name) for one in told)] == []


def test_the_architecture_page_tells_every_way_in_which_an_interview_ends() -> None:
    page = text_of("docs/architecture.md").partition("## How an interview ends")[2]
    section = page.partition("\n## ")[0]
    assert [one.value for one in Reason if f"`{one.value}`" not in section] == []
    assert [one.value for one in Phase if one.value not in section] == []


def test_places_in_the_architecture_page_exist() -> None:
    for place in re.findall(
        r"`([a-z_]+(?:/[a-z_]*)*(?:\.py|\.c|/))`", text_of("docs/architecture.md")
    ):
        found = (PACKAGE / place).exists() or (ROOT / place).exists()
        assert found, place


def test_every_threat_names_tests_that_exist() -> None:
    rows = re.findall(r"^\| (\d+) \|.*\| (.*) \|$", text_of("docs/threats.md"), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    for number, shown_by in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", shown_by)
        assert named and len(named) == shown_by.count("`tests/"), number
        for file, test in named:
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            functions = (ast.FunctionDef, ast.AsyncFunctionDef)
            found = {node.name for node in ast.walk(tree) if isinstance(node, functions)}
            assert test in found, f"{number}: {file}::{test}"


def sentences() -> set[str]:
    """Every text of the package, with an ellipsis for what is put in."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Constant(value=str(text)):
                    found.add(re.sub(r"\{\w+\}", "…", text))
                case ast.JoinedStr(values=parts):
                    texts = (
                        part.value if isinstance(part, ast.Constant) else "…" for part in parts
                    )
                    found.add("".join(map(str, texts)))
    return found


def test_what_a_server_says_that_does_not_start_is_quoted_as_it_is() -> None:
    section = text_of("docs/troubleshooting.md").partition("\n## It does not start\n")[2]
    quoted = re.findall(r"^\| `([^`]+)` \|", section.partition("\n## ")[0], re.MULTILINE)
    said = sentences()
    assert len(quoted) > 5
    for quote in quoted:
        pieces = [re.escape(piece.strip()) for piece in quote.split("…") if piece.strip()]
        pattern = re.compile(".*".join(pieces), re.DOTALL)
        assert any(pattern.search(sentence) for sentence in said), quote


KINDS = {"", "http", "conf"}
"""Examples without a language are pictures and words; docs/protocol.md's exchanges are executed by
its own test, coturn's configuration by coturn."""


@pytest.mark.parametrize("block", blocks(), ids=lambda one: f"{one.page} {one.kind}")
def test_every_example_is_what_it_says_it_is(block: Block) -> None:
    language = block.kind.partition(" ")[0]
    match language:
        case "json":
            try:
                json.loads(block.text)
            except ValueError:
                # Or one object a line.
                for line in block.text.splitlines():
                    json.loads(line)
        case "toml":
            tomllib.loads(block.text)
        case "yaml":
            yaml.safe_load(block.text)
        case "python":
            ast.parse(block.text)
        case "js":
            # Executed in a browser by tests/browser/test_migration.py.
            assert block.page == "docs/migration.md"
        case "sh":
            subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
        case _:
            assert language in KINDS, block
