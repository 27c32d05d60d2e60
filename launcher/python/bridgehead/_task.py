"""Tasks: functions with what they ask for, and programs. Owns options and their checking; a plain call is a plain
call."""

from __future__ import annotations

import dataclasses
import functools
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, Literal, ParamSpec, TypedDict, TypeVar, Unpack, get_args, overload

from .errors import PlanError

P = ParamSpec("P")
R = TypeVar("R")


def names_options(function: Callable[P, R]) -> Callable[P, R]:
    """A function or method that answers to an unknown option with the names of those that it has."""
    code = function.__code__  # type: ignore[attr-defined]
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    valid = [name for name in names if name not in ("self", "name")]

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in names:
                raise TypeError(f"unknown option {name!r}; the options are {', '.join(valid) or 'none'}")
        return function(*args, **kwargs)

    return checked


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retries:
    """How often a task may be tried again, by cause. Only ``user`` counts the task's own errors."""

    lost_node: int = 3
    preempted: int = 3
    walltime: int = 0
    oom: int = 0
    user: int = 0


Retries.__init__ = names_options(Retries.__init__)  # type: ignore[method-assign]


Persist = Literal["auto", "always", "never"]
Map = Literal["core", "numa", "socket", "gpu", "node"]
Mpi = Literal["auto", "mpich", "openmpi", "none"]
Launcher = Literal["agent", "srun"]
Returns = Literal["first", "shards"]
_WORDS = {"map": Map, "mpi": Mpi, "launcher": Launcher, "returns": Returns, "persist": Persist}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What a task asks for.

    Attributes:
        cpus: cores; fractions share one.
        gpus: whole GPUs.
        memory: bytes, or a text like ``"8GiB"``; 0 says that it is not counted.
        retries: by cause; a number counts the task's own errors.
        timeout: seconds, or a text like ``"30m"``; the attempt is ended after it.
        priority: higher goes first.
        resources: site-named resources, whole units.
        persist: whether the result is written to the run folder: ``"auto"`` for small and final ones.
        name: for people; the function's name where it is left out.
        ranks: how many ranks run it together, an MPI gang; each gets what the other options ask for. A text like
            ``"4..16"`` takes what is free when it starts. `None` is one process.
        ranks_per_node: exactly so many on each node, but for the last one; `None`: as they fit.
        map: what neighbouring ranks are put beside: ``"core"`` (the default) and ``"numa"``, ``"socket"`` and ``"gpu"`` on as
            few nodes as possible; ``"node"``: in equal blocks over as many as possible.
        mpi: the MPI whose start-up the ranks are served; ``"auto"`` looks at the program, or at what mpi4py loads;
            ``"none"``: the ranks find one another by themselves.
        launcher: who starts the ranks of a program: the agents, or Slurm's ``"srun"`` for sites that demand it.
        returns: a gang's value is its first rank's, or an array whose shards are what all ranks return.
    """

    cpus: float = 1
    gpus: int = 0
    memory: int | str = 0
    retries: Retries | int = Retries()
    timeout: float | str | None = None
    priority: int = 0
    resources: Mapping[str, int] = dataclasses.field(default_factory=dict[str, int])
    persist: Persist = "auto"
    name: str | None = None
    ranks: int | str | None = None
    ranks_per_node: int | None = None
    map: Map = "core"
    mpi: Mpi = "auto"
    launcher: Launcher = "agent"
    returns: Returns = "first"

    def to_spec(self) -> dict[str, Any]:
        """The options as a pipeline's document has them; empty where all are the defaults."""
        spec: dict[str, Any] = {}
        memory = parse_memory(self.memory)
        if self.cpus != 1 or self.gpus or memory or self.resources:
            asked: dict[str, Any] = {"cpu_millis": round(self.cpus * 1000), "memory": memory, "gpus": self.gpus}
            if self.resources:
                asked["named"] = dict(self.resources)
            spec["resources"] = asked
        retries = Retries(user=self.retries) if isinstance(self.retries, int) else self.retries
        if retries != Retries():
            spec["retries"] = dataclasses.asdict(retries)
        if self.timeout is not None:
            spec["timeout_ms"] = max(1, round(parse_duration(self.timeout) * 1000))
        if self.priority:
            spec["priority"] = self.priority
        if self.persist != "auto":
            spec["persist"] = self.persist
        if self.ranks is not None:
            spec["ranks"] = self._ranks_spec(self.ranks)
        return spec

    def _ranks_spec(self, ranks: int | str) -> dict[str, Any]:
        least, most = parse_ranks(ranks)
        spec: dict[str, Any] = {"least": least, "most": most}
        if self.ranks_per_node is not None:
            spec["per_node"] = self.ranks_per_node
        chosen = {"map": self.map, "mpi": self.mpi, "launcher": self.launcher, "returns": self.returns}
        return spec | {key: value for key, value in chosen.items() if value != getattr(Options, key)}


class TaskOptions(TypedDict, total=False):
    """The options of a task that one process runs; see `Options`."""

    cpus: float
    gpus: int
    memory: int | str
    retries: Retries | int
    timeout: float | str | None
    priority: int
    resources: Mapping[str, int]
    persist: Persist
    name: str | None


class GangOptions(TaskOptions, total=False):
    """What a task of several ranks may say besides how many they are; see `Options`."""

    ranks_per_node: int | None
    map: Map
    mpi: Mpi


class ProgramOptions(GangOptions, total=False):
    """The options of a program; see `Options`."""

    ranks: int | str | None
    launcher: Launcher


_VALID = tuple(field.name for field in dataclasses.fields(Options))


def make_options(base: Options, changes: Mapping[str, Any]) -> Options:
    """``base`` with ``changes``.

    Raises:
        TypeError: an option is unknown; the message names the valid ones.
        PlanError: a value makes no sense.
    """
    for name in changes:
        if name not in _VALID:
            raise TypeError(f"unknown option {name!r}; the options are {', '.join(_VALID)}")
    options = dataclasses.replace(base, **changes)
    _check(options)
    return options


def _check(o: Options) -> None:
    def refuse(what: str) -> None:
        raise PlanError(f"option {what}")

    if not isinstance(o.cpus, (int, float)) or o.cpus < 0:
        refuse(f"cpus={o.cpus!r}: give a number of cores, 0 or more")
    if not isinstance(o.gpus, int) or o.gpus < 0:
        refuse(f"gpus={o.gpus!r}: give a whole number, 0 or more")
    for name, words in _WORDS.items():
        if getattr(o, name) not in get_args(words):
            refuse(f"{name}={getattr(o, name)!r}: give one of {', '.join(map(repr, get_args(words)))}")
    if o.ranks is not None:
        parse_ranks(o.ranks)
    elif any(getattr(o, name) != getattr(Options, name) for name in _OF_RANKS):
        changed = next(name for name in _OF_RANKS if getattr(o, name) != getattr(Options, name))
        refuse(f"{changed}={getattr(o, changed)!r}: only a task of several ranks has it; give ranks too")
    if o.ranks_per_node is not None and (not isinstance(o.ranks_per_node, int) or o.ranks_per_node < 1):
        refuse(f"ranks_per_node={o.ranks_per_node!r}: give 1 or more, or None for as they fit")
    if isinstance(o.retries, int) and o.retries < 0:
        refuse(f"retries={o.retries!r}: give 0 or more, or a Retries")
    parse_memory(o.memory)
    if o.timeout is not None and parse_duration(o.timeout) <= 0:
        refuse(f"timeout={o.timeout!r}: give more than 0 seconds, or None for no limit")


_OF_RANKS = ("ranks_per_node", "map", "mpi", "launcher", "returns")
"""Options that only a gang has."""


def parse_ranks(ranks: int | str) -> tuple[int, int]:
    """The fewest and the most ranks, from a number or a text like ``"4..16"``.

    Raises:
        PlanError: it is neither.
    """
    if isinstance(ranks, int) and not isinstance(ranks, bool) and ranks >= 1:
        return ranks, ranks
    found = re.fullmatch(r"\s*([0-9]+)\s*(?:\.\.\s*([0-9]+)\s*)?", ranks) if isinstance(ranks, str) else None
    if found and 1 <= int(found[1]) <= int(found[2] or found[1]):
        return int(found[1]), int(found[2] or found[1])
    raise PlanError(f"ranks={ranks!r}: give 1 or more, or a text like '4..16'")


_UNITS = {"": 1, "B": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12} | {
    f"{letter}{tail}": base**power
    for power, letter in enumerate("KMGT", 1)
    for tail, base in (("B", 1000), ("iB", 1024))
}


def parse_memory(text: int | str, what: str = "memory") -> int:
    """Bytes from a number or a text like ``"8GiB"`` or ``"500MB"``.

    Raises:
        PlanError: it is neither.
    """
    if isinstance(text, int):
        if text < 0:
            raise PlanError(f"{what}={text}: give 0 or more bytes")
        return text
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", text)
    if not found or found[2] not in _UNITS:
        raise PlanError(f"{what}={text!r}: give bytes, or a number with a unit such as '8GiB' or '500MB'")
    return int(float(found[1]) * _UNITS[found[2]])


def parse_duration(text: float | str) -> float:
    """Seconds from a number or a text like ``"30m"``, ``"2h"`` or ``"1.5s"``.

    Raises:
        PlanError: it is neither.
    """
    if isinstance(text, (int, float)):
        return float(text)
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)?\s*", text)
    if not found:
        raise PlanError(f"timeout={text!r}: give seconds, or a number with a unit such as '90s', '30m' or '2h'")
    return float(found[1]) * {"ms": 0.001, None: 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


class Task(Generic[P, R]):
    """A function that can be a node of a pipeline. Calling it runs it here and now."""

    def __init__(self, function: Callable[P, R], options: Options) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.task_options = options
        if options.ranks is not None and type(self) is Task:
            raise PlanError(
                f"option ranks={options.ranks!r}: a function of several ranks gets a communicator: use @bridgehead.mpi"
            )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    @property
    def _called(self) -> Callable[P, R]:
        """What a node's arguments are those of."""
        return self.function

    def options(self, **changes: Any) -> Task[P, R]:
        """The same task, asking for something else. See `Options` for what can be asked."""
        return Task(self.function, make_options(self.task_options, changes))

    def __repr__(self) -> str:
        return f"<bridgehead.Task {getattr(self.function, '__qualname__', self.function)!s}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Task, (self.function, self.task_options))


@overload
def task(function: Callable[P, R], /, **options: Unpack[TaskOptions]) -> Task[P, R]: ...
@overload
def task(**options: Unpack[TaskOptions]) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(function: Callable[..., Any] | None = None, /, **changes: Any) -> Any:
    """Makes a function a task. Use it bare or with options, see `Options`."""
    options = make_options(Options(), changes)
    if function is not None:
        return Task(function, options)
    return lambda function: Task(function, options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgramResult:
    """What a program left behind.

    Attributes:
        exit_code: always 0: another one is a failure of the task.
        stdout_bytes: captured standard output, cut at 1 MiB.
        stderr_bytes: captured standard error, cut at 1 MiB.
        outputs: the output files by name.
        dropped: bytes of output beyond the cut.
    """

    exit_code: int
    stdout_bytes: bytes
    stderr_bytes: bytes
    outputs: dict[str, Path]
    dropped: int = 0

    @property
    def stdout(self) -> str:
        """Standard output as text."""
        return self.stdout_bytes.decode(errors="replace")

    @property
    def stderr(self) -> str:
        """Standard error as text."""
        return self.stderr_bytes.decode(errors="replace")


class Program:
    """An executable with templated arguments. Calling it runs it here and now."""

    def __init__(
        self,
        command: str,
        options: Options,
        *,
        outputs: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> None:
        self.command = command
        self.words = shlex.split(command)
        if not self.words:
            raise PlanError("a program needs at least the name of an executable")
        self.outputs = dict(outputs or {})
        self.env = dict(env or {})
        self.cwd = cwd
        self.task_options = options

    def options(self, **changes: Any) -> Program:
        """The same program, asking for something else."""
        options = make_options(self.task_options, changes)
        return Program(self.command, options, outputs=self.outputs, env=self.env, cwd=self.cwd)

    def spec(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The program's part of a task's document, with ``values`` put into its templates.

        Raises:
            TypeError: a template names a value that is not given, or the other way round.
        """
        used: set[str] = set()

        def fill(template: str) -> str:
            def replace(found: re.Match[str]) -> str:
                name = found[1]
                if name not in values:
                    given = ", ".join(values) or "none"
                    raise TypeError(f"{self.command!r} needs a value for {{{name}}}; given: {given}")
                used.add(name)
                return str(values[name])

            return re.sub(r"\{([A-Za-z_][A-Za-z0-9_]*)\}", replace, template)

        spec: dict[str, Any] = {"argv": [fill(word) for word in self.words]}
        if self.outputs:
            spec["outputs"] = {name: fill(path) for name, path in self.outputs.items()}
        if self.env:
            spec["env"] = {name: fill(value) for name, value in self.env.items()}
        if self.cwd is not None:
            spec["cwd"] = str(Path(fill(self.cwd)).absolute())
        unused = [name for name in values if name not in used]
        if unused:
            raise TypeError(f"{self.command!r} has no place for {', '.join(unused)}")
        return spec

    def __call__(self, **values: Any) -> ProgramResult:
        return run_program(self.spec(values))

    def __repr__(self) -> str:
        return f"<bridgehead.Program {self.command!r}>"


def run_program(spec: Mapping[str, Any]) -> ProgramResult:
    """Runs a program here: for plain calls, and in a worker where its arguments are results of tasks.

    Raises:
        TaskError: it ended with another exit code than 0, or left an output out.
    """
    import os
    import subprocess

    from .errors import TaskError

    cwd = Path(spec.get("cwd") or Path.cwd())
    done = subprocess.run(
        spec["argv"],
        cwd=cwd,
        env={**os.environ, **spec.get("env", {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    name = spec["argv"][0]
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").splitlines()[-5:]
        text = f"{name} exited with {done.returncode}; its last words: {' | '.join(last) or 'none'}"
        raise TaskError(text, kind="exit-code", exit_code=done.returncode)
    outputs = {key: cwd / path for key, path in spec.get("outputs", {}).items()}
    for key, path in outputs.items():
        if not path.exists():
            raise TaskError(f"{name} exited with 0 but left no {key} at {path}", kind="missing-output")
    return ProgramResult(exit_code=0, stdout_bytes=done.stdout, stderr_bytes=done.stderr, outputs=outputs)


def program(
    command: str,
    *,
    outputs: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    **options: Unpack[ProgramOptions],
) -> Program:
    """An executable as a task: ``bh.program("convert {source} {target}", outputs={"image": "{target}"})``.

    The command is split into words as a shell would, and no shell is involved; ``{name}`` in a word is replaced by
    the value
    given to the node. The task fails where the exit code is not 0 or an output file is missing. With `ranks` it is an MPI
    program: ``bh.program("lmp -in in.melt -var T {T}", ranks=8)``, whose value has the standard output of rank 0.
    Further options: `Options`.
    """
    return Program(command, make_options(Options(), options), outputs=outputs, env=env, cwd=cwd)
