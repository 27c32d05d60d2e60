"""Laws of data in gangs: shards stay where the ranks were and are read from there, and ranks use the store and submit tasks as tasks
do."""

from __future__ import annotations

from typing import Any

import bridgehead as bh
import numpy as np
import pytest

ROWS = 300_000
"""Rows of 8 bytes of the smallest part: more than travels in a message."""


@bh.mpi(ranks=3, returns="shards")
def shards(comm: Any) -> Any:
    """Parts of different sizes: the rank's number, so many times."""
    return np.full(ROWS * (comm.rank + 1), float(comm.rank))


@bh.mpi(ranks=3, returns="shards")
def odd(comm: Any, what: str) -> Any:
    if comm.rank == 1:
        return {"text": "no array", "scalar": 3.0, "objects": np.array([None]), "none": None}[what]
    return np.zeros(10)


@bh.task
def sum_of(array: Any, part: int) -> tuple[float, int]:
    return float(np.asarray(array.part(part)).sum()), bh.current().node


@bh.mpi(ranks=2)
def rows_of(comm: Any, array: Any) -> float:
    """Each rank reads its half of what another gang made."""
    half = len(array) // 2
    mine = array[comm.rank * half : (comm.rank + 1) * half]
    return float(comm.allreduce(float(mine.sum())))


@bh.task
def plus(one: int, other: int) -> int:
    return one + other


@bh.mpi(ranks=2)
def stored(comm: Any) -> tuple[int, float, int]:
    """Values go from rank to rank by put and get, by name, and by a task that rank 1 adds."""
    store = bh.store()
    ref = bh.put(np.arange(100_000)) if comm.rank == 0 else None
    ref = comm.bcast(ref, root=0)
    total = int(bh.get(ref).sum())
    if comm.rank == 0:
        store.put("field", np.full(50_000, 2.0))
    else:
        total += 0 * int(store.get("field")[0])
    added = bh.submit(plus, comm.rank, 10).result() if comm.rank == 1 else 0
    return comm.allreduce(total), float(store.get("field").sum()), comm.allreduce(added)


def test_shards_lie_where_the_ranks_were_and_their_bytes_pass_no_head() -> None:
    with bh.Executor(6, agents=3, store="256MiB") as pool:
        future = pool.submit(shards.options(ranks_per_node=1))
        array = future.result(60)
        assert isinstance(array, bh.ShardedArray)
        assert array.shape == (6 * ROWS,) and sorted(map(int, array.placement)) == [0, 1, 2]
        assert [part.shape for part in array.parts] == [(ROWS * (rank + 1),) for rank in range(3)]
        for rank in range(3):
            total, _ = pool.submit(sum_of, array, rank).result(60)
            assert total == rank * ROWS * (rank + 1)
        assert pool.submit(rows_of, array).result(60) == ROWS * (0 + 2 + 6)
        assert float(array[:].sum()) == ROWS * 8
        # The journal has what the head was given: references, and nothing of the 14 MB.
        assert sum(path.stat().st_size for path in (pool.folder / "journal").iterdir()) < 100_000


@pytest.mark.parametrize("what", ["text", "scalar", "objects", "none"])
def test_a_rank_that_returns_no_array_fails_by_name(what: str) -> None:
    with bh.Executor(3) as pool:
        error = pool.submit(odd, what).exception(60)
        assert isinstance(error, bh.TaskError), repr(error)
        assert "rank 1" in str(error) and "each rank returns an array" in str(error), str(error)


@pytest.mark.parametrize("agents", [1, 2])
def test_ranks_use_the_store_and_submit_tasks(agents: int) -> None:
    with bh.Executor(8, agents=agents) as pool:
        gang = stored.options(ranks_per_node=2 // agents)
        assert pool.submit(gang).result(60) == (2 * 4999950000, 100_000.0, 11)
