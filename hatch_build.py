"""Compiles the native forwarder when the package is built; without a C compiler there is none.

An editable installation gets it beside its source, a wheel inside. Nothing else needs it: see
``interview_peer/media/native.py``.
"""

from __future__ import annotations

import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOM = "interview_peer/media"
SOURCE = f"{ROOM}/_native.c"


class NativeForwarder(BuildHookInterface[Any]):
    """The build hook."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and say what came of it."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        editable = version == "editable"
        self._folder = tempfile.TemporaryDirectory()
        target = root / ROOM if editable else Path(self._folder.name) / "built"
        try:
            (library,) = compile_native(root / SOURCE, target, Path(self._folder.name))
        except Exception as error:
            # Whatever is missing (compiler, headers, setuptools): the rest works without.
            self.app.display_warning(f"the native forwarder was not built: {error}")
            if editable:
                # One of an older source would be loaded, and might want other arguments.
                name = SOURCE.rpartition("/")[2].removesuffix(".c")
                stale = target / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
                stale.unlink(missing_ok=True)
            return
        if not editable:
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
            build_data["force_include"][str(library)] = f"{ROOM}/{library.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what compiling left."""
        if self.target_name == "wheel":
            self._folder.cleanup()


def compile_native(source: Path, target: Path, scratch: Path) -> list[Path]:
    """Compile one extension module into ``target``; the files that came to be.

    Raises:
        Exception: of setuptools or its compiler, whatever is wrong.
    """
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    extension = Extension(source.stem, [str(source)], extra_compile_args=["-O2", "-Wall"])
    command = build_ext(Distribution({"name": source.stem, "ext_modules": [extension]}))
    command.build_lib = str(target)
    command.build_temp = str(scratch / "objects")
    command.ensure_finalized()
    command.run()
    return [Path(name) for name in command.get_outputs()]
