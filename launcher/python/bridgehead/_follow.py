"""Following a run that was handed to a scheduler, through its run folder: outcomes as its journal tells them, and its
standing as the program finds it out. Owns when to look; reading a journal is the extension's."""

from __future__ import annotations

import json
import os
import random
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from . import _bridgehead, _failures, _launch, errors
from ._future import Future

_FINAL = ("finished", "failed", "cancelled")
_LOOK = 0.2
"""Seconds between looks at the journal, at least; a long journal is looked at less often."""
_ASK = (2.0, 30.0)
"""Seconds between questions to the scheduler: from the first, twice as many each time that nothing has changed."""


class Follower:
    """A thread that follows one run and sets its futures.

    Args:
        folder: the run folder.
        futures: the futures of its tasks, by number; those of tasks that come later are added.
        names: names of tasks, by number.
    """

    def __init__(self, folder: Path, futures: dict[int, Future[Any]], names: list[str]) -> None:
        self.folder = folder
        self.end: Future[str] = Future()
        self.phase = "queued"
        self.counts: tuple[int, int, int, int, int] | None = None
        self._futures = futures
        self._names = names
        self._seen: object = None
        self._stop = threading.Event()
        self._mirror = _mirror(folder)
        self._thread = threading.Thread(target=self._follow, name=f"bridgehead-follow-{folder.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Follows no longer; futures that are open stay so."""
        self._stop.set()

    def _follow(self) -> None:
        try:
            self._look()
        finally:
            if self._mirror is not None:
                self._mirror.communicate()  # It ends with its standard input.

    def _look(self) -> None:
        pause, ask_at = _ASK[0], 0.0
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                over = over_as(self.folder)  # Looked at first: what was written before it is read then.
                changed = self._read()
                if over:
                    self._over(over)
                    return
                if changed:
                    pause = _ASK[0]
                if began >= ask_at:
                    self._ask()
                    pause = min(pause * 2, _ASK[1])
                    ask_at = began + pause * random.uniform(0.8, 1.2)
            except Exception as error:  # A folder that is being removed, for instance: whoever waits has to hear of it.
                self._finish_all(errors.HeadLost(f"the run cannot be followed: {error}"))
                return
            # What is large to read is read less often, so that following costs a tenth of a processor at most.
            self._stop.wait(max(_LOOK, 10 * (time.monotonic() - began)))

    def _read(self) -> bool:
        """Looks at the journal; whether it has grown."""
        journal = self.folder / "journal"
        seen = [(entry.name, entry.stat().st_size) for entry in os.scandir(journal)] if journal.is_dir() else []
        seen.sort()
        if seen == self._seen:
            return False
        self._seen = seen
        _, _, rows = _bridgehead.read_state(str(self.folder))
        for task, _, raw in rows:
            if raw is not None and not self._future(task).done():
                self._futures[task]._finish(raw)
        phases = [row[1] for row in rows]
        if phases:
            kinds = ("waiting", "running", "finished", "failed", "cancelled")
            waiting, running, finished, failed, cancelled = (phases.count(kind) for kind in kinds)
            self.counts = (waiting, running, finished, failed, cancelled)
        return True

    def _ask(self) -> None:
        """Asks how the run stands; the journal cannot tell of a run that waits in the queue, or whose head died."""
        try:
            found = status(self.folder)
        except errors.SchedulerError:
            return  # The scheduler cannot be reached just now; the run goes on without it.
        self.phase = found.get("phase", self.phase)
        if self.phase in ("lost", "paused"):
            self._read()  # Its last records, if they came meanwhile.
            if not self.end.done():
                message = found.get("message") or "its jobs are over"
                text = f"the run is {self.phase}: {message}; `bridgehead resume {self.folder.name}` goes on"
                self._finish_all(errors.HeadLost(text))

    def _future(self, task: int) -> Future[Any]:
        future = self._futures.get(task)
        if future is None:
            future = self._futures[task] = Future()
            future._name = self._names[task] if task < len(self._names) else f"t{task}"
        return future

    def _over(self, phase: str) -> None:
        self.phase = phase
        for future in self._futures.values():
            if not future.done():
                text = (
                    f"the value of {future._name} was not kept: `bridgehead resume {self.folder.name}` makes it again"
                )
                future.set_exception(errors.ResultLost(text))
        if not self.end.done():
            self.end.set_result(phase)

    def _finish_all(self, error: Exception) -> None:
        for future in self._futures.values():
            if not future.done():
                future.set_exception(error)
        if not self.end.done():
            self.end.set_exception(error)


def is_far(folder: Path) -> bool:
    """Whether the nodes of a run do not share this machine's file system, so that its folder here is a mirror."""
    target = json.loads((folder / "run.json").read_text()).get("target")
    return target is not None and target["backend"] == "kubernetes"


def _mirror(folder: Path) -> subprocess.Popen[bytes] | None:
    """The process that keeps a mirrored folder current, results and all."""
    if not is_far(folder):
        return None
    command = [_launch.find_binary(), "mirror", str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)


def bring(folder: Path) -> None:
    """Brings what a run has left to its mirrored folder, where that is not done; nothing where the folder is no mirror.

    Raises:
        SchedulerError: it cannot be had; the message says why.
    """
    if is_far(folder):
        command = [_launch.find_binary(), "mirror", "--once", str(folder)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode != 0:
            raise _refused(done)


def handed_over(folder: Path) -> bool:
    """Whether a run was handed to a scheduler, and may still be at work there."""
    config = json.loads((folder / "run.json").read_text())
    return config.get("target") is not None and over_as(folder) is None


def over_as(folder: Path) -> str | None:
    """How a run has ended, as far as its folder tells; `None` if it has not. What was written before the newest launch is of
    a life that is over."""
    try:
        status = json.loads((folder / "status.json").read_text())
    except FileNotFoundError:
        return None
    launches = [json.loads(path.read_text()) for path in (folder / "launches").glob("*.json")]
    before = max((launch["attempts"] for launch in launches), default=0)
    phase: str = status["phase"]
    return phase if phase in _FINAL and status["attempt"] > before else None


def status(folder: Path) -> dict[str, Any]:
    """How a run stands, by its folder and its scheduler.

    Raises:
        SchedulerError: the program cannot tell; the message says why.
    """
    done = subprocess.run([_launch.find_binary(), "status", "--json", str(folder)], capture_output=True, check=False)
    if done.returncode != 0:
        raise _refused(done)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _refused(done: subprocess.CompletedProcess[bytes]) -> errors.SchedulerError:
    said = done.stderr.decode(errors="replace").strip().removeprefix("bridgehead: ")
    return errors.SchedulerError(said, exit_code=done.returncode)


def cancel(folder: Path, reason: str) -> None:
    """Cancels a run that was handed to a scheduler.

    Raises:
        SchedulerError: it cannot be done; the message says why.
    """
    command = [_launch.find_binary(), "cancel", "--reason", reason, str(folder)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        raise _refused(done)


def begin(folder: Path, futures: dict[int, Future[Any]], names: list[str]) -> Follower:
    """Follows a run from now on."""
    _failures.run_dirs.append(str(folder))
    for task, name in enumerate(names):
        futures[task] = Future()
        futures[task]._name = name
    return Follower(folder, futures, names)
