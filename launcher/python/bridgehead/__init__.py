"""Bridgehead carries one Python pipeline from a laptop to a cluster, unchanged."""

from __future__ import annotations

from ._bridgehead import __version__
from ._context import Context, current
from ._executor import Executor
from ._futures import Future
from ._pipeline import Node, Pipeline, Run, connect
from ._task import Options, Program, ProgramResult, Retries, Task, program, task
from .errors import (
    BridgeheadError,
    ClosureTooLarge,
    HeadLost,
    PlanError,
    ResultLost,
    StoreFull,
    TaskCancelled,
    TaskError,
    TaskTimeout,
    UnpicklableError,
    UpstreamFailed,
    WorkerDied,
)

__all__ = [
    "BridgeheadError",
    "ClosureTooLarge",
    "Context",
    "Executor",
    "Future",
    "HeadLost",
    "Node",
    "Options",
    "Pipeline",
    "PlanError",
    "Program",
    "ProgramResult",
    "ResultLost",
    "Retries",
    "Run",
    "StoreFull",
    "Task",
    "TaskCancelled",
    "TaskError",
    "TaskTimeout",
    "UnpicklableError",
    "UpstreamFailed",
    "WorkerDied",
    "__version__",
    "connect",
    "current",
    "program",
    "task",
]
