"""How Ray and DragonHPC are measured, through their public interfaces."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .ours import WARM, Sample, expect
from .sizes import Sizes

STORE = 2 << 30
"""Bytes of Ray's object store."""


def ray_node(sizes: Sizes) -> Iterator[Sample]:
    """Ray on one node: puts whose references are dropped, so that they are warm too."""
    import numpy as np
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=STORE)
    try:
        source, small = np.arange(sizes.large // 8, dtype=np.float64), np.arange(1024 // 8, dtype=np.float64)
        puts = [_put(ray, source) for _ in range(sizes.counts + 3)][3:]
        yield "put-64mib", "ray", statistics.median(puts) * 1e3
        trips = [_put_get(ray, small) for _ in range(sizes.small_counts // 2 + 5)][5:]
        yield "put-get-1kib", "ray", statistics.median(trips) * 1e6
    finally:
        ray.shutdown()


def _put(ray: Any, source: Any) -> float:
    begin = time.perf_counter()
    ref = ray.put(source)
    seconds = time.perf_counter() - begin
    expect("Ray's put", bool(ray.get(ref)[-1] == source[-1]))
    return seconds


def _put_get(ray: Any, small: Any) -> float:
    begin = time.perf_counter()
    back = ray.get(ray.put(small))
    seconds = time.perf_counter() - begin
    expect("Ray's put and get", bool(back[-1] == small[-1]))
    return seconds


def ray_far(sizes: Sizes) -> Iterator[Sample]:
    """Ray between two raylets on this machine: results of the second one, made before the get."""
    import numpy as np
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    cluster.add_node(num_cpus=1, object_store_memory=STORE, include_dashboard=False)
    cluster.add_node(num_cpus=1, object_store_memory=STORE, resources={"far": 1})
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        make = ray.remote(resources={"far": 1})(_ones)

        def once() -> float:
            ref = make.remote(sizes.large)
            ray.wait([ref], fetch_local=False)
            begin = time.perf_counter()
            got = ray.get(ref)
            seconds = time.perf_counter() - begin
            expect("Ray's get", got.nbytes == sizes.large and bool(np.all(got[-2:] == 1)))
            return seconds

        yield "far-64mib", "ray", statistics.median([once() for _ in range(sizes.counts + WARM)][WARM:]) * 1e3
    finally:
        ray.shutdown()
        cluster.shutdown()


def _ones(size: int) -> Any:
    import numpy as np

    return np.ones(size, np.uint8)


def dragon_node(sizes: Sizes) -> Iterator[Sample]:
    """DragonHPC's DDict on one node, under its own launcher."""
    launcher = Path(sys.executable).parent / "dragon"
    script = Path(__file__).with_name("with_dragon.py")
    command = [str(launcher), "-s", str(script), str(sizes.dragon_counts)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": ""})
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"microseconds"')]
    if not lines:
        raise RuntimeError(f"dragon ended with {done.returncode}: {(done.stdout + done.stderr)[-400:]}")
    yield "put-get-1kib", "dragon", json.loads(lines[0])["microseconds"]
