"""The exceptions of Bridgehead. Everything that is expected to go wrong has one; anything else is a bug."""

from __future__ import annotations

__all__ = [
    "BridgeheadError",
    "ClosureTooLarge",
    "HeadLost",
    "PlanError",
    "ResultLost",
    "SchedulerError",
    "StoreFull",
    "StreamBroken",
    "StreamClosed",
    "TaskCancelled",
    "TaskError",
    "TaskTimeout",
    "UnknownName",
    "UnpicklableError",
    "UpstreamFailed",
    "VersionGone",
    "WorkerDied",
]

from concurrent.futures import CancelledError


class BridgeheadError(Exception):
    """The base of all exceptions of Bridgehead."""


class PlanError(BridgeheadError, ValueError):
    """The pipeline cannot run as asked: a cycle, a task that fits nowhere, an unknown option.

    Attributes:
        exit_code: the exit code that `bridgehead` has for it.
    """

    exit_code = 1


class UnpicklableError(BridgeheadError, TypeError):
    """An argument or result cannot be sent; the message names the attribute path of the culprit."""


class ClosureTooLarge(BridgeheadError, ValueError):
    """A function drags too much data along; the message gives its size and the largest names that it caught."""


class HeadLost(BridgeheadError, ConnectionError):
    """The head of the run is gone."""


class SchedulerError(BridgeheadError):
    """A scheduler refused what it was asked, or cannot be reached; nothing was submitted unless the message says so.

    Attributes:
        exit_code: the exit code that `bridgehead` has for it.
    """

    def __init__(self, message: str, *, exit_code: int = 7) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StoreFull(BridgeheadError, MemoryError):
    """A value does not fit into the store."""


class UnknownName(BridgeheadError, KeyError):
    """The run has no value of this name or version; the message says what it has."""

    __str__ = Exception.__str__


class VersionGone(UnknownName):
    """A version of a named value was there, and its stream has dropped it to make room for others."""


class StreamClosed(BridgeheadError, ValueError):
    """A named value was put under a name that was closed."""


class StreamBroken(BridgeheadError):
    """No version of a named value follows, because the task that wrote it has failed."""


class ResultLost(BridgeheadError):
    """A result is gone with the process that held it and was not kept in the run folder."""


class TaskError(BridgeheadError):
    """A task failed. ``__cause__`` is the exception that it raised, where that could be sent.

    Attributes:
        kind: the type of the remote exception, or a short kind such as ``exit-code``, ``signal`` or ``timeout``.
        remote_traceback: the traceback as text, empty where there is none.
        exit_code: the exit code of the process, if it ended.
        signal: the signal that ended the process, if one did.
        task: the task that failed first, if another one did.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str = "",
        remote_traceback: str = "",
        exit_code: int | None = None,
        signal: int | None = None,
        task: int | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.remote_traceback = remote_traceback
        self.exit_code = exit_code
        self.signal = signal
        self.task = task

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}\n\nremote traceback:\n{self.remote_traceback}" if self.remote_traceback else text


class WorkerDied(TaskError):
    """The process that ran the task died; the message names the signal or exit code."""


class TaskTimeout(TaskError, TimeoutError):
    """The task ran longer than its limit."""


class UpstreamFailed(TaskError):
    """A task that this one needs failed; ``task`` says which."""


class TaskCancelled(BridgeheadError, CancelledError):
    """The task was cancelled."""
