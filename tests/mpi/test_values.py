"""Laws of what gangs compute: the right values on any number of ranks, on one agent and on several, with every MPI there is here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bridgehead as bh
import numpy as np
import pytest
from support import SERVED, expected

SIZES = (1, 2, 3, 4, 8)


@bh.mpi(ranks=2)
def sums(comm: Any, base: int) -> tuple[int, int, int, bool]:
    """Size, what a ring and a reduction give, and whether a message of 1 MiB came as it was sent."""
    rank, size = comm.rank, comm.size
    after, before = (rank + 1) % size, (rank - 1) % size
    ring = comm.sendrecv(rank, after, source=before)
    out = np.full(1 << 20, rank % 251, np.uint8)
    taken = np.empty_like(out)
    comm.Sendrecv(out, after, recvbuf=taken, source=before)
    good = comm.allreduce(bool((taken == before % 251).all()) and ring == before)
    return size, comm.allreduce(rank + base), comm.allreduce(ring), good == size


@pytest.mark.parametrize("agents", [1, 2, 3])
@pytest.mark.parametrize("built", ["program", "wheel_program"])
def test_a_program_of_any_number_of_ranks_computes_what_it_should(
    built: str, agents: int, request: pytest.FixtureRequest
) -> None:
    program: Path = request.getfixturevalue(built)
    p = bh.Pipeline("programs")
    nodes = {size: p.add(bh.program(str(program), ranks=size)) for size in SIZES}
    with p.run(agents=agents, cpus=9) as run:
        outs = {size: run[node].result(60).stdout for size, node in nodes.items()}
        assert {size: out.partition(" near")[0] for size, out in outs.items()} == {
            size: expected(size, 0).partition(" near")[0] for size in SIZES
        }


@pytest.mark.parametrize("agents", [1, 2, 3])
def test_a_function_of_any_number_of_ranks_computes_what_it_should(agents: int) -> None:
    with bh.Executor(9, agents=agents) as pool:
        found = [pool.submit(sums.options(ranks=size), 5) for size in SIZES]
        for size, future in zip(SIZES, found, strict=True):
            below = size * (size - 1) // 2
            assert future.result(60) == (size, below + 5 * size, below, True)


def test_why_says_which_mpi_was_served_and_where_each_rank_was(program: Path) -> None:
    import support

    p = bh.Pipeline("why")
    node = p.add(bh.program(str(program), ranks=3, ranks_per_node=2))
    with p.run(agents=2, cpus=4) as run:
        assert run[node].result(60).stdout == expected(3, 2)
    said = support.bridgehead("why", run.id, "t0")
    assert said.returncode == 0, said
    assert "3 ranks on agent 0 (" in said.stdout and f"started for {SERVED}" in said.stdout, said.stdout
    for rank, agent in ((0, 0), (1, 0), (2, 1)):
        assert f"Rank {rank} on agent {agent} (" in said.stdout, said.stdout
