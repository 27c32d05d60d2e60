"""A worker process: takes calls from its agent and runs them. Started by the agent as ``python -m
bridgehead._worker``."""

from __future__ import annotations

import functools
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

from . import _bridgehead, _context, _failures

if TYPE_CHECKING:
    from typing_extensions import Buffer


class TaskBytes(io.BufferedIOBase):
    """The bytes below a `TaskStream`, for code that writes to ``sys.stdout.buffer``."""

    def __init__(self, worker: _bridgehead.Worker, name: str) -> None:
        self._worker = worker
        self._name = name

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        view = memoryview(data)
        self._worker.log(self._name, bytes(view).decode("utf-8", "backslashreplace"))
        return view.nbytes


class TaskStream(io.TextIOBase):
    """Standard output or error of tasks: the text goes to the log of the task that runs."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, worker: _bridgehead.Worker, name: str, fallback: TextIO) -> None:
        self._worker = worker
        self._fallback = fallback
        self.name = name
        self.buffer = TaskBytes(worker, name)

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        try:
            self._worker.log(self.name, text)
        except UnicodeEncodeError:  # A lone surrogate, which only Python's own strings can hold.
            self._worker.log(self.name, text.encode("utf-8", "backslashreplace").decode())
        return len(text)

    def flush(self) -> None:
        pass

    def fileno(self) -> int:
        return self._fallback.fileno()


def _forsake(worker: _bridgehead.Worker, out: TextIO, err: TextIO) -> None:
    """In a child that a task forked: it is no worker. What it prints goes the way of what C code prints."""
    global _forked
    _forked = True
    worker.forsake()
    sys.stdout, sys.stderr = out, err


_forked = False


def main() -> None:
    """Runs until the agent ends this process or is gone."""
    fd = int(os.environ.pop("BRIDGEHEAD_WORKER_FD", "0"))
    if fd != 0:
        os.dup2(fd, 0)
    worker = _bridgehead.Worker()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # A task that reads standard input finds it empty, not the agent's messages.
    os.close(nothing)
    run, agent, number, sys_path, run_dir = worker.config()
    sys.path[:0] = [entry for entry in sys_path if entry not in sys.path]
    _context.here = _context.Place(connection=worker, run=run, node=agent, number=number, run_dir=run_dir)
    _failures.run_dirs.append(run_dir)
    os.register_at_fork(after_in_child=functools.partial(_forsake, worker, sys.stdout, sys.stderr))
    sys.stdout = TaskStream(worker, "stdout", sys.stdout)
    sys.stderr = TaskStream(worker, "stderr", sys.stderr)
    worker.ready(sys.version.split()[0])
    try:
        worker.run()
    except ConnectionError:
        os._exit(1)  # The agent is gone, and with it everybody who could want something from this process.
    if _forked:
        sys.stdout.flush()
        os._exit(0)  # The task came back in its child too; there is nobody to whom its result could be told.


if __name__ == "__main__":
    main()
