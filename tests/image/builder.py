"""Builds the image without a container engine, on a base made here, and unpacks it.

buildah executes the Dockerfile itself, in a chroot; Debian's own Python stands in for the base
image, so that no container registry is needed. What this proves is the instructions and what they
leave, not the published base. Everything is kept below ``build/image``: a second run takes seconds.
Needs root, buildah and debootstrap.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.machine import lacking, program
from tests.support.server import ROOT

PLACE: Final = ROOT / "build" / "image"
BASE: Final = "localhost/interview-peer-base"
SUITE: Final = "bookworm"
MIRROR: Final = "http://deb.debian.org/debian"
PACKAGES: Final = "ca-certificates,python3,python3-dev,python3-venv"
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

HOST_FILES: Final = ("/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")
"""How this machine reaches the package index; the build sees them, the image does not."""


@dataclass(frozen=True)
class Image:
    """One built image, unpacked."""

    root: Path
    """Its files; changes to them are thrown away."""
    config: dict[str, Any]
    """What an engine would run it by, in Docker's names."""
    size: int
    """Bytes, of the base and of what the Dockerfile added."""

    @property
    def user(self) -> tuple[int, int]:
        """The ids of user and group it starts as."""
        user, _, group = self.config["User"].partition(":")
        return int(user), int(group)

    @property
    def environment(self) -> dict[str, str]:
        """What its processes find set."""
        return dict(one.split("=", 1) for one in self.config["Env"])

    @property
    def command(self) -> list[str]:
        """What it runs when nothing else is asked for."""
        return [*self.config["Entrypoint"], *self.config["Cmd"]]


class Builder:
    """Works below one folder; leaves the machine's own images alone."""

    def __init__(self, place: Path = PLACE) -> None:
        if os.geteuid() != 0:
            lacking("only root can build images here")
        self._buildah = program("buildah")
        self._debootstrap = program("debootstrap")
        self._place = place
        place.mkdir(parents=True, exist_ok=True)

    def build(self, target: str) -> str:
        """Build one target of the Dockerfile; the name of its image."""
        self._make_base()
        name = f"localhost/interview-peer:{target}"
        seen = [f"--volume={file}:{file}:ro" for file in HOST_FILES if Path(file).exists()]
        self._run(
            *("build", "--isolation=chroot", "--format=docker", "--layers", "--pull=never"),
            *(*seen, f"--build-arg=BASE={BASE}", f"--target={target}", f"--tag={name}", str(ROOT)),
        )
        return name

    @contextlib.contextmanager
    def unpacked(self, name: str) -> Iterator[Image]:
        """The files and the configuration of an image."""
        told = json.loads(self._run("inspect", "--type=image", name))
        container = self._run("from", "--pull-never", name)
        try:
            root = Path(self._run("mount", container))
            yield Image(root, told["Docker"]["config"], self._size(name))
        finally:
            self._run("rm", container)

    def base_size(self) -> int:
        """Bytes of the base alone."""
        return self._size(BASE)

    def _size(self, name: str) -> int:
        number, unit = json.loads(self._run("images", "--json", name))[0]["size"].split()
        return round(float(number) * {"KB": 1e3, "MB": 1e6, "GB": 1e9}[unit])

    def _make_base(self) -> None:
        if self._has(BASE):
            return
        folder = self._place / "base"
        if not (folder / "complete").exists():
            subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=True)
            include = f"--include={PACKAGES}"
            self._call(
                [self._debootstrap, "--variant=minbase", include, SUITE, str(folder), MIRROR]
            )
            # debootstrap leaves it mounted in some sandboxes.
            subprocess.run(["umount", str(folder / "proc")], check=False, capture_output=True)
            # The published base has its Python in /usr/local and calls it python, too.
            for link in ("python", "python3"):
                (folder / "usr/local/bin" / link).symlink_to("/usr/bin/python3")
            (folder / "complete").touch()
        archive = self._place / "base.tar"
        self._call(
            ["tar", "-C", str(folder), "-cf", str(archive)]
            + ["--exclude=./proc/*", "--exclude=./sys/*", "--exclude=./dev/*"]
            + ["--exclude=./var/cache/apt/archives/*.deb", "--exclude=./complete", "."]
        )
        container = self._run("from", "scratch")
        self._run("add", "--quiet", container, str(archive), "/")
        self._run("config", f"--env=PATH={PATH}", container)
        self._run("commit", "--quiet", "--rm", container, BASE)
        archive.unlink()

    def _has(self, name: str) -> bool:
        found = subprocess.run(
            self._line("images", "--quiet", name), capture_output=True, text=True, check=False
        )
        return found.returncode == 0 and bool(found.stdout.strip())

    def _line(self, *arguments: str) -> list[str]:
        stored = [f"--root={self._place}/stored", f"--runroot={self._place}/running"]
        return [self._buildah, *stored, *arguments]

    def _run(self, *arguments: str) -> str:
        return self._call(self._line(*arguments))

    def _call(self, line: Sequence[str]) -> str:
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        told = (done.stdout + done.stderr)[-4000:]
        assert done.returncode == 0, f"{' '.join(line)}\n{told}"
        return done.stdout.strip()
