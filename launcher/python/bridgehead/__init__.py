"""Bridgehead carries one Python pipeline from a laptop to a cluster, unchanged."""

from __future__ import annotations

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
from ._targets import Slurm
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
