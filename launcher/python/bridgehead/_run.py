"""Runs of pipelines: futures of their tasks, their end, and what they left in their folders."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from . import _bridgehead, _failures, _follow, _launch, errors
from ._future import Future

if TYPE_CHECKING:
    from ._pipeline import Node

R = TypeVar("R")

_LOOK = 0.1
"""Seconds between looks at the progress."""
_PATIENCE = 10.0
"""Seconds to wait for a run that was interrupted to end."""


class Run:
    """A run of a pipeline.

    Attributes:
        id: its id.
        folder: its run folder.
    """

    def __init__(self, id: str, folder: Path, names: list[str], client: _bridgehead.Client | None) -> None:
        self.id = id
        self.folder = folder
        self._names = names
        self._client = client
        self._futures: dict[int, Future[Any]] = {}
        self._end: Future[str] | None = None
        self._follower: _follow.Follower | None = None
        if client is not None:
            for task, name in enumerate(names):
                self._futures[task] = future = client.expect(task)
                future._name = name
            self._end = client.expect_end()
            client.subscribe(True, True)
        elif _follow.handed_over(folder):
            self._follower = _follow.begin(folder, self._futures, names)
            self._end = self._follower.end
        else:
            if _follow.over_as(folder) and _follow.is_far(folder):
                _follow.bring(folder)
            self._read_journal()

    def __getitem__(self, node: Node[R]) -> Future[R]:
        """The future of a node's outcome."""
        return cast("Future[R]", self._futures[node.id])

    @property
    def phase(self) -> str:
        """`running`, `finished`, `failed` or `cancelled`; `interrupted` if its head is gone before its end. One that was
        handed to a scheduler may also be `queued`, `paused` or `lost`."""
        if self._follower is not None:
            return self._follower.phase
        end = self._client.end() if self._client is not None else None
        if end is not None:
            return end[0]
        if self._client is not None and not self._client.is_closed():
            return "running"
        return _bridgehead.read_state(str(self.folder))[0] or "interrupted"

    def wait(self, timeout: float | None = None) -> str:
        """Waits for the end of the run; its phase.

        Raises:
            TimeoutError: it has not ended in time.
            HeadLost: its head is gone before its end.
        """
        if self._end is None:
            return self.phase
        return self._end.result(timeout)

    def watch(self) -> str:
        """Waits for the end with a progress line on a terminal, and says how to find out why, should the run fail.

        Ctrl-C cancels the run and says how to go on; a second one ends this process at once.
        """
        bar = _Bar() if sys.stderr.isatty() else None
        try:
            phase = self._wait_with(bar)
        except KeyboardInterrupt:
            if bar:
                bar.clear()
            self._interrupt()
            raise
        finally:
            if bar:
                bar.clear()
        if phase != "finished":
            print(f"run {self.id} is {phase}; `bridgehead why {self.id}` says more", file=sys.stderr)
        return phase

    def _wait_with(self, bar: _Bar | None) -> str:
        while True:
            try:
                return self.wait(_LOOK if bar else None)
            except TimeoutError:
                if bar and self._client is not None:
                    bar.show(self._client.progress())
                elif bar and self._follower is not None:
                    bar.show(self._follower.counts)

    def _interrupt(self) -> None:
        if self._follower is not None:
            print(
                f"run {self.id} goes on without this process; `bridgehead watch {self.id}` follows it, "
                f"`bridgehead cancel {self.id}` ends it",
                file=sys.stderr,
            )
            _hush_interrupt()
            return
        with _next_interrupt_kills():
            print(f"cancelling run {self.id} ... (Ctrl-C again: do not wait for it)", file=sys.stderr, flush=True)
            self.cancel("interrupted")
            try:
                said = "cancelled" if self.wait(_PATIENCE) == "cancelled" else f"the run is {self.phase}"
            except TimeoutError:
                said = "the run is still ending its tasks"
            except errors.HeadLost:
                said = "its head is gone"
            print(f"{said}; `bridgehead resume {self.id}` goes on with what is left", file=sys.stderr, flush=True)
        _hush_interrupt()

    def results(self) -> dict[str, Any]:
        """Values of the nodes that no other node takes, by name (`name#id` where a name repeats).

        Raises:
            TaskError: one of them failed.
        """
        keep = json.loads((self.folder / "spec.json").read_text()).get("keep", [])
        names = [self._names[task] for task in keep]
        keys = [name if names.count(name) == 1 else f"{name}#{task}" for name, task in zip(names, keep, strict=True)]
        return {key: self._futures[task].result() for key, task in zip(keys, keep, strict=True)}

    def status(self) -> dict[str, Any]:
        """The status: phase, counts, agents, failures."""
        if self._client is not None and not self._client.is_closed():
            try:
                return cast("dict[str, Any]", json.loads(self._client.status().result()))
            except (errors.HeadLost, RuntimeError):
                pass  # It ended just now; the snapshot is its last word.
        if self._follower is not None:
            return _follow.status(self.folder)
        return cast("dict[str, Any]", json.loads((self.folder / "status.json").read_text()))

    def events(self) -> Iterator[dict[str, Any]]:
        """What happened, oldest first, from the journal."""
        for time_ns, event, task, number, text in _bridgehead.read_journal(str(self.folder)):
            yield {"time": time_ns / 1e9, "event": event, "task": task, "number": number, "text": text}

    def logs(self, node: Node[Any] | None = None) -> str:
        """What all tasks printed and logged, or what one did, in order of time."""
        found = []
        for path in sorted((self.folder / "logs").glob("tasks-*.jsonl")):
            for line in path.read_text().split("\n")[:-1]:  # `splitlines` knows more ends of a line.
                entry = json.loads(line)
                if node is None or entry["task"] == node.id:
                    found.append((entry["t"], entry["text"]))
        return "".join(text for _, text in sorted(found, key=lambda pair: pair[0]))

    def cancel(self, reason: str = "cancelled by the user") -> None:
        """Cancels what has not finished.

        Raises:
            SchedulerError: the run's scheduler refuses, or cannot be reached.
        """
        if self._follower is not None:
            _follow.cancel(self.folder, reason)
        if self._client is not None and not self._client.is_closed():
            self._client.cancel(None, reason)

    def close(self) -> None:
        """Lets go of the run: one that was started by `Pipeline.run` ends, one that was submitted goes on."""
        if self._follower is not None:
            self._follower.stop()
        if self._client is not None:
            self._client.close("drain" if self._client.end() else "cancel" if self._attached() else "detach")

    def _attached(self) -> bool:
        return bool(json.loads((self.folder / "run.json").read_text())["attached"])

    def _read_journal(self) -> None:
        """Without a head: outcomes as the journal has them."""
        _failures.run_dirs.append(str(self.folder))
        _, _, rows = _bridgehead.read_state(str(self.folder))
        for task, phase, raw in rows:
            future: Future[Any] = Future()
            self._futures[task] = future
            future._name = self._names[task] if task < len(self._names) else f"t{task}"
            if raw is not None:
                future._finish(raw)
            else:
                text = (
                    f"{future._name} is {phase}, its value was not kept: `bridgehead resume {self.id}` makes it again"
                )
                future.set_exception(errors.ResultLost(text))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt) and self.phase == "running" and self._attached():
            self._interrupt()
        self.close()

    def __repr__(self) -> str:
        return f"<bridgehead.Run {self.id}>"


@contextlib.contextmanager
def _next_interrupt_kills() -> Iterator[None]:
    """Within, an interrupt ends this process as if Python were not there: nothing that hangs can hold it up."""
    try:
        usual = signal.signal(signal.SIGINT, signal.SIG_DFL)
    except ValueError:  # Not the main thread: interrupts are not this one's.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def _hush_interrupt() -> None:
    """Spares the user of a script the traceback of an interrupt that has been told of; its exit code stays the same."""
    if sys.excepthook is not sys.__excepthook__ or hasattr(sys, "ps1"):
        return

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = hook


class _Bar:
    """A progress line on a terminal."""

    def __init__(self) -> None:
        self._last = ""
        self._begun = time.monotonic()

    def show(self, progress: tuple[int, int, int, int, int] | None) -> None:
        if progress is None:
            return
        _, running, finished, failed, cancelled = progress
        total = sum(progress)
        done = finished * 30 // max(total, 1)
        line = f"[{'#' * done}{'.' * (30 - done)}] {finished}/{total} done, {running} running"
        line += f", {failed} failed" if failed else ""
        line += f", {cancelled} cancelled" if cancelled else ""
        if line != self._last:
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()
            self._last = line

    def clear(self) -> None:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def connect(run: str) -> Run:
    """A run by its id or a prefix that only one run has, whether it still runs or has ended.

    Raises:
        BridgeheadError: there is none.
    """
    try:
        folder = Path(_bridgehead.resolve_run(run))
    except ValueError as error:
        raise errors.BridgeheadError(str(error)) from None
    spec = folder / "spec.json"
    names = [task["name"] for task in json.loads(spec.read_text())["tasks"]] if spec.exists() else []
    try:
        client = _launch.connect(str(folder), owner=False)
    except errors.HeadLost:
        client = None
    return Run(folder.name, folder, names, client)
