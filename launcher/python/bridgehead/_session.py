"""A session: one run, its head, and the futures of its tasks. Owns starting and ending the head and the pairing of
outcomes with futures; the two threads that read (a waiting caller, and one in the background) share `_take`.
Hot path: `submit_call` and `_take`, once a task.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import shutil
import sys
import sysconfig
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import _bridgehead, errors
from ._functions import name_of, pickle_function
from ._futures import Future, complete, deadline_of, run_callbacks
from ._values import FILE, INLINE, PROGRAM, STORED, flat, pack_call, unpack


def binary() -> Path:
    """The program that is head and agent.

    Raises:
        BridgeheadError: it is nowhere to be found.
    """
    places = [os.environ.get("BRIDGEHEAD_BIN"), str(Path(sysconfig.get_path("scripts")) / "bridgehead")]
    for place in places:
        if place and os.access(place, os.X_OK):
            return Path(place)
    found = shutil.which("bridgehead")
    if found is None:
        raise errors.BridgeheadError(
            f"the program `bridgehead` is not at {places[1]} nor on PATH: install the wheel, or set BRIDGEHEAD_BIN"
        )
    return Path(found)


def count_cpus() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def count_gpus() -> int:
    """NVIDIA GPUs of this machine that this process may see."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([part for part in visible.split(",") if part.strip()])
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _share(total: int, parts: int, index: int) -> int:
    return total // parts + (1 if index < total % parts else 0)


def agents_of(agents: int, cpus: int, resources: dict[str, int] | None = None) -> list[dict[str, Any]]:
    """What each of ``agents`` local agents gets: this machine's cores, memory and GPUs, shared out.

    Raises:
        PlanError: there is less than one core for each.
    """
    if agents < 1 or cpus < agents:
        raise errors.PlanError(
            f"{agents} agents cannot share {cpus} cores: each needs one; ask for fewer agents or give cpus={max(agents, 1)}"
        )
    memory, gpus = _memory(), count_gpus()
    named = resources or {}
    return [
        {
            "resources": {
                "cpu_millis": 1000 * _share(cpus, agents, i),
                "memory": memory // agents,
                "gpus": _share(gpus, agents, i),
                **({"named": named} if named else {}),
            },
            "store_limit": memory * 3 // 10 // agents,
        }
        for i in range(agents)
    ]


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


class Session:
    """One run and this process's connection to its head."""

    def __init__(self, run: str, run_dir: Path, client: _bridgehead.Client) -> None:
        self.run = run
        self.run_dir = run_dir
        self.client = client
        self.condition = threading.Condition()
        self.futures: dict[int, Future[Any]] = {}
        self.tokens = itertools.count()
        self.functions: dict[Callable[..., Any], int] = {}
        self.progress: tuple[int, int, int, int, int] | None = None
        self.end: tuple[str, str] | None = None
        self.gone = False
        self.unclaimed: dict[int, tuple[int, Any]] | None = None
        self.statuses: list[str] = []
        self._lock = threading.Lock()
        self._closed = False
        self._submit = client.submit
        self._thread = threading.Thread(target=_read, args=(weakref.ref(self), client), daemon=True, name="bridgehead")
        self._thread.start()
        _sessions.add(self)

    # --- tasks -------------------------------------------------------------------------------------------------------

    def submit_call(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: dict[str, Any] | None = None,
    ) -> Future[Any]:
        """Adds a task that calls ``function``."""
        index = self.functions.get(function)
        if index is None:
            index = self.add_function(function)
        packed, found = pack_call(args, kwargs)
        token = next(self.tokens)
        future: Future[Any] = Future(self, token)
        self.futures[token] = future
        try:
            if options is None and not found and type(packed) is bytes:
                self._submit(token, index, packed)
            else:
                inputs = [self.input_of(item) for item in found]
                self.client.submit_with(token, index, (INLINE, flat(packed)), inputs, json.dumps(options or {}))
        except ConnectionError as error:
            self.futures.pop(token, None)
            raise errors.HeadLost(str(error)) from None
        return future

    def submit_program(self, options: dict[str, Any]) -> Future[Any]:
        """Adds a task that runs a program."""
        token = next(self.tokens)
        future: Future[Any] = Future(self, token)
        self.futures[token] = future
        self.client.submit_with(token, 0, (INLINE, b""), [], json.dumps(options))
        return future

    def add_function(self, function: Callable[..., Any]) -> int:
        """Sends a function, once; its number."""
        code, digest = pickle_function(function)
        with self._lock:
            index = self.functions.get(function)
            if index is None:
                index = len(self.functions)
                self.client.put_function(index, digest, name_of(function), code)
                self.functions[function] = index
        return index

    def input_of(self, item: Any) -> Any:
        """What a placeholder becomes on the wire: a task's number, or a value."""
        if isinstance(item, Future) and item._session is self:
            return item.token
        if isinstance(item, Future):
            from ._values import pack

            return (INLINE, flat(pack(item.result())))
        raise TypeError(f"{item!r} does not belong to this run")

    def cancel(self, tokens: list[int], *, everything: bool = False, reason: str = "cancelled by the user") -> None:
        """Cancels tasks, or all of the run."""
        if not self.gone:
            self.client.cancel(tokens, everything, reason)

    # --- outcomes ----------------------------------------------------------------------------------------------------

    def wait_for(self, future: Future[Any], timeout: float | None) -> None:
        """Waits until ``future`` is done, reading for everybody meanwhile.

        Raises:
            TimeoutError: it is not done in time.
        """
        deadline = deadline_of(timeout)
        pump = self.client.pump
        while not future.done():
            left = -1.0 if deadline is None else deadline - time.monotonic()
            if deadline is not None and left <= 0:
                raise TimeoutError(f"task {future.token} has no outcome after {timeout} s")
            if self.gone:
                raise errors.HeadLost(self.why_gone())
            messages = pump(left)
            if messages:
                self.take(messages)

    def wait_until(self, ready: Callable[[], bool], tick: Callable[[], None] | None = None) -> None:
        """Reads until ``ready``; calls ``tick`` after each batch."""
        while not ready():
            if self.gone:
                raise errors.HeadLost(self.why_gone())
            messages = self.client.pump(-1.0)
            if messages:
                self.take(messages)
            if tick is not None:
                tick()

    def take(self, messages: list[tuple[Any, ...]]) -> None:
        """Pairs outcomes with futures and wakes who waits."""
        called: list[Future[Any]] = []
        pop = self.futures.pop
        with self.condition:
            for message in messages:
                token = message[0]
                if type(token) is int:
                    future = pop(token, None)
                    if future is not None:
                        if complete(future, message[1], message[2]):
                            called.append(future)
                    elif self.unclaimed is not None:
                        self.unclaimed[token] = (message[1], message[2])
                else:
                    called.extend(self._other(message))
            self.condition.notify_all()
        for future in called:
            run_callbacks(future)

    def _other(self, message: Any) -> list[Future[Any]]:
        what = message[0]
        if what == "progress":
            self.progress = message[1:6]
        elif what == "end":
            self.end = (message[1], message[2])
        elif what == "status":
            self.statuses.append(message[1])
        elif what in ("gone", "refused"):
            return self._lose()
        return []

    def _lose(self) -> list[Future[Any]]:
        """The head is gone: whoever still waits is told."""
        self.gone = True
        if self._closed or self.end is not None:
            return []
        lost = list(self.futures.values())
        self.futures.clear()
        why = self.why_gone()
        payload = (1, "head-lost", why, "", b"", None, None, None)
        return [future for future in lost if complete(future, 4, payload)]

    def why_gone(self) -> str:
        """Why the head is gone, as far as its log tells."""
        log = self.run_dir / "logs" / "head.log"
        lines = log.read_text(errors="replace").splitlines()[-3:] if log.exists() else []
        last = "; its last words: " + " | ".join(lines) if lines else ""
        return f"the head of run {self.run} is gone{last}; `bridgehead resume {self.run}` goes on with a pipeline"

    def load(self, kind: int, payload: Any) -> Any:
        """The value of an outcome that is not inline."""
        return load_value(self.run_dir, kind, payload)

    # --- end ---------------------------------------------------------------------------------------------------------

    def close(self, mode: str = "drain") -> None:
        """Leaves the run: ``drain`` waits for its tasks, ``cancel`` ends them, ``detach`` lets it go on."""
        if self._closed:
            return
        self._closed = True
        _sessions.discard(self)
        if not self.gone:
            try:
                self.client.close_run(mode)
            except ConnectionError:
                pass  # It ended by itself.
        self.client.close()


def load_value(run_dir: Path, kind: int, payload: Any) -> Any:
    """A value from the form in which it travelled."""
    if kind == INLINE:
        return unpack(payload)
    if kind == PROGRAM:
        from ._task import ProgramResult

        code, stdout, stderr, outputs, dropped = payload
        paths = {name: Path(path) for name, path in outputs.items()}
        return ProgramResult(exit_code=code, stdout_bytes=stdout, stderr_bytes=stderr, outputs=paths, dropped=dropped)
    if kind == FILE:
        import mmap

        with (run_dir / payload[0]).open("rb") as file:
            return unpack(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    if kind == STORED:
        raise errors.ResultLost("this value lies in a store that this process cannot reach")
    raise errors.BridgeheadError(str(payload))


def _read(session: weakref.ref[Session], client: _bridgehead.Client) -> None:
    """The background reader: serves callbacks and everybody who does not wait in `result`."""
    while True:
        messages = client.pump_behind()
        this = session()
        if this is None or this._closed:
            return
        this.take(messages)
        if this.gone:
            return
        del this


def start_session(
    name: str,
    *,
    agents: list[dict[str, Any]],
    attached: bool,
    pipeline: str | None = None,
    blobs: dict[str, bytes] | None = None,
    plan: str | None = None,
    trace: str | None = None,
    connect: bool = True,
) -> tuple[str, Path, Session | None]:
    """Makes a run folder, starts the head and agents on this machine and connects."""
    program = binary()
    run, folder = _bridgehead.new_run(name)
    run_dir = Path(folder)
    config = {
        "version": 1,
        "run": run,
        "name": name,
        "has_pipeline": pipeline is not None,
        "attached": attached,
        "agents": agents,
        "python": sys.executable,
        "sys_path": [entry for entry in sys.path if entry],
        "cwd": str(Path.cwd()),
        "trace": trace and str(Path(trace).absolute()),
    }
    if pipeline is not None:
        (run_dir / "spec.json").write_text(pipeline)
    if plan is not None:
        (run_dir / "plan.json").write_text(plan)
    for digest, data in (blobs or {}).items():
        (run_dir / "blobs" / digest).write_bytes(data)
    (run_dir / "run.json").write_text(json.dumps(config))
    pid = _bridgehead.start(run_dir, program, len(agents))
    if not connect:
        _wait_head(run_dir, pid)
        return run, run_dir, None
    try:
        client = _bridgehead.Client(run_dir, 1, pid, attached)
    except ConnectionError as error:
        raise errors.HeadLost(str(error)) from None
    return run, run_dir, Session(run, run_dir, client)


def _wait_head(run_dir: Path, pid: int) -> None:
    """Waits until a detached head is up, so that a failure to start is told to the one who submits."""
    try:
        _bridgehead.Client(run_dir, 1, pid, False).close()
    except ConnectionError as error:
        raise errors.HeadLost(str(error)) from None


def close_all() -> None:
    """At the interpreter's end: what still runs for this process is ended."""
    for session in list(_sessions):
        session.close("cancel")


atexit.register(close_all)

__all__ = ["Session", "agents_of", "binary", "count_cpus", "load_value", "start_session", "sys"]
