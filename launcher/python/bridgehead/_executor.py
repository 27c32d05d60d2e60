"""The Executor: `concurrent.futures` over Bridgehead's workers."""

from __future__ import annotations

import atexit
import concurrent.futures
import itertools
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from . import _launch
from ._calls import Calls
from ._task import Program, Task, names_options

if TYPE_CHECKING:
    from ._future import Future

P = ParamSpec("P")
R = TypeVar("R")

_open: weakref.WeakSet[Executor] = weakref.WeakSet()


def _run_chunk(function: Callable[..., Any], chunk: list[tuple[Any, ...]]) -> list[Any]:
    return [function(*args) for args in chunk]


class Executor(concurrent.futures.Executor):
    """Runs calls in worker processes that live until `shutdown`.

    A task given to `submit` keeps its options. So does a program, ``submit(program, T=1.5)``, which runs as in a pipeline. A failed
    call raises what it raised there, as the standard library's executors do; its cause is a `TaskError` with the remote
    traceback. Other failures are `TaskError`s themselves.

    Args:
        max_workers: cores to use, one for each call at a time; all that this process may use if left out.
        agents: agents that share them; each has its own store and workers.
        resources: site-named resources that each agent has.
        name: for people, and the first part of the run's id.
        store: bytes that each agent's store may hold in memory, or a text like ``"8GiB"``; beyond it values go to disk.
        verify_objects: take a sum of each object of the store, and check it wherever its bytes are moved.
    """

    @names_options
    def __init__(
        self,
        max_workers: int | None = None,
        *,
        agents: int = 1,
        resources: dict[str, int] | None = None,
        name: str = "executor",
        store: int | str | None = None,
        verify_objects: bool = False,
    ) -> None:
        if max_workers is not None and max_workers < 1:
            raise ValueError(f"max_workers={max_workers}: give 1 or more, or None for all cores")
        _launch.only_if_run("an Executor")
        shares = _launch.share_out(agents, max_workers, resources, store)
        self._max_workers = sum(share["resources"]["cpu_millis"] for share in shares) // 1000
        self.run, self.folder, client = _launch.start(
            name, _launch.Asked(None, shares, verify_objects=verify_objects), attached=True
        )
        assert client is not None  # An attached run waits for its client.
        self._client = client
        self._calls = Calls(self._client, original=True)
        self._submit = self._calls.submit
        self._closed = False
        _open.add(self)

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Starts a call; its future. Futures of this Executor among the arguments arrive as their values."""
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if isinstance(fn, Task):
            return cast("Future[R]", self._calls.submit_task(fn, args, kwargs))
        if isinstance(fn, Program):
            if args or any(isinstance(value, concurrent.futures.Future) for value in kwargs.values()):
                raise TypeError(f"{fn!r} takes its values by name, and not as futures: give their results")
            return cast("Future[R]", self._calls.submit_program(fn.spec(kwargs), fn.task_options))
        return self._submit(fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[R]:
        """As the built-in `map`, the calls run at once and in parallel; `chunksize` of them travel together."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        end = None if timeout is None else time.monotonic() + timeout
        if chunksize == 1:
            return _results([self.submit(fn, *args) for args in zip(*iterables, strict=False)], end)
        plain = fn.function if isinstance(fn, Task) else fn
        calls = zip(*iterables, strict=False)
        chunks = iter(lambda: list(itertools.islice(calls, chunksize)), [])
        lists = _results([self.submit(_run_chunk, plain, chunk) for chunk in chunks], end)
        return itertools.chain.from_iterable(lists)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls; with `wait`, returns when those that were submitted are done and the workers are
        gone."""
        if self._closed:
            return
        self._closed = True
        _open.discard(self)
        if cancel_futures:
            for future in self._client.waiting():
                future.cancel()
        if wait:
            concurrent.futures.wait(self._client.waiting())
            self._client.close("drain")
        elif self._client.pending() == 0:
            self._client.close("drain")
        else:
            self._client.drain()  # The connection ends with the last future.

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        # Who interrupts a program does not want to wait for what it has queued.
        self.shutdown(wait=True, cancel_futures=kind is not None and issubclass(kind, KeyboardInterrupt))
        return None

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.shutdown(wait=False)


def _results(futures: list[Future[R]], end: float | None) -> Iterator[R]:
    try:
        futures.reverse()
        while futures:
            left = None if end is None else max(0.0, end - time.monotonic())
            yield futures.pop().result(left)
    finally:
        for future in futures:
            future.cancel()


def _close_all() -> None:
    """At the interpreter's end: calls that were submitted are done first, as the standard library's executors do it."""
    for executor in list(_open):
        executor.shutdown()


atexit.register(_close_all)
