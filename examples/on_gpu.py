"""A matrix that stays in the memory of GPUs: the direction in which points vary most, by power iteration.

    python examples/on_gpu.py

The points lie in parts in the memory of the run's GPUs. Each step sends a vector to the parts: a task is given the GPU that its
part lies on, looks at the part there and gives back its share of the next vector. The points are copied to the GPUs once, and
never back.

On a machine without a GPU the run is given one all the same, and the store puts host memory in its place: the last lines say
which it was. PyTorch or CuPy does the sums where the memory is a GPU's and one of them is installed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import bridgehead as bh
import numpy as np
from numpy.typing import NDArray

POINTS, AXES, PARTS = 40_000, 64, 4


def points() -> NDArray[np.float64]:
    """Points around 0 that vary most along one direction, twice as much as along any other."""
    rng = np.random.default_rng(5)
    direction = rng.standard_normal(AXES)
    direction /= np.linalg.norm(direction)
    found = rng.standard_normal((POINTS, AXES))
    found += np.outer(found @ direction, direction)
    return found


def taken(array: bh.DeviceArray) -> tuple[Any, str]:
    """The array as a library takes it that computes where it lies, and that library's name."""
    if array.stand_in:
        return np.from_dlpack(array), "numpy"
    for library in ("torch", "cupy"):
        try:
            return __import__(library).from_dlpack(array), library
        except ImportError:
            continue
    return array.to_host(), "numpy, on a copy"


@bh.task(gpus=1)
def step(part: bh.ShardedArray, vector: NDArray[np.float64]) -> tuple[NDArray[np.float64], str]:
    """The part's share of the next vector, and where it was computed with what."""
    array = bh.get(part.shards[0], gpu=True)
    rows, library = taken(array)
    if library == "torch":
        across = rows.T @ (rows @ rows.new_tensor(vector))
        return across.cpu().numpy(), f"{array!r}, by {library}"
    if library == "cupy":
        across = rows.T @ (rows @ __import__(library).asarray(vector))
        return across.get(), f"{array!r}, by {library}"
    return rows.T @ (rows @ vector), f"{array!r}, by {library}"


if __name__ == "__main__":
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        os.environ["CUDA_VISIBLE_DEVICES"] = "0"  # There is none: the run is given a number, and host memory for it.
    whole = points()
    with bh.Executor(2) as pool:
        lying = bh.shard(whole, parts=PARTS, place="by_gpu")
        vector = np.ones(AXES) / np.sqrt(AXES)
        places: set[str] = set()
        for _ in range(30):
            shares = [pool.submit(step, lying.part(number), vector) for number in range(PARTS)]
            found = [share.result() for share in shares]
            vector = np.sum([across for across, _ in found], axis=0)
            vector /= np.linalg.norm(vector)
            places.update(place for _, place in found)
    expected = np.linalg.svd(whole, full_matrices=False)[2][0]
    expected *= np.sign(vector @ expected)
    print(f"distance to what numpy finds: {np.linalg.norm(vector - expected):.1e}")
    print("computed in", *sorted(places), sep="\n  ")
