"""Laws of arrays that are written in place: what was written is what everybody reads, without a second copy, and it never changes."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bridgehead as bh
import numpy as np
import pytest

ROWS, COLUMNS = 5, 1_000_000
"""40 MB of floats: more than half of the store."""


@pytest.fixture
def small() -> Iterator[bh.Executor]:
    with bh.Executor(1, store="64MiB") as small:
        yield small


def fill(array: Any, start: float = 0.0) -> None:
    array[...] = np.arange(start, start + array.size).reshape(array.shape)


def check(ref: bh.Ref[Any], shape: tuple[int, ...], dtype: Any, start: float = 0.0) -> None:
    """The array that was filled arrives, read-only."""
    value, wanted = bh.get(ref), np.empty(shape, dtype)
    fill(wanted, start)
    assert value.dtype == wanted.dtype and value.shape == wanted.shape
    assert np.array_equal(value, wanted)


def test_what_is_filled_in_place_is_what_is_read_and_there_is_no_second_copy(small: bh.Executor) -> None:
    draft = bh.create((ROWS, COLUMNS))
    with draft as array:
        fill(array)
    check(draft.ref, (ROWS, COLUMNS), float)
    assert not bh.get(draft.ref).flags.writeable
    assert not list(Path(small.folder).glob("spill/*/*/*.bhs"))


def total(array: Any) -> float:
    return float(array.sum())


def test_a_task_takes_it_as_any_other_value(small: bh.Executor) -> None:
    draft = bh.create(COLUMNS, "i4")
    draft.array[:] = 3
    assert small.submit(total, draft.seal()).result() == 3.0 * COLUMNS


def create_and_pass(count: int) -> float:
    with (draft := bh.create(count, np.float32)) as array:
        array[:] = 2
    return bh.submit(bh.task(total), draft.ref).result() + float(bh.get(draft.ref)[-1])


def test_a_task_fills_one_for_tasks_that_it_adds(small: bh.Executor) -> None:
    assert small.submit(create_and_pass, COLUMNS).result() == 2.0 * COLUMNS + 2


@pytest.mark.parametrize("shape", [(), 0, 5, (3, 0), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [np.float64, "i2", "c16"])
def test_small_ones_are_values_too(pool: bh.Executor, shape: Any, dtype: Any) -> None:
    with (draft := bh.create(shape, dtype)) as array:
        fill(array)
    check(draft.ref, np.empty(shape).shape, dtype)


@pytest.mark.parametrize("dtype", [[("a", "i4"), ("b", "f8", (2,))], "S7", "M8[s]"])
def test_every_dtype_without_objects_can_be_made(pool: bh.Executor, dtype: Any) -> None:
    with (draft := bh.create(30_000, dtype)) as array:
        array[:] = np.zeros((), dtype)
        array.view("u1")[-1] = 1
    value = bh.get(draft.ref)
    assert value.dtype == np.dtype(dtype) and value.view("u1")[-1] == 1 and value.view("u1").sum() == 1


def test_an_array_of_objects_is_refused_with_the_way_out() -> None:
    with pytest.raises(TypeError, match=r"dtype object: .* use bridgehead\.put"):
        bh.create(3, object)


def test_once_sealed_it_cannot_be_written(pool: bh.Executor) -> None:
    draft = bh.create(COLUMNS)
    with pytest.raises(ValueError, match="not sealed yet"):
        _ = draft.ref
    array = draft.array
    fill(array)
    ref = draft.seal()
    assert draft.seal() is ref and draft.ref is ref
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    with pytest.raises(ValueError, match="it is sealed|the array is sealed"):
        _ = draft.array
    check(ref, (COLUMNS,), float)


def test_an_array_that_still_shows_the_memory_keeps_it(small: bh.Executor) -> None:
    draft = bh.create(2 * COLUMNS)
    array = draft.array
    fill(array)
    draft.seal()
    del draft  # With it the only reference.
    for number in range(8):
        bh.get(bh.put(np.full(2 * COLUMNS, float(-number))))
    assert array[0] == 0 and array[-1] == 2 * COLUMNS - 1


def break_off() -> bh.Draft:
    draft = bh.create((ROWS, COLUMNS))
    with pytest.raises(KeyError), draft as array:
        fill(array)
        raise KeyError("the simulation failed")
    return draft


def test_what_was_broken_off_is_thrown_away_and_its_room_is_free(small: bh.Executor) -> None:
    for _ in range(3):  # The store has room for one at a time.
        draft = break_off()
        with pytest.raises(ValueError, match="thrown away"):
            _ = draft.ref
        with pytest.raises(ValueError, match="thrown away"):
            draft.seal()
        gc.collect()


def test_what_is_dropped_unsealed_gives_its_room_back(small: bh.Executor) -> None:
    for _ in range(3):
        fill(bh.create((ROWS, COLUMNS)).array)


def test_one_that_can_never_fit_is_refused(small: bh.Executor) -> None:
    with pytest.raises(bh.StoreFull, match="larger store"):
        bh.create(10 * COLUMNS)


def test_without_a_run_it_stays_in_this_process() -> None:
    import subprocess

    script = (
        "import bridgehead as bh\n"
        "draft = bh.create(100_000)\n"
        "with draft as array:\n    array[:] = 4\n"
        "print(bh.get(draft.ref).sum(), draft.ref)\n"
        "with bh.Executor(1) as one:\n    print(one.submit(sum, draft.ref).result())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.split()[0] == "400000.0" and done.stdout.endswith("400000.0\n"), done.stderr
