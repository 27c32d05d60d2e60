"""Laws of sharded arrays under faults: a part is read from a replica, made again by its task, or lost by name."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import bridgehead as bh
import numpy as np
import pytest
from support import journal, kill, processes_of, wait_gone, wait_until
from test_large_values import MIB, SLACK, block, check, joined, used

ROWS = 64


def rows() -> Any:
    return block(3, ROWS * MIB // 4).reshape(ROWS, -1)


def lose_the_other_agent(folder: Path) -> None:
    wait_until(lambda: joined(folder), "both agents have joined")
    for pid in processes_of(folder, "agent"):
        kill(pid)
    wait_until(lambda: any(event[1] == "agent-lost" for event in journal(folder)), "the head knows of it")


@pytest.mark.timeout(120)
def test_a_shard_whose_only_copy_went_down_is_lost_by_name_and_others_are_there() -> None:
    array = rows()
    with bh.Executor(2, agents=2) as pool:
        sharded = bh.shard(array, parts=4)
        assert sharded.placement == [0, 1, 0, 1]
        size = array.nbytes
        wait_until(lambda: size <= used(pool.folder) <= size + SLACK, "what was moved is not on this node any more")
        lose_the_other_agent(pool.folder)
        check(sharded[:16], array[:16])
        check(sharded[32:48], array[32:48])
        for read in (lambda: sharded[16:18], sharded.gather):
            with pytest.raises(bh.ResultLost, match=r"shard 1 of 4 \(16 to 32 of axis 0\) is lost"):
                read()
        with pytest.raises(bh.ResultLost, match="shard 3 of 4"):
            pool.submit(last_rows, sharded).result(60)


def last_rows(sharded: bh.ShardedArray) -> Any:
    return sharded[60:]


@pytest.mark.timeout(120)
def test_a_shard_with_a_replica_outlives_its_node() -> None:
    array = rows()
    with bh.Executor(2, agents=2) as pool:
        sharded = bh.shard(array, parts=4, replicas=2)
        lose_the_other_agent(pool.folder)
        check(sharded[15:50], array[15:50])
        check(pool.submit(last_rows, sharded).result(60), array[60:])
        check(np.concatenate([pool.submit(same, ref).result(60) for ref in sharded.shards]), array)


def same(value: Any) -> Any:
    return value


def read_late(sharded: bh.ShardedArray, folder: str) -> Any:
    """Reads a part only after its node has gone."""
    first = sharded[:2].copy()
    Path(folder, "begun").touch()
    while not os.path.exists(Path(folder, "go")):
        time.sleep(0.01)
    return np.concatenate([first, sharded[16:18]])


@pytest.mark.timeout(120)
def test_a_task_that_reads_from_a_node_that_has_gone_reads_from_the_replica(tmp_path: Path) -> None:
    array = rows()
    with bh.Executor(3, agents=3) as pool:
        spread = bh.shard(array, parts=3, place="by_rank", replicas=2)
        assert spread.placement == [0, 1, 2]
        reader = pool.submit(bh.task(read_late, retries=bh.Retries(lost_node=3)), spread, str(tmp_path))
        wait_until(lambda: (tmp_path / "begun").exists(), "the reader has begun")
        for pid in processes_of(pool.folder, "agent"):
            kill(pid)
        wait_until(lambda: sum(event[1] == "agent-lost" for event in journal(pool.folder)) == 2, "the head knows", 30)
        (tmp_path / "go").touch()
        try:
            result = reader.result(60)
        except bh.ResultLost as error:  # Both nodes that had it may be those that were killed.
            assert "shard" in str(error)
        else:
            check(result, np.concatenate([array[:2], array[16:18]]))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kept", [False, True])
def test_a_shard_that_a_task_made_is_made_again_or_read_from_the_run_folder(tmp_path: Path, kept: bool) -> None:
    p = bh.Pipeline("again")
    nodes = [p.add(bh.task(block), number, 2 * MIB) for number in range(6)]
    gate = p.add(bh.task(wait_for), str(tmp_path / "go"))
    if not kept:  # What no other task takes is the user's, and is written to the run folder.
        p.add(bh.task(first_of), gate, nodes)
    expected = np.concatenate([block(number, 2 * MIB) for number in range(6)])
    with p.run(agents=2, cpus=4, wait=False) as run:
        made = bh.ShardedArray.from_parts([run[node] for node in nodes])
        assert set(made.placement) == {0, 1}
        lose_the_other_agent(run.folder)
        for number in range(6):
            middle = slice(number * MIB // 4 + 100, number * MIB // 4 + 200)
            check(made[middle], expected[middle])
        check(made.gather(), expected)
        (tmp_path / "go").touch()
        assert run.wait(60) == "finished"
    wait_gone(run.folder)


def first_of(gate: None, values: list[Any]) -> int:
    return int(values[0][0])


def wait_for(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.01)


@pytest.mark.timeout(120)
def test_parts_that_nobody_holds_free_their_memory_on_all_nodes() -> None:
    array = rows()
    with bh.Executor(2, agents=2, store="256MiB") as pool:
        for replicas in (1, 2, 1, 2):
            sharded = bh.shard(array, parts=4, replicas=replicas)
            check(sharded[15:20], array[15:20])
            folded = pool.submit(last_rows, sharded)
            check(folded.result(60), array[60:])
            del sharded, folded
        wait_until(lambda: used(pool.folder) <= 4 * SLACK, f"memory comes back, of {used(pool.folder)} bytes", 20)
