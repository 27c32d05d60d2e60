"""Starting a run on this machine: what each agent gets, the run folder's documents, the binary, the connection."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any, NoReturn

from . import _bridgehead, _failures, errors
from ._task import parse_memory


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


def refuse(message: str) -> NoReturn:
    """Ends a script that cannot be planned or submitted."""
    found_pipeline()
    print(f"bridgehead: {message}", file=sys.stderr)
    raise SystemExit(1)


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


def start(
    name: str,
    shares: list[dict[str, Any]],
    *,
    attached: bool,
    spec: bytes | None = None,
    plan: str | None = None,
    blobs: dict[str, bytes] | None = None,
    trace: str | None = None,
) -> tuple[str, str, _bridgehead.Client | None]:
    """Makes a run folder, starts the run's processes and connects: (run id, folder, connection). There is no connection
    where a run that is not attached was over before it was made.

    Raises:
        HeadLost: the head did not come up; the message holds the end of its log.
    """
    binary = find_binary()
    # What the command line asked of this script it did not ask of the scripts that its tasks may run.
    os.environ.pop("BRIDGEHEAD_DO", None)
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
        "attached": attached,
        "agents": shares,
        "python": sys.executable,
        "sys_path": [os.path.abspath(entry) for entry in sys.path],
        "cwd": os.getcwd(),
    }
    if trace:
        document["trace"] = os.path.abspath(trace)
    for digest, data in (blobs or {}).items():
        _write(os.path.join(folder, "blobs", digest), data)
    if spec is not None:
        _write(os.path.join(folder, "spec.json"), spec)
    if plan is not None:
        _write(os.path.join(folder, "plan.json"), plan.encode())
    _bridgehead.write_config(folder, json.dumps(document))
    pid = _bridgehead.start(folder, binary, len(shares))
    try:
        return run, folder, connect(folder, owner=attached, started=(1, pid))
    except BaseException as error:
        if not attached and isinstance(error, errors.HeadLost) and _bridgehead.read_state(folder)[0]:
            return run, folder, None
        _abandon(pid)
        if isinstance(error, KeyboardInterrupt):
            print(f"cancelled; `bridgehead resume {run}` goes on with what is left", file=sys.stderr)
        raise


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
    for ref in reversed(_clients):
        client: _bridgehead.Client | None = ref()
        if client is not None and not client.is_closed():
            return client
    return None


def _forsake_all() -> None:
    for ref in _clients:
        client = ref()
        if client is not None:
            client.forsake()
