"""What the tests of MPI gangs share: which MPI this environment has, building programs for it, running one gang to its end, and a
look at what is left on the machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import bridgehead as bh
import pytest
from bridgehead import _bridgehead

FAMILY = "mpich" if Path(sys.prefix).name == "mpich" else "openmpi"
"""The MPI of the environment that runs the tests; each test is run in both."""
OTHER = "openmpi" if FAMILY == "mpich" else "mpich"
SERVED = {"mpich": "MPICH (PMI-1)", "openmpi": "Open MPI (PMIx)"}[FAMILY]
"""How the product calls what it serves."""
PROGRAM = Path(sys.prefix, "bin", "bridgehead")
SOURCE = Path(__file__).with_name("gang.c")


def wait_until(condition: Callable[[], Any], what: str, limit: float = 60.0, state: Callable[[], object] = str) -> Any:
    """Waits for a condition and gives what it gave; the pause only bounds how often it is looked at."""
    end = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < end, f"did not come true in {limit} s: {what}\n{state()}"
        time.sleep(0.01)
    return found


def debian_compiler(family: str) -> str:
    return shutil.which(f"mpicc.{family}") or pytest.skip(f"there is no mpicc.{family}")


def wheel_compiler() -> str:
    return str(Path(sys.prefix, "bin", "mpicc"))


def build(compiler: str, target: Path) -> Path:
    """The test program, built by this compiler; it finds the libraries of the compiler's MPI wherever it is started."""
    words = [compiler, "-O1", "-o", str(target), str(SOURCE)]
    if compiler == wheel_compiler():
        words.append(f"-Wl,-rpath,{sys.prefix}/lib")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def expected(size: int, near: int) -> str:
    """What the test program prints of its values; `near` ranks share a node with rank 0."""
    ring = size * (size - 1) // 2
    return f"size {size} ring {ring} sum {size * (size + 1) // 2} big {size} near {near}\n"


def check(
    task: Any,
    *args: Any,
    gives: Any = None,
    fails: str = "",
    words: Sequence[str] = (),
    agents: int = 1,
    cpus: int = 8,
    **values: Any,
) -> BaseException | None:
    """One gang, alone in a run of so many agents: it gives this value (a program: this on standard output), or it fails with an
    error of this kind that has all these words. The error."""
    p = bh.Pipeline("gang")
    node = p.add(task, *args, **values)
    with p.run(agents=agents, cpus=cpus) as run:
        return check_end(run[node], gives=gives, fails=fails, words=words)


def check_end(
    future: bh.Future[Any], *, gives: Any = None, fails: str = "", words: Sequence[str] = ()
) -> BaseException | None:
    """The gang ends so; see `check`."""
    error = future.exception(90)
    if fails:
        assert isinstance(error, bh.TaskError), repr(error)
        assert error.kind == fails, (error.kind, str(error))
        for word in words:
            assert word in str(error), (word, str(error))
        return error
    if error is not None:
        raise error
    value = future.result(0)
    assert (value.stdout if isinstance(value, bh.ProgramResult) else value) == gives
    return None


def started(folder: Path, ranks: int) -> list[int]:
    """Waits until so many ranks of the test program have noted themselves in the folder; their processes by rank."""

    def read() -> list[int]:
        notes = [folder / f"rank-{rank}" for rank in range(ranks)]
        texts = [note.read_text() if note.exists() else "" for note in notes]
        return [int(text) for text in texts if text.endswith("\n")]

    return list(wait_until(lambda: read() if len(read()) == ranks else None, f"{ranks} ranks run"))


def bridgehead(*words: Any) -> subprocess.CompletedProcess[str]:
    """The command line, with what it printed."""
    return subprocess.run([PROGRAM, *map(str, words)], capture_output=True, text=True, timeout=110, check=False)


def script(folder: Path, text: str, *words: str) -> subprocess.Popen[str]:
    """A Python script as a process of its own."""
    file = folder / "script.py"
    file.write_text(text)
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, file, *words], stdout=pipe, stderr=pipe, text=True, cwd=folder)


def only_run(home: Path, before: set[Path]) -> Path | None:
    """The run that was not there before."""
    found = {path.parent for path in home.glob("runs/*/run.json")} - before
    return found.pop() if found else None


def journal(folder: Path) -> list[tuple[int, str, int | None, int, str]]:
    """The records: (time, event, task, attempt or agent, text)."""
    return list(_bridgehead.read_journal(str(folder)))


def processes() -> dict[int, list[str]]:
    """Arguments of every living process of this machine but this one, its parents and the kernel's."""
    found: dict[int, list[str]] = {}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            words = Path("/proc", str(pid), "cmdline").read_text(errors="replace").split("\0")
        except OSError:
            continue
        if words != [""] and pid not in _parents():
            found[pid] = words
    return found


def _parents() -> Iterator[int]:
    pid = os.getpid()
    while pid:
        yield pid
        pid = int(Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[1])


def of_run(folder: Path, role: str) -> list[int]:
    """The processes of a run that are `head` or `agent`."""
    wanted = [role, "--run-dir", str(folder)]
    return [pid for pid, words in processes().items() if words[1:4] == wanted]


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Sends a signal to a process that may be gone already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


Left = tuple[frozenset[str], frozenset[str]]


def surroundings() -> Left:
    """Names in shared memory and in /tmp."""
    return frozenset(os.listdir("/dev/shm")), frozenset(os.listdir("/tmp"))


def check_nothing_left(before: Left | None = None) -> None:
    """No process, shared memory, socket or file of any run is left."""
    wait_until(lambda: not processes(), "all processes end", state=processes)
    sockets = Path(os.environ["XDG_RUNTIME_DIR"])
    wait_until(lambda: not list(sockets.glob("bridgehead-*/*")), "the folders of sockets are removed")
    if before is not None:
        shared, temporary = surroundings()
        assert shared - before[0] == set(), "left in /dev/shm"
        assert {name for name in temporary - before[1] if not name.startswith("pytest-")} == set(), "left in /tmp"
