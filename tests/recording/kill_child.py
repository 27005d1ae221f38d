"""Finishes copies of a folder, killed at each step of it in turn, and then what is left.

``python -m tests.recording.kill_child MODEL ROOT``: MODEL is an interview's unfinished folder, ROOT
a data folder for the copies. Prints one JSON line for each kill: after which step it came, which
files were there, and what is wrong with the folder once it has been finished. The last line has
``steps``, how many there were.

A step is anything the job does to a file of the folder, or every so many blocks of the mix.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from interview_peer.finishing.job import finish
from interview_peer.finishing.verify import verify
from interview_peer.storage.folder import INTERVIEWS, InterviewFolder
from interview_peer.types import SessionId

from .folders import ignore

TOUCHES = {"open", "os.rename", "os.remove", "os.truncate", "os.mkdir", "os.chmod", "os.link"}
BLOCKS = 40
"""Blocks of the mix between two steps."""


def finish_until(folder: InterviewFolder, last: int) -> int:
    """Finish in a process that is killed right before step ``last``; the signal, 0 if none came."""
    child = os.fork()
    if child == 0:
        steps = blocks = 0

        def step() -> None:
            nonlocal steps
            steps += 1
            if steps == last:
                os.kill(os.getpid(), signal.SIGKILL)

        def touched(event: str, arguments: tuple[object, ...]) -> None:
            if event in TOUCHES and str(folder.path) in str(arguments[0]):
                step()

        def progress(share: float) -> None:
            nonlocal blocks
            blocks += 1
            if blocks % BLOCKS == 0:
                step()

        code = 1
        try:
            sys.addaudithook(touched)
            finish(folder, progress)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    assert os.WEXITSTATUS(status) == 0, "finishing failed"
    return 0


def main() -> None:
    """Kill at the first step, at the second, and so on until there is none left."""
    model, root = map(Path, sys.argv[1:])
    last = 0
    while True:
        last += 1
        folder = InterviewFolder(root, SessionId(f"killed-{last}"))
        shutil.copytree(model, root / INTERVIEWS / folder.session_id)
        # The copy is the same interview under its own name.
        for name in ("events.jsonl", ".facts.json"):
            if (folder.path / name).exists():
                text = (folder.path / name).read_text()
                (folder.path / name).write_text(text.replace(model.name, folder.session_id))
        if not finish_until(folder, last):
            break
        left = sorted(one.name for one in folder.path.iterdir())
        finish(folder, ignore)
        drafts = sorted(one.name for one in folder.path.iterdir() if one.name.startswith("."))
        found = {
            "step": last,
            "left": left,
            "problems": verify(folder.path),
            "drafts": drafts,
        }
        sys.stdout.write(json.dumps(found) + "\n")
        shutil.rmtree(folder.path)
    sys.stdout.write(json.dumps({"steps": last - 1}) + "\n")


if __name__ == "__main__":
    main()
