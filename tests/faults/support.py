"""What the tests of faults share: running the product, looking at its processes, its journal and what it left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bridgehead as bh
from bridgehead import _bridgehead

SEEDS = range(1, 8)
"""Seeds of the tests that draw at random; `--seed N` runs another one."""

PROGRAM = Path(sys.executable).with_name("bridgehead")
"""The installed command."""


def wait_until(condition: Callable[[], Any], what: str, limit: float = 60.0) -> Any:
    """Waits for a condition and gives what it gave; the pause only bounds how often it is looked at."""
    end = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < end, f"did not come true in {limit} s: {what}"
        time.sleep(0.005)
    return found


def bridgehead(*words: Any) -> subprocess.CompletedProcess[str]:
    """The command line, with what it printed."""
    return subprocess.run(
        [PROGRAM, *map(str, words)], capture_output=True, text=True, timeout=110, check=False, errors="replace"
    )


def script(folder: Path, text: str, **env: str) -> subprocess.Popen[str]:
    """A Python script as a process of its own."""
    file = folder / "script.py"
    file.write_text(text)
    return subprocess.Popen(
        [sys.executable, file],
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )


def _processes() -> dict[int, tuple[list[bytes], list[bytes]]]:
    """Arguments and environment of every process but this one; zombies have neither."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            arguments = Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
            environment = Path("/proc", entry, "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if environment != [b""]:
            found[int(entry)] = (arguments, environment)
    return found


def processes_with(variable: str, value: Any) -> list[int]:
    """Processes that were started with this variable in their environment."""
    mark = f"{variable}={value}".encode()
    return [pid for pid, (_, environment) in _processes().items() if mark in environment]


def workers_of(run: str) -> list[int]:
    """The worker processes of a run."""
    mark = f"BRIDGEHEAD_RUN={run}".encode()
    return [pid for pid, (words, env) in _processes().items() if b"bridgehead._worker" in words and mark in env]


def processes_of(run_folder: Path, role: str) -> list[int]:
    """The processes of a run that are `head` or `agent`."""
    wanted = [role.encode(), b"--run-dir", str(run_folder).encode()]
    return [pid for pid, (words, _) in _processes().items() if words[1:4] == wanted]


def everything_of(run_folder: Path) -> list[int]:
    """Head, agents, workers, and whatever tasks started."""
    marked = processes_with("BRIDGEHEAD_RUN", run_folder.name)
    return marked + processes_of(run_folder, "head") + processes_of(run_folder, "agent")


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Sends a signal to a process that may be gone already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def journal(run_folder: Path) -> list[tuple[int, str, int | None, int, str]]:
    """The records: (time, event, task, attempt or agent, text)."""
    return list(_bridgehead.read_journal(str(run_folder)))


def wait_gone(run_folder: Path) -> None:
    """No process of the run is left."""
    wait_until(lambda: not everything_of(run_folder), f"the processes of {run_folder.name} end")


def sockets() -> list[Path]:
    """Folders of sockets that are there."""
    found = []
    top = os.environ["XDG_RUNTIME_DIR"]
    for name in os.listdir(top):
        if name.startswith("bridgehead-"):
            with contextlib.suppress(FileNotFoundError):  # It goes while it is looked at.
                found += [Path(top, name, folder) for folder in os.listdir(os.path.join(top, name))]
    return found


def shared_memory() -> list[str]:
    """Named shared memory of ours."""
    return [name for name in os.listdir("/dev/shm") if "bridgehead" in name]


def check_nothing_left(home: Path) -> None:
    """No process, socket or shared memory of the runs under `home` is left."""
    wait_until(lambda: not processes_with("BRIDGEHEAD_HOME", home), "the processes of all runs end")
    wait_until(lambda: not sockets(), "the folders of sockets are removed")
    assert shared_memory() == []


def check_still_works(executor: bh.Executor) -> None:
    """Whatever happened to a task, the next ones are served."""
    assert list(executor.map(abs, range(-20, 0))) == list(range(20, 0, -1))


def failure_of(future: bh.Future[Any], kind: type[BaseException], *words: str) -> BaseException:
    """The call fails with this kind of exception, whose text has all these words."""
    error = future.exception(60)
    assert isinstance(error, kind), repr(error)
    for word in words:
        assert word in str(error), str(error)
    return error
