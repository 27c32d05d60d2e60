"""How Bridgehead is measured, each time in turns with what the machine itself can do."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bridgehead as bh
import numpy as np

from . import plain
from .plain import in_turns, timed
from .sizes import AROUND, KIB, MIB, Sizes, repeats

WARM = 6
"""Large gets that do not count: releases are on their way while the next get begins, so several ranges take turns, and
each of them is cold once."""
Sample = tuple[str, str, float]
"""A row's key, who reached it, the figure."""


class WrongResult(Exception):
    """The store gave other bytes than were put."""


def expect(what: str, right: bool) -> None:
    """Fails the turn if something is wrong."""
    if not right:
        raise WrongResult(what)


def _both(row: str, factor: float, figures: tuple[float, float]) -> Iterator[Sample]:
    yield row, "bridgehead", figures[0] * factor
    yield row, "plain", figures[1] * factor


def node(sizes: Sizes) -> Iterator[Sample]:
    """Rows of one node."""
    with bh.Executor(2, store=sizes.store):
        source = np.arange(sizes.large // 8, dtype=np.float64)
        warm = source.copy()
        yield from _both("put-64mib", 1e3, in_turns(lambda: _put(source), lambda: _copy(warm, source), sizes.counts))
        created = in_turns(lambda: _create(sizes.large // 8), lambda: timed(lambda: warm.fill(2.0)), sizes.counts)
        yield from _both("create-64mib", 1e3, created)
        small = np.arange(1024 // 8, dtype=np.float64)
        yield "put-get-1kib", "bridgehead", statistics.median(_put_get(small) for _ in range(sizes.small_counts)) * 1e6
        yield from _writable(source, sizes)


def _put(source: Any) -> float:
    """Seconds of a put; its reference is dropped, so that the next one can use the memory again."""
    begin = time.perf_counter()
    ref = bh.put(source)
    seconds = time.perf_counter() - begin
    back = bh.get(ref)
    expect("put", back.nbytes == source.nbytes and back[-1] == source[-1])
    return seconds


def _copy(into: Any, source: Any) -> float:
    return timed(lambda: np.copyto(into, source))


def _create(count: int) -> float:
    begin = time.perf_counter()
    draft = bh.create(count)
    draft.array.fill(2.0)
    ref = draft.seal()
    seconds = time.perf_counter() - begin
    back = bh.get(ref)
    expect("create", len(back) == count and back[0] == back[-1] == 2.0)
    return seconds


def _put_get(small: Any) -> float:
    begin = time.perf_counter()
    back = bh.get(bh.put(small))
    seconds = time.perf_counter() - begin
    expect("put and get", back[-1] == small[-1])
    return seconds


def _writable(source: Any, sizes: Sizes) -> Iterator[Sample]:
    ref = bh.put(source)
    view = bh.get(ref)

    def touched() -> float:
        begin = time.perf_counter()
        mine = bh.get(ref, writable=True)
        mine[0] = -1.0
        return time.perf_counter() - begin

    def copied() -> float:
        begin = time.perf_counter()
        mine = view.copy()
        mine[0] = -1.0
        return time.perf_counter() - begin

    yield from _both("writable-64mib", 1e3, in_turns(touched, copied, sizes.counts))
    expect("nobody else sees what is written", bool(view[0] == 0.0))


def _read(array: Any, begin_at: float, passes: int) -> tuple[float, float]:
    """A reader: goes through an array once to map it, waits for the others, goes through it again: when it began and ended."""
    buffer = np.empty(MIB // 8)
    plain.read_through(array, buffer)
    time.sleep(max(0.0, begin_at - time.monotonic()))
    begin = time.monotonic()
    for _ in range(passes):
        plain.read_through(array, buffer)
    return begin, time.monotonic()


def _rate(times: list[tuple[float, float]], nbytes: int) -> float:
    """GB/s of all readers together, from the first one's begin to the last one's end."""
    return len(times) * nbytes / (max(end for _, end in times) - min(begin for begin, _ in times)) / 1e9


def readers(sizes: Sizes) -> Iterator[Sample]:
    """Many processes that read one object at once."""
    count, passes = sizes.readers, 2
    cores = len(os.sched_getaffinity(0))
    own = np.ones(sizes.huge // 8)
    with bh.Executor(count, store=sizes.store) as executor, concurrent.futures.ThreadPoolExecutor(count) as threads:
        ref = bh.put(own)

        def run(many: int) -> float:
            begin_at = time.monotonic() + 0.3
            futures = [executor.submit(_read, ref, begin_at, passes) for _ in range(many)]
            return _rate([future.result() for future in futures], sizes.huge * passes)

        def run_plain(many: int) -> float:
            begin_at = time.monotonic() + 0.3
            futures = [threads.submit(_read, own, begin_at, passes) for _ in range(many)]
            return _rate([future.result() for future in futures], sizes.huge * passes)

        for many in (count, 1):
            run(many)  # Starts the workers and maps the object in each.
        figures = [(run(count), run_plain(count), run(1)) for _ in range(3)]
        together, limit, alone = (statistics.median(each) for each in zip(*figures, strict=True))
    yield "readers", "bridgehead", together
    yield "readers", "plain", limit
    yield "readers-one", "bridgehead", together
    yield "readers-one", "plain", alone * min(cores, count)


def _stay(free: str) -> int:
    """Keeps the first agent's only core until a file is there; returns at once on any other."""
    while bh.current().node == 0 and not os.path.exists(free):
        time.sleep(0.005)
    return bh.current().node


def _ones(size: int) -> Any:
    """An array of bytes, made on the other node: an object that was put here first would still be here."""
    if bh.current().node == 0:
        raise RuntimeError("it was to be made on the other node")
    return np.ones(size, np.uint8)


class Far:
    """Two agents of one core, the driver on the first one's node; arrays are made on the second one's, since a call that does
    not end has the first one's core."""

    def __init__(self, store: str) -> None:
        self._executor = bh.Executor(2, agents=2, store=store)
        self._folder = tempfile.TemporaryDirectory(prefix="bs-")
        self._free = os.path.join(self._folder.name, "free")
        # One of two that run at once is on the first agent, and stays there.
        self._staying = [self._executor.submit(_stay, self._free) for _ in range(2)]
        try:
            for future in concurrent.futures.wait(self._staying, None, concurrent.futures.FIRST_COMPLETED).done:
                expect("a call runs on each agent", future.result() == 1)
        except BaseException:
            self.close()
            raise

    def put(self, size: int) -> bh.ShardedArray:
        """An array of bytes in one part on the other node."""
        there = bh.ShardedArray.from_parts([self._executor.submit(_ones, size)])
        expect("it lies on the other node", there.placement == [1])
        return there

    def whole(self, size: int) -> float:
        """Seconds of the get of an object that was not here before."""
        future = self._executor.submit(_ones, size)
        concurrent.futures.wait([future])
        begin = time.perf_counter()
        got = future.result()
        seconds = time.perf_counter() - begin
        expect("get from the other node", got.nbytes == size and got[0] == got[-1] == 1)
        return seconds

    def close(self) -> None:
        """Ends the run."""
        Path(self._free).touch()
        self._executor.shutdown()
        self._folder.cleanup()


def slice_of(array: bh.ShardedArray, size: int) -> float:
    """Seconds of a read of the first bytes of an array on the other node."""
    begin = time.perf_counter()
    got = array[:size]
    seconds = time.perf_counter() - begin
    expect("slice from the other node", len(got) == size and got[-1] == 1)
    return seconds


def far(sizes: Sizes) -> Iterator[Sample]:
    """Gets from another agent against blocking sockets."""
    both = Far(sizes.store)
    try:
        with plain.Tcp(sizes.large) as tcp:
            large = in_turns(
                lambda: both.whole(sizes.large), lambda: timed(lambda: tcp.get(sizes.large)), sizes.counts, WARM
            )
            yield from _both("far-64mib", 1e3, large)
            array = both.put(MIB)
            trips = in_turns(lambda: slice_of(array, KIB), lambda: timed(lambda: tcp.get(KIB)), sizes.small_counts)
            yield from _both("far-1kib", 1e6, trips)
    finally:
        both.close()


def curve(sizes: Sizes) -> Iterator[Sample]:
    """Gets of all sizes: whole objects where they are large enough to be some, slices of a large one, plain sockets."""
    found: dict[str, dict[int, float]] = {"whole": {}, "slice": {}, "plain": {}}
    both = Far(sizes.store)
    try:
        with plain.Tcp(max(sizes.curve)) as tcp:
            array = both.put(max(sizes.curve) + MIB)
            for size in sizes.curve:
                for kind, seconds in _point(both, array, tcp, size).items():
                    found[kind][size] = seconds
                    yield f"curve/{kind}/{size}", "bridgehead", seconds
    finally:
        both.close()
    for row, kind in (("dip-whole", "whole"), ("dip-slice", "slice")):
        near = [(size, seconds) for size, seconds in found[kind].items() if AROUND[0] <= size <= AROUND[-1]]
        yield row, "bridgehead", dip(near)
        yield row, "plain", dip([(size, found["plain"][size]) for size, _ in near])


def dip(points: list[tuple[int, float]]) -> float:
    """The least bandwidth of a size over that of its smaller neighbour."""
    speeds = [size / seconds for size, seconds in sorted(points)]
    return min((later / earlier for earlier, later in itertools.pairwise(speeds)), default=1.0)


def _point(both: Far, array: bh.ShardedArray, tcp: plain.Tcp, size: int) -> dict[str, float]:
    """Medians of one size, in turns."""
    calls: dict[str, Callable[[], float]] = {
        "slice": lambda: slice_of(array, size),
        "plain": lambda: timed(lambda: tcp.get(size)),
    }
    if size > 20 * KIB:
        calls["whole"] = lambda: both.whole(size)
    warm = 1 if size < MIB else WARM if size <= 64 * MIB else 2
    turns = [{kind: call() for kind, call in calls.items()} for _ in range(repeats(size) + warm)][warm:]
    return {kind: statistics.median(turn[kind] for turn in turns) for kind in calls}
