"""A worker: calls functions for its agent until told to end. Started as ``python -m bridgehead._worker``.
Hot path: `_serve`, once a task."""

from __future__ import annotations

import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from . import _bridgehead, _context
from ._values import INLINE, dumps, flat, load_inputs, pack, unpack_call

_USER, _SYSTEM = 0, 5


class _Stream:
    """Standard output or error of tasks: text goes to the agent with the number of the task that printed it."""

    encoding = "utf-8"
    errors = "replace"
    closed = False

    def __init__(self, name: str, worker: _bridgehead.Worker, fallback: Any) -> None:
        self._name = name
        self._worker = worker
        self._fallback = fallback

    def write(self, text: str) -> int:
        if text:
            if _context.running.get(None) is None:
                self._fallback.write(text)
            else:
                self._worker.log(self._name, text)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._fallback.flush()

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self._fallback.fileno())

    @property
    def buffer(self) -> Any:
        return self._fallback.buffer


def _failure(error: BaseException) -> tuple[int, str, str, str, bytes]:
    kind = type(error).__name__
    # The worker's own frames tell the user nothing.
    trace = error.__traceback__.tb_next if error.__traceback__ else None
    text = "".join(traceback.format_exception(type(error), error, trace))
    try:
        pickled = dumps(error)
        pickle.loads(pickled)  # Some exceptions pickle but cannot be made again.
    except Exception:  # noqa: BLE001 - then its text must do
        pickled = b""
    return (_USER, kind, str(error), text, pickled)


class _Unimportable:
    """Stands for a function that could not be unpickled, so that its tasks fail with the reason."""

    def __init__(self, name: str, error: BaseException) -> None:
        self.name = name
        self.error = error

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError(
            f"{self.name} cannot be loaded in the worker ({type(self.error).__name__}: {self.error}): is what it imports "
            "installed in the workers' environment?"
        ) from self.error


class WorkerState:
    """What the running worker knows; tasks reach it through `bridgehead.submit`."""

    def __init__(self, worker: _bridgehead.Worker) -> None:
        self.worker = worker
        self.run, self.agent, self.number, _, self.inline_limit, self.sys_path, self.run_dir = worker.config
        self.functions: dict[int, Callable[..., Any]] = {}
        self.names: dict[int, str] = {}


state: WorkerState | None = None


def _learn(this: WorkerState, message: Any) -> None:
    _, index, name, code = message
    this.names[index] = name
    try:
        this.functions[index] = pickle.loads(code)
    except BaseException as error:  # noqa: BLE001 - importing user code may raise anything
        this.functions[index] = _Unimportable(name, error)


def _enter(this: WorkerState, message: Any) -> None:
    task, attempt, function = message[1:4]
    name, devices, timeout_ms, cpus = "", [], 0, 1000
    if len(message) > 6:
        _, name, devices, timeout_ms, cpus = message[6]
    context = _context.Context(
        run=this.run,
        task=task,
        name=name or this.names.get(function, ""),
        attempt=attempt,
        node=this.agent,
        worker=this.number,
        devices=tuple(devices),
        cpus=cpus / 1000,
        deadline=time.time() + timeout_ms / 1000 if timeout_ms else None,
    )
    _context.running.set(context)


def _call(this: WorkerState, message: Any) -> Any:
    inputs: list[Any] = []
    if len(message) > 6:
        inputs = load_inputs(this, message[6][0])
    args, kwargs = unpack_call(message[5], inputs) if message[4] == INLINE else load_inputs(this, [message[4:6]])[0]
    return this.functions[message[3]](*args, **kwargs)


def _serve(this: WorkerState) -> None:
    worker = this.worker
    following, done, failed = worker.next, worker.done, worker.failed
    learn, running = _learn, _context.running
    while (message := following()) is not None:
        kind = message[0]
        if kind == 0:
            _enter(this, message)
            packed: Any = None
            try:
                packed = pack(_call(this, message))
            except BaseException as error:  # noqa: BLE001 - whatever a task raises is its outcome
                failed(_failure(error))
            else:
                done(INLINE, packed if type(packed) is bytes else flat(packed))
            del packed  # A large result must not live until the next call's.
            running.set(None)  # type: ignore[arg-type]
        elif kind == 1:
            learn(this, message)


def main() -> None:
    """Takes over the agent's socket from standard input and serves until the end."""
    global state
    socket = os.dup(int(os.environ.pop("BRIDGEHEAD_WORKER_FD")))
    os.set_inheritable(socket, False)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    worker = _bridgehead.Worker(socket, sys.version.split()[0])
    state = WorkerState(worker)
    known = set(sys.path)
    sys.path.extend(entry for entry in state.sys_path if entry not in known)
    sys.stdout = _Stream("stdout", worker, sys.__stdout__)  # type: ignore[assignment]
    sys.stderr = _Stream("stderr", worker, sys.__stderr__)  # type: ignore[assignment]
    _serve(state)


if __name__ == "__main__":
    # Tasks that import this module must meet the one that runs, not a second one under its own name.
    sys.modules["bridgehead._worker"] = sys.modules["__main__"]
    main()
