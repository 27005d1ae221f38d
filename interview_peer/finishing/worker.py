"""Has finished what ended: one folder after the other, each in a niced process of its own.

Media never waits for it: on the event loop there are queueing and reading a process's progress,
nothing else. A folder whose finishing fails keeps its originals and is tried again at the next
start; at shutdown a job that runs is ended and left for then.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ..storage.folder import INTERVIEWS, InterviewFolder
from ..storage.worker import StorageWorker
from ..types import Json, SessionId
from .facts import Facts
from .names import MANIFEST_NAME, TOMBSTONE_NAME

log = logging.getLogger(__name__)

STALL_SECONDS: Final = 300.0
"""A job that says nothing for so long hangs, and is ended."""

END_SECONDS: Final = 2.0

HELD_SECONDS: Final = 5.0
"""How often folders are looked at again that another process held at the start."""

FinishedListener = Callable[[InterviewFolder], None]
"""Is told, on the event loop, of a folder whose manifest has just been written."""

FailureListener = Callable[[InterviewFolder, str], None]
"""Is told, on the event loop, of a folder that could not be finished, and why in one word."""


@dataclass(slots=True)
class Job:
    """One folder that waits, is being finished, or could not be."""

    folder: InterviewFolder
    state: str = "waiting"
    """``waiting``, ``running``, ``done`` or ``failed``."""
    progress: float = 0.0
    failed: str | None = None
    """One word for what went wrong."""
    dropped: bool = False
    """Nobody wants it finished any more."""
    process: asyncio.subprocess.Process | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def document(self) -> Json:
        """The same for an API."""
        document: Json = {"state": self.state, "progress": self.progress}
        if self.failed is not None:
            document["reason"] = self.failed
        return document


class Finisher:
    """The queue and the one task that works on it. All methods belong to the event loop."""

    def __init__(self, data_dir: Path, storage: StorageWorker) -> None:
        self._data_dir = data_dir
        self._storage = storage
        self._jobs: dict[SessionId, Job] = {}
        self._queue: deque[Job] = deque()
        self._held: list[InterviewFolder] = []
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._listeners: list[FinishedListener] = []
        self._failure_listeners: list[FailureListener] = []
        self.finished = 0
        """Folders finished since the start."""
        self.failures = 0
        """Folders that could not be."""

    @property
    def busy(self) -> bool:
        """Whether a folder waits or is being finished."""
        return any(job.state in ("waiting", "running") for job in self._jobs.values())

    def listen(self, listener: FinishedListener) -> None:
        """Tell ``listener`` of every folder finished from now on.

        Those finished before are found by their manifests (``finished_before``).
        """
        self._listeners.append(listener)

    def listen_to_failures(self, listener: FailureListener) -> None:
        """Tell ``listener`` of every folder that cannot be finished from now on."""
        self._failure_listeners.append(listener)

    async def start(self, after: asyncio.Event | None = None) -> None:
        """Begin, first with what an earlier process left unfinished, but not before ``after``."""
        try:
            self._held = await self._storage.run(lambda: unfinished(self._data_dir))
        except OSError as error:
            # Interviews can be held without a disk; they are only not recorded.
            log.error("recordings cannot be looked through", extra={"error": type(error).__name__})
        if self._held:
            log.info("unfinished interviews found", extra={"count": len(self._held)})
        await self._take_up()
        self._task = asyncio.create_task(self._run(after), name="finish interviews")

    async def take(self, folder: InterviewFolder, facts: Facts) -> None:
        """Finish this folder when its turn comes; what is known of it is kept on disk until then.

        Raises ``OSError`` if the disk refuses that; the folder is finished with what can be found.
        """
        try:
            await self._storage.run(lambda: facts.write(folder))
        finally:
            self._add(folder)

    def state(self, session_id: SessionId) -> Json | None:
        """How far an interview's finishing is; None if this process knows nothing of it."""
        job = self._jobs.get(session_id)
        return job.document() if job is not None else None

    async def drop(self, session_id: SessionId) -> None:
        """Forget a folder that is about to be erased; returns when nobody works on it."""
        self._held = [folder for folder in self._held if folder.session_id != session_id]
        job = self._jobs.pop(session_id, None)
        if job is None:
            return
        job.dropped = True
        if job.state == "waiting":
            self._queue.remove(job)
        elif job.state == "running":
            if job.process is not None:
                await _end(job.process)
            await job.over.wait()

    async def close(self) -> None:
        """End the job that runs, forget the others: the next start finds them. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _add(self, folder: InterviewFolder) -> None:
        job = Job(folder)
        self._jobs[folder.session_id] = job
        self._queue.append(job)
        self._news.set()

    async def _take_up(self) -> None:
        """Queue what was found unfinished at the start and is held by nobody any more.

        Another server may still record there; or a job of a server that was killed, which is about
        to notice.
        """
        held, self._held = self._held, []
        for folder in held:
            if await self._storage.run(folder.held):
                self._held.append(folder)
            else:
                self._add(folder)

    async def _run(self, after: asyncio.Event | None) -> None:
        if after is not None:
            await after.wait()
        while True:
            while self._queue:
                await self._do(self._queue.popleft())
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HELD_SECONDS if self._held else None):
                    await self._news.wait()
            await self._take_up()

    async def _do(self, job: Job) -> None:
        job.state = "running"
        extra = {"session": job.folder.session_id}
        try:
            failure = await self._process_of(job)
        except Exception as error:
            log.exception("finishing broke", extra=extra)
            failure = {"failed": type(error).__name__}
        finally:
            job.over.set()
        if job.dropped:
            log.info("finishing called off", extra=extra)
        elif failure is None:
            job.state, job.progress = "done", 1.0
            self.finished += 1
            log.info("interview finished", extra=extra)
            # From here on the manifest tells.
            del self._jobs[job.folder.session_id]
            self._tell(self._listeners, job.folder)
        else:
            job.state, job.failed = "failed", str(failure.get("failed"))
            self.failures += 1
            place = str(failure.get("place", "unknown"))
            log.error("finishing failed", extra={**extra, "reason": job.failed, "place": place})
            self._tell(self._failure_listeners, job.folder, job.failed)

    def _tell(
        self, listeners: Sequence[Callable[..., None]], folder: InterviewFolder, *more: str
    ) -> None:
        for listener in tuple(listeners):
            try:
                listener(folder, *more)
            except Exception:
                log.exception("a listener failed", extra={"session": folder.session_id})

    async def _process_of(self, job: Job) -> Json | None:
        """Run the job's process to its end; None if it finished the folder, else its complaint."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "interview_peer.finishing",
            str(job.folder.path.resolve()),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        last: Json = {}
        job.process = process
        try:
            if job.dropped:
                return None
            assert process.stdout is not None
            while True:
                async with asyncio.timeout(STALL_SECONDS):
                    line = await process.stdout.readline()
                if not line:
                    break
                last = _read(line)
                share = last.get("progress")
                if isinstance(share, int | float):
                    job.progress = float(share)
            code = await process.wait()
        except TimeoutError:
            return {"failed": "stalled"}
        finally:
            await _end(process)
        if code == 0 and last.get("done"):
            return None
        return last if "failed" in last else {"failed": f"exit code {code}"}


def unfinished(data_dir: Path) -> list[InterviewFolder]:
    """Folders without a manifest, oldest first.

    Empty ones, of interviews that ended before anything was written, are left out. Raises
    ``OSError`` if the folder of all interviews cannot be read.
    """
    try:
        candidates = [path for path in (data_dir / INTERVIEWS).iterdir() if path.is_dir()]
    except FileNotFoundError:
        return []
    found: list[tuple[float, InterviewFolder]] = []
    for path in candidates:
        # One folder that cannot be read must not keep the others from being found.
        with contextlib.suppress(Exception):
            folder = InterviewFolder(data_dir, SessionId(path.name))
            if (path / MANIFEST_NAME).exists() or not any(path.glob("*.ogg")):
                continue
            if (path / TOMBSTONE_NAME).exists():
                # Being erased; nothing more is made of it.
                continue
            found.append((path.stat().st_mtime, folder))
    return [folder for _, folder in sorted(found, key=lambda one: one[0])]


def finished_before(data_dir: Path) -> list[InterviewFolder]:
    """Folders that have a manifest, by name. Raises ``OSError`` as ``unfinished`` does."""
    interviews = data_dir / INTERVIEWS
    paths = sorted(interviews.glob(f"*/{MANIFEST_NAME}"))
    return [InterviewFolder(data_dir, SessionId(path.parent.name)) for path in paths]


async def _end(process: asyncio.subprocess.Process) -> None:
    """Make sure that the process is gone."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(END_SECONDS):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _read(line: bytes) -> Json:
    try:
        value: Any = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
