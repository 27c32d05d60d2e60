"""Laws of the store as Python sees it: large values are shared, not copied; nothing that dies leaves anything behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bridgehead as bh
import numpy as np
import pytest
from conftest import wait_until

LARGE = 300_000
"""Numbers of 8 bytes: far beyond what travels in a message."""


def check(value: Any, expected: Any) -> None:
    """A large value arrived whole, as a view that nobody can write to."""
    assert np.array_equal(value, expected)
    assert not value.flags.writeable
    assert not value.flags.owndata


@pytest.fixture
def pool() -> Iterator[bh.Executor]:
    with bh.Executor(2, store="64MiB") as pool:
        yield pool


def numbers(start: float) -> Any:
    return np.arange(start, start + LARGE)


def describe(array: Any) -> tuple[float, bool, bool]:
    return float(array.sum()), bool(array.flags.writeable), bool(array.flags.owndata)


def test_a_large_result_arrives_as_a_view_of_the_store(pool: bh.Executor) -> None:
    check(pool.submit(numbers, 3.0).result(), numbers(3.0))


def test_a_large_argument_arrives_as_a_view_of_the_store(pool: bh.Executor) -> None:
    array = numbers(1.0)
    assert pool.submit(describe, array).result() == (array.sum(), False, False)


def test_a_reference_arrives_as_the_value_and_can_be_had_back(pool: bh.Executor) -> None:
    array = numbers(2.0)
    ref = bh.put(array)
    assert [f.result()[0] for f in [pool.submit(describe, ref) for _ in range(5)]] == [array.sum()] * 5
    check(bh.get(ref), array)
    assert pool.submit(len, [ref, ref]).result() == 2


def test_a_small_value_that_is_put_stays_a_copy(pool: bh.Executor) -> None:
    assert bh.get(bh.put({"a": 1})) == {"a": 1}
    assert pool.submit(sum, bh.put([1, 2])).result() == 3


def test_a_reference_of_one_executor_goes_to_another(pool: bh.Executor) -> None:
    ref = bh.put(numbers(0.0))
    with bh.Executor(1) as other:
        assert other.submit(describe, ref).result()[0] == numbers(0.0).sum()
        assert other.submit(describe, ref).result()[0] == numbers(0.0).sum()


def test_a_reference_made_outside_a_run_goes_to_a_pipeline_and_is_stored_once() -> None:
    ref = bh.put(numbers(5.0))
    p = bh.Pipeline("refs")
    task = bh.task(describe)
    nodes = [p.add(task, ref) for _ in range(4)]
    with p.run(cpus=2) as run:
        assert [run[node].result()[0] for node in nodes] == [numbers(5.0).sum()] * 4
    assert len(p.nodes) == 5


def put_and_pass(start: float) -> float:
    ref = bh.put(numbers(start))
    child = bh.submit(bh.task(describe), ref)
    return float(child.result()[0]) + float(bh.get(ref)[0])


def test_a_task_puts_values_for_tasks_that_it_adds(pool: bh.Executor) -> None:
    assert pool.submit(put_and_pass, 7.0).result() == numbers(7.0).sum() + 7.0


def big_grandchild() -> Any:
    return bh.submit(bh.task(numbers), 1.0).result().sum()


def test_a_large_result_of_an_added_task_arrives(pool: bh.Executor) -> None:
    assert pool.submit(big_grandchild).result() == numbers(1.0).sum()


def keep(array: Any) -> None:
    sys.modules["kept"] = array  # Functions travel by value, so their globals are not the same ones.


def sum_of_kept() -> float:
    return float(sys.modules["kept"].sum())  # type: ignore[attr-defined]


def test_a_view_that_a_task_keeps_stays_whole_while_the_store_is_used(pool: bh.Executor) -> None:
    with bh.Executor(1, store="16MiB") as one:
        array = numbers(9.0)
        one.submit(keep, array).result()
        for start in range(12):
            one.submit(numbers, float(start)).result()
        assert one.submit(sum_of_kept).result() == array.sum()


def test_views_outlive_the_executor() -> None:
    with bh.Executor(1) as one:
        array = one.submit(numbers, 4.0).result()
        ref = bh.put(numbers(6.0))
    check(array, numbers(4.0))
    check(bh.get(ref), numbers(6.0))


def test_what_memory_has_no_room_for_goes_to_disk_and_comes_back() -> None:
    with bh.Executor(1, store="8MiB") as one:
        refs = [bh.put(numbers(float(start))) for start in range(10)]
        assert [one.submit(describe, ref).result()[0] for ref in refs] == [numbers(float(s)).sum() for s in range(10)]
        folder = Path(one.folder)
        assert list(folder.glob("spill/*/*/*.bhs"))
    wait_until(lambda: not (folder / "spill").exists())


def test_a_value_larger_than_the_store_is_refused_with_its_size() -> None:
    with bh.Executor(1, store="4MiB") as one:
        with pytest.raises(bh.StoreFull, match="8000[0-9]+ bytes"):
            bh.put(np.zeros(1_000_000))
        with pytest.raises(bh.StoreFull, match="larger store"):
            one.submit(np.zeros, 1_000_000).result()
        assert one.submit(abs, -1).result() == 1


def lock_up(array: Any, path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)


def test_a_reader_that_is_killed_frees_what_it_held(tmp_path: Path) -> None:
    with bh.Executor(1, store="8MiB") as one:
        held = one.submit(bh.task(lock_up, retries=bh.Retries(lost_node=0)), np.zeros(700_000), str(tmp_path / "pid"))
        wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        with pytest.raises(bh.WorkerDied):
            held.result()
        check(one.submit(np.zeros, 900_000).result(), np.zeros(900_000))


def test_many_kinds_of_values_travel_through_the_store(pool: bh.Executor) -> None:
    values = [
        b"x" * 1_000_000,
        "ü" * 500_000,
        list(range(100_000)),
        {"a": np.zeros(50_000), "b": [np.ones(60_000), np.arange(3)]},
        np.array(["text", None] * 40_000, dtype=object),
        np.zeros((300, 400), order="F")[::2, ::3],
        np.zeros(0),
        bytearray(200_000),
    ]
    for value in values:
        back = pool.submit(lambda v: v, value).result()
        again = bh.get(bh.put(value))
        for got in (back, again):
            assert type(got) is type(value)
            assert repr(got) == repr(value)


def test_several_values_are_put_and_had_back_at_once(pool: bh.Executor) -> None:
    refs = bh.put_many([numbers(1.0), 2, numbers(3.0)])
    first, second, third = bh.get(refs)
    check(first, numbers(1.0))
    check(third, numbers(3.0))
    assert second == 2 and bh.get([]) == []


def test_a_writable_value_is_this_process_s_own(pool: bh.Executor) -> None:
    ref = bh.put({"a": numbers(1.0), "b": [np.ones(50_000, np.float32)]})
    own = bh.get(ref, writable=True)
    own["a"][:] = 0
    own["b"][0] += 1
    assert own["a"].flags.writeable
    check(bh.get(ref)["a"], numbers(1.0))
    assert own["a"].sum() == 0 and own["b"][0][0] == 2


def test_views_are_exported_as_buffers_and_by_dlpack_without_a_copy(pool: bh.Executor) -> None:
    ref = bh.put(numbers(1.0))
    view = bh.get(ref)
    assert memoryview(view).readonly and memoryview(view).nbytes == view.nbytes
    shared = np.from_dlpack(view)
    assert shared.ctypes.data == view.ctypes.data and not shared.flags.writeable
    own = bh.get(ref, writable=True)
    assert np.from_dlpack(own).ctypes.data == own.ctypes.data


def double(array: Any) -> Any:
    return array * 2.0


def where() -> int:
    return bh.current().node


def test_values_cross_from_one_node_to_another() -> None:
    p = bh.Pipeline("two-nodes")
    make, twice = bh.task(numbers), bh.task(double)
    made = p.map(make, [float(i) for i in range(8)])
    doubled = [p.add(twice, node) for node in made]
    mixed = [p.add(bh.task(_mixed), doubled[i], doubled[i - 3], made[i - 1]) for i in range(8)]
    with p.run(agents=2, cpus=2) as run:
        for i, node in enumerate(mixed):
            expected = 2 * numbers(float(i)) + 2 * numbers(float((i - 3) % 8)) + numbers(float((i - 1) % 8))
            check(run[node].result(), expected)
        for i, node in enumerate(doubled):
            check(run[node].result(), 2 * numbers(float(i)))


def _mixed(a: Any, b: Any, c: Any) -> Any:
    return a + b + c
