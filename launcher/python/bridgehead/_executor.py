"""`Executor`: a `concurrent.futures.Executor` whose workers are the agents' of a run. Hot path: `submit`, once a task."""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from ._futures import Future
from ._session import Session, agents_of, count_cpus, start_session
from ._task import Options, Program, Task, make_options

P = ParamSpec("P")
R = TypeVar("R")


def _chunk(function: Callable[..., R], items: list[tuple[Any, ...]]) -> list[R]:
    return [function(*item) for item in items]


class Executor(concurrent.futures.Executor):
    """Runs calls on workers that live as long as it does; a real `concurrent.futures.Executor`.

    Args:
        max_workers: workers in all; the cores of this machine where left out.
        agents: agents to share them, each with a store of its own.
        resources: site-named resources that each agent has.
        name: the run's name.
        options: what every submitted call asks for, see `Options`.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        agents: int = 1,
        resources: dict[str, int] | None = None,
        name: str = "executor",
        **options: Any,
    ) -> None:
        if max_workers is not None and max_workers < 1:
            raise ValueError(f"max_workers={max_workers}: give at least 1")
        self._workers = max_workers or count_cpus()
        self._options = make_options(Options(), options).to_spec() or None
        _, _, session = start_session(
            name, agents=agents_of(agents, self._workers, resources), attached=True
        )
        assert session is not None
        self._session: Session = session
        self._shutdown = False

    @property
    def run(self) -> str:
        """The id of the run, for `bridgehead status` and the like."""
        return self._session.run

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Calls ``fn`` on a worker. A `Task` brings its own options."""
        if self._shutdown:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if isinstance(fn, Task):
            options = {**(self._options or {}), **fn.task_options.to_spec()} or None
            return self._session.submit_call(fn.function, args, kwargs, options)
        if isinstance(fn, Program):
            options = {**fn.task_options.to_spec(), "program": fn.spec(kwargs)}
            return self._session.submit_program(options)
        return self._session.submit_call(fn, args, kwargs, self._options)

    def map(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[R]:
        """Like the built-in `map`, with ``chunksize`` calls a task; results come in order."""
        if chunksize < 1:
            raise ValueError(f"chunksize={chunksize}: give at least 1")
        deadline = None if timeout is None else time.monotonic() + timeout
        if chunksize == 1:
            futures: list[Future[Any]] = [self.submit(fn, *item) for item in zip(*iterables, strict=False)]
            return _results(futures, deadline)
        items = zip(*iterables, strict=False)
        call = fn.function if isinstance(fn, Task) else fn
        chunks = iter(lambda: list(itertools.islice(items, chunksize)), [])
        run = functools.partial(_chunk, call)
        session = self._session
        futures = [session.submit_call(run, (chunk,), {}, self._options) for chunk in chunks]
        return itertools.chain.from_iterable(_results(futures, deadline))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends the executor: after its calls, or with ``cancel_futures`` after those that run."""
        if self._shutdown:
            return
        self._shutdown = True
        session = self._session
        if cancel_futures:
            for future in list(session.futures.values()):
                future.cancel()
        if wait:
            for future in list(session.futures.values()):
                concurrent.futures.wait([future])
            session.close("drain")
        else:
            session.client.close_run("drain")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._shutdown = True
            self._session.close("cancel")
            return None
        self.shutdown(wait=True)
        return None


def _results(futures: list[Future[R]], deadline: float | None) -> Iterator[R]:
    try:
        futures.reverse()
        while futures:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            yield futures.pop().result(left)
    finally:
        for future in futures:
            future.cancel()
