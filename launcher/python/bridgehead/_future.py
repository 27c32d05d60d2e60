"""The future of a task: a `concurrent.futures.Future` that costs little until somebody waits on it.

A standard future makes a condition, a lock and two lists at its birth, several microseconds. Here they are made when
first asked for. That is safe because of two facts: `dict.setdefault` is atomic, so two threads get the same condition;
and the extension completes a future that nobody has asked for its condition in one step, without running Python code in
between (`futures.rs`). Who asks sets `_waited` first and looks at the state after it has the condition, so either the
extension sees `_waited` or the asker sees that the future is done.
"""

from __future__ import annotations

import concurrent.futures
import threading
import time
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from ._bridgehead import Client, Guest, Raw, Worker

T = TypeVar("T")

_looking = threading.RLock()
"""Held for the moment in which a future takes over its unpacked answer. Re-entrant, for signal handlers that look too."""


class Future(concurrent.futures.Future[T], Generic[T]):
    """The result of a task, once it is there."""

    _state: str = PENDING
    _result: T | None = None
    _exception: BaseException | None = None
    _raw: Raw | None = None
    _waited: bool = False
    _owner: Client | Worker | Guest | None = None
    _token: int = -1
    _version: int = 0
    _name: str = ""
    _original: bool = False
    _own: bool = False
    """The value's arrays are to be this process's own, not views."""

    def __init__(self) -> None:  # Without the standard one: see above.
        pass

    def __getattr__(self, name: str) -> Any:
        if name == "_condition":
            self._waited = True
            return self.__dict__.setdefault(name, threading.Condition())
        if name in ("_waiters", "_done_callbacks"):
            return self.__dict__.setdefault(name, [])
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def done(self) -> bool:
        return self._state in (FINISHED, CANCELLED, CANCELLED_AND_NOTIFIED)

    def cancelled(self) -> bool:
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def running(self) -> bool:
        return False  # A task that is being run can still be cancelled, which `running` denies.

    def result(self, timeout: float | None = None) -> T:
        if self._raw is not None:
            self._look()
        elif self._state == PENDING:
            self._settle(timeout)
        if self._state == FINISHED:
            if self._exception is not None:
                try:
                    raise self._exception
                finally:
                    del self  # Breaks the cycle of exception, traceback and frame, as the standard library does.
            return self._result  # type: ignore[return-value]
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._settle(timeout)
        return super().exception(0)

    def cancel(self) -> bool:
        """Cancels the task, also when it is being run already. `False` if it is done."""
        if not super().cancel():
            return False
        if self._owner is not None and self._state == CANCELLED:
            self._owner.forget(self._token)
            self._owner.cancel([self._token], "its future was cancelled")
            self.set_running_or_notify_cancel()
        return True

    def _settle(self, timeout: float | None) -> None:
        """Waits for the answer and unpacks it; raises as the standard future does where there is none."""
        if self._state == PENDING:
            end = None if timeout is None else time.monotonic() + timeout
            if self._owner is not None:
                self._owner.wait(self, timeout)  # This thread reads answers itself, unless another one does.
            if self._state == PENDING:
                super().exception(None if end is None else max(0.0, end - time.monotonic()))
        if self._raw is not None:
            self._look()

    def _look(self) -> None:
        """Unpacks the answer. Two threads may do so at once; what the first one found is the result of both."""
        raw = self._raw
        if raw is None:
            return
        result: Any = None
        exception: BaseException | None = None
        if raw.version:
            self._version = raw.version
        if raw.kind == "value":
            try:
                if raw.away and self._owner is not None:
                    result = self._fetch(self._owner, raw)
                else:
                    result = raw.value(self._own)
            except BaseException as error:
                exception = error
        else:
            from . import _failures

            fields = raw.failure()
            if fields is not None:
                exception = _failures.to_exception(fields, self._name, original=self._original)
        with _looking:
            if self._raw is not None:
                self._result, self._exception, self._raw = result, exception, None

    def _fetch(self, owner: Client | Worker | Guest, raw: Raw) -> Any:
        """The value of an answer that lies on another node."""
        from . import errors

        try:
            return owner.fetch(raw).result()
        except errors.ResultLost as error:
            name = self._name or f"t{self._token}"
            raise errors.ResultLost(f"the result of task {name} is lost: {error}") from None

    def _finish(self, raw: Raw) -> None:
        """Takes the answer; called by the extension when somebody may be waiting."""
        with self._condition:
            if self._state != PENDING:
                return
            if raw.kind == "cancelled":
                self._state = CANCELLED_AND_NOTIFIED
            else:
                self._raw = raw
                self._state = FINISHED
            for waiter in self._waiters:
                if raw.kind == "cancelled":
                    waiter.add_cancelled(self)
                elif raw.kind == "value":
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
            self._condition.notify_all()
        self._invoke_callbacks()

    def __reduce__(self) -> tuple[Any, ...]:
        """As an argument of a task: arrives there as the value. Within one connection the value is not waited for."""
        from . import _bridgehead

        number = None
        if self._owner is not None:
            number = _bridgehead.note_task(self._owner, self._token)
        if number is None:
            from ._refs import Ref

            kept = self.__dict__.get("_kept")
            if kept is None:
                kept = self.__dict__["_kept"] = Ref(_bridgehead.keep_here(self.result()))
            return kept.__reduce__()
        if number is None:
            raise TypeError("a future can only be an argument of a task: take its result first")
        return (_bridgehead._input, (number,))

    def __repr__(self) -> str:
        state = {FINISHED: "finished", PENDING: "pending"}.get(self._state, "cancelled")
        return f"<bridgehead.Future {self._name or self._token} {state}>"
