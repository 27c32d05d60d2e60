"""Starting a run: what was asked for it, what each agent gets, the run folder's documents, the binary, the
connection."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from . import _bridgehead, _failures, _pickling, errors
from ._task import parse_memory

if TYPE_CHECKING:
    from ._targets import Target


def asked() -> str:
    """What the command line wants of the script's pipelines: `run`, `plan` or `submit`."""
    return os.environ.get("BRIDGEHEAD_DO", "run")


def answer(document: str, text: str) -> NoReturn:
    """Prints what the command line asked for, as JSON or for people, and ends the script."""
    found_pipeline()
    try:
        print(document if os.environ.get("BRIDGEHEAD_JSON") else text, flush=True)
    except BrokenPipeError:
        # The reader has seen enough. What is still buffered must not fail a second time at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(0)


def refuse(message: str, code: int = 1) -> NoReturn:
    """Ends a script that cannot be planned or submitted."""
    found_pipeline()
    print(f"bridgehead: {message}", file=sys.stderr)
    raise SystemExit(code)


def found_pipeline() -> None:
    """Tells `bridgehead plan` and `submit`, who wait, that the script has a pipeline."""
    number = os.environ.pop("BRIDGEHEAD_FOUND_FD", "")
    if number.isdigit():
        with contextlib.suppress(OSError):
            os.write(int(number), b"1")
            os.close(int(number))


def only_if_run(what: str) -> None:
    """Refuses what would start processes in a script that is only planned or submitted."""
    if asked() != "run":
        refuse(f"`bridgehead {asked()}` is for pipelines, this script starts {what}: use `bridgehead run`")


def find_binary() -> str:
    """Path of the program that is head and agent.

    Raises:
        BridgeheadError: it is nowhere to be found.
    """
    told = os.environ.get("BRIDGEHEAD_BIN")
    beside = os.path.join(sys.prefix, "bin", "bridgehead")
    for place in (told, beside):
        if place and os.access(place, os.X_OK):
            return place
    import shutil

    found = shutil.which("bridgehead")
    if found is None:
        raise errors.BridgeheadError(
            f"the program `bridgehead` is neither {beside} nor on PATH: install the wheel again, or set BRIDGEHEAD_BIN"
        )
    return found


def cpus_here() -> int:
    """Whole cores that this process may use: its processors, fewer if its control group has a quota."""
    return max(1, _bridgehead.machine()[0] // 1000)


def gpus_here() -> int:
    """NVIDIA GPUs that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([part for part in visible.split(",") if part.strip()])
    names = os.listdir("/dev") if os.path.isdir("/dev") else []
    return len([name for name in names if name.startswith("nvidia") and name[6:].isdigit()])


def share_out(
    agents: int, cpus: int | None, resources: dict[str, int] | None = None, store: int | str | None = None
) -> list[dict[str, Any]]:
    """What each of `agents` agents on this machine gets, as `run.json` has it. `store` is what each may hold in memory;
    three tenths of its share if left out.

    Raises:
        PlanError: there is less than one core for each.
    """
    cpu_millis, usable = _bridgehead.machine()
    total = cpus if cpus is not None else max(cpu_millis // 1000, agents)
    if agents < 1 or total < agents:
        raise errors.PlanError(
            f"{agents} agents cannot share {total} cores: each needs one; ask for fewer, or give cpus"
        )
    limit = store if store is not None else os.environ.get("BRIDGEHEAD_STORE")
    memory = usable // agents
    gpus = gpus_here()
    shares = []
    for rank in range(agents):
        given: dict[str, Any] = {
            "cpu_millis": 1000 * (total // agents + (rank < total % agents)),
            "memory": memory,
            "gpus": gpus // agents + (rank < gpus % agents),
        }
        if resources:
            given["named"] = dict(resources)
        most = memory * 3 // 10 if limit is None else parse_memory(limit, "store")
        shares.append({"resources": given, "store_limit": most})
    return shares


@dataclasses.dataclass(frozen=True)
class Asked:
    """What was asked for a run, in the script and on the command line.

    Attributes:
        target: the scheduler that it is handed to, as `run.json` has it; `None` is this machine.
        shares: what each agent of this machine gets.
        trace: where to write a trace.
        max_running: most tasks that run at a time.
        max_fails: tasks that may fail.
        store_limit: most bytes that the store of a scheduler's node holds.
        verify_objects: objects have sums, which are checked where bytes are moved.
    """

    target: dict[str, Any] | None
    shares: list[dict[str, Any]]
    trace: str | None = None
    max_running: int | None = None
    max_fails: int | None = None
    store_limit: int | None = None
    verify_objects: bool = False

    @staticmethod
    def of(
        on: Target | None,
        agents: int | None,
        cpus: int | None,
        trace: str | Path | None,
        resources: dict[str, int] | None,
        store: int | str | None,
        max_running: int | None = None,
        max_fails: int | None = None,
        verify_objects: bool = False,
    ) -> Asked:
        """The script's words with the command line's, which win. What makes no sense ends a script that is planned or
        submitted, and is raised in one that runs."""
        try:
            made = Asked._of(on, agents, cpus, trace, resources, store, max_running, max_fails)
            return dataclasses.replace(made, verify_objects=verify_objects)
        except errors.PlanError as error:
            if asked() == "run":
                raise
            refuse(str(error), error.exit_code)

    @staticmethod
    def _of(
        on: Target | None,
        agents: int | None,
        cpus: int | None,
        trace: str | Path | None,
        resources: dict[str, int] | None,
        store: int | str | None,
        max_running: int | None,
        max_fails: int | None,
    ) -> Asked:
        from . import _targets

        for name, value, least in (("max_running", max_running, 1), ("max_fails", max_fails, 0)):
            if value is not None and value < least:
                raise errors.PlanError(f"{name}={value}: give {least} or more, or leave it out")
        where = trace or os.environ.get("BRIDGEHEAD_TRACE")
        running, fails = _number("BRIDGEHEAD_MAX_RUNNING", max_running), _number("BRIDGEHEAD_MAX_FAILS", max_fails)
        target = _targets.chosen(on)
        limit: int | None = None
        if target is None:
            here = _number("BRIDGEHEAD_AGENTS", agents) or 1
            shares = share_out(here, _number("BRIDGEHEAD_CPUS", cpus), resources, store)
        else:
            shares = []
            for name, given in (("agents", agents is not None), ("resources", resources is not None)):
                if given:
                    raise errors.PlanError(f"{name} is for this machine, {target['backend']} has nodes: leave it out")
            if cpus is not None:
                target["options"].setdefault("cpus", cpus)
            most = store if store is not None else os.environ.get("BRIDGEHEAD_STORE")
            limit = None if most is None else parse_memory(most, "store")
        return Asked(target, shares, str(where) if where else None, running, fails, limit)

    def profile(self) -> dict[str, Any]:
        """What there is to plan on."""
        if self.target is None:
            nodes = [
                {"name": f"agent-{rank}", "workers": -(-share["resources"]["cpu_millis"] // 1000), **share}
                for rank, share in enumerate(self.shares)
            ]
            for node in nodes:
                del node["store_limit"]
            return {"backend": "local", "nodes": nodes}
        from . import _targets

        profile: dict[str, Any] = _targets.ask(find_binary(), {"do": "profile", "target": self.target})["profile"]
        return profile

    def show(self, name: str, plan: str, human: str, groups: dict[str, Any]) -> tuple[str, str]:
        """A plan with what would be handed over: as JSON and for people."""
        if self.target is None:
            return plan, human
        from . import _targets

        question = {
            "do": "render",
            "target": self.target,
            "name": name,
            "plan": json.loads(plan),
            "groups": groups,
        }
        answer = _targets.ask(find_binary(), question)
        door, reason = answer["door"]
        lines = [human.rstrip("\n"), "", f"handed over by {door}: {reason}"]
        for manifest in answer["manifests"]:
            lines += ["", f"gang {manifest['gang']}:", manifest["text"].rstrip("\n")]
            lines += [f"warning: {warning}" for warning in manifest["warnings"]]
        return json.dumps({"plan": json.loads(plan)} | answer), "\n".join(lines)


def _number(variable: str, value: int | None) -> int | None:
    told = os.environ.get(variable)
    return int(told) if told else value


def _transport() -> dict[str, Any]:
    """How bytes go between nodes, as `run.json` has it: what the command line asked for, and where UCX's library is: the file or
    folder in BRIDGEHEAD_UCX, else the wheel `libucx` of this Python."""
    import importlib.util

    choice, required = os.environ.get("BRIDGEHEAD_TRANSPORT"), os.environ.get("BRIDGEHEAD_REQUIRE_TRANSPORT")
    told: dict[str, Any] = {}
    if choice or required:
        told["choice"] = required or choice
    if required:
        told["required"] = True
    library = os.environ.get("BRIDGEHEAD_UCX")
    wheel = None if library else importlib.util.find_spec("libucx")
    for folder in (wheel.submodule_search_locations or []) if wheel else []:
        beside = os.path.join(folder, "lib", "libucp.so.0")
        library = beside if os.path.exists(beside) else library
    if library and choice != "tcp":
        told["ucx"] = os.path.abspath(library)
    return told


def start(
    name: str,
    asked: Asked,
    *,
    attached: bool,
    spec: bytes | None = None,
    plan: str | None = None,
    blobs: dict[str, bytes] | None = None,
) -> tuple[str, str, _bridgehead.Client | None]:
    """Makes a run folder, starts the run and connects: (run id, folder, connection). There is no connection to a run that
    was handed to a scheduler, and none where a run that is not attached was over before it was made.

    Raises:
        HeadLost: the head did not come up; the message holds the end of its log.
        SchedulerError: the scheduler refused, or cannot be reached.
    """
    binary = find_binary()
    # What the command line asked of this script it did not ask of the scripts that its tasks may run.
    os.environ.pop("BRIDGEHEAD_DO", None)
    trace = asked.trace
    if trace and not os.path.isdir(os.path.dirname(os.path.abspath(trace))):
        raise errors.PlanError(f"the trace cannot be written: there is no folder for {trace}")
    try:
        run, folder = _bridgehead.create_run(name)
    except OSError as error:
        raise errors.BridgeheadError(f"{error}; set BRIDGEHEAD_HOME to a folder that can be written") from None
    document: dict[str, Any] = {
        "version": 1,
        "run": run,
        "name": name,
        "has_pipeline": spec is not None,
        "attached": attached and asked.target is None,
        "agents": asked.shares,
        "python": sys.executable,
        "sys_path": [os.path.abspath(entry) for entry in sys.path],
        "cwd": os.getcwd(),
    }
    if asked.target is not None:
        document["project"] = _pickling.project_folder()
        document["python_version"] = f"{sys.version_info.major}.{sys.version_info.minor}"
    if trace:
        document["trace"] = os.path.abspath(trace)
    rarer = ("target", "max_running", "max_fails", "store_limit")
    document |= {name: getattr(asked, name) for name in rarer if getattr(asked, name) is not None}
    if asked.verify_objects or os.environ.get("BRIDGEHEAD_VERIFY_OBJECTS"):
        document["verify_objects"] = True
    if transport := _transport():
        document["transport"] = transport
    for digest, data in (blobs or {}).items():
        _write(os.path.join(folder, "blobs", digest), data)
    if spec is not None:
        _write(os.path.join(folder, "spec.json"), spec)
    if plan is not None:
        _write(os.path.join(folder, "plan.json"), plan.encode())
    _bridgehead.write_config(folder, json.dumps(document))
    if asked.target is not None:
        _hand_over(binary, run, folder)
        return run, folder, None
    pid = _bridgehead.start(folder, binary, len(asked.shares))
    try:
        return run, folder, connect(folder, owner=attached, started=(1, pid))
    except BaseException as error:
        if not attached and isinstance(error, errors.HeadLost) and _bridgehead.read_state(folder)[0]:
            return run, folder, None
        _abandon(pid)
        if isinstance(error, KeyboardInterrupt):
            print(f"cancelled; `bridgehead resume {run}` goes on with what is left", file=sys.stderr)
        raise


_UNREACHABLE = 8


def _hand_over(binary: str, run: str, folder: str) -> None:
    """Submits a run. A folder of what was refused is of no use; one of what may have been taken is."""
    from . import _targets

    try:
        answer = _targets.launch(binary, folder)
    except errors.SchedulerError as error:
        if error.exit_code == _UNREACHABLE:
            text = f"{error}; whether {run} was submitted is not known: `bridgehead resume {run}` finds out and goes on"
            raise errors.SchedulerError(text, exit_code=error.exit_code) from None
        import shutil

        shutil.rmtree(folder, ignore_errors=True)
        raise
    for warning in answer["warnings"]:
        print(f"bridgehead: {warning}", file=sys.stderr)
    jobs = ", ".join(answer["jobs"])
    print(f"{run} is job {jobs}, handed over by {answer['door']}: {answer['reason']}", file=sys.stderr)


def _abandon(pid: int) -> None:
    """Ends a head that nobody connected to: an attached run would wait for its client for ever."""
    import signal

    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


def connect(folder: str, *, owner: bool, started: tuple[int, int] | None = None) -> _bridgehead.Client:
    """A connection to the head of the run in `folder`.

    Raises:
        HeadLost: there is none.
    """
    try:
        client = _bridgehead.Client(folder, owner=owner, started=started)
    except ConnectionError as error:
        raise errors.HeadLost(str(error)) from None
    _failures.run_dirs.append(folder)
    _watch(client)
    return client


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


_clients: list[Any] = []


def _watch(client: _bridgehead.Client) -> None:
    """Sees to it that a forked child does not end its parent's connection."""
    import weakref

    if not _clients:
        os.register_at_fork(after_in_child=_forsake_all)
    _clients[:] = [ref for ref in _clients if ref() is not None]
    _clients.append(weakref.ref(client))


def newest() -> _bridgehead.Client | None:
    """The newest connection that is open."""
    return next(open_clients(), None)


def open_clients() -> Iterator[_bridgehead.Client]:
    """The connections that are open, newest first."""
    for ref in reversed(_clients):
        client: _bridgehead.Client | None = ref()
        if client is not None and not client.is_closed():
            yield client


def _forsake_all() -> None:
    for ref in _clients:
        client = ref()
        if client is not None:
            client.forsake()
