"""Laws of `bridgehead.get(ref, writable=True)`: what is written to a view nobody else ever sees, and what is not written is right."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bridgehead as bh
import numpy as np
import pytest

LARGE = 300_000
"""Numbers of 8 bytes: large enough for a mapping."""
SMALL = 4_000
"""Numbers of 8 bytes: in the store, but copied."""


@pytest.fixture
def pool() -> Iterator[bh.Executor]:
    with bh.Executor(1, store="64MiB") as pool:
        yield pool


def numbers(start: float, count: int = LARGE) -> Any:
    return np.arange(start, start + count)


def private_maps() -> int:
    """Private mappings of the store's memory that this process has."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sum("bridgehead-arena" in line and "rw-p" in line for line in lines)


def check(ref: bh.Ref[Any], expected: Any) -> None:
    """What is written to one writable view is in no other one and not in the store, which has the expected array."""
    first, second = bh.get(ref, writable=True), bh.get(ref, writable=True)
    assert first.flags.writeable and np.array_equal(first, expected)
    first[:] = -1
    second[::700] += 1
    changed = expected.copy()
    changed[::700] += 1
    assert (first == -1).all() and np.array_equal(second, changed)
    assert np.array_equal(bh.get(ref), expected)
    assert np.array_equal(bh.get(ref, writable=True), expected)


@pytest.mark.parametrize("count", [SMALL, LARGE])
@pytest.mark.parametrize("readonly", [False, True])
def test_what_is_written_to_a_view_no_other_one_sees(pool: bh.Executor, count: int, readonly: bool) -> None:
    array = numbers(1.0, count)
    array.flags.writeable = not readonly
    check(bh.put(array), array)


def test_a_result_that_was_a_view_itself_can_be_had_to_write_to(pool: bh.Executor) -> None:
    array = numbers(2.0)
    check(bh.put(pool.submit(_same, bh.put(array)).result()), array)


def test_outside_of_any_run_a_view_is_this_process_s_own_too() -> None:
    for count in (10, SMALL, LARGE):
        check(bh.put(numbers(3.0, count)), numbers(3.0, count))


def test_a_value_of_several_buffers_has_one_mapping_which_goes_with_the_last_of_them(pool: bh.Executor) -> None:
    fixed = np.arange(50)
    fixed.flags.writeable = False
    ref = bh.put(
        {"a": numbers(1.0), "b": [np.ones(50_000, np.float32)], "c": fixed, "f": np.asfortranarray(np.eye(300))}
    )
    own = bh.get(ref, writable=True)
    assert private_maps() == 1
    for array in (own["a"], own["b"][0], own["c"], own["f"]):
        assert array.flags.writeable
        array[...] += 1
    assert own["f"].flags.f_contiguous and own["f"][3, 3] == 2 and own["f"][3, 4] == 1
    again = bh.get(ref)
    assert np.array_equal(again["a"], numbers(1.0)) and (again["b"][0] == 1).all()
    assert np.array_equal(again["c"], fixed) and np.array_equal(again["f"], np.eye(300))
    last = own.pop("b")
    del own, array
    assert private_maps() == 1 and (last[0] == 2).all()
    del last
    assert private_maps() == 0


def test_a_view_outlives_its_reference_and_the_pressure_of_others(pool: bh.Executor) -> None:
    view = bh.get(bh.put(numbers(5.0)), writable=True)
    view[0] = -5
    # Several times what the store holds: all that may go to disk does, and what was freed is used again.
    kept = [bh.put(np.full(1 << 20, float(i))) for i in range(20)]
    assert view[0] == -5 and np.array_equal(view[1:], numbers(5.0)[1:])
    for i in (0, 19):
        check(kept[i], np.full(1 << 20, float(i)))


def test_a_view_outlives_the_run() -> None:
    with bh.Executor(1, store="64MiB"):
        view = bh.get(bh.put(numbers(6.0)), writable=True)
    view[1] = -6
    assert np.array_equal(view[2:], numbers(6.0)[2:]) and view[1] == -6


def test_many_views_at_once_are_all_their_own(pool: bh.Executor) -> None:
    ref = bh.put(numbers(0.0))
    views = [bh.get(ref, writable=True) for _ in range(300)]
    assert private_maps() >= 1  # The kernel may show neighbours as one.
    for i, view in enumerate(views):
        view[i] = -i
    for i, view in enumerate(views):
        view[i] += 2 * i
        assert view.sum() == numbers(0.0).sum()
    del views, view
    assert private_maps() == 0


def test_memory_comes_free_with_its_last_view(pool: bh.Executor) -> None:
    for start in range(6):  # Each takes more than half of the store.
        view = bh.get(bh.put(np.full(5 << 20, float(start))), writable=True)
        view[0] = -1
        assert view[0] == -1 and view[-1] == start
        del view


@pytest.mark.skipif(sys.platform != "linux", reason="forks with threads around")
def test_a_forked_child_writes_for_itself_and_its_parent_too(pool: bh.Executor) -> None:
    view = bh.get(bh.put(numbers(7.0)), writable=True)
    view[0] = 1
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            right = view[0] == 1 and np.array_equal(view[1:], numbers(7.0)[1:])
            view[1] = 99
            os.read(read, 1)  # Until the parent has written.
            code = 0 if right and view[2] == 9 and view[1] == 99 else 1
        finally:
            os._exit(code)
    view[2] = 50
    os.write(write, b"x")
    _, status = os.waitpid(child, 0)
    os.close(read)
    os.close(write)
    assert os.waitstatus_to_exitcode(status) == 0
    assert view[1] == 8 and view[2] == 50


def test_torch_takes_a_view_without_a_copy(pool: bh.Executor) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    ref = bh.put(numbers(1.0))
    view = bh.get(ref, writable=True)
    tensor = torch.from_numpy(view)
    tensor += 1
    assert tensor.data_ptr() == view.ctypes.data and view[0] == 2
    assert np.array_equal(bh.get(ref), numbers(1.0))


def test_values_on_another_node_can_be_had_to_write_to() -> None:
    array = numbers(0.0)
    with bh.Executor(2, agents=2, store="64MiB"):
        sharded = bh.shard(array, parts=2)
        assert sharded.placement == [0, 1]
        for ref, part in zip(sharded.shards, np.array_split(array, 2), strict=True):
            check(ref, part)


def _same(array: Any) -> Any:
    return array
