"""Laws of gangs that fail: as a whole, soon, once, with the rank, the node, the way it ended and its last words; and what is wrong with
a program or an environment is said before any work is done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import bridgehead as bh
import pytest
from support import (
    FAMILY,
    OTHER,
    check,
    check_end,
    expected,
    kill,
    of_run,
    started,
    wait_until,
)

HOST = os.uname().nodename


@bh.mpi(ranks=3)
def raising(comm: Any, culprit: int) -> None:
    if comm.rank == culprit:
        raise LookupError(f"rank {culprit} finds nothing")
    comm.barrier()


@bh.mpi(ranks=3)
def ending(comm: Any, how: str) -> None:
    """The last rank ends in a way of its own while the others wait for it."""
    if comm.rank == comm.size - 1:
        match how:
            case "exit":
                print("the last words", file=sys.stderr, flush=True)
                os._exit(3)
            case "abort":
                comm.Abort(5)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "sleep":
                signal.pause()
    comm.barrier()


@bh.mpi(ranks=2)
def size(comm: Any) -> int:
    return int(comm.size)


@pytest.mark.parametrize("agents", [1, 2])
def test_a_program_that_ends_badly_is_named_with_rank_node_code_and_last_words(program: Path, agents: int) -> None:
    gang = bh.program(f"{program} exit", ranks=4)
    words = [f"rank 3 of 4 on {HOST}", "exited with 3", "the last words"]
    check(gang, fails="exit-code", words=words, agents=agents)


@pytest.mark.parametrize("agents", [1, 2])
def test_an_abort_is_named_with_its_rank_and_code(program: Path, agents: int) -> None:
    check(bh.program(f"{program} abort", ranks=4), fails="mpi-abort", words=["rank 3 of 4", "code 5"], agents=agents)
    check(ending, "abort", fails="mpi-abort", words=["rank 2 of 3", "code 5"], agents=agents)


def test_a_crash_is_named_with_its_rank_and_signal(program: Path) -> None:
    error = check(bh.program(f"{program} crash", ranks=3), fails="signal", words=["rank 2 of 3", "SIGABRT"])
    assert isinstance(error, bh.TaskError) and error.signal == signal.SIGABRT


@pytest.mark.parametrize("agents", [1, 2])
def test_a_rank_that_is_killed_from_outside_ends_the_gang(program: Path, tmp_path: Path, agents: int) -> None:
    p = bh.Pipeline("killed")
    node = p.add(bh.program(f"{program} hang {tmp_path}", ranks=4))
    with p.run(agents=agents, cpus=8, wait=False) as run:
        kill(started(tmp_path, 4)[1])
        check_end(run[node], fails="signal", words=["rank 1 of 4", "SIGKILL"])


def test_a_gang_that_hangs_meets_its_limit(program: Path, tmp_path: Path) -> None:
    gang = bh.program(f"{program} hang {tmp_path}", ranks=3, timeout=3)
    check(gang, fails="timeout", words=["longer than its limit of 3s"])
    check(ending.options(timeout=4), "sleep", fails="timeout", words=["longer than its limit of 4s"])


@pytest.mark.parametrize("agents", [1, 2])
@pytest.mark.parametrize("culprit", [0, 2])
def test_the_exception_of_the_rank_that_raised_is_the_gangs(agents: int, culprit: int) -> None:
    error = check(raising, culprit, fails="LookupError", words=[f"rank {culprit} finds nothing"], agents=agents)
    assert isinstance(error, bh.TaskError) and isinstance(error.__cause__, LookupError)
    assert "in raising" in error.remote_traceback
    assert f"rank {culprit}" in str(error)


def test_a_rank_of_a_function_that_dies_is_named() -> None:
    with bh.Executor(8, agents=2) as pool:
        for how, word in (("exit", "exit code 3"), ("kill", "SIGKILL")):
            error = pool.submit(ending, how).exception(60)
            assert isinstance(error, bh.WorkerDied), repr(error)
            assert f"rank 2 of 3 on {HOST}" in str(error) and word in str(error), str(error)
        assert pool.submit(size).result(60) == 2, "the next gang is served"


def test_a_program_without_mpi_is_told_so() -> None:
    check(bh.program("true", ranks=3), fails="not-mpi", words=["true", 'mpi="none"'])


def test_a_program_of_the_other_mpi_is_told_so(program: Path, other_program: Path) -> None:
    words = [f'mpi="{FAMILY}"', str((FAMILY == "mpich" and "MPICH") or "Open MPI")]
    check(bh.program(str(program), ranks=3, mpi=OTHER), fails="singleton", words=words)
    check(bh.program(str(other_program), ranks=3), gives=expected(3, 3))


def test_a_missing_library_is_named(program: Path, tmp_path: Path) -> None:
    """Before any rank starts."""
    source, library = tmp_path / "it.c", tmp_path / "libgone.so"
    source.write_text("int gone(void) { return 1; }\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    source.write_text("int gone(void); int main(void) { return gone() - 1; }\n")
    subprocess.run(["gcc", "-o", tmp_path / "lost", source, library], check=True)
    library.unlink()
    check(bh.program(str(tmp_path / "lost"), ranks=2), fails="missing-library", words=["libgone.so"])


def test_a_python_without_mpi4py_is_told_what_to_install(tmp_path: Path) -> None:
    """The environment is hidden from the workers, and with it mpi4py."""
    hidden = tmp_path / "mpi4py"
    hidden.mkdir()
    (hidden / "__init__.py").write_text("raise ImportError(\"No module named 'mpi4py'\")\n")
    sys.path.insert(0, str(tmp_path))
    try:
        check(size, fails="no-mpi4py", words=["pip install mpi4py"])
    finally:
        sys.path.remove(str(tmp_path))


def test_a_gang_that_can_never_fit_is_refused_before_anything_starts(home: Path) -> None:
    before = set(home.glob("runs/*"))
    p = bh.Pipeline("wide")
    p.add(size.options(ranks=40))
    with pytest.raises(bh.PlanError, match="40"):
        p.run(agents=2, cpus=8)
    assert set(home.glob("runs/*")) == before


@pytest.mark.parametrize("agents", [1, 2])
def test_a_gang_is_tried_again_as_a_whole(program: Path, tmp_path: Path, agents: int) -> None:
    gang = bh.program(f"{program} once {tmp_path}/failed", ranks=4, retries=1)
    p = bh.Pipeline("again")
    node = p.add(gang)
    with p.run(agents=agents, cpus=8 // agents * agents) as run:
        assert run[node].result(60).stdout.startswith("size 4 ring 6 sum 10 big 4")
    check(bh.program(f"{program} exit", ranks=3, retries=1), fails="exit-code", words=["rank 2 of 3"])


def test_a_gang_whose_agent_is_killed_runs_elsewhere_or_fails_by_name(program: Path, tmp_path: Path) -> None:
    p = bh.Pipeline("lost")
    node = p.add(bh.program(f"{program} gate {tmp_path}", ranks=3, ranks_per_node=2, name="wanderer"))
    with p.run(agents=3, cpus=6, wait=False) as run:
        ranks = started(tmp_path, 3)
        away = next(pid for pid in of_run(run.folder, "agent") if _has_child(pid, ranks))
        kill(away)
        wait_until(
            lambda: any(e[1] == "agent-lost" for e in _journal(run)), "the loss is noted", state=lambda: _journal(run)
        )
        (tmp_path / "open").touch()
        assert run[node].result(60).stdout.startswith("size 3 ring 3 sum 6 big 3")


def _journal(run: bh.Run) -> Any:
    from support import journal

    return journal(run.folder)


def _has_child(agent: int, ranks: list[int]) -> bool:
    return any(int(Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[1]) == agent for pid in ranks)
