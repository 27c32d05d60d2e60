"""Processes around a measurement: all that a system started, what they have used, and that none is left. Linux only."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time

_PR_SET_CHILD_SUBREAPER = 36
_TICKS = os.sysconf("SC_CLK_TCK")


def adopt() -> None:
    """From now on, processes below this one whose parents end become children of this one, so that all are found."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def pin(cores: int) -> list[int]:
    """Binds this process and those that it will start to the first cores it may use; which ones."""
    mine = sorted(os.sched_getaffinity(0))[:cores]
    os.sched_setaffinity(0, mine)
    return mine


def _stats() -> dict[int, tuple[int, float]]:
    """Every process: its parent and the CPU seconds that it has used."""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
            found[int(name)] = (int(fields[1]), (int(fields[11]) + int(fields[12])) / _TICKS)
    return found


def _below(root: int, stats: dict[int, tuple[int, float]]) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in stats.items():
        children.setdefault(parent, []).append(pid)
    found, open_ = [], [root]
    while open_:
        more = children.get(open_.pop(), [])
        found.extend(more)
        open_.extend(more)
    return found


def cpu_seconds() -> float:
    """CPU time that this process and all below it have used so far; steps of 10 ms on most systems."""
    stats, me = _stats(), os.getpid()
    return sum(stats[pid][1] for pid in [me, *_below(me, stats)] if pid in stats)


def end_all(patience: float) -> int:
    """Waits for all processes below this one, ends those that are left after `patience` seconds; how many those were."""
    limit = time.monotonic() + patience
    while (left := _living()) and time.monotonic() < limit:
        time.sleep(0.02)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    while _living():
        time.sleep(0.01)
    return len(left)


def _living() -> list[int]:
    """Processes below this one, after those that have ended were taken note of."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return _below(os.getpid(), _stats())
