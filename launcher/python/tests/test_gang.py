"""Laws of MPI gangs, with the MPI that is installed beside the tests: values, shards, failures, the words of options. Other MPIs and
several hosts are tests/mpi's."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bridgehead as bh
import numpy as np
import pytest

pytest.importorskip("mpi4py", reason="mpi4py is not installed", exc_type=ImportError)


@bh.mpi(ranks=2)
def everyone(comm: Any, base: int) -> list[tuple[int, int, int]]:
    return comm.gather((base + comm.rank, bh.current().rank, bh.current().ranks))


@bh.mpi(ranks=2, returns="shards")
def blocks(comm: Any, rows: int) -> np.ndarray[Any, Any]:
    return np.full((rows + comm.rank, 3), comm.rank, dtype=np.float64)


@bh.task
def summed(array: bh.ShardedArray) -> tuple[tuple[int, ...], float, int]:
    return array.shape, float(array.gather().sum()), len(array.shards)


@bh.mpi(ranks=2)
def broken(comm: Any) -> None:
    if comm.rank == 1:
        raise ValueError("rank 1 does not like it")
    comm.barrier()


@bh.mpi(ranks=2)
def publishing(comm: Any, n: int) -> None:
    bh.store().put(f"part.{comm.rank}", np.full(n, comm.rank))


@bh.task
def taking(n: int) -> float:
    parts = [bh.store().get(f"part.{rank}", timeout=60) for rank in range(2)]
    assert all(len(part) == n for part in parts)
    return float(sum(part.sum() for part in parts))


def check(build: Callable[[bh.Pipeline], bh.Node[Any]], expected: Any, **options: Any) -> None:
    """The node that `build` adds has this value in a run of two cores."""
    p = bh.Pipeline("gang")
    node = build(p)
    with p.run(**{"cpus": 2} | options) as run:
        assert run[node].result() == expected


@pytest.mark.parametrize("agents", [1, 2])
def test_every_rank_runs_and_the_value_is_the_first_ones(agents: int) -> None:
    expected = [(10, 0, 2), (11, 1, 2)]
    check(lambda p: p.add(everyone, 10), expected, agents=agents)


def test_a_gang_takes_what_other_tasks_return_and_others_take_what_it_returns() -> None:
    @bh.task
    def five() -> int:
        return 5

    @bh.task
    def first(found: list[tuple[int, int, int]]) -> int:
        return found[0][0]

    check(lambda p: p.add(first, p.add(everyone, p.add(five))), 5)


@pytest.mark.parametrize("agents", [1, 2])
def test_what_ranks_return_is_one_array_that_nobody_gathered(agents: int) -> None:
    check(lambda p: p.add(summed, p.add(blocks, 2)), ((5, 3), 9.0, 2), agents=agents)


def test_a_rank_that_raises_fails_the_gang_with_its_own_exception() -> None:
    p = bh.Pipeline("gang")
    node = p.add(broken)
    run = p.run(cpus=2)
    with pytest.raises(bh.TaskError, match=r"rank 1 of 2 on .*does not like it") as caught:
        run[node].result()
    assert isinstance(caught.value.__cause__, ValueError)


def test_ranks_publish_and_others_take_it_while_they_run() -> None:
    def build(p: bh.Pipeline) -> bh.Node[float]:
        p.add(publishing, 1000)
        return p.add(taking, 1000)

    check(build, 1000.0, cpus=3)


def test_a_gang_of_ranks_that_find_one_another_by_themselves_has_their_variables() -> None:
    words = "RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR NODE_RANK"
    shell = "sh -c 'for v in " + words + '; do printenv $v; done | tr "\\n" " "\''
    p = bh.Pipeline("gang")
    node = p.add(bh.program(shell, ranks=2, mpi="none"))
    with p.run(cpus=2) as run:
        assert run[node].result().stdout == "0 2 0 2 127.0.0.1 0 "


def test_a_program_that_is_no_mpi_program_is_not_taken_for_one() -> None:
    p = bh.Pipeline("gang")
    node = p.add(bh.program("true", ranks=2))
    run = p.run(cpus=2)
    with pytest.raises(bh.TaskError, match="no rank called MPI_Init") as caught:
        run[node].result()
    assert caught.value.kind == "not-mpi"


def test_a_gang_that_is_wider_than_the_allocation_is_refused_before_anything_starts() -> None:
    p = bh.Pipeline("gang")
    p.add(everyone.options(ranks=64), 1)
    with pytest.raises(bh.PlanError, match=r"needs 64 ranks .* the nodes hold 2"):
        p.run(cpus=2)


def test_an_elastic_gang_takes_what_is_free() -> None:
    @bh.mpi(ranks="1..64")
    def size(comm: Any) -> int:
        return int(comm.size)

    check(lambda p: p.add(size), 2)


def test_a_program_of_ranks_takes_values_of_nodes() -> None:
    @bh.task
    def word() -> str:
        return "hello"

    def build(p: bh.Pipeline) -> bh.Node[str]:
        echo = p.add(bh.program("echo {what}", ranks=2, mpi="none"), what=p.add(word))
        return p.add(text, echo)

    @bh.task
    def text(result: bh.ProgramResult) -> str:
        return result.stdout

    check(build, "hello\n")


def test_what_ranks_print_is_logged_with_their_numbers() -> None:
    @bh.mpi(ranks=2)
    def say(comm: Any) -> None:
        print("I am", comm.rank)

    p = bh.Pipeline("gang")
    node = p.add(say)
    with p.run(cpus=2) as run:
        run[node].result()
    log = "".join(path.read_text() for path in (run.folder / "logs").glob("tasks-*.jsonl"))
    assert "[0] I am 0" in log
    assert "[1] I am 1" in log


def test_a_gang_starts_anew_when_what_its_ranks_are_forked_from_is_killed(tmp_path: Path) -> None:
    flag = tmp_path / "flag"

    @bh.mpi(ranks=2)
    def attempt(comm: Any) -> int:
        if comm.rank == 0 and not flag.exists():
            flag.touch()
            os.kill(os.getppid(), signal.SIGKILL)  # This rank ends with it.
        comm.barrier()
        return bh.current().attempt

    check(lambda p: p.add(attempt), 2)


def test_a_plain_call_is_a_plain_call() -> None:
    class Alone:
        rank, size = 0, 1

    def seven(comm: Any, x: int) -> int:
        return comm.size + x

    assert bh.mpi(ranks=4)(seven)(Alone(), 6) == 7


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: bh.task(os.getpid, ranks=2), "use @bridgehead.mpi"),  # type: ignore[call-overload]
        (lambda: bh.mpi(ranks=0), "ranks=0: give 1 or more"),
        (lambda: bh.mpi(ranks="4..2"), r"ranks='4..2': give 1 or more, or a text like '4..16'"),
        (lambda: bh.mpi(ranks=2, map="row"), "map='row': give one of 'core', 'numa'"),  # type: ignore[call-overload]
        (lambda: bh.mpi(ranks=2, ranks_per_node=0), "ranks_per_node=0: give 1 or more"),
        (lambda: bh.program("x", mpi="mpich"), "only a task of several ranks has it; give ranks too"),
    ],
)
def test_options_that_make_no_sense_are_named(make: Callable[[], Any], words: str) -> None:
    with pytest.raises((bh.PlanError, TypeError)) as caught:
        make()
    assert re.search(words, str(caught.value)) or words in str(caught.value)
