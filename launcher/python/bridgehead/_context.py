"""Where code runs: in the driver or in a worker, and in which task."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._bridgehead import Worker


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """This process as a worker."""

    connection: Worker
    run: str
    node: int
    number: int
    run_dir: str


here: Place | None = None
"""What this process is, in a worker; `None` in the driver."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Context:
    """The surroundings of the running task.

    Attributes:
        run: the run's id.
        task: the task's number in the run.
        name: its name; empty for a task of an Executor.
        attempt: the attempt, from 1.
        rank: this process's rank in its gang; 0 for a plain task.
        ranks: how many ranks its gang has; 1 for a plain task.
        node: the number of the agent whose node this is.
        worker: the worker's number on its node.
        devices: the GPUs that are this task's.
        deadline: when it will be ended (as `time.time` counts): by its own limit, or because the allocation that the run has
            from a scheduler is over, whichever comes first; `None` if neither is known. A task that is cut off by the
            allocation's end runs again in the next one, so one that takes long may save its state before.
    """

    run: str
    task: int
    name: str
    attempt: int
    node: int
    worker: int
    rank: int = 0
    ranks: int = 1
    devices: tuple[int, ...] = ()
    deadline: float | None = None

    def remaining(self) -> float | None:
        """Seconds until the deadline, if there is one."""
        return None if self.deadline is None else self.deadline - time.time()


def current() -> Context:
    """The surroundings of the running task.

    Raises:
        RuntimeError: no task runs in this process.
    """
    running = here.connection.current() if here is not None else None
    if here is None or running is None:
        raise RuntimeError("no task runs here: bridgehead.current() answers inside a task only")
    task, attempt, name, devices, limit_ms, started_ns, end_ns, (rank, ranks) = running
    ends = [end_ns / 1e9] if end_ns else []
    if limit_ms:
        ends.append(started_ns / 1e9 + limit_ms / 1e3)
    return Context(
        run=here.run,
        task=task,
        name=name,
        attempt=attempt,
        node=here.node,
        worker=here.number,
        rank=rank,
        ranks=ranks,
        devices=tuple(devices),
        deadline=min(ends, default=None),
    )
