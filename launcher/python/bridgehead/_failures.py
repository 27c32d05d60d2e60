"""Failures as they travel, and back into exceptions; the few values that the extension cannot make by itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import errors

if TYPE_CHECKING:
    from ._task import ProgramResult

CAUSES = ("user", "lost_node", "preempted", "walltime", "oom", "system", "upstream")
"""Causes by their number on the wire."""


def describe(error: BaseException) -> tuple[int, str, str, str, bytes]:
    """An exception of a task as (cause, kind, message, traceback, pickled); runs in the worker."""
    import traceback

    kind = type(error).__qualname__
    text = _words(error)
    message = _bounded(f"{kind}: {text}" if text else kind, _MESSAGE)
    if isinstance(error, errors.StoreFull):
        cause, kind = "system", "store-full"
    elif isinstance(error, errors.ResultLost):
        cause = "lost_node"  # The task did nothing wrong: where it runs next, the value is made again.
    elif isinstance(error, errors.UnpicklableError):
        cause = "system"
    elif isinstance(error, MemoryError):
        cause = "oom"
    else:
        cause = "user"
    lines = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return CAUSES.index(cause), kind, message, _bounded(lines, _TRACEBACK), _pickled(error)


_MESSAGE, _TRACEBACK, _PICKLED = 16 << 10, 256 << 10, 1 << 20
"""Most characters of a message and of a traceback, and bytes of a pickled exception: every dependent gets a copy."""


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:
        return f"(its text cannot be had: {type(second).__qualname__})"


def _bounded(text: str, most: int) -> str:
    """The text as it can travel: its beginning and end where it is long, lone surrogates written out."""
    if len(text) > most:
        left_out = f"\n[bridgehead: {len(text) - most:,} characters left out here]\n"
        text = text[: most // 2] + left_out + text[-most // 2 :]
    return text.encode("utf-8", "backslashreplace").decode()


def _pickled(error: BaseException) -> bytes:
    from . import _bridgehead

    try:
        packed = _bridgehead.pack_bytes(error.with_traceback(None))
        _bridgehead.unpack_bytes(packed)  # An exception with required arguments often pickles and then does not load.
    except BaseException:
        return b""
    return packed if len(packed) <= _PICKLED else b""


def _original(pickled: bytes) -> BaseException | None:
    from . import _bridgehead

    if not pickled:
        return None
    try:
        error = _bridgehead.unpack_bytes(pickled)
    except Exception:
        return None  # Its class is not to be had here; the TaskError tells what it was.
    return error if isinstance(error, BaseException) else None


def _class_of(cause: str, kind: str, signal: int | None) -> type[errors.TaskError]:
    if kind in ("worker-died", "worker-killed", "out-of-memory") or (signal is not None and cause != "walltime"):
        return errors.WorkerDied
    if cause == "walltime":
        return errors.TaskTimeout
    if cause == "upstream":
        return errors.UpstreamFailed
    return errors.TaskError


_ANSWERS: dict[str, type[Exception]] = {
    "not-placed": errors.BridgeheadError,
    "name-bad": ValueError,
    "name-unknown": errors.UnknownName,
    "name-timeout": TimeoutError,
    "version-gone": errors.VersionGone,
    "stream-closed": errors.StreamClosed,
    "stream-broken": errors.StreamBroken,
}
"""Answers to requests that are no task, by kind."""


def to_exception(fields: Mapping[str, Any], task: str, *, original: bool) -> BaseException:
    """A failure as the exception that a future raises.

    With `original` (an Executor's future) that is the exception that the task raised, as with the standard library's
    executors, its cause a `TaskError` with the remote traceback. Else it is the `TaskError`, its cause the original.
    """
    kind, cause, message = fields["kind"], CAUSES[fields["cause"]], fields["message"]
    if kind in ("head-lost", "closed"):
        return errors.HeadLost(message)
    if kind == "object-lost" and not task:
        return errors.ResultLost(message)  # The answer to a fetch.
    if kind == "store-full":
        return errors.StoreFull(message)
    if kind in _ANSWERS:
        return _ANSWERS[kind](message)
    error = _class_of(cause, kind, fields["signal"])(
        f"task {task} failed: {message}" if task else message,
        kind=kind,
        remote_traceback=fields["traceback"],
        exit_code=fields["exit_code"],
        signal=fields["signal"],
        task=fields["root"],
    )
    raised = _original(fields["pickled"])
    if raised is None:
        return error
    if original:
        raised.__cause__ = error
        return raised
    error.__cause__ = raised
    return error


def too_large(message: str) -> BaseException:
    """What to raise for a value that cannot travel for its size."""
    return errors.StoreFull(message)


def lost(message: str) -> BaseException:
    """What to raise for a value that is not to be had any more."""
    return errors.ResultLost(message)


_DEVICES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
_given = next((os.environ[name] for name in _DEVICES if os.environ.get(name)), "")
"""The GPUs of this process's agent by the names that it was given them under, before a task was shown its own."""


def show_devices(devices: list[int]) -> None:
    """Shows the running task its GPUs and no others."""
    names = [part.strip() for part in _given.split(",") if part.strip()]
    text = ",".join(names[device] if device < len(names) else str(device) for device in devices)
    for name in _DEVICES:
        os.environ[name] = text


def program_result(exit_code: int, out: bytes, err: bytes, outputs: dict[str, str], dropped: int) -> ProgramResult:
    """What a program left, from its parts."""
    from ._task import ProgramResult

    paths = {name: Path(path) for name, path in outputs.items()}
    return ProgramResult(exit_code=exit_code, stdout_bytes=out, stderr_bytes=err, outputs=paths, dropped=dropped)


run_dirs: list[str] = []
"""Run folders that this process has to do with, latest last: where relative result files are looked for."""


def load_file(path: str) -> Any:
    """A value that was written to a run folder."""
    from . import _bridgehead

    for folder in reversed(run_dirs):
        file = Path(folder, path)
        if file.exists():
            return _bridgehead.unpack_file(str(file))
    raise errors.ResultLost(f"the result {path} is in none of the run folders that this process knows")
