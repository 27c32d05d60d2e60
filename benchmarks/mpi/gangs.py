"""Starts of gangs and traffic inside them, in turns with mpiexec."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bridgehead as bh
from store.plain import in_turns, timed

from . import programs
from .sizes import Sizes

Sample = tuple[str, str, float]
"""A row's key without its MPI, who reached it, the figure."""
RANKS = 4
"""Of a gang whose start is measured."""
TOGETHER = 2
"""Gangs of two ranks that run at a time where all are given at once."""
MIB = 1 << 20


def _nothing(comm: Any) -> int:
    """A function of ranks that only looks how many they are."""
    return int(comm.size)


def _both(row: str, factor: float, figures: tuple[float, float]) -> Iterator[Sample]:
    yield row, "bridgehead", figures[0] * factor
    yield row, "mpiexec", figures[1] * factor


def start(family: str, sizes: Sizes) -> Iterator[Sample]:
    """Gangs that start and end, in a run that is warm; from the submission to the value."""
    with tempfile.TemporaryDirectory() as folder, bh.Executor(RANKS) as pool:
        program = programs.build(family, "nothing", Path(folder))
        script = programs.HERE / "nothing.py"
        scripted = programs.mpiexec(family, RANKS, sys.executable, script, wheel=True)
        gangs: tuple[tuple[str, Any, list[str]], ...] = (
            ("start-c", bh.program(str(program), ranks=RANKS), programs.mpiexec(family, RANKS, program)),
            ("start-function", bh.mpi(ranks=RANKS)(_nothing), scripted),
            ("start-script", bh.program(f"{sys.executable} {script}", ranks=RANKS), scripted),
        )
        for row, gang, words in gangs:
            figures = in_turns(_submitted(pool, gang), _started(words), sizes.starts)
            yield from _both(row, 1e3, figures)


def _submitted(pool: bh.Executor, gang: Any) -> Callable[[], float]:
    return lambda: timed(lambda: pool.submit(gang).result(120))


def _started(words: list[str]) -> Callable[[], float]:
    return lambda: timed(lambda: programs.run(words))


def many(family: str, sizes: Sizes) -> Iterator[Sample]:
    """Small gangs: one after another against a loop of mpiexec, and all at once against as many of mpiexec as run at a time."""
    with (
        tempfile.TemporaryDirectory() as folder,
        bh.Executor(2 * TOGETHER) as pool,
        ThreadPoolExecutor(TOGETHER) as threads,
    ):
        program = programs.build(family, "nothing", Path(folder))
        gang, words = bh.program(str(program), ranks=2), programs.mpiexec(family, 2, program)
        chunks = min(10, sizes.many)
        each = sizes.many // chunks

        def ours_at_once() -> None:
            for future in [pool.submit(gang) for _ in range(each * 2)]:
                future.result(120)

        def theirs_at_once() -> None:
            list(threads.map(programs.run, [words] * (each * 2)))

        def loop(call: Callable[[], object]) -> float:
            def chunk() -> None:
                for _ in range(each):
                    call()

            return timed(chunk)

        serial = [
            (loop(lambda: pool.submit(gang).result(120)), loop(lambda: programs.run(words))) for _ in range(chunks)
        ]
        yield from _both("many-serial", 1e3, _per(serial, each * chunks))
        at_once = [(timed(ours_at_once), timed(theirs_at_once)) for _ in range(max(1, chunks // 2))]
        yield from _both("many-at-once", 1e3, _per(at_once, 2 * each * len(at_once)))


def _per(seconds: list[tuple[float, float]], count: int) -> tuple[float, float]:
    return sum(ours for ours, _ in seconds) / count, sum(theirs for _, theirs in seconds) / count


def traffic(family: str, sizes: Sizes) -> Iterator[Sample]:
    """Messages between two ranks, bound to the same processors in both.

    Raises:
        RuntimeError: they were not bound alike.
    """
    with tempfile.TemporaryDirectory() as folder, bh.Executor(2) as pool:
        program = programs.build(family, "traffic", Path(folder))
        gang = bh.program(f"{program} {sizes.batches}", ranks=2)
        words = programs.mpiexec(family, 2, program, sizes.batches, bind=True)
        calls: tuple[Callable[[], str], ...] = (
            lambda: pool.submit(gang).result(120).stdout,
            lambda: programs.run(words),
        )
        turns = [tuple(json.loads(call()) for call in calls) for _ in range(sizes.traffic)]
    bound = {tuple(found["bound"]) for turn in turns for found in turn}
    if len(bound) != 1:
        raise RuntimeError(f"ranks were not always bound to the same processors (as bits): {sorted(bound)}")
    for row in ("trip-small", "trip-large", "reduce-small", "reduce-large"):
        ours, theirs = (statistics.median(turn[side][row.replace("-", "_")] for turn in turns) for side in (0, 1))
        if row == "trip-large":  # Twice the bytes in a round trip.
            ours, theirs = (2 * MIB / micros / 1e3 for micros in (ours, theirs))
        yield from _both(row, 1.0, (ours, theirs))
