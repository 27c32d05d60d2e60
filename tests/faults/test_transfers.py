"""Laws of transfers whose node is killed in the middle: the right bytes, from a replica where there is one, or an error by name."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import bridgehead as bh
import numpy as np
import pytest
from support import kill, processes_of, wait_until

ROWS = 6_000_000
"""Numbers of 8 bytes in all: 16 MB in each part."""


def numbers() -> Any:
    return np.arange(ROWS, dtype=np.uint64) * np.uint64(7) + np.uint64(3)


def check(read: Any, expected: Any) -> None:
    assert np.array_equal(read, expected)


def gather_under_fire(pool: bh.Executor, sharded: bh.ShardedArray, rng: random.Random) -> list[Any]:
    """Reads all parts again and again while one agent is killed at a random moment: what was read, or the error of it."""
    read: list[Any] = []
    done = threading.Event()

    def reader() -> None:
        while not (done.is_set() and len(read) > 2):
            try:
                read.append(sharded[:])
            except bh.BridgeheadError as error:
                read.append(error)

    thread = threading.Thread(target=reader)
    thread.start()
    time.sleep(rng.uniform(0.0, 0.3))  # The random moment; nothing is waited for.
    agents = processes_of(pool.folder, "agent")
    kill(rng.choice(agents))
    wait_until(lambda: len(processes_of(pool.folder, "agent")) < len(agents), "it is gone")
    done.set()
    thread.join(100)
    assert not thread.is_alive(), "a read hangs"
    return read


@pytest.mark.timeout(150)
def test_a_read_from_a_node_that_is_killed_in_the_middle_ends_with_the_bytes_of_the_replica(seed: int) -> None:
    array = numbers()
    with bh.Executor(3, agents=3, store="256MiB") as pool:
        sharded = bh.shard(array, parts=3, place="by_rank", replicas=2)
        assert sharded.placement == [0, 1, 2]
        for read in gather_under_fire(pool, sharded, random.Random(seed)):
            check(read, array)


@pytest.mark.timeout(150)
def test_a_read_from_a_node_that_is_killed_in_the_middle_fails_by_name_where_there_is_no_replica(seed: int) -> None:
    array = numbers()
    with bh.Executor(3, agents=3, store="256MiB") as pool:
        sharded = bh.shard(array, parts=3, place="by_rank")
        reads = gather_under_fire(pool, sharded, random.Random(seed))
        for read in reads:
            if isinstance(read, bh.BridgeheadError):
                assert isinstance(read, bh.ResultLost) and ("shard" in str(read) or "object" in str(read)), repr(read)
            else:
                check(read, array)
        check(sharded[: ROWS // 3], array[: ROWS // 3])
