"""Laws of runs whose objects have sums: what is damaged nobody gets, and all else goes as it always does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import bridgehead as bh
import numpy as np
import pytest

LARGE = 300_000
"""Numbers of 8 bytes: far beyond what travels in a message."""


def numbers(start: float) -> Any:
    return np.arange(start, start + LARGE)


def total(array: Any) -> float:
    return float(array.sum())


def sharded(array: bh.ShardedArray) -> float:
    return float(array[100:200].sum() + array[-200:-100].sum())


def check_damaged(error: pytest.ExceptionInfo[bh.BridgeheadError], path: Path) -> None:
    """It names the object, the file and two sums."""
    text = str(error.value)
    assert path.stem in text and str(path) in text and "is damaged" in text
    sums = re.search(r"have the sum ([0-9a-f]{16}), its writer's is ([0-9a-f]{16})", text)
    assert sums is not None and sums[1] != sums[2], text


def test_a_spoiled_file_is_an_error_that_names_it_and_never_a_value() -> None:
    with bh.Executor(1, store="8MiB", verify_objects=True) as one:
        refs = [bh.put(numbers(float(start))) for start in range(8)]
        [path, *_] = sorted(Path(one.folder).glob("spill/*/*/*.bhs"), key=lambda file: file.stat().st_mtime)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        with pytest.raises(bh.BridgeheadError) as error:
            bh.get(refs[0])
        check_damaged(error, path)
        with pytest.raises(bh.BridgeheadError) as error:
            one.submit(bh.task(total, retries=bh.Retries(lost_node=0)), refs[0]).result()
        check_damaged(error, path)
        for start, ref in list(enumerate(refs))[1:]:
            assert one.submit(total, ref).result() == numbers(float(start)).sum()


def test_values_cross_between_nodes_and_to_files_as_they_always_do() -> None:
    p = bh.Pipeline("verified")
    made = p.map(bh.task(numbers), [float(i) for i in range(6)])
    sums = [p.add(bh.task(total), node) for node in made]
    with p.run(agents=2, cpus=2, verify_objects=True) as run:
        assert json.loads((Path(run.folder) / "run.json").read_text())["verify_objects"]
        for i, node in enumerate(sums):
            assert run[node].result() == numbers(float(i)).sum()
            assert np.array_equal(run[made[i]].result(), numbers(float(i)))


def test_slices_of_sharded_arrays_are_right_where_parts_come_whole() -> None:
    array = np.arange(400_000.0)
    with bh.Executor(2, agents=2, store="64MiB", verify_objects=True) as both:
        parts = bh.shard(array, parts=4)
        assert both.submit(sharded, parts).result() == array[100:200].sum() + array[-200:-100].sum()
        assert np.array_equal(parts[150_000:250_000], array[150_000:250_000])
        with pytest.raises(IndexError):
            parts[400_000]
