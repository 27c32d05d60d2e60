"""Bridgehead carries one Python pipeline from a laptop to a cluster, unchanged.

Its parts are imported when they are first used, because a rank or a worker needs few of them before it can begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import joblib
    from ._bridgehead import __version__
    from ._context import Context, current
    from ._create import Draft, create
    from ._device import DeviceArray
    from ._executor import Executor
    from ._future import Future
    from ._gang import MpiTask, mpi
    from ._named import Store, Stream, store
    from ._nested import submit
    from ._pipeline import Group, Node, Pipeline
    from ._refs import Ref, get, put, put_many
    from ._run import Run, connect
    from ._shards import ShardedArray, near, shard
    from ._targets import Kubernetes, Slurm
    from ._task import Options, Program, ProgramResult, Retries, Task, program, task
    from .errors import (
        BridgeheadError,
        ClosureTooLarge,
        HeadLost,
        PlanError,
        ResultLost,
        SchedulerError,
        StoreFull,
        StreamBroken,
        StreamClosed,
        TaskCancelled,
        TaskError,
        TaskTimeout,
        UnknownName,
        UnpicklableError,
        UpstreamFailed,
        VersionGone,
        WorkerDied,
    )

__all__ = [
    "BridgeheadError",
    "ClosureTooLarge",
    "Context",
    "DeviceArray",
    "Draft",
    "Executor",
    "Future",
    "Group",
    "HeadLost",
    "Kubernetes",
    "MpiTask",
    "Node",
    "Options",
    "Pipeline",
    "PlanError",
    "Program",
    "ProgramResult",
    "Ref",
    "ResultLost",
    "Retries",
    "Run",
    "SchedulerError",
    "ShardedArray",
    "Slurm",
    "Store",
    "StoreFull",
    "Stream",
    "StreamBroken",
    "StreamClosed",
    "Task",
    "TaskCancelled",
    "TaskError",
    "TaskTimeout",
    "UnknownName",
    "UnpicklableError",
    "UpstreamFailed",
    "VersionGone",
    "WorkerDied",
    "__version__",
    "connect",
    "create",
    "current",
    "get",
    "joblib",
    "mpi",
    "near",
    "program",
    "put",
    "put_many",
    "shard",
    "store",
    "submit",
    "task",
]

_PARTS = {
    "BridgeheadError": "errors",
    "ClosureTooLarge": "errors",
    "Context": "_context",
    "DeviceArray": "_device",
    "Draft": "_create",
    "Executor": "_executor",
    "Future": "_future",
    "Group": "_pipeline",
    "HeadLost": "errors",
    "Kubernetes": "_targets",
    "MpiTask": "_gang",
    "Node": "_pipeline",
    "Options": "_task",
    "Pipeline": "_pipeline",
    "PlanError": "errors",
    "Program": "_task",
    "ProgramResult": "_task",
    "Ref": "_refs",
    "ResultLost": "errors",
    "Retries": "_task",
    "Run": "_run",
    "SchedulerError": "errors",
    "ShardedArray": "_shards",
    "Slurm": "_targets",
    "Store": "_named",
    "StoreFull": "errors",
    "Stream": "_named",
    "StreamBroken": "errors",
    "StreamClosed": "errors",
    "Task": "_task",
    "TaskCancelled": "errors",
    "TaskError": "errors",
    "TaskTimeout": "errors",
    "UnknownName": "errors",
    "UnpicklableError": "errors",
    "UpstreamFailed": "errors",
    "VersionGone": "errors",
    "WorkerDied": "errors",
    "__version__": "_bridgehead",
    "connect": "_run",
    "create": "_create",
    "current": "_context",
    "get": "_refs",
    "mpi": "_gang",
    "near": "_shards",
    "program": "_task",
    "put": "_refs",
    "put_many": "_refs",
    "shard": "_shards",
    "store": "_named",
    "submit": "_nested",
    "task": "_task",
}
"""The module of each name that is not imported yet."""


def __getattr__(name: str) -> object:
    if name != "joblib" and name not in _PARTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module = importlib.import_module(f".{_PARTS.get(name, name)}", __name__)
    if name == "joblib":
        return module
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
