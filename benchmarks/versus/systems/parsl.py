"""Parsl with its HighThroughputExecutor, which its documentation names for more than one core of a machine."""

from __future__ import annotations

import os

import parsl
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

from ..tasks import identity
from . import WORKERS, System


class Parsl(System):
    name = "parsl"

    def open(self) -> None:
        executor = HighThroughputExecutor(
            label="local",
            address="127.0.0.1",
            max_workers_per_node=WORKERS,
            provider=LocalProvider(init_blocks=1, max_blocks=1),
        )
        self._kernel = parsl.load(Config(executors=[executor], strategy="none", run_dir=os.path.join(os.getcwd(), "r")))
        self._identity = parsl.python_app(identity)

    def close(self) -> None:
        self._kernel.cleanup()
        parsl.clear()

    def submit(self, count: int) -> list[int]:
        app = self._identity
        return [future.result() for future in [app(i) for i in range(count)]]

    def one(self, number: int) -> int:
        result: int = self._identity(number).result()
        return result


SYSTEM = Parsl
