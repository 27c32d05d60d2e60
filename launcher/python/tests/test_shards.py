"""Laws of sharded arrays: a slice is what numpy gives, wherever its parts lie, and moves no more than it needs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import bridgehead as bh
import numpy as np
import pytest
from conftest import wait_until

ROWS, COLUMNS = 600, 500
LIMIT = 30.0
"""Seconds within which a task must come to its end."""


def check(got: Any, expected: Any) -> None:
    """Values, shape and type are those of numpy."""
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    assert np.array_equal(got, expected)


def numbers() -> Any:
    return np.arange(ROWS * COLUMNS, dtype=np.float64).reshape(ROWS, COLUMNS)


@pytest.fixture(scope="module")
def nodes() -> Iterator[bh.Executor]:
    with bh.Executor(2, agents=2, store="128MiB") as both:
        yield both


KEYS = [
    np.s_[...],
    np.s_[10:20],
    np.s_[5],
    np.s_[-1],
    np.s_[290:310, 3],
    np.s_[::-7, ::2],
    np.s_[..., 5:9],
    np.s_[500:100:-13],
    np.s_[[1, 5]],
    np.s_[np.array([True, False] * 300)],
    np.s_[0:0],
    np.s_[550:9999],
    np.s_[:, -3],
    np.s_[7, 8],
    np.s_[np.int64(3)],
    np.s_[None, 3],
]


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("parts", [1, 2, 7])
def test_an_index_gives_what_numpy_gives(nodes: bh.Executor, axis: int, parts: int) -> None:
    array = numbers()
    sharded = bh.shard(array, axis, parts)
    assert (sharded.shape, sharded.dtype, sharded.axis) == (array.shape, array.dtype, axis % 2)
    assert len(sharded.parts) == parts and sharded.nbytes == array.nbytes == sum(p.nbytes for p in sharded.parts)
    for key in KEYS:
        check(np.asarray(sharded[key]), np.asarray(array[key]))


def where_it_lies(sharded: bh.ShardedArray) -> list[int | None]:
    return sharded.placement


def test_parts_lie_where_they_were_asked_to(nodes: bh.Executor) -> None:
    array = numbers()
    assert bh.shard(array, parts=4).placement == [0, 1, 0, 1]
    assert bh.shard(array, parts=4, place="by_rank").placement == [0, 0, 1, 1]
    near = bh.shard(array, parts=4, place="by_numa")
    assert near.placement == [0, 0, 1, 1]
    assert {part.numa for part in near.parts} <= {None, 0, 1}
    check(near[100:500], array[100:500])
    assert bh.shard(array, parts=4, place="pack").placement == [0] * 4
    spread = bh.shard(array, parts=2)
    assert bh.shard(array, parts=4, place=bh.near(spread)).placement == [0, 0, 1, 1]
    assert bh.shard(array).placement == [0, 1], "one part a node"
    assert nodes.submit(where_it_lies, spread).result(LIMIT) == [0, 1]


def node_and_sum(rows: Any) -> tuple[int, float]:
    return bh.current().node, float(rows.sum())


def test_a_task_that_takes_a_shard_runs_where_it_lies(nodes: bh.Executor) -> None:
    array = numbers()
    for _ in range(3):
        sharded = bh.shard(array, parts=2)
        for ref, node, rows in zip(sharded.shards, (0, 1), np.split(array, 2), strict=True):
            assert nodes.submit(node_and_sum, ref).result(LIMIT) == (node, rows.sum())


def some_rows(sharded: bh.ShardedArray, start: int, stop: int) -> tuple[int, Any]:
    return bh.current().node, sharded[start:stop]


def stored(pool: bh.Executor) -> int:
    """Bytes in the stores' memory and on their disks."""
    status = json.loads((pool.folder / "status.json").read_text())
    return sum(agent["store"]["used"] + agent["store"]["spilled"] for agent in status["agents"])


def moved(pool: bh.Executor) -> int:
    """Bytes that the stores have read from other nodes."""
    status = json.loads((pool.folder / "status.json").read_text())
    return sum(agent["store"]["remote"]["bytes"] for agent in status["agents"])


def test_a_slice_moves_its_own_bytes_only(tmp_path: Any) -> None:
    array = np.arange(4_000_000, dtype=np.float64).reshape(4000, 1000)
    with bh.Executor(2, agents=2) as both:
        sharded = bh.shard(array, parts=2)
        wait_until(lambda: moved(both) == array.nbytes // 2 + _head(array))
        check(sharded[2995:3005], array[2995:3005])
        wait_until(lambda: moved(both) > array.nbytes // 2 + _head(array))
        assert moved(both) == array.nbytes // 2 + _head(array) + 10 * 8000


def _head(array: Any) -> int:
    """Bytes of a packed part before its values."""
    return bh.put(array[: len(array) // 2])._kept.nbytes() - array.nbytes // 2


def test_a_task_gets_the_array_as_it_is_and_reads_what_it_needs(nodes: bh.Executor) -> None:
    array = numbers()
    sharded = bh.shard(array, parts=6)
    for start in (0, 95, 305, 590):
        check(nodes.submit(some_rows, sharded, start, start + 10).result(LIMIT)[1], array[start : start + 10])


def made_in_parts(parts: int) -> bh.ShardedArray:
    return bh.shard(numbers(), parts=parts)


def twice(sharded: bh.ShardedArray) -> bh.ShardedArray:
    return bh.ShardedArray.from_parts([bh.put(2 * bh.get(ref)) for ref in sharded.shards])


def test_a_task_returns_an_array_whose_parts_stay(nodes: bh.Executor) -> None:
    made = nodes.submit(made_in_parts, 3)
    check(nodes.submit(twice, made).result(LIMIT).gather(), 2 * numbers())
    sharded = made.result(LIMIT)
    del made
    check(nodes.submit(twice, sharded).result(LIMIT).gather(), 2 * numbers())
    check(sharded.gather(), numbers())


def test_what_is_not_held_any_more_frees_its_parts() -> None:
    with bh.Executor(1, store="64MiB") as one:
        for _ in range(6):  # Four times what the store holds.
            sharded = one.submit(lambda: bh.shard(np.ones((4000, 1000)), parts=4)).result(LIMIT)
            assert sharded[3999, 999] == 1.0
        del sharded
        wait_until(lambda: stored(one) <= 16 << 20)


def test_an_array_goes_by_a_name(nodes: bh.Executor) -> None:
    store = bh.store(nodes)
    store["grid"] = bh.shard(numbers(), parts=3)
    check(store["grid"][150:250], numbers()[150:250])
    assert nodes.submit(lambda: float(bh.store()["grid"][150].sum())).result(LIMIT) == numbers()[150].sum()
    del store["grid"]


def block(number: int) -> Any:
    return np.full((100, 400), float(number))


def test_results_of_tasks_make_up_an_array(nodes: bh.Executor) -> None:
    futures = [nodes.submit(block, number) for number in range(6)]
    made = bh.ShardedArray.from_parts([*futures, bh.put(block(6)), block(7)])
    expected = np.concatenate([block(number) for number in range(8)])
    check(made.gather(), expected)
    check(made[50:650:9, ::-1], expected[50:650:9, ::-1])
    columns = bh.ShardedArray.from_parts(futures[:3], axis=1)
    check(columns[:, 350:850], np.concatenate([block(number) for number in range(3)], 1)[:, 350:850])


def total(sharded: bh.ShardedArray) -> tuple[tuple[int, ...], float]:
    return sharded.shape, float(sharded[50:150].sum())


def test_nodes_of_a_pipeline_make_up_an_array_for_its_tasks() -> None:
    p = bh.Pipeline("parts")
    made = bh.ShardedArray.from_parts(p.map(bh.task(block), range(4)))
    with pytest.raises(RuntimeError, match="have not run"):
        _ = made.shape
    answer = p.add(bh.task(total), made)
    put = p.add(bh.task(total), bh.shard(np.ones((200, 300)), parts=2))
    with p.run(cpus=2) as run:
        assert run[answer].result(LIMIT) == ((400, 400), 50 * 400.0)
        assert run[put].result(LIMIT) == ((200, 300), 100 * 300.0)


def test_an_array_is_made_of_other_parts(nodes: bh.Executor) -> None:
    array = numbers()
    sharded = bh.shard(array, parts=4)
    columns = sharded.reshard(3, axis=1)
    assert (columns.axis, len(columns.parts), columns.placement) == (1, 3, [0, 1, 0])
    check(columns.gather(), array)
    check(sharded.reshard(2, replicas=2).gather(), array)


def test_objects_are_pickled_and_what_is_not_contiguous_is_copied(nodes: bh.Executor) -> None:
    objects = np.array([["a", None], [1, (2, 3)]] * 10_000, dtype=object)
    check(bh.shard(objects, parts=3)[10_000:10_010], objects[10_000:10_010])
    array = numbers()[::2, ::3]
    check(bh.shard(array, parts=3)[99:201], array[99:201])
    check(bh.shard(np.asfortranarray(numbers()), parts=3)[199:401], numbers()[199:401])
    check(bh.shard(np.zeros((0, 3)), parts=1).gather(), np.zeros((0, 3)))
    check(bh.shard(np.arange(10), parts=3).gather(), np.arange(10))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda a: bh.shard(a, 2), ValueError, "axis 2: the array has 2 axes"),
        (lambda a: bh.shard(a, -3), ValueError, "axis -3"),
        (lambda a: bh.shard(a, parts=601), ValueError, "axis 0 has 600 indices; give 1 to 600"),
        (lambda a: bh.shard(a, parts=0), ValueError, "give 1 to 600"),
        (lambda a: bh.shard(a, parts="many"), ValueError, "give a number, 'auto', or None"),
        (lambda a: bh.shard(a, place="here"), ValueError, "'by_gpu', 'by_numa', or bridgehead.near"),
        (lambda a: bh.shard(a, place="by_gpu"), ValueError, "no agent of this run was given a GPU"),
        (lambda a: bh.shard(a, replicas=3), ValueError, "the run has 2 nodes"),
        (lambda a: bh.shard(a, replicas=0), ValueError, "1 or more"),
        (lambda a: bh.shard(3.0), ValueError, "bridgehead.put"),
        (lambda a: bh.shard(a)[600], IndexError, "index 600 is out of range: axis 0 has 600"),
        (lambda a: bh.shard(a)[0, -501], IndexError, "axis 1 has 500"),
        (lambda a: bh.shard(a)[0, 0, 0], IndexError, "too many indices"),
        (lambda a: bh.shard(a).reshard(axis=5), ValueError, "axis 5"),
        (lambda a: bh.ShardedArray.from_parts([]), ValueError, "none was given"),
        (lambda a: bh.ShardedArray.from_parts([a, a[:, :3]]), ValueError, r"part 1 is \(600, 3\)"),
        (lambda a: bh.ShardedArray.from_parts([a, bh.put([1])]), TypeError, "part 1 is a list"),
        (lambda a: bh.put(bh.shard(a)), TypeError, "gather"),
    ],
)
def test_bad_input_is_named(nodes: bh.Executor, make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make(numbers())


def test_without_a_run_parts_stay_in_this_process() -> None:
    code = """
import bridgehead as bh, numpy as np
array = np.arange(300000.0).reshape(600, 500)
sharded = bh.shard(array, parts=3)
assert sharded.placement == [None] * 3 and np.array_equal(sharded[150:250], array[150:250])
if __name__ == "__main__":
    with bh.Executor(1) as one:
        assert one.submit(lambda s: s[150].sum(), sharded).result(30) == array[150].sum()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_array_of_one_run_goes_to_another(nodes: bh.Executor) -> None:
    sharded = bh.shard(numbers(), parts=3)
    with bh.Executor(1) as other:
        assert other.submit(total, sharded).result(LIMIT) == ((ROWS, COLUMNS), numbers()[50:150].sum())
