"""Tasks that add tasks to their run."""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeVar

from . import _context
from ._calls import Calls

if TYPE_CHECKING:
    from ._future import Future
    from ._task import Task

P = ParamSpec("P")
R = TypeVar("R")

_calls: Calls | None = None


def submit(task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
    """Adds a task to the run of the task that calls this. While its future is waited for, others use the waiting
    task's cores.

    Raises:
        RuntimeError: no task runs here.
    """
    return calls().submit_task(task, args, kwargs)


def calls() -> Calls:
    """The calls of the task that runs here.

    Raises:
        RuntimeError: no task runs here.
    """
    global _calls
    _context.current()
    if _calls is None:
        assert _context.here is not None  # Or `current` would have raised.
        _calls = Calls(_context.here.connection, original=False)
    return _calls
