"""Bridgehead: the Executor, and pipelines of functions and programs."""

from __future__ import annotations

from typing import Any

import bridgehead as bh

from ..tasks import ends, identity
from . import WORKERS, System


class Bridgehead(System):
    name = "bridgehead"

    def open(self) -> None:
        self._executor = bh.Executor(WORKERS)

    def close(self) -> None:
        self._executor.shutdown()

    def submit(self, count: int) -> list[int]:
        submit = self._executor.submit
        return [future.result() for future in [submit(identity, i) for i in range(count)]]

    def map(self, count: int, chunk: int) -> list[int]:
        return list(self._executor.map(identity, range(count), chunksize=chunk))

    def pipeline(self, count: int) -> list[int]:
        pipeline = bh.Pipeline("noop")
        nodes = pipeline.map(bh.task(identity), range(count))
        run = pipeline.run(cpus=WORKERS)
        results = [run[node].result() for node in nodes]
        run.close()
        return results

    def one(self, number: int) -> int:
        return self._executor.submit(identity, number).result()

    def programs(self, count: int) -> int:
        pipeline = bh.Pipeline("true")
        true = bh.program("/bin/true")
        nodes = [pipeline.add(true) for _ in range(count)]
        run = pipeline.run(cpus=WORKERS)
        ended = sum(run[node].result().exit_code == 0 for node in nodes)
        run.close()
        return ended

    def put(self, array: Any) -> Any:
        return bh.put(array)

    def get(self, ref: Any) -> Any:
        return bh.get(ref)

    def read(self, ref: Any) -> float:
        return self._executor.submit(ends, ref).result()


SYSTEM = Bridgehead
