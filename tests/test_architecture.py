"""Which way imports may run, and who may touch which library. A breach fails with its place."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "interview_peer"
ENGINE = "media/engine.py"

EVERYONES = {"", "errors", "types"}
ROOMS = {
    "core": EVERYONES,
    "container": EVERYONES,
    "media": EVERYONES | {"core", "tasks", "logs", "settings"},
    "metrics": EVERYONES | {"core", "media", "session", "notices"},
    "model": EVERYONES | {"core", "tasks", "media", "logs", "settings"},
    "storage": EVERYONES | {"core", "tasks", "logs", "settings"},
    "doctor": EVERYONES
    | {"core", "media", "model", "notices", "personas", "state", "storage", "logs", "settings"},
    "finishing": EVERYONES | {"core", "storage", "logs", "settings"},
    "settings": EVERYONES | {"core"},
    "simulator": EVERYONES | {"core", "tasks", "media", "logs", "settings"},
    "testing": EVERYONES | {"simulator"},
    "personas": EVERYONES | {"core"},
    "state": EVERYONES | {"core", "tasks", "notices", "logs"},
    "notices": EVERYONES | {"core", "state", "logs", "settings"},
    "session": EVERYONES
    | {"core", "media", "model", "personas", "state", "storage", "finishing", "logs", "settings"}
    | {"tasks"},
    "web": EVERYONES
    | {"core", "notices", "personas", "session", "state", "storage", "logs", "settings", "tasks"},
}
"""What a room may import of the package, beside itself. Modules of the top level are not listed:
``app`` and ``cli`` put everything together; the others are held by the rules below."""

LEAVES = {
    "types": set[str](),
    "errors": set[str](),
    "logs": EVERYONES,
    "tasks": set[str](),
}

LIBRARIES: dict[str, Callable[[str], bool]] = {
    "aioice": lambda module: module == ENGINE,
    "pylibsrtp": lambda module: module == ENGINE,
    "aiortc": lambda module: module.startswith(("media/", "testing/")),
    "av": lambda module: module.startswith(("simulator/", "testing/", "finishing/")),
    "aiohttp": lambda module: not module.startswith(("core/", "media/", "storage/")),
    "jwt": lambda module: module.startswith("web/"),
    "asyncio": lambda module: not module.startswith("core/"),
    "sqlalchemy": lambda module: module.startswith(
        (
            *("state/", "notices/", "web/"),
            *(f"session/{one}.py" for one in ("announcer", "erasures", "outdated", "recovery")),
        )
    ),
    "alembic": lambda module: module.startswith("state/"),
    "aiosqlite": lambda module: module.startswith("state/"),
    "asyncpg": lambda module: module.startswith("state/"),
}
"""Who may import a library."""


@dataclass(frozen=True)
class Import:
    """One imported module, by its full dotted name."""

    line: int
    name: str


def modules() -> list[str]:
    return sorted(file.relative_to(PACKAGE).as_posix() for file in PACKAGE.rglob("*.py"))


def tree_of(module: str) -> ast.Module:
    return ast.parse((PACKAGE / module).read_text(encoding="utf-8"), module)


def imports(module: str, tree: ast.Module) -> Iterator[Import]:
    package = [PACKAGE.name, *module.split("/")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(node.lineno, f"{start}.{alias.name}")


def room_of(module: str) -> str:
    return module.split("/")[0].removesuffix(".py")


def imported_room(name: str) -> str | None:
    """The room or top-level module that a dotted name leads into; "" is the package itself."""
    package, *rest = name.split(".")
    if package != PACKAGE.name:
        return None
    known = {room_of(module) for module in modules()} - {"__init__"}
    return rest[0] if rest and rest[0] in known else ""


def room_breaches(module: str, tree: ast.Module) -> list[str]:
    room = room_of(module)
    allowed = ROOMS.get(room) if "/" in module else LEAVES.get(room)
    if allowed is None:
        return []
    return [
        f"{module}:{found.line} imports {found.name}"
        for found in imports(module, tree)
        if (target := imported_room(found.name)) is not None
        and target != room
        and target not in allowed
    ]


def library_breaches(module: str, tree: ast.Module) -> list[str]:
    return [
        f"{module}:{found.line} imports {found.name}"
        for found in imports(module, tree)
        if (library := found.name.split(".")[0]) in LIBRARIES and not LIBRARIES[library](module)
    ]


def private_breaches(module: str, tree: ast.Module) -> list[str]:
    """Private names of aiortc and its family: mangled attributes, underscored imports."""
    if module == ENGINE:
        return []
    breaches = [
        f"{module}:{found.line} imports {found.name}"
        for found in imports(module, tree)
        if found.name.split(".")[0] in ("aiortc", "aioice", "pylibsrtp")
        and any(part.startswith("_") for part in found.name.split("."))
    ]
    for node in ast.walk(tree):
        name = (
            node.attr
            if isinstance(node, ast.Attribute)
            else node.value
            if isinstance(node, ast.Constant)
            else ""
        )
        if isinstance(name, str) and name.startswith("_RTC") and "__" in name:
            breaches.append(f"{module}:{getattr(node, 'lineno', 0)} uses {name}")
    return breaches


def environment_breaches(module: str, tree: ast.Module) -> list[str]:
    # The health check of an image runs too often to load the settings for two names.
    if module in ("settings/environment.py", "container/health.py"):
        return []
    return [
        f"{module}:{node.lineno} reads the environment"
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb"))
        or (isinstance(node, ast.Name) and node.id in ("environ", "getenv"))
    ]


CHECKS = [room_breaches, library_breaches, private_breaches, environment_breaches]


@pytest.mark.parametrize("check", CHECKS)
def test_package_keeps_the_rule(check: Callable[[str, ast.Module], list[str]]) -> None:
    assert [breach for module in modules() for breach in check(module, tree_of(module))] == []


@pytest.mark.parametrize(
    ("check", "module", "source"),
    [
        (room_breaches, "core/x.py", "from interview_peer.settings import Settings"),
        (room_breaches, "core/x.py", "def f():\n    import interview_peer.media.leg"),
        (room_breaches, "media/x.py", "from interview_peer import storage"),
        (room_breaches, "storage/x.py", "from interview_peer.session.session import Session"),
        (room_breaches, "core/x.py", "from ..media.leg import Leg"),
        (room_breaches, "core/x.py", "from .. import media"),
        (room_breaches, "settings/x.py", "from ..media.engine import Engine"),
        (room_breaches, "errors.py", "from interview_peer import logs"),
        (library_breaches, "core/x.py", "import asyncio"),
        (library_breaches, "core/x.py", "from aiohttp import web"),
        (library_breaches, "media/leg.py", "import aioice.ice"),
        (library_breaches, "media/leg.py", "from pylibsrtp import Session"),
        (library_breaches, "session/x.py", "from aiortc import RTCPeerConnection"),
        (library_breaches, "media/x.py", "import av"),
        (private_breaches, "media/leg.py", "from aiortc.rtcrtpreceiver import _secret"),
        (private_breaches, "media/leg.py", "peer._RTCPeerConnection__sctp"),
        (private_breaches, "media/leg.py", "getattr(peer, '_RTCPeerConnection__sctp')"),
        (environment_breaches, "cli.py", "import os\nos.environ['A']"),
        (environment_breaches, "app.py", "from os import getenv\ngetenv('A')"),
        (environment_breaches, "settings/model.py", "import os\nos.environ['A']"),
    ],
)
def test_check_sees_a_breach(
    check: Callable[[str, ast.Module], list[str]], module: str, source: str
) -> None:
    assert len(check(module, ast.parse(source))) == 1


def test_every_room_has_a_rule() -> None:
    rooms = {room_of(module) for module in modules() if "/" in module}
    assert rooms <= set(ROOMS)


def test_every_module_says_what_it_is_for_and_defers_annotations() -> None:
    silent = []
    for module in modules():
        tree = tree_of(module)
        statements = [node for node in tree.body if not isinstance(node, ast.Expr)]
        if not tree.body and module.endswith("__init__.py"):
            continue
        if not ast.get_docstring(tree):
            silent.append(f"{module} has no docstring")
        elif statements and not module.endswith("__init__.py"):
            first = statements[0]
            if not isinstance(first, ast.ImportFrom) or first.module != "__future__":
                silent.append(f"{module} does not begin with from __future__ import annotations")
    assert silent == []
