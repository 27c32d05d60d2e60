"""How each group of rows is measured on a system that is open. Every result is checked."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from .processes import cpu_seconds
from .systems import System, Unsupported

CHUNK = 64
Sample = tuple[str, float | Exception]
"""A row's key and its figure, or why it failed."""


class WrongResult(Exception):
    """A system gave another result than it must."""


@dataclass(frozen=True)
class Sizes:
    """How much of it.

    Attributes:
        tasks: by system: enough for about a second each, so that the slow ones do not take minutes.
    """

    tasks: dict[str, int]
    trips: int
    programs: int
    puts: int
    small_puts: int
    large: int
    huge: int


FULL = Sizes(
    tasks={"bridgehead": 40_000, "pool": 10_000, "ray": 2_000, "dask": 1_000, "parsl": 500},
    trips=500,
    programs=3_000,
    puts=10,
    small_puts=1_000,
    large=64 << 20,
    huge=256 << 20,
)
QUICK = Sizes(tasks={}, trips=20, programs=20, puts=2, small_puts=20, large=1 << 20, huge=4 << 20)
FEW = 200
"""Tasks of a system that `Sizes.tasks` does not name, and to warm up with."""


def _expect(what: str, got: Any, wanted: Any) -> None:
    if got != wanted:
        raise WrongResult(f"{what}: got {str(got)[:100]}, not {str(wanted)[:100]}")


def _rate(run: Callable[[int], list[int]], count: int, what: str) -> float:
    gc.collect()
    begin = time.perf_counter()
    results = run(count)
    seconds = time.perf_counter() - begin
    _expect(what, results, list(range(count)))
    return count / seconds


def _supported(measure: Callable[[], float], key: str) -> Iterator[Sample]:
    """The sample, or nothing where the system has nothing of the kind."""
    try:
        yield key, measure()
    except Unsupported:
        return


def noop(system: System, sizes: Sizes) -> Iterator[Sample]:
    count = sizes.tasks.get(system.name, FEW)
    _rate(system.submit, FEW, "submit")
    before = cpu_seconds()
    yield "submit", _rate(system.submit, count, "submit")
    yield "cpu", (cpu_seconds() - before) / count * 1e6
    yield from _supported(lambda: _rate(lambda n: system.map(n, CHUNK), count, "map"), "map")
    yield from _supported(lambda: _rate(system.pipeline, count, "pipeline"), "pipeline")


def trip(system: System, sizes: Sizes) -> Iterator[Sample]:
    _rate(system.submit, FEW, "submit")

    def once(number: int) -> None:
        _expect("one", system.one(number), number)

    seconds = sorted(_timed(partial(once, i)) for i in range(sizes.trips))
    yield "trip-p50", statistics.median(seconds) * 1e6
    yield "trip-p99", seconds[len(seconds) * 99 // 100] * 1e6


def programs(system: System, sizes: Sizes) -> Iterator[Sample]:
    begin = time.perf_counter()
    ended = system.programs(sizes.programs)
    seconds = time.perf_counter() - begin
    _expect("programs", ended, sizes.programs)
    yield "true", sizes.programs / seconds


def store(system: System, sizes: Sizes) -> Iterator[Sample]:
    yield _tried("put-64mib", lambda: _put(system, sizes) * 1e3)
    yield _tried("put-get-1kib", lambda: _put_get(system, sizes) * 1e6)
    yield _tried("read-256mib", lambda: _read(system, sizes) * 1e3)


def _tried(key: str, measure: Callable[[], float]) -> Sample:
    """The sample, or why there is none: the rows after it are measured all the same."""
    try:
        return key, measure()
    except Unsupported:
        raise
    except Exception as error:
        return key, error


def _timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def _array(size: int) -> Any:
    import numpy as np

    return np.arange(size // 8, dtype=np.float64)


def _put(system: System, sizes: Sizes) -> float:
    """Seconds of a put, the median; each reference is dropped before the next put, so that memory can be used again."""
    array, seconds = _array(sizes.large), []
    for _ in range(sizes.puts + 2):
        begin = time.perf_counter()
        ref = system.put(array)
        seconds.append(time.perf_counter() - begin)
        back = system.get(ref)
        _expect("put", (back.nbytes, float(back[-1])), (array.nbytes, float(array[-1])))
        del ref, back
    return statistics.median(seconds[2:])


def _put_get(system: System, sizes: Sizes) -> float:
    array = _array(1024)

    def once() -> None:
        back = system.get(system.put(array))
        _expect("put and get", float(back[-1]), float(array[-1]))

    once()
    return statistics.median(_timed(once) for _ in range(sizes.small_puts))


def _read(system: System, sizes: Sizes) -> float:
    array = _array(sizes.huge)
    ref = system.put(array)
    wanted = float(array[0] + array[-1])

    def once() -> None:
        _expect("read", system.read(ref), wanted)

    for _ in range(4):
        once()  # Both workers have seen it now, or will not.
    return statistics.median(_timed(once) for _ in range(sizes.puts))


MEASURES: dict[str, Callable[[System, Sizes], Iterator[Sample]]] = {
    "noop": noop,
    "trip": trip,
    "programs": programs,
    "store": store,
}
ALONE = ("programs",)
"""Groups that start what they need themselves: the system's workers are not started for them."""
