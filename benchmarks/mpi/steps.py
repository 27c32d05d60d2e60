"""Steps of a simulation on two ranks that are handed to a Python task while it runs: by the store, and by files as it is done without
one. The ranks are a gang each time, and so is who reads; only the way differs."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bridgehead as bh
import numpy as np

from .gangs import Sample
from .sizes import Sizes

RANKS = 2
Field = np.ndarray[Any, np.dtype[np.float64]]
WAYS = {"bridgehead": "store", "tmpfs": "files", "disk": "files", "gather": "gather"}
"""How each peer of the row does it. What is gathered is written to disk."""


def _produce(comm: Any, way: str, mark: str, steps: int, size: int) -> float:
    """Hands its part of each step over, by this way; when the first step began. All of its array changes between two steps."""
    field = np.full(size // 8 // comm.size, float(comm.rank))
    whole = np.empty(size // 8) if way == "gather" and comm.rank == 0 else None
    comm.Barrier()
    begin = time.monotonic()
    if way == "store":
        with bh.store().stream(f"{mark}.{comm.rank}", keep=2, block=True) as stream:
            for _ in range(steps):
                field += 1
                stream.put(field)
        return begin
    for step in range(steps):
        field += 1
        if way == "files":
            _save(f"{mark}.{comm.rank}.{step}", field)
            continue
        comm.Gather(field, whole, root=0)
        if whole is not None:
            _save(f"{mark}.0.{step}", whole)
    return begin


def _save(path: str, field: Field) -> None:
    """A file that is whole once it has its name."""
    with open(f"{path}.part", "wb") as file:
        np.save(file, field)
    os.rename(f"{path}.part", path)


def _load(path: str) -> Field:
    """Waits for a file, reads it and removes it."""
    while not os.path.exists(path):
        time.sleep(0.0005)
    field: Field = np.load(path)
    os.unlink(path)
    return field


def _consume(way: str, mark: str, steps: int, size: int) -> float:
    """Takes all steps and goes through each once; when the last one had been.

    Raises:
        ValueError: a step was missing, or had other numbers than it should.
    """
    parts = 1 if way == "gather" else RANKS
    sums = []
    if way == "store":
        watches = [bh.store().watch(f"{mark}.{rank}", start=1, timeout=60) for rank in range(parts)]
        for each in zip(*watches, strict=True):
            sums.append(sum(float(part.sum()) for _, part in each))
    else:
        for step in range(steps):
            sums.append(sum(float(_load(f"{mark}.{rank}.{step}").sum()) for rank in range(parts)))
    end = time.monotonic()
    half = size // 8 // RANKS
    if sums != [half * (2 * step + 3) for step in range(steps)]:
        raise ValueError(f"{way}: {len(sums)} steps came, or not with their numbers")
    return end


def steps(sizes: Sizes) -> Iterator[Sample]:
    """All ways in turns; from the first step's begin to the last one's end, by step."""
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as memory,
        tempfile.TemporaryDirectory() as disk,
        bh.Executor(RANKS + 1) as pool,
    ):
        produce: Any = bh.mpi(ranks=RANKS)(_produce)
        consume: Any = bh.task(_consume)

        def hand_over(peer: str, turn: int) -> float:
            mark = f"step{turn}" if peer == "bridgehead" else str(Path(memory if peer == "tmpfs" else disk, "step"))
            asked: tuple[Any, ...] = (WAYS[peer], mark, sizes.steps, sizes.step)
            taken = pool.submit(consume, *asked)
            begin: float = pool.submit(produce, *asked).result(120)
            return float(taken.result(120)) - begin

        turns = [{peer: hand_over(peer, turn) for peer in WAYS} for turn in range(sizes.ways + 1)][1:]
    for peer in WAYS:
        yield "steps", peer, statistics.median(turn[peer] for turn in turns) / sizes.steps * 1e3
