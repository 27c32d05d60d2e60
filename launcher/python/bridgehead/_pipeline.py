"""Pipelines: a graph of tasks, written down as a document that the head reads, and the run that comes of it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, cast

from . import _bridgehead, errors
from ._functions import name_of, pickle_function
from ._futures import Future, complete, run_callbacks
from ._session import Session, agents_of, count_cpus, load_value, start_session
from ._task import Program, ProgramResult, Task, run_program
from ._values import Placeholder, flat, pack_call

P = ParamSpec("P")
R = TypeVar("R")

_BLOB = 64 << 10
"""Packed arguments beyond this many bytes lie in a file of their own."""


class Node(Placeholder, Generic[R]):
    """A task in a pipeline. Given to another node as an argument, also inside lists and the like, it arrives as the value."""

    __slots__ = ("__weakref__", "_after", "_pipeline", "call", "id", "name", "options")

    def __init__(self, pipeline: Pipeline, id: int, name: str, call: dict[str, Any], options: dict[str, Any]) -> None:
        self._pipeline = pipeline
        self.id = id
        self.name = name
        self.call = call
        self.options = options
        self._after: list[Node[Any]] = []

    def after(self, *others: Node[Any]) -> Node[R]:
        """Starts only when ``others`` have finished, besides those whose values it takes."""
        for other in others:
            self._pipeline._own(other)
            self._after.append(other)
        return self

    def __repr__(self) -> str:
        return f"<bridgehead.Node {self.name} (t{self.id})>"


class Pipeline:
    """A graph of tasks.

    Args:
        name: for people, and the first part of its runs' ids.
    """

    def __init__(self, name: str) -> None:
        if not name:
            raise errors.PlanError("a pipeline needs a name")
        self.name = name
        self.nodes: list[Node[Any]] = []
        self._functions: dict[str, dict[str, Any]] = {}
        self._blobs: dict[str, bytes] = {}
        self._digests: dict[Callable[..., Any], str] = {}

    def add(self, task: Task[..., R] | Program, /, *args: Any, **kwargs: Any) -> Node[Any]:
        """Adds a node that calls ``task``; nodes among the arguments arrive as their values.

        Raises:
            TypeError: the arguments do not fit the function.
        """
        if isinstance(task, Program):
            return self._add_program(task, args, kwargs)
        if not isinstance(task, Task):
            raise TypeError(f"{task!r} is no task: decorate the function with @bridgehead.task, or use bridgehead.task(f)")
        _check_call(task, args, kwargs)
        return self._add_call(task.function, args, kwargs, task.task_options.to_spec(), task.task_options.name)

    def map(self, task: Task[..., R], /, *iterables: Iterable[Any]) -> list[Node[R]]:
        """Adds a node for each set of items, as the built-in `map` would call."""
        return [cast("Node[R]", self.add(task, *items)) for items in zip(*iterables, strict=False)]

    def run(
        self,
        *,
        agents: int | None = None,
        cpus: int | None = None,
        wait: bool = True,
        trace: str | Path | None = None,
        resources: dict[str, int] | None = None,
    ) -> Run:
        """Runs the pipeline here and now, and waits for its end unless ``wait`` is off.

        Started by ``bridgehead plan`` or ``bridgehead submit`` it does that instead, and ends the script.

        Args:
            agents: agents to share this machine; 1 where left out.
            cpus: cores to use; all that this process may use where left out.
            wait: whether to come back only when every task has its outcome.
            trace: where to write a Chrome trace.
            resources: site-named resources that each agent has.
        """
        what = os.environ.get("BRIDGEHEAD_DO", "run")
        if what == "plan":
            print(self.plan(agents=agents, cpus=cpus, resources=resources))
            raise SystemExit(0)
        if what == "submit":
            print(self.submit(agents=agents, cpus=cpus, resources=resources, trace=trace).id)
            raise SystemExit(0)
        run = self._start(agents, cpus, resources, trace, attached=True)
        if wait:
            run.wait(interactive=True)
        return run

    def submit(
        self,
        *,
        agents: int | None = None,
        cpus: int | None = None,
        trace: str | Path | None = None,
        resources: dict[str, int] | None = None,
    ) -> Run:
        """Starts the pipeline and comes back at once; it goes on without this process. `connect` finds it again."""
        return self._start(agents, cpus, resources, trace, attached=False)

    def plan(
        self,
        *,
        agents: int | None = None,
        cpus: int | None = None,
        resources: dict[str, int] | None = None,
    ) -> str:
        """What would be run, and why, as text; starts nothing.

        Raises:
            PlanError: it cannot run, with the reason.
        """
        return _plan(self.to_json(), self._agents(agents, cpus, resources), as_json=False)

    def to_json(self) -> str:
        """The pipeline's document (``docs/formats/pipeline-spec.md``).

        Raises:
            PlanError: it has a cycle or another fault.
        """
        needed = {other.id for node in self.nodes for other in _needs(node)}
        document = {
            "version": 1,
            "name": self.name,
            "environment": {"python": platform.python_version(), "packages": _packages()},
            "functions": self._functions,
            "tasks": [_document(node) for node in self.nodes],
            "keep": [node.id for node in self.nodes if node.id not in needed],
        }
        try:
            return _bridgehead.check_pipeline(json.dumps(document))
        except ValueError as error:
            raise errors.PlanError(str(error)) from None

    # --- inside ------------------------------------------------------------------------------------------------------

    def _own(self, node: Any) -> None:
        if not isinstance(node, Node) or node._pipeline is not self:
            raise errors.PlanError(f"{node!r} is no node of pipeline {self.name!r}")

    def _add_call(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: dict[str, Any],
        name: str | None,
    ) -> Node[Any]:
        digest = self._digests.get(function)
        if digest is None:
            code, raw = pickle_function(function)
            digest = raw.hex()
            self._digests[function] = digest
            self._blobs[digest] = code
            self._functions[digest] = {"name": name_of(function)[-256:], "size": len(code)}
        packed, found = pack_call(args, kwargs)
        for item in found:
            self._own(item)
        data = flat(packed)
        call: dict[str, Any] = {"digest": digest}
        if len(data) > _BLOB:
            blob = hashlib.sha256(data).hexdigest()
            self._blobs[blob] = data
            call["args_blob"] = blob
        else:
            call["args"] = base64.b64encode(data).decode()
        node = self._new(name or self._functions[digest]["name"], {"function": call}, options)
        node.options["inputs"] = found
        return node

    def _add_program(self, program: Program, args: tuple[Any, ...], values: dict[str, Any]) -> Node[Any]:
        if args:
            raise TypeError(f"give {program!r} its values by name: {{name}} in the command, name=value here")
        options = program.task_options.to_spec()
        name = program.task_options.name or program.words[0]
        if any(isinstance(value, Placeholder) for value in values.values()):
            # The words are known only when the values are, so a worker fills them in and starts the program.
            return self._add_call(_run_filled, (program, values), {}, options, name)
        return self._new(name, {"program": program.spec(values)}, options)

    def _new(self, name: str, call: dict[str, Any], options: dict[str, Any]) -> Node[Any]:
        node: Node[Any] = Node(self, len(self.nodes), name, call, options)
        self.nodes.append(node)
        return node

    def _agents(self, agents: int | None, cpus: int | None, resources: dict[str, int] | None) -> list[dict[str, Any]]:
        agents = agents or int(os.environ.get("BRIDGEHEAD_AGENTS", "1"))
        cpus = cpus or int(os.environ.get("BRIDGEHEAD_CPUS", "0")) or max(count_cpus(), agents)
        return agents_of(agents, cpus, resources)

    def _start(
        self,
        agents: int | None,
        cpus: int | None,
        resources: dict[str, int] | None,
        trace: str | Path | None,
        *,
        attached: bool,
    ) -> Run:
        document = self.to_json()
        shares = self._agents(agents, cpus, resources)
        plan = _plan(document, shares, as_json=True)
        path = trace or os.environ.get("BRIDGEHEAD_TRACE")
        run, run_dir, session = start_session(
            self.name,
            agents=shares,
            attached=attached,
            pipeline=document,
            blobs=self._blobs,
            plan=plan,
            trace=str(path) if path else None,
            connect=attached,
        )
        return Run(run, run_dir, session, [node.name for node in self.nodes])


def _plan(document: str, shares: list[dict[str, Any]], *, as_json: bool) -> str:
    try:
        return _bridgehead.plan_pipeline(document, json.dumps(shares), as_json)
    except ValueError as error:
        raise errors.PlanError(str(error)) from None


def _check_call(task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    import inspect

    try:
        signature = inspect.signature(task.function)
    except (TypeError, ValueError):
        return  # Some built-in functions have none.
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{name_of(task.function)}: {error}") from None


def _run_filled(program: Program, values: dict[str, Any]) -> ProgramResult:
    return run_program(program.spec(values))


def _needs(node: Node[Any]) -> list[Node[Any]]:
    return [*node.options.get("inputs", []), *node._after]


def _document(node: Node[Any]) -> dict[str, Any]:
    document = {"id": node.id, "name": node.name, "call": node.call, **node.options}
    document["inputs"] = [other.id for other in node.options.get("inputs", [])]
    document["after"] = [other.id for other in node._after]
    return document


def _packages() -> dict[str, str]:
    """Versions of what the functions may meet: the top-level packages that this process has loaded."""
    found = {}
    for name in ("numpy", "scipy", "pandas", "sklearn", "torch", "pyarrow", "cloudpickle"):
        version = getattr(sys.modules.get(name), "__version__", None)
        if isinstance(version, str):
            found[name] = version
    return found


class Run:
    """A run of a pipeline: its futures, its end, and what it left in its folder.

    Attributes:
        id: the run's id.
        folder: its run folder.
    """

    def __init__(self, id: str, folder: Path, session: Session | None, names: list[str]) -> None:
        self.id = id
        self.folder = folder
        self._names = names
        self._session = session
        self._futures: dict[int, Future[Any]] = {}
        if session is not None:
            self._attach(session)

    def _attach(self, session: Session) -> None:
        session.unclaimed = {}
        for token in range(len(self._names)):
            future: Future[Any] = Future(session, token)
            self._futures[token] = future
            session.futures[token] = future
        session.client.subscribe(True, True)

    def _live(self) -> Session:
        """The connection to the head, made when it is first needed."""
        if self._session is None:
            try:
                client = _bridgehead.Client(self.folder, 0, 0, False)
            except ConnectionError as error:
                raise errors.HeadLost(str(error)) from None
            self._session = Session(self.id, self.folder, client)
            self._attach(self._session)
        return self._session

    def __getitem__(self, node: Node[R]) -> Future[R]:
        """The future of a node's outcome."""
        if self._session is None:
            with contextlib.suppress(errors.HeadLost):
                self._live()
        if self._session is None or self._session.gone:
            self._settle()
        return self._futures[node.id]

    def _settle(self) -> None:
        """Takes outcomes from the journal: the head is gone."""
        _, _, _, rows = _bridgehead.read_state(self.folder)
        session = self._session or _Past(self.folder)
        for task, phase, _, _, kind, payload in rows:
            future = self._futures.get(task)
            if future is None:
                future = self._futures[task] = Future(cast("Session", session), task)
            if future.done():
                continue
            if kind is None:
                text = f"task {task} is {phase} in the journal and its value was not kept; `bridgehead resume {self.id}` makes it again"
                kind, payload = 4, (1, "result-lost", text, "", b"", None, None, None)
            if complete(future, kind, payload):
                run_callbacks(future)

    @property
    def phase(self) -> str:
        """``running``, ``finished``, ``failed`` or ``cancelled``."""
        if self._session is not None and self._session.end is not None:
            return self._session.end[0]
        return _bridgehead.read_state(self.folder)[0] or "running"

    def wait(self, timeout: float | None = None, *, interactive: bool = False) -> str:
        """Waits for the end of the run; its phase.

        Raises:
            TimeoutError: it has not ended in time.
            HeadLost: its head is gone.
        """
        session = self._live()
        bar = _Bar(session) if interactive and sys.stderr.isatty() else None
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while session.end is None:
                if session.gone:
                    raise errors.HeadLost(session.why_gone())
                if deadline is not None and time.monotonic() > deadline:
                    raise TimeoutError(f"run {self.id} has not ended after {timeout} s")
                messages = session.client.pump(0.05)
                if messages:
                    session.take(messages)
                if bar is not None:
                    bar.show()
        except KeyboardInterrupt:
            self._interrupt(session)
            raise
        finally:
            if bar is not None:
                bar.clear()
        return session.end[0]

    def _interrupt(self, session: Session) -> None:
        print(f"\ncancelling run {self.id} ...", file=sys.stderr)
        session.cancel([], everything=True, reason="interrupted")
        end = time.monotonic() + 5
        while session.end is None and not session.gone and time.monotonic() < end:
            session.take(session.client.pump(0.05))
        print(f"cancelled; `bridgehead resume {self.id}` goes on with what is left", file=sys.stderr)

    def results(self) -> dict[str, Any]:
        """The values of the nodes that no other node takes, by name (with ``#id`` where names repeat).

        Raises:
            TaskError: one of them failed.
        """
        spec = json.loads((self.folder / "spec.json").read_text())
        names = [spec["tasks"][task]["name"] for task in spec.get("keep", [])]
        if self._session is None:
            with contextlib.suppress(errors.HeadLost):
                self._live()
        if self._session is None or self._session.gone:
            self._settle()
        out = {}
        for task, name in zip(spec.get("keep", []), names, strict=True):
            key = name if names.count(name) == 1 else f"{name}#{task}"
            out[key] = self._futures[task].result()
        return out

    def status(self) -> dict[str, Any]:
        """The status: phase, counts, agents, failures; see ``docs/formats/run-folder.md``."""
        if self._session is not None and not self._session.gone:
            self._session.client.request_status()
            statuses = self._session.statuses
            with contextlib.suppress(errors.HeadLost):
                self._session.wait_until(lambda: bool(statuses))
            if statuses:
                return cast("dict[str, Any]", json.loads(statuses.pop()))
        return cast("dict[str, Any]", json.loads((self.folder / "status.json").read_text()))

    def events(self) -> Iterator[dict[str, Any]]:
        """What happened, oldest first, from the journal."""
        for time_ns, name, task, number, text in _bridgehead.read_journal(self.folder):
            yield {"time": time_ns / 1e9, "event": name, "task": task, "number": number, "text": text}

    def logs(self, node: Node[Any] | None = None) -> str:
        """What tasks printed, or what one did."""
        lines = []
        for path in sorted((self.folder / "logs").glob("tasks-*.jsonl")):
            for line in path.read_text().splitlines():
                entry = json.loads(line)
                if node is None or entry["task"] == node.id:
                    lines.append((entry["t"], entry["text"]))
        return "".join(text for _, text in sorted(lines, key=lambda pair: pair[0]))

    def cancel(self, reason: str = "cancelled by the user") -> None:
        """Cancels what has not finished."""
        self._live().cancel([], everything=True, reason=reason)

    def close(self) -> None:
        """Lets the run go: an attached one ends, and the store with its values."""
        if self._session is not None:
            self._session.close("cancel" if self._session.end is None else "drain")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<bridgehead.Run {self.id}>"


class _Past:
    """Stands in for a session where only the journal is left."""

    def __init__(self, run_dir: Path) -> None:
        import threading

        self.condition = threading.Condition()
        self.run_dir = run_dir

    def load(self, kind: int, payload: Any) -> Any:
        return load_value(self.run_dir, kind, payload)


class _Bar:
    """A progress line on a terminal."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.last = ""

    def show(self) -> None:
        if self.session.progress is None:
            return
        waiting, running, finished, failed, cancelled = self.session.progress
        total = waiting + running + finished + failed + cancelled
        done = finished * 30 // max(total, 1)
        line = f"[{'#' * done}{'.' * (30 - done)}] {finished}/{total}, {running} running"
        line += f", {failed} failed" if failed else ""
        if line != self.last:
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()
            self.last = line

    def clear(self) -> None:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def connect(run: str) -> Run:
    """A run by its id or a unique prefix, whether it still runs or has ended.

    Raises:
        BridgeheadError: there is none.
    """
    try:
        folder = Path(_bridgehead.find_run(run))
    except OSError as error:
        raise errors.BridgeheadError(str(error)) from None
    spec = folder / "spec.json"
    names = [task["name"] for task in json.loads(spec.read_text())["tasks"]] if spec.exists() else []
    return Run(folder.name, folder, None, names)
