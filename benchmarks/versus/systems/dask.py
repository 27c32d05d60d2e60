"""Dask: `distributed` with a local cluster of worker processes, without its dashboard."""

from __future__ import annotations

from typing import Any

from distributed import Client, LocalCluster

from ..tasks import ends, identity
from . import WORKERS, System


class Dask(System):
    name = "dask"

    def open(self) -> None:
        self._cluster = LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
        )
        self._client = Client(self._cluster)

    def close(self) -> None:
        self._client.close()
        self._cluster.close()

    def submit(self, count: int) -> list[int]:
        submit = self._client.submit
        results: list[int] = self._client.gather([submit(identity, i, pure=False) for i in range(count)])
        return results

    def map(self, count: int, chunk: int) -> list[int]:
        results: list[int] = self._client.gather(self._client.map(identity, range(count), pure=False))
        return results

    def one(self, number: int) -> int:
        result: int = self._client.submit(identity, number, pure=False).result()
        return result

    def put(self, array: Any) -> Any:
        return self._client.scatter(array, hash=False)

    def get(self, ref: Any) -> Any:
        return ref.result()

    def read(self, ref: Any) -> float:
        result: float = self._client.submit(ends, ref, pure=False).result()
        return result


SYSTEM = Dask
