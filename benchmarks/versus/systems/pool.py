"""The standard library's ProcessPoolExecutor. It has no store: the rows of the store leave it out."""

from __future__ import annotations

import platform
from concurrent.futures import ProcessPoolExecutor

from ..tasks import identity
from . import WORKERS, System


class Pool(System):
    name = "pool"

    def open(self) -> None:
        self._executor = ProcessPoolExecutor(WORKERS)

    def close(self) -> None:
        self._executor.shutdown()

    def submit(self, count: int) -> list[int]:
        submit = self._executor.submit
        return [future.result() for future in [submit(identity, i) for i in range(count)]]

    def map(self, count: int, chunk: int) -> list[int]:
        return list(self._executor.map(identity, range(count), chunksize=chunk))

    def one(self, number: int) -> int:
        return self._executor.submit(identity, number).result()

    def version(self) -> str:
        return f"Python {platform.python_version()}"


SYSTEM = Pool
