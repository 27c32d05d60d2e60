"""The systems under test. Each is a small class with the same methods; what one cannot do raises `Unsupported`."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, ClassVar

WORKERS = 2
"""Worker processes that each system gets."""

MODULES = {"bridgehead": "bridgehead", "pool": "", "xargs": "", "ray": "ray", "dask": "distributed", "parsl": "parsl"}
"""Every system with the module without which it is skipped."""


class Unsupported(Exception):
    """The system has nothing of the kind: no row, no failure."""


class System:
    """One system with two workers. A method returns when all its work is done, with results that can be checked."""

    name: ClassVar[str]

    def open(self) -> None:
        """Starts it."""

    def close(self) -> None:
        """Ends it with all its processes."""

    def submit(self, count: int) -> list[int]:
        """`identity` of 0 to `count`, a call each."""
        raise self._lacks("calls of Python functions")

    def map(self, count: int, chunk: int) -> list[int]:
        """The same through its bulk operation; in chunks, if it knows them."""
        raise self._lacks("a bulk operation")

    def pipeline(self, count: int) -> list[int]:
        """The same as a graph that is built, run and read, from nothing to the last result."""
        raise self._lacks("pipelines")

    def one(self, number: int) -> int:
        """One call, there and back."""
        raise self._lacks("calls of Python functions")

    def programs(self, count: int) -> int:
        """Runs `/bin/true` as often; how many ended well."""
        raise self._lacks("programs as tasks")

    def put(self, array: Any) -> Any:
        """Stores an array; a reference."""
        raise self._lacks("a store")

    def get(self, ref: Any) -> Any:
        """The array of a reference."""
        raise self._lacks("a store")

    def read(self, ref: Any) -> float:
        """`ends` of a stored array, as a task."""
        raise self._lacks("a store")

    def version(self) -> str:
        """What was measured."""
        return importlib.import_module(MODULES[self.name]).__version__ if MODULES[self.name] else ""

    def _lacks(self, what: str) -> Unsupported:
        return Unsupported(f"{self.name} has no {what}")


def is_here(name: str) -> bool:
    """Whether the system can be measured in this environment."""
    return not MODULES[name] or importlib.util.find_spec(MODULES[name]) is not None


def load(name: str) -> System:
    """The system called `name`."""
    module = importlib.import_module(f"versus.systems.{name}")
    system: System = module.SYSTEM()
    return system
