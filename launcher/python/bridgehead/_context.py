"""Where am I: what a running task can ask about itself."""

from __future__ import annotations

import contextvars
import dataclasses
import time


@dataclasses.dataclass(frozen=True, kw_only=True)
class Context:
    """The surroundings of the running task.

    Attributes:
        run: the run's id.
        task: the task's number in the run.
        name: its name.
        attempt: the attempt, from 1.
        rank: this process's rank in its gang; 0 for a plain task.
        node: the agent's number.
        worker: the worker's number on its node.
        devices: the GPUs that are this task's.
        cpus: the cores that are this task's.
        deadline: when it will be ended (`time.time` seconds), if it has a limit.
    """

    run: str
    task: int
    name: str
    attempt: int
    rank: int = 0
    node: int
    worker: int
    devices: tuple[int, ...] = ()
    cpus: float = 1.0
    deadline: float | None = None

    def remaining(self) -> float | None:
        """Seconds until the deadline, if there is one."""
        return None if self.deadline is None else self.deadline - time.time()


running: contextvars.ContextVar[Context] = contextvars.ContextVar("bridgehead_context")


def current() -> Context:
    """The surroundings of the running task.

    Raises:
        RuntimeError: no task runs here.
    """
    try:
        return running.get()
    except LookupError:
        raise RuntimeError("no task runs here: bridgehead.current() answers inside a task only") from None
