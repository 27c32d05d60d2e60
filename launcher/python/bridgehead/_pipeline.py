"""Pipelines: a graph of tasks, built in Python and written down as `spec.json`. Starting one is `_run.py`'s."""

from __future__ import annotations

import binascii
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from . import _bridgehead, _launch, _nested, _refs, errors
from ._launch import Asked
from ._pickling import dump_function, name_of, short_name
from ._task import Options, Program, ProgramResult, Task, names_options, run_program

if TYPE_CHECKING:
    from inspect import Signature

    from ._refs import Ref
    from ._run import Run
    from ._targets import Target

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")

_BLOB = 64 << 10
"""Packed arguments beyond this many bytes lie in a file of their own."""


class Node(Generic[R]):
    """A task of a pipeline. Given to another node as an argument, also inside lists, dicts and dataclasses, it
    arrives as
    the value."""

    __slots__ = ("__weakref__", "_after", "_call", "_inputs", "_options", "_pipeline", "group", "id", "name")

    def __init__(self, pipeline: Pipeline, name: str, call: str, inputs: tuple[int, ...], options: Options) -> None:
        # Texts and tuples of numbers, which the garbage collector need not go through for each of a million nodes.
        self._pipeline = pipeline
        self._call = call
        self._inputs = inputs
        self._options = options
        self._after: tuple[int, ...] = ()
        self.group: str | None = None
        self.id = len(pipeline.nodes)
        self.name = name
        pipeline.nodes.append(self)

    def after(self, *others: Node[Any]) -> Node[R]:
        """Starts only when `others` have finished, besides those whose values it takes."""
        for other in others:
            if other._pipeline is not self._pipeline:
                raise errors.PlanError(f"{other!r} is no node of pipeline {self._pipeline.name!r}")
        self._after += tuple(other.id for other in others)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        number = _bridgehead.note_task(self._pipeline, self.id)
        if number is None:
            raise errors.PlanError(
                f"{self!r} stands for a value that does not exist yet: give it to a task of the same pipeline, or run "
                "the pipeline and take run[node].result()"
            )
        return (_bridgehead._input, (number,))

    def __repr__(self) -> str:
        return f"<bridgehead.Node {self.name} (t{self.id})>"

    def _to_json(self, texts: dict[Any, str]) -> str:
        """The node as it is written down; `texts` keeps what many nodes have alike: names, and options by identity."""
        name = texts.get(self.name)
        if name is None:
            name = texts[self.name] = json.dumps(self.name)
        asked = texts.get(id(self._options))
        if asked is None:
            spec = self._options.to_spec()
            asked = texts[id(self._options)] = f", {json.dumps(spec)[1:-1]}" if spec else ""
        inputs = f', "inputs": {list(self._inputs)}' if self._inputs else ""
        after = f', "after": {list(self._after)}' if self._after else ""
        group = f', "group": {json.dumps(self.group)}' if self.group is not None else ""
        return f'{{"id": {self.id}, "name": {name}, "call": {self._call}{asked}{inputs}{after}{group}}}'


class Group:
    """A part of a pipeline that asks for an allocation of its own."""

    def __init__(self, pipeline: Pipeline, name: str) -> None:
        self._pipeline = pipeline
        self.name = name

    def add(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Node[R]:
        """As `Pipeline.add`, into this group."""
        node = self._pipeline.add(task, *args, **kwargs)
        node.group = self.name
        return node


class Pipeline:
    """A graph of tasks.

    Args:
        name: for people, and the first part of its runs' ids.
    """

    @names_options
    def __init__(self, name: str) -> None:
        if not name:
            raise errors.PlanError("a pipeline needs a name")
        self.name = name
        self.nodes: list[Node[Any]] = []
        self._functions: dict[Any, tuple[str, bytes, str]] = {}
        self._blobs: dict[str, bytes] = {}
        self._groups: dict[str, dict[str, Any]] = {}
        self._refs: dict[Ref[Any], Node[Any]] = {}

    # A parameter of type X takes a value of X or a Node[X]; ParamSpec cannot say so, hence arguments are checked
    # against the
    # signature when the node is added, and by type only as far as plain values go.
    @overload
    def add(self, task: Program, /, **values: Any) -> Node[ProgramResult]: ...
    @overload
    def add(self, task: Task[..., R], /, *args: Any, **kwargs: Any) -> Node[R]: ...
    def add(self, task: Task[..., Any] | Program, /, *args: Any, **kwargs: Any) -> Node[Any]:
        """Adds a node that calls `task`; nodes among the arguments arrive as their values.

        Raises:
            TypeError: the arguments do not fit.
            UnpicklableError: one cannot travel.
            PlanError: a node is of another pipeline.
        """
        if isinstance(task, Program):
            if args:
                raise TypeError(f"give {task!r} its values by name: {{name}} in the command, name=value here")
            return self._add_program(task, kwargs)
        if not isinstance(task, Task):
            raise TypeError(
                f"{task!r} is no task: decorate the function with @bridgehead.task, or use bridgehead.task(f)"
            )
        _check_arguments(task, args, kwargs)
        return self._add_call(task.function, args, kwargs, task.task_options)

    @overload
    def map(self, task: Task[[A], R], i1: Iterable[A | Node[A]], /) -> list[Node[R]]: ...
    @overload
    def map(self, task: Task[[A, B], R], i1: Iterable[A | Node[A]], i2: Iterable[B | Node[B]], /) -> list[Node[R]]: ...
    @overload
    def map(
        self,
        task: Task[[A, B, C], R],
        i1: Iterable[A | Node[A]],
        i2: Iterable[B | Node[B]],
        i3: Iterable[C | Node[C]],
        /,
    ) -> list[Node[R]]: ...
    @overload
    def map(
        self,
        task: Task[[A, B, C, D], R],
        i1: Iterable[A | Node[A]],
        i2: Iterable[B | Node[B]],
        i3: Iterable[C | Node[C]],
        i4: Iterable[D | Node[D]],
        /,
    ) -> list[Node[R]]: ...
    @overload
    def map(
        self,
        task: Task[[A, B, C, D, E], R],
        i1: Iterable[A | Node[A]],
        i2: Iterable[B | Node[B]],
        i3: Iterable[C | Node[C]],
        i4: Iterable[D | Node[D]],
        i5: Iterable[E | Node[E]],
        /,
    ) -> list[Node[R]]: ...
    @overload
    def map(self, task: Task[..., R], /, *iterables: Iterable[Any]) -> list[Node[R]]: ...
    def map(self, task: Task[..., Any], /, *iterables: Iterable[Any]) -> list[Node[Any]]:
        """Adds a node for each set of items, as the built-in `map` would call."""
        return [self.add(task, *items) for items in zip(*iterables, strict=False)]

    def node_of(self, ref: Ref[Any]) -> Node[Any]:
        """The node that stands for a value that was put: however many tasks take it, it is stored once."""
        node = self._refs.get(ref)
        if node is None:
            node = self._refs[ref] = self._add_call(_itself, (_refs.get(ref),), {}, Options(name="put"))
        return node

    @names_options
    def group(
        self, name: str, *, nodes: int | None = None, gpus: int | None = None, partition: str | None = None
    ) -> Group:
        """A part of the pipeline that asks for an allocation of its own; add its tasks through what this returns."""
        asked = {"nodes": nodes, "gpus": gpus, "partition": partition}
        self._groups[name] = {key: value for key, value in asked.items() if value is not None}
        return Group(self, name)

    @names_options
    def run(
        self,
        *,
        on: Target | None = None,
        agents: int | None = None,
        cpus: int | None = None,
        wait: bool = True,
        trace: str | Path | None = None,
        resources: dict[str, int] | None = None,
        store: int | str | None = None,
        max_running: int | None = None,
        max_fails: int | None = None,
        verify_objects: bool = False,
    ) -> Run:
        """Runs the pipeline here and now, and waits for its end unless `wait` is off.

        Started by `bridgehead plan` or `bridgehead submit` it does that instead, and ends the script.

        Args:
            on: a scheduler to hand it to; this machine if left out. The run then goes on without this process.
            agents: agents that share this machine; 1 if left out.
            cpus: cores to use; all that this process may use if left out.
            wait: whether to come back only when every task has its outcome.
            trace: where to write a Chrome trace.
            resources: site-named resources that each agent has.
            store: bytes that each agent's store may hold in memory, or a text like ``"8GiB"``; beyond it values go
                to disk.
            max_running: most tasks that run at a time.
            max_fails: tasks that may fail; one more ends the run.
            verify_objects: take a sum of each object of the store, and check it wherever its bytes are moved: to another
                node, to a file, and back.
        """
        asked = Asked.of(on, agents, cpus, trace, resources, store, max_running, max_fails, verify_objects)
        self._obey(asked)
        run = self._start(asked, attached=True)
        if wait:
            run.watch()
        return run

    @names_options
    def submit(
        self,
        *,
        on: Target | None = None,
        agents: int | None = None,
        cpus: int | None = None,
        trace: str | Path | None = None,
        resources: dict[str, int] | None = None,
        store: int | str | None = None,
        max_running: int | None = None,
        max_fails: int | None = None,
        verify_objects: bool = False,
    ) -> Run:
        """Starts the pipeline and comes back at once; it goes on without this process. `connect` finds it again.

        The options are those of `run`.

        Raises:
            SchedulerError: the scheduler refused, or cannot be reached.
        """
        asked = Asked.of(on, agents, cpus, trace, resources, store, max_running, max_fails, verify_objects)
        self._obey(asked)
        return self._start(asked, attached=False)

    @names_options
    def plan(
        self,
        *,
        on: Target | None = None,
        agents: int | None = None,
        cpus: int | None = None,
        resources: dict[str, int] | None = None,
        store: int | str | None = None,
    ) -> str:
        """What would be run, and why, as text; starts nothing.

        Raises:
            PlanError: it cannot be run as it is.
            SchedulerError: the scheduler would refuse it, or cannot be reached.
        """
        return self._show(Asked.of(on, agents, cpus, None, resources, store))[1]

    def _obey(self, asked: Asked) -> None:
        """Does what `bridgehead plan` or `bridgehead submit` asks of the script, and ends it."""
        do = _launch.asked()
        if do == "run":
            return
        try:
            if do == "plan":
                document, text = self._show(asked)
            else:
                run = self._start(asked, attached=False)
                document, text = json.dumps({"run": run.id, "folder": str(run.folder)}), run.id
        except (errors.PlanError, errors.SchedulerError) as error:
            _launch.refuse(str(error), error.exit_code)
        _launch.answer(document, text.rstrip("\n"))

    def to_json(self) -> bytes:
        """The pipeline as it is written down, in canonical form (`docs/formats/pipeline-spec.md`).

        Raises:
            PlanError: it is no pipeline, a cycle for instance.
        """
        try:
            return _bridgehead.canonical_spec(self._written())
        except ValueError as error:
            raise errors.PlanError(str(error)) from None

    def _written(self) -> bytes:
        """The pipeline as it is written down, not checked and not canonical yet."""
        taken = {need for node in self.nodes for need in node._inputs}
        head = {
            "version": 1,
            "name": self.name,
            "environment": {"python": sys.version.split()[0], "executable": sys.executable, "cwd": os.getcwd()},
            "functions": {digest: {"name": name, "size": len(code)} for digest, code, name in self._functions.values()},
            "groups": self._groups,
            "keep": [node.id for node in self.nodes if node.id not in taken],
        }
        texts: dict[Any, str] = {}
        tasks = ", ".join([node._to_json(texts) for node in self.nodes])
        return f'{json.dumps(head)[:-1]}, "tasks": [{tasks}]}}'.encode()

    def _plan(self, asked: Asked) -> tuple[bytes, str, str]:
        """The pipeline in canonical form, its plan, and the plan in its form for people."""
        profile = json.dumps(asked.profile())
        try:
            return _bridgehead.plan(self._written(), profile)
        except ValueError as error:
            raise errors.PlanError(str(error)) from None

    def _show(self, asked: Asked) -> tuple[str, str]:
        """What would be started, as JSON and for people; with a scheduler that is also what it would be handed."""
        _, plan, human = self._plan(asked)
        return asked.show(self.name, plan, human, self._groups)

    def _start(self, asked: Asked, *, attached: bool) -> Run:
        from ._run import Run

        spec, plan, _ = self._plan(asked)
        blobs = self._blobs | {digest: code for digest, code, _ in self._functions.values()}
        run, folder, client = _launch.start(self.name, asked, attached=attached, spec=spec, plan=plan, blobs=blobs)
        return Run(run, Path(folder), [node.name for node in self.nodes], client)

    def _add_call(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: Options
    ) -> Node[Any]:
        known = self._functions.get(function)
        if known is None:
            code, digest = dump_function(function)
            known = self._functions[function] = (digest.hex(), code, short_name(function))
        packed, inputs = _bridgehead.pack_arguments(self, args, kwargs)
        if len(packed) > _BLOB:
            import hashlib

            blob = hashlib.sha256(packed).hexdigest()
            self._blobs[blob] = packed
            given = f'"args_blob": "{blob}"'
        else:
            given = f'"args": "{binascii.b2a_base64(packed, newline=False).decode()}"'
        call = f'{{"function": {{"digest": "{known[0]}", {given}}}}}'
        return Node(self, options.name or known[2], call, tuple(inputs), options)

    def _add_program(self, program: Program, values: dict[str, Any]) -> Node[ProgramResult]:
        options = program.task_options
        name = options.name or program.words[0]
        if any(isinstance(value, Node) for value in values.values()):
            # The words are known only when the values are, so a worker fills them in and starts the program, or has its ranks
            # started.
            if options.ranks is None:
                node = self._add_call(_run_filled, (program, values), {}, options)
            else:
                node = self._add_call(_run_ranks, (program, values), {}, Options(cpus=0.001))
            node.name = name
            return node
        return Node(self, name, json.dumps({"program": program.spec(values)}), (), options)


def _itself(value: Any) -> Any:
    return value


def _run_filled(program: Program, values: dict[str, Any]) -> ProgramResult:
    return run_program(program.spec(values))


def _run_ranks(program: Program, values: dict[str, Any]) -> ProgramResult:
    result: ProgramResult = _nested.calls().submit_program(program.spec(values), program.task_options).result()
    return result


def _check_arguments(task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    known: tuple[Signature | None, int, int] | None = task.__dict__.get("_parameters")
    if known is None:
        known = task.__dict__["_parameters"] = _parameters(task._called)
    signature, least, most = known
    if signature is None or (not kwargs and least <= len(args) <= most):
        return  # The usual case by its count: `bind` takes several microseconds.
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{name_of(task.function)}: {error}") from None


def _parameters(function: Callable[..., Any]) -> tuple[Signature | None, int, int]:
    """A function's signature, if it has one, and the least and most positional arguments that fit without any other."""
    import inspect

    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None, 0, 0  # Some built-in functions have none.
    all_ = signature.parameters.values()
    positional = [p for p in all_ if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    least, most = sum(p.default is p.empty for p in positional), len(positional)
    if any(p.kind is p.VAR_POSITIONAL for p in all_):
        most = sys.maxsize
    if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in all_):
        most = -1
    return signature, least, most
