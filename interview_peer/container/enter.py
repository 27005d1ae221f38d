"""The way in where the data folder is a volume that belongs to root, as on Fly.io.

``python -m interview_peer.container.enter UID:GID FOLDER COMMAND…`` hands the folder over to the
account, becomes it for good and turns into the command, in the same process: signals reach the
command itself. Started by anyone but root it hands nothing over and turns into the command at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

USAGE = "usage: enter UID:GID FOLDER COMMAND…"


def main(arguments: list[str]) -> str:
    """Never returns when all goes well; else what went wrong, in one sentence."""
    if len(arguments) < 3:
        return USAGE
    account, folder, *command = arguments
    user, _, group = account.partition(":")
    if not (user.isdecimal() and group.isdecimal() and int(user) and int(group)):
        return USAGE
    try:
        if os.geteuid() == 0:
            hand_over(Path(folder), int(user), int(group))
            become(int(user), int(group))
    except OSError as error:
        return f"{error.filename or folder}: {error.strerror}."
    try:
        os.execvp(command[0], command)
    except OSError as error:
        return f"{command[0]}: {error.strerror}."


def hand_over(folder: Path, user: int, group: int) -> None:
    """Make the folder and all in it the account's, unless the folder is already.

    The folder comes last: when this is cut short, the next start does it again. Links are changed
    themselves, never what they lead to.
    """
    folder.mkdir(exist_ok=True)
    if os.stat(folder).st_uid == user:
        return
    for where, folders, files, descriptor in os.fwalk(folder):
        # mkfs made it, for the repair of the file system.
        if Path(where) == folder and "lost+found" in folders:
            folders.remove("lost+found")
        for name in (*folders, *files):
            os.chown(name, user, group, dir_fd=descriptor, follow_symlinks=False)
    os.chown(folder, user, group)
    os.chmod(folder, 0o700)


def become(user: int, group: int) -> None:
    """Give up root, its groups and all its rights, for good."""
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
