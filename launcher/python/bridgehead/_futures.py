"""Futures: real `concurrent.futures.Future` objects that are cheap to make and that unpack their value when asked.

All futures of a session share one condition, because making one costs more than a small task does. What the standard
library does with a future's condition (`wait`, `as_completed`, `wrap_future`) works the same with a shared, re-entrant one.
Hot path: `Future.__init__` and `complete`, once a task.
"""

from __future__ import annotations

import concurrent.futures
import pickle
import time
from collections.abc import Callable
from concurrent.futures import _base  # pyright: ignore[reportPrivateUsage]
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from . import errors
from ._values import CANCELLED, FAILURE, FILE, INLINE, PROGRAM, STORED, Placeholder, unpack

if TYPE_CHECKING:
    from ._session import Session

R = TypeVar("R")

_PENDING = "PENDING"
_FINISHED = "FINISHED"
_CANCELLED = "CANCELLED_AND_NOTIFIED"
_DONE = frozenset((_FINISHED, _CANCELLED, "CANCELLED"))


class Future(Placeholder, concurrent.futures.Future[R], Generic[R]):
    """The outcome of a task. As an argument of another task it arrives there as the value."""

    def __init__(self, session: Session, token: int) -> None:
        # The base's own initialiser makes a condition, which is most of its cost.
        self._condition = session.condition
        self._state = _PENDING
        self._result: Any = None
        self._exception: BaseException | None = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Callable[..., Any]] = []
        self._session = session
        self._raw: tuple[int, Any] | None = None
        self.token = token

    def cancel(self) -> bool:
        """Asks for the task to be cancelled. `True` unless it has its outcome already."""
        if self._state in _DONE:
            return self._state != _FINISHED
        self._session.cancel([self.token])
        with self._condition:
            if self._state != _PENDING:
                return self._state != _FINISHED
            self._state = _CANCELLED
            for waiter in self._waiters:
                waiter.add_cancelled(self)
            self._condition.notify_all()
        self._invoke_callbacks()  # type: ignore[attr-defined]  # pyright: ignore
        return True

    def running(self) -> bool:
        """Whether the task is under way; only the head knows, so this is its last word."""
        return False

    def result(self, timeout: float | None = None) -> R:
        """The value, waiting up to ``timeout`` seconds for it.

        Raises:
            TaskError: the task failed.
            TaskCancelled: it was cancelled.
            TimeoutError: it has no outcome yet.
        """
        error = self.exception(timeout)
        if error is not None:
            try:
                raise error
            finally:
                del self, error  # A traceback that holds its own exception is a cycle.
        return self._result  # type: ignore[no-any-return]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The exception that the task ended with, `None` where it has a value; waits like `result`."""
        if self._state not in _DONE:
            self._session.wait_for(self, timeout)
        if self._state != _FINISHED:
            raise errors.TaskCancelled(f"task {self.token} was cancelled")
        raw = self._raw
        if raw is not None:
            self._open(raw)
        return self._exception

    def _open(self, raw: tuple[int, Any]) -> None:
        with self._condition:
            if self._raw is None:
                return  # Another thread was faster.
            kind, payload = raw
            if kind == INLINE:
                try:
                    self._result = unpack(payload)
                except Exception as error:  # noqa: BLE001 - whatever unpickling raises is the outcome
                    self._exception = error
            elif kind == FAILURE:
                self._exception = to_exception(payload)
            else:
                try:
                    self._result = self._session.load(kind, payload)
                except Exception as error:  # noqa: BLE001 - what cannot be loaded is the outcome
                    self._exception = error
            self._raw = None

    def __repr__(self) -> str:
        return f"<bridgehead.Future {self.token} {self._state.lower()}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Placeholder.__reduce__(self)


def complete(future: Future[Any], kind: int, payload: Any) -> bool:
    """Gives a future its outcome; the caller holds the shared condition and runs callbacks when this is `True`."""
    if future._state != _PENDING:
        return False  # Cancelled here before the outcome came.
    if kind == CANCELLED:
        future._state = _CANCELLED
        for waiter in future._waiters:
            waiter.add_cancelled(future)
    else:
        future._raw = (kind, payload)
        future._state = _FINISHED
        for waiter in future._waiters:
            # The waiter of `FIRST_EXCEPTION` counts failures apart.
            (waiter.add_exception if kind == FAILURE else waiter.add_result)(future)
    return bool(future._done_callbacks)


def run_callbacks(future: Future[Any]) -> None:
    """Runs what was added with `add_done_callback`."""
    future._invoke_callbacks()  # type: ignore[attr-defined]  # pyright: ignore


_CAUSES = {
    "worker-died": errors.WorkerDied,
    "worker-killed": errors.WorkerDied,
    "out-of-memory": errors.WorkerDied,
    "agent-lost": errors.WorkerDied,
    "timeout": errors.TaskTimeout,
    "upstream": errors.UpstreamFailed,
}


def to_exception(payload: tuple[Any, ...]) -> BaseException:
    """The exception of a failure: the task's own with its remote traceback where it could be sent, else a `TaskError`."""
    _, kind, message, traceback, pickled, exit_code, signal, root = payload
    make = _CAUSES.get(kind, errors.TaskError)
    remote: BaseException | None = None
    if pickled:
        try:
            remote = pickle.loads(pickled)
        except Exception:  # noqa: BLE001 - then its text must do
            remote = None
    if isinstance(remote, errors.BridgeheadError):
        return remote
    text = f"{kind}: {message}" if remote is not None or traceback else message
    error = make(text, kind=kind, remote_traceback=traceback, exit_code=exit_code, signal=signal, task=root)
    error.__cause__ = remote
    return error


def deadline_of(timeout: float | None) -> float | None:
    """When a wait that begins now is over."""
    return None if timeout is None else time.monotonic() + timeout


__all__ = ["FILE", "PROGRAM", "STORED", "Future", "_base", "complete", "deadline_of", "run_callbacks", "to_exception"]
