"""Laws of arrays in GPUs' memory. Host memory stands in for the GPUs', on purpose: what is shown is the store's part and the
package's, on every machine the same; not CUDA's."""

from __future__ import annotations

import gc
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bridgehead as bh
import numpy as np
import pytest
from conftest import wait_until

LIMIT = 60.0
PRETENDED = sorted(Path(__file__).parents[3].glob("target/*/examples/libpretend_cuda.so"))
"""A library with libcuda's interface whose devices are host memory, which `cargo test` builds."""


def given_gpus(visible: str = "0,1", **options: Any) -> bh.Executor:
    """An Executor whose agents share two GPUs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", visible)
        patch.setenv("BRIDGEHEAD_CUDA", "/nowhere/libcuda.so.1")
        return bh.Executor(**options)


@pytest.fixture(scope="module")
def one() -> Iterator[bh.Executor]:
    """A node with two GPUs."""
    with given_gpus(max_workers=2, store="256MiB") as pool:
        yield pool


def numbers(dtype: Any = np.float64) -> Any:
    return (np.arange(240_000) % 101).reshape(600, 400).astype(dtype)


def agents(pool: bh.Executor) -> Any:
    return json.loads((pool.folder / "status.json").read_text())["agents"]


def on_gpus(pool: bh.Executor) -> int:
    return sum(agent["store"]["on_gpus"] for agent in agents(pool))


def copied(pool: bh.Executor, lane: str) -> int:
    return sum(agent["store"][lane]["operations"] for agent in agents(pool))


def check(found: bh.DeviceArray, expected: Any, gpu: int) -> None:
    """An array in a GPU's memory is this one, in every form in which it is taken."""
    assert (found.shape, found.dtype, found.ndim, found.size) == (
        expected.shape,
        expected.dtype,
        expected.ndim,
        expected.size,
    )
    assert (found.gpu, found.stand_in, found.nbytes) == (gpu, True, expected.nbytes)
    assert f"host memory standing in for GPU {gpu}" in repr(found)
    taken = np.from_dlpack(found)
    viewed = np.asarray(found)
    for one in (taken, viewed, found.to_host()):
        assert one.dtype == expected.dtype
        np.testing.assert_array_equal(one, expected)
    assert found.to_host().flags.writeable, "a copy is the process's own"
    if expected.size:
        assert not viewed.flags.writeable and not taken.flags.writeable, "it is for reading"
        assert taken.ctypes.data == viewed.ctypes.data, "both are the memory itself"


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i1", "i8", "u2", "c16", "?"])
def test_what_is_put_on_a_gpu_is_read_there_and_on_the_host(one: bh.Executor, dtype: str) -> None:
    array = numbers(dtype)
    ref = bh.put(array, gpu=1)
    check(bh.get(ref, gpu=True), array, 1)
    np.testing.assert_array_equal(bh.get(ref), array)
    assert ref._kept.gpu() == 1


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2), (2, 3, 4, 5), (7,)])
def test_shapes_of_all_kinds_lie_on_a_gpu_however_small(one: bh.Executor, shape: tuple[int, ...]) -> None:
    array = np.full(shape, 7.5)
    check(bh.get(bh.put(array, gpu=0), gpu=True), array, 0)


def test_several_are_asked_for_at_once(one: bh.Executor) -> None:
    refs = [bh.put(np.full(3000, float(n)), gpu=n % 2) for n in range(4)]
    for n, found in enumerate(bh.get(refs, gpu=True)):
        check(found, np.full(3000, float(n)), n % 2)


def test_what_lies_on_a_gpu_takes_no_host_memory_and_goes_with_its_last_reader(one: bh.Executor) -> None:
    wait_until(lambda: on_gpus(one) == 0)
    array = np.ones(1_000_000)
    ref = bh.put(array, gpu=0)
    wait_until(lambda: array.nbytes <= on_gpus(one) < array.nbytes + 4096)
    found = np.from_dlpack(bh.get(ref, gpu=True))
    del ref
    gc.collect()
    assert bh.get(bh.put(1)) == 1
    np.testing.assert_array_equal(found, array)
    del found
    wait_until(lambda: on_gpus(one) == 0)


def look(part: bh.ShardedArray) -> tuple[tuple[int, ...], int, bool, float]:
    found = bh.get(part.shards[0], gpu=True)
    return bh.current().devices, found.gpu, found.stand_in, float(np.from_dlpack(found).sum())


def test_a_task_that_takes_a_shard_of_a_gpu_is_given_that_one_and_reads_it_there() -> None:
    array = numbers()
    with given_gpus(max_workers=2, store="64MiB") as pool:
        sharded = bh.shard(array, parts=4, place="by_gpu")
        assert [part.gpu for part in sharded.parts] == [0, 1, 0, 1] and sharded.placement == [0] * 4
        np.testing.assert_array_equal(sharded[150:450], array[150:450])
        task = bh.task(gpus=1)(look)
        for number, rows in enumerate(np.split(array, 4)):
            answer = pool.submit(task, sharded.part(number)).result(LIMIT)
            assert answer == ((number % 2,), number % 2, True, rows.sum())
        last = bh.put(np.ones(4), gpu=0)
        wait_until(lambda: copied(pool, "to_gpu") >= 5)
        assert copied(pool, "to_gpu") == 5, "the four parts and the last put"
        assert copied(pool, "from_gpu") == 2, "the two parts of the slice that was read on the host"
        del last


def put_there(array: Any) -> tuple[int | None, float]:
    ref = bh.put(array, gpu=1)
    found = bh.get(ref, gpu=True)
    return ref._kept.gpu(), float(np.asarray(found).sum())


def test_a_task_puts_and_gets_as_a_driver_does(one: bh.Executor) -> None:
    assert one.submit(put_there, numbers()).result(LIMIT) == (1, numbers().sum())


def sum_of(array: Any) -> float:
    return float(array.sum())


def test_a_task_that_takes_the_reference_gets_an_array_of_the_host(one: bh.Executor) -> None:
    assert one.submit(sum_of, bh.put(numbers(), gpu=0)).result(LIMIT) == numbers().sum()


def test_what_lies_on_the_host_is_copied_to_a_gpu_when_it_is_asked_for_there(one: bh.Executor) -> None:
    check(bh.get(bh.put(numbers()), gpu=True), numbers(), 0)
    wait_until(lambda: on_gpus(one) == 0)
    for value, text in (
        ({"field": numbers()}, "this is a builtins.dict"),
        ("text" * 9000, "no plain array of numbers"),
    ):
        with pytest.raises(TypeError, match=text):
            bh.get(bh.put(value), gpu=True)
    assert on_gpus(one) == 0, "what is refused was not copied"
    with pytest.raises(TypeError, match="in no store"):
        bh.get(bh.put(1), gpu=True)
    with pytest.raises(TypeError, match="writable"):
        bh.get(bh.put(numbers()), writable=True, gpu=True)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("value", "gpu", "kind", "text"),
    [
        ([1, 2], 0, TypeError, "this is a builtins.list"),
        (np.array(["a"]), 0, TypeError, "its dtype is <U1"),
        (np.array([None]), 0, TypeError, "its dtype is object"),
        (np.zeros(3, ">f8"), 0, TypeError, "its dtype is >f8"),
        (np.ones((4, 4)).T[1:], 0, TypeError, "ascontiguousarray"),
        (np.ma.masked_array([1.0]), 0, TypeError, "MaskedArray"),
        (np.ones(4), 2, ValueError, "gpu=2: node 0 of this run was given GPUs 0 to 1"),
        (np.ones(4), -1, ValueError, "gpu=-1: give the number of a GPU"),
        (np.ones(4), True, ValueError, "gpu=True: give the number of a GPU"),
        (np.ones(9_000_000), 0, bh.StoreFull, "GPU 0 is full"),
    ],
)
def test_what_cannot_lie_on_a_gpu_is_refused_by_name(
    one: bh.Executor, value: Any, gpu: Any, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        bh.put(value, gpu=gpu)


def test_only_numbers_are_sharded_over_gpus(one: bh.Executor) -> None:
    with pytest.raises(TypeError, match="its dtype is object"):
        bh.shard(np.array([None] * 8), parts=2, place="by_gpu")


def test_a_node_without_a_gpu_refuses(tmp_path: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        with bh.Executor(1):
            with pytest.raises(ValueError, match="gpu=0: node 0 of this run was given no GPU"):
                bh.put(np.ones(4), gpu=0)
            with pytest.raises(ValueError, match="no agent of this run was given a GPU"):
                bh.shard(np.ones(4), parts=2, place="by_gpu")


def test_a_look_at_a_gpu_does_not_travel(one: bh.Executor) -> None:
    found = bh.get(bh.put(np.ones(4), gpu=0), gpu=True)
    with pytest.raises(TypeError, match="give the reference"):
        pickle.dumps(found)
    with pytest.raises(AttributeError):
        _ = found.__cuda_array_interface__
    with pytest.raises(BufferError, match="without a copy"):
        found.__dlpack__(copy=True)
    assert found.__dlpack_device__() == (1, 0), "the stand-in is memory of the host"


def test_capsules_that_nobody_takes_let_go_of_their_memory(one: bh.Executor) -> None:
    wait_until(lambda: on_gpus(one) == 0)
    found = bh.get(bh.put(np.ones(500_000), gpu=0), gpu=True)
    capsules = [found.__dlpack__(), found.__dlpack__(max_version=(1, 0)), found.__dlpack__(max_version=(0, 8))]
    assert [repr(capsule).split('"')[1] for capsule in capsules] == ["dltensor", "dltensor_versioned", "dltensor"]
    del found
    gc.collect()
    del capsules
    wait_until(lambda: on_gpus(one) == 0)


def test_the_status_says_what_a_gpu_is(one: bh.Executor) -> None:
    gpus = agents(one)[0]["gpu_memory"]
    assert [gpu["name"] for gpu in gpus] == [f"host memory standing in for GPU {n}" for n in range(2)]
    assert all(gpu["stand_in"] and "/nowhere/libcuda.so.1" in gpu["why"] for gpu in gpus)
    assert all(gpu["limit"] == 64 << 20 for gpu in gpus), "half of the stand-in, which is half of the store's limit"


def where(sharded: bh.ShardedArray) -> list[tuple[int | None, int | None]]:
    return [(part.node, part.gpu) for part in sharded.parts]


def test_shards_go_to_the_gpus_of_all_nodes_in_turn_and_are_read_from_everywhere() -> None:
    array = numbers()
    with given_gpus(max_workers=2, agents=2, store="128MiB") as both:
        sharded = bh.shard(array, parts=4, place="by_gpu")
        assert where(sharded) == [(0, 0), (1, 0), (0, 0), (1, 0)]
        assert both.submit(where, sharded).result(LIMIT) == where(sharded)
        np.testing.assert_array_equal(sharded.gather(), array)
        check(bh.get(sharded.shards[1], gpu=True), array[150:300], 0)
        wait_until(lambda: all(agent["store"]["to_gpu"]["operations"] for agent in agents(both)))


def seen(part: bh.ShardedArray) -> tuple[str, int]:
    return os.environ["CUDA_VISIBLE_DEVICES"], bh.get(part.shards[0], gpu=True).gpu


def test_a_task_sees_its_gpu_by_the_name_that_the_scheduler_gave_it() -> None:
    with given_gpus("4,GPU-7", max_workers=1, store="64MiB") as pool:
        sharded = bh.shard(numbers(), parts=2, place="by_gpu")
        task = bh.task(gpus=1)(seen)
        found = [pool.submit(task, sharded.part(number)).result(LIMIT) for number in range(2)]
        assert found == [("4", 0), ("GPU-7", 1)]


def by_cuda(part: bh.ShardedArray) -> tuple[Any, ...]:
    found = bh.get(part.shards[0], gpu=True)
    interface = found.__cuda_array_interface__
    assert interface["data"][1] and interface["version"] == 3 and interface["stream"] is None
    assert (interface["shape"], interface["typestr"]) == (found.shape, "<f8")
    assert not hasattr(found, "__array_interface__")
    with pytest.raises((BufferError, RuntimeError)):
        np.from_dlpack(found)  # Of a GPU numpy takes nothing without a copy.
    np.testing.assert_array_equal(np.asarray(found), found.to_host())
    return found.stand_in, found.gpu, found.__dlpack_device__(), float(found.to_host().sum())


@pytest.mark.skipif(
    not PRETENDED, reason="no library that pretends to be CUDA's: run `cargo test -p bridgehead-store-gpu`"
)
def test_by_cuda_an_array_is_what_other_libraries_expect_of_a_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("BRIDGEHEAD_CUDA", str(PRETENDED[0]))
    with bh.Executor(2, store="64MiB") as pool:
        sharded = bh.shard(numbers(), parts=2, place="by_gpu")
        task = bh.task(gpus=1)(by_cuda)
        for gpu, rows in enumerate(np.split(numbers(), 2)):
            assert pool.submit(task, sharded.part(gpu)).result(LIMIT) == (False, gpu, (2, gpu), rows.sum())
        with pytest.raises(bh.StoreFull, match="GPU 1 is full"):
            bh.put(np.ones(1_100_000), gpu=1)
        assert agents(pool)[0]["gpu_memory"][1]["name"] == "GPU 1: Pretended GPU, by CUDA"
