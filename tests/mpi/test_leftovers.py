"""Laws of what many gangs leave behind: nothing, however they end. The look at the machine after each test is `conftest.py`'s; here
it is looked at while the run still lives, so that nothing piles up in a long one either."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import bridgehead as bh
import pytest
from support import processes, wait_until


@bh.mpi(ranks=2)
def total(comm: Any, number: int) -> int:
    return int(comm.allreduce(number + comm.rank))


@bh.mpi(ranks=2)
def failing(comm: Any, how: str) -> None:
    if comm.rank == 1:
        if how == "raise":
            raise ValueError("no")
        if how == "kill":
            os.kill(os.getpid(), 9)
        comm.Abort(1)
    comm.barrier()


def of_ranks() -> Counter[str]:
    """Processes besides heads, agents and workers that wait, by name: ranks, and helpers."""
    return Counter(Path(words[0]).name for words in processes().values())


def kept(pool: bh.Executor) -> tuple[set[str], set[str]]:
    """Names in shared memory, and in the agents' folders."""
    sockets = Path(os.environ["XDG_RUNTIME_DIR"])
    inside = {str(path) for path in sockets.rglob("*") if path.name.startswith("gang-")}
    return set(os.listdir("/dev/shm")), inside


@pytest.mark.timeout(400)
def test_fifty_gangs_in_a_row_leave_nothing_while_the_run_lives() -> None:
    with bh.Executor(4, agents=2) as pool:
        assert pool.submit(total, 0).result(60) == 1
        before, alive = kept(pool), sum(of_ranks().values())
        for number in range(50):
            assert pool.submit(total, number).result(60) == 2 * number + 1
        # A gang that begins before the helper of the last one is ready finds or starts another, which stays: one a node.
        most = alive + 2
        wait_until(lambda: sum(of_ranks().values()) <= most, f"no more than {most} processes", state=of_ranks)
        assert kept(pool) == before


def test_eight_gangs_at_once_leave_nothing(program: Path) -> None:
    p = bh.Pipeline("eight")
    nodes = [p.add(bh.program(str(program), ranks=2)) for _ in range(8)] + [p.add(total, n) for n in range(8)]
    with p.run(agents=2, cpus=16) as run:
        for node in nodes[:8]:
            assert run[node].result(60).stdout.startswith("size 2 ring 1 sum 3 big 2")
        assert [run[node].result(60) for node in nodes[8:]] == [2 * n + 1 for n in range(8)]


def test_gangs_that_fail_in_every_way_leave_nothing_while_the_run_lives() -> None:
    with bh.Executor(4, agents=2) as pool:
        assert pool.submit(total, 0).result(60) == 1
        before, alive = kept(pool), sum(of_ranks().values())
        for how in ("raise", "kill", "abort") * 2:
            assert isinstance(pool.submit(failing, how).exception(60), (bh.TaskError, ValueError))
        wait_until(lambda: sum(of_ranks().values()) <= alive, f"no more than {alive} processes", state=of_ranks)
        assert kept(pool) == before
        assert pool.submit(total, 3).result(60) == 7


def test_gangs_that_are_cancelled_leave_nothing_while_the_run_lives(program: Path, tmp_path: Path) -> None:
    p = bh.Pipeline("cancelled")
    folders = [tmp_path / str(n) for n in range(3)]
    for folder in folders:
        folder.mkdir()
        p.add(bh.program(f"{program} gate {folder}", ranks=2))
    with p.run(agents=2, cpus=6, wait=False) as run:
        wait_until(lambda: all((folder / "rank-1").exists() for folder in folders), "all gangs run")
        run.cancel()
        assert run.wait(60) == "cancelled"
    wait_until(lambda: not processes(), "all ends", state=processes)
