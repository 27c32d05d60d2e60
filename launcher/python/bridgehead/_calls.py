"""Calls of functions over one connection: functions are sent once, options are prepared once. Used by the Executor
and, in
a worker, by tasks that add tasks. Hot path: `Calls.submit`, once a task."""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from . import _bridgehead
from ._pickling import dump_function, name_of, short_name

if TYPE_CHECKING:
    from ._future import Future
    from ._task import Options, Task

R = TypeVar("R")

_KEPT = (types.FunctionType, types.BuiltinFunctionType, type)


def call_object(function: Callable[..., R], /, *args: Any, **kwargs: Any) -> R:
    """Calls what came as an argument: a bound method, a partial, any object that can be called."""
    return function(*args, **kwargs)


ProgramFields = tuple[list[str], dict[str, str], str, dict[str, str]]


def prepare(options: Options, name: str = "", program: ProgramFields | None = None) -> _bridgehead.Options:
    """Options of a task as they travel, and a program where it is one."""
    spec = options.to_spec()
    resources = spec.get("resources", {})
    retries = spec.get("retries", {})
    return _bridgehead.Options(
        cpu_millis=resources.get("cpu_millis", 1000),
        memory=resources.get("memory", 0),
        gpus=resources.get("gpus", 0),
        named=resources.get("named", {}),
        retries=(
            retries.get("lost_node", 3),
            retries.get("preempted", 3),
            retries.get("walltime", 0),
            retries.get("oom", 0),
            retries.get("user", 0),
        ),
        priority=spec.get("priority", 0),
        timeout_ms=spec.get("timeout_ms", 0),
        name=options.name or name,
        program=program,
        ranks=json.dumps(spec["ranks"]) if "ranks" in spec else None,
    )


class Calls:
    """Submits calls over a connection to the head or to an agent."""

    def __init__(self, connection: _bridgehead.Client | _bridgehead.Worker, *, original: bool) -> None:
        self._connection = connection
        self._submit = connection.submit
        self._original = original
        self._functions: dict[Any, int] = {}
        self._options: dict[int, tuple[Options, _bridgehead.Options]] = {}

    def submit(self, function: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[R]:
        """A call with the default options."""
        # A closure is pickled at each call, like an argument: what it caught may have changed. Other functions are
        # sent once.
        if type(function) in _KEPT and not getattr(function, "__closure__", None):
            index = self._functions.get(function)
            if index is None:
                index = self._send(function)
            future = self._submit(index, args, kwargs)
        else:
            index = self._functions.get(call_object)
            if index is None:
                index = self._send(call_object)
            future = self._submit(index, (function, *args), kwargs)
        future._original = self._original
        return future

    def submit_task(self, task: Task[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[R]:
        """A call of a task, with its options."""
        function = task.function
        index = self._functions.get(function)
        if index is None:
            index = self._send(function)
        kept = self._options.get(id(task.task_options))
        if kept is None:
            kept = (task.task_options, prepare(task.task_options, short_name(function)))
            self._options[id(task.task_options)] = kept
        future: Future[R] = self._submit(index, args, kwargs, kept[1])
        future._name = name_of(function)
        future._original = self._original
        return future

    def submit_program(self, spec: Mapping[str, Any], options: Options) -> Future[Any]:
        """A program, as `Program.spec` gives it, with its options."""
        argv = list(spec["argv"])
        fields = (argv, dict(spec.get("env", {})), spec.get("cwd", ""), dict(spec.get("outputs", {})))
        future = self._submit(0, (), {}, prepare(options, argv[0], fields))
        future._name = options.name or argv[0]
        future._original = self._original
        return future

    def _send(self, function: Callable[..., Any]) -> int:
        code, digest = dump_function(function)
        index = self._functions[function] = self._connection.put_function(digest, short_name(function), code)
        return index
