"""Has finished what ended: one folder after the other, in a niced process beside the server.

A process takes the folders that wait, up to ``MOST_FOLDERS``, and ends when none is left, or with
one that fails: the next folder gets a new one.

Media never waits for it: on the event loop there are queueing and reading a process's progress,
nothing else. Folders are looked through now and then, so that what nobody told of is finished, and
what failed is tried again; a folder whose finishing fails keeps its originals. At shutdown a job
that runs is ended and left for the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ..errors import InvalidSessionId
from ..logs import word_for
from ..storage.folder import INTERVIEWS, InterviewFolder
from ..storage.worker import StorageWorker
from ..types import Json, SessionId
from .facts import Facts
from .names import MANIFEST_NAME, TOMBSTONE_NAME

log = logging.getLogger(__name__)

STALL_SECONDS: Final = 300.0
"""A job that says nothing for so long hangs, and is ended."""

END_SECONDS: Final = 2.0

MOST_FOLDERS: Final = 100
"""After so many a process is followed by a new one, whatever the libraries for sound leave in it.
Its start takes 0.3 s of a core; then an interview of some seconds takes 0.07 s."""

HELD_SECONDS: Final = 5.0
"""How often folders are looked at again that another process held at the start."""

SWEEP_SECONDS: Final = 60.0
"""How often folders are looked through for what nobody told of, and for what may be tried again."""

RETRY_SECONDS: Final = (60.0, 300.0, 900.0, 3600.0)
"""Pauses after the first, second, … failure of a folder; the last one holds for ever."""

DROPPED_SECONDS: Final = 300.0
"""For how long a folder that is being erased is not taken up, whatever of it is still seen."""

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
    attempts: int = 0
    """How often it was tried."""
    retry_at: float = 0.0
    """When (the loop's time) a failed one may be tried again."""
    dropped: bool = False
    """Nobody wants it finished any more."""
    process: asyncio.subprocess.Process | None = None
    over: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    """Done when nobody works on it any more. Hundreds may wait: an event would be a kilobyte."""

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
        self._closing: dict[SessionId, asyncio.Task[object]] = {}
        self._dropped: dict[SessionId, float] = {}
        self._settled: set[str] = set()
        self._runs: Callable[[SessionId], bool] = lambda _: False
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        """One that has finished a folder and waits for the next."""
        self._folders = 0
        """How many it was given."""
        self._listeners: list[FinishedListener] = []
        self._failure_listeners: list[FailureListener] = []
        self.finished = 0
        """Folders finished since the start."""
        self.failures = 0
        """Folders that could not be."""

    @property
    def busy(self) -> bool:
        """Whether a folder waits or is being finished."""
        return bool(self._closing) or any(
            job.state in ("waiting", "running") for job in self._jobs.values()
        )

    async def rested(self) -> None:
        """Wait until no folder waits or is being finished. For as long as it takes."""
        while self.busy:
            if self._closing:
                await asyncio.wait(list(self._closing.values()))
            else:
                now = [job for job in self._jobs.values() if job.state in ("waiting", "running")]
                await asyncio.wait([job.over for job in now])

    def listen(self, listener: FinishedListener) -> None:
        """Tell ``listener`` of every folder finished from now on.

        Those finished before are found by their manifests (``finished_before``).
        """
        self._listeners.append(listener)

    def listen_to_failures(self, listener: FailureListener) -> None:
        """Tell ``listener`` of every folder that cannot be finished from now on."""
        self._failure_listeners.append(listener)

    def spare(self, runs: Callable[[SessionId], bool]) -> None:
        """Take up no folder of an interview that ``runs``: it is told of when it has ended."""
        self._runs = runs

    def adopt(self, folder: InterviewFolder, closing: asyncio.Task[object]) -> None:
        """See to an interview's files that the disk did not let be closed in time.

        ``closing`` closes them, and hands the folder over by ``take`` when the disk answers again.
        """
        name = folder.session_id
        self._closing[name] = closing

        def over(done: asyncio.Task[object]) -> None:
            self._closing.pop(name, None)
            if not done.cancelled() and (error := done.exception()) is not None:
                # Unless it was handed over all the same, the next sweep finds it.
                extra = {"session": name, "error": word_for(error)}
                log.error("files could not be closed", extra=extra)

        closing.add_done_callback(over)

    async def start(self, after: asyncio.Event | None = None) -> None:
        """Begin, first with what an earlier process left unfinished, but not before ``after``."""
        try:
            self._held = await self._storage.run(lambda: unfinished(self._data_dir))
        except OSError as error:
            # Interviews can be held without a disk; they are only not recorded.
            log.error("recordings cannot be looked through", extra={"error": word_for(error)})
        if self._held:
            log.info("unfinished interviews found", extra={"count": len(self._held)})
        await self._take_up()
        self._task = asyncio.create_task(self._run(after), name="finish interviews")

    async def take(
        self, folder: InterviewFolder, facts: Facts, let_go: Callable[[], None] | None = None
    ) -> None:
        """Finish this folder when its turn comes; what is known of it is kept on disk until then.

        ``let_go`` gives up the caller's claim of the folder; it is called in the storage thread
        once that is on disk, or is known not to come there, and must not raise.

        Raises ``OSError`` if the disk refuses that; the folder is finished with what can be found.
        """

        def keep() -> None:
            try:
                facts.write(folder)
            finally:
                if let_go is not None:
                    let_go()

        try:
            await self._storage.run(keep)
        finally:
            self._add(folder)

    def state(self, session_id: SessionId) -> Json | None:
        """How far an interview's finishing is; None if this process knows nothing of it."""
        if session_id in self._closing:
            return {"state": "waiting", "progress": 0.0}
        job = self._jobs.get(session_id)
        return job.document() if job is not None else None

    def statistics(self) -> Json:
        """Figures for operators: folders that wait, are worked on or could not be finished now,
        and what was done since the start."""
        states = Counter(job.state for job in self._jobs.values())
        return {
            "waiting": states["waiting"] + len(self._closing),
            "running": states["running"],
            "held": len(self._held),
            "failed": states["failed"],
            "finished": self.finished,
            "failures": self.failures,
        }

    async def drop(self, session_id: SessionId) -> None:
        """Forget a folder that is about to be erased; returns when nobody works on it."""
        self._dropped[session_id] = asyncio.get_running_loop().time()
        if (closing := self._closing.get(session_id)) is not None:
            closing.cancel()
            await asyncio.wait([closing])
        self._held = [folder for folder in self._held if folder.session_id != session_id]
        job = self._jobs.pop(session_id, None)
        if job is None:
            return
        job.dropped = True
        if job.state == "waiting":
            self._queue.remove(job)
            job.over.set_result(None)
        elif job.state == "running":
            if job.process is not None:
                await _end(job.process)
            await asyncio.wait([job.over])

    async def close(self) -> None:
        """End the job that runs, forget the others: the next start finds them. Idempotent."""
        task, self._task = self._task, None
        left = [*self._closing.values(), *([] if task is None else [task])]
        for one in left:
            one.cancel()
        if left:
            await asyncio.wait(left)

    def _add(self, folder: InterviewFolder) -> None:
        known = self._jobs.get(folder.session_id)
        if known is not None and known.state in ("waiting", "running"):
            return
        job = Job(folder, attempts=0 if known is None else known.attempts)
        self._jobs[folder.session_id] = job
        self._queue.append(job)
        self._news.set()

    async def _take_up(self) -> None:
        """Queue what was found unfinished and is held by nobody any more.

        Another server may still record there; or a job of a server that was killed, which is about
        to notice.
        """
        held, self._held = self._held, []
        for folder in held:
            if await self._storage.run(folder.held):
                self._held.append(folder)
            elif self._may_take(folder.session_id):
                self._add(folder)

    async def _sweep(self) -> None:
        """Find what nobody told of, and what may be tried again."""
        now = asyncio.get_running_loop().time()
        # Not in the storage thread: recordings must not wait for a long list.
        found = await asyncio.to_thread(unfinished, self._data_dir, self._settled)
        waiting = {folder.session_id for folder in self._held}
        self._held += [
            folder
            for folder in found
            if folder.session_id not in waiting and self._may_take(folder.session_id)
        ]
        for name, at in list(self._dropped.items()):
            if now - at > DROPPED_SECONDS:
                del self._dropped[name]

    def _may_take(self, session_id: SessionId) -> bool:
        """Whether a folder that lacks its manifest is to be finished now."""
        if session_id in self._closing or session_id in self._dropped or self._runs(session_id):
            return False
        job = self._jobs.get(session_id)
        if job is None:
            return True
        return job.state == "failed" and asyncio.get_running_loop().time() >= job.retry_at

    async def _run(self, after: asyncio.Event | None) -> None:
        if after is not None:
            await after.wait()
        loop = asyncio.get_running_loop()
        next_sweep = loop.time() + SWEEP_SECONDS
        while True:
            while self._queue:
                await self._do(self._queue.popleft())
            self._news.clear()
            wake_at = min(next_sweep, loop.time() + HELD_SECONDS) if self._held else next_sweep
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(wake_at):
                    await self._news.wait()
            try:
                if loop.time() >= next_sweep:
                    next_sweep = loop.time() + SWEEP_SECONDS
                    await self._sweep()
                await self._take_up()
            except OSError as error:
                extra = {"error": word_for(error)}
                log.error("recordings cannot be looked through", extra=extra)

    async def _do(self, job: Job) -> None:
        job.state = "running"
        job.attempts += 1
        extra = {"session": job.folder.session_id}
        try:
            failure = await self._process_of(job)
        except Exception as error:
            log.exception("finishing broke", extra=extra)
            failure = {"failed": word_for(error)}
        finally:
            job.over.set_result(None)
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
            pause = RETRY_SECONDS[min(job.attempts, len(RETRY_SECONDS)) - 1]
            job.retry_at = asyncio.get_running_loop().time() + pause
            if job.attempts == 1:
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
        """Have a process finish the folder; None if it did, else its complaint."""
        path = str(job.folder.path.resolve())
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            self._folders = 0
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "interview_peer.finishing", path),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                # A terminal's Ctrl-C is for us, from its first moment on: we decide what becomes
                # of it.
                process_group=0,
            )
        else:
            assert process.stdin is not None
            # That one has just gone is noticed by its silence.
            process.stdin.write(json.dumps(path).encode() + b"\n")
        self._folders += 1
        job.process = process
        try:
            if job.dropped:
                return None
            last = await _said(process, job)
            if last.get("done"):
                if self._queue and self._folders < MOST_FOLDERS:
                    self._process = process
                    return None
                assert process.stdin is not None
                process.stdin.close()
            async with asyncio.timeout(STALL_SECONDS):
                code = await process.wait()
        except TimeoutError:
            return {"failed": "stalled"}
        finally:
            if process is not self._process:
                await _end(process)
        if code == 0 and last.get("done"):
            return None
        return last if "failed" in last else {"failed": f"exit code {code}"}


async def _said(process: asyncio.subprocess.Process, job: Job) -> Json:
    """The last a process says of a job, up to its end or its output's; raises ``TimeoutError``."""
    assert process.stdout is not None
    last: Json = {}
    while "done" not in last:
        async with asyncio.timeout(STALL_SECONDS):
            line = await process.stdout.readline()
        if not line:
            break
        last = _read(line)
        share = last.get("progress")
        if isinstance(share, int | float):
            job.progress = float(share)
    return last


def unfinished(data_dir: Path, settled: set[str] | None = None) -> list[InterviewFolder]:
    """Folders without a manifest, oldest first.

    Empty ones, of interviews that ended before anything was written, are left out. Names in
    ``settled`` are not looked at; those of folders that need nothing more are added to it, those
    that are gone are taken from it. Raises ``OSError`` if the folder of all interviews cannot be
    read.
    """
    settled = set() if settled is None else settled
    gone = set(settled)
    names = []
    try:
        with os.scandir(data_dir / INTERVIEWS) as entries:
            for one in entries:
                if one.name in settled:
                    gone.discard(one.name)
                elif one.is_dir():
                    names.append(one.name)
    except FileNotFoundError:
        pass
    settled -= gone
    found: list[tuple[float, InterviewFolder]] = []
    for name in names:
        # One folder that cannot be read must not keep the others from being found.
        with contextlib.suppress(Exception):
            folder = InterviewFolder(data_dir, SessionId(name))
            path = folder.path
            # One that is being erased needs nothing more to be made of it.
            if (path / MANIFEST_NAME).exists() or (path / TOMBSTONE_NAME).exists():
                settled.add(name)
            elif any(path.glob("*.ogg")):
                found.append((path.stat().st_mtime, folder))
    return [folder for _, folder in sorted(found, key=lambda one: one[0])]


def finished_before(data_dir: Path) -> list[InterviewFolder]:
    """Folders that have a manifest, by name. Raises ``OSError`` as ``unfinished`` does."""
    interviews = data_dir / INTERVIEWS
    found = []
    for path in sorted(interviews.glob(f"*/{MANIFEST_NAME}")):
        # A copy under another name is no interview, and keeps none from being found.
        with contextlib.suppress(InvalidSessionId):
            found.append(InterviewFolder(data_dir, SessionId(path.parent.name)))
    return found


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
