"""Ray: remote functions and its object store, on this machine, without its dashboard."""

from __future__ import annotations

from typing import Any

import ray

from ..tasks import ends, identity
from . import WORKERS, System

STORE = 2 << 30
"""Bytes of its object store."""


class Ray(System):
    name = "ray"

    def open(self) -> None:
        ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, object_store_memory=STORE)
        self._identity = ray.remote(identity)
        self._ends = ray.remote(ends)

    def close(self) -> None:
        ray.shutdown()

    def submit(self, count: int) -> list[int]:
        remote = self._identity.remote
        results: list[int] = ray.get([remote(i) for i in range(count)])
        return results

    def one(self, number: int) -> int:
        result: int = ray.get(self._identity.remote(number))
        return result

    def put(self, array: Any) -> Any:
        return ray.put(array)

    def get(self, ref: Any) -> Any:
        return ray.get(ref)

    def read(self, ref: Any) -> float:
        result: float = ray.get(self._ends.remote(ref))
        return result


SYSTEM = Ray
