"""docs/simulator.md against what there is: names, settings, tests, and its examples run."""

from __future__ import annotations

import ast
import asyncio
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from aiohttp import web

import interview_peer.testing
from interview_peer.simulator.admin import ACTIONS, PREFIX
from interview_peer.simulator.server import Simulator
from interview_peer.simulator.settings import SimulatorSettings
from tests.support.server import clean_environment

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "simulator.md").read_text(encoding="utf-8")


def rows(heading: str) -> Iterator[list[str]]:
    """The cells of each row under a table's heading."""
    lines = TEXT.splitlines()
    for line in lines[lines.index(heading) + 2 :]:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split(" | ")]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`(\w+)", cell)


def told(default: object) -> str:
    if default is None:
        return "–"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def test_every_setting_is_listed_with_its_default_and_meaning() -> None:
    fields = SimulatorSettings.model_fields
    assert list(rows("| setting | default | meaning |")) == [
        [f"`{name}`", told(field.default), field.description] for name, field in fields.items()
    ]


def test_every_public_name_is_listed() -> None:
    listed = [name for row in rows("| name | what it is |") for name in quoted(row[0])]
    assert set(interview_peer.testing.__all__) <= set(listed)


async def test_every_request_of_the_admin_path_is_listed() -> None:
    router = Simulator(SimulatorSettings()).application().router
    there = {
        f"{route.method} {route.resource.canonical}"
        for route in router.routes()
        if isinstance(route, web.ResourceRoute)
        and route.resource is not None
        and route.resource.canonical.startswith(PREFIX)
        and route.method != "HEAD"
    }
    acted = f"POST {PREFIX}/calls/{{call_id}}/{{action}}"
    wanted = there - {acted} | {f"POST {PREFIX}/calls/{{id}}/{name}" for name in ACTIONS}
    assert acted in there
    listed = {row[0].strip("`") for row in rows("| request | what it does |")}
    assert listed == wanted


def test_every_test_that_it_names_is_there_and_every_point_has_one() -> None:
    tests = {
        node.name
        for folder in ("simulator", "testing")
        for file in (ROOT / "tests" / folder).glob("test_*.py")
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    points = list(rows("| | what | shown by |"))
    assert [int(row[0]) for row in points] == list(range(1, 26))
    named = {name for row in points for name in quoted(row[2])}
    assert all(quoted(row[2]) for row in points)
    named |= {name for name in quoted(TEXT) if name.startswith("test_")}
    assert named - tests == set()


async def test_the_examples_run_as_they_are_written(tmp_path: Path) -> None:
    examples = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    file = tmp_path / "test_example.py"
    await asyncio.to_thread(file.write_text, "\n\n".join(examples), encoding="utf-8")
    (options,) = re.findall(r"^```toml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    await asyncio.to_thread((tmp_path / "pyproject.toml").write_text, options, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "-p", "pytest_asyncio.plugin"),
        str(file),
        cwd=tmp_path,
        # Plugins that it has no use for take longer to load than it runs.
        env=clean_environment(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert f"{len(re.findall('def test_', file.read_text()))} passed" in output.decode()
