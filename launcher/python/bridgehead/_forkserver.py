"""The process that ranks of MPI functions are forked from. It has loaded what every rank needs, so that a rank is there within
milliseconds; it runs nothing of the user's itself and has one thread. Started by the agent as ``python -m bridgehead._forkserver``, which
asks for a rank with one message, its descriptors beside it, and for the exit code of one that has ended."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import socket
from typing import Any

import cloudpickle  # type: ignore[import-untyped] # noqa: F401 # Most functions travel by value.

from . import _bridgehead, _ranks, _worker  # noqa: F401

_LONGEST = 1 << 20
"""Bytes of a request."""


def serve(server: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Answers requests. In a fork it returns the request that made it with its descriptors; in the server it returns when the agent
    is gone."""
    parent = os.getpid()
    while True:
        data, fds, _, _ = socket.recv_fds(server, _LONGEST, 3)
        if not data:
            return None
        asked = json.loads(data)
        if "reap" in asked:
            _say(server, {"code": _ended(asked["reap"])})
            continue
        try:
            pid = os.fork()
        except OSError as error:
            _say(server, {"error": f"cannot fork a rank: {error}"})
            continue
        finally:
            if os.getpid() == parent:
                for fd in fds:
                    os.close(fd)
        if pid == 0:
            server.close()
            _bridgehead.end_with_parent(parent)
            return asked, fds
        _say(server, {"pid": pid})


def _say(server: socket.socket, answer: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # The agent is gone: the next request tells.
        server.send(json.dumps(answer).encode())


def _ended(pid: int) -> int:
    """The exit code, or minus the signal. Its number may be another process's from now on."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return -9


def become(asked: dict[str, Any], fds: list[int]) -> None:
    """Makes this fork the rank that was asked for."""
    os.setsid()  # Ranks that spin for one another must not share the share of one.
    connection, log = fds[:2]
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.environ.update(asked.get("set", {}))
    os.environ["BRIDGEHEAD_WORKER_FD"] = str(connection)
    if "fd" in asked:
        os.environ[asked["fd"]] = str(fds[2])
    if asked["processors"]:
        os.sched_setaffinity(0, asked["processors"])


def main() -> None:
    """Serves until the agent is gone; in each fork, runs the rank."""
    server = socket.socket(fileno=int(os.environ.pop("BRIDGEHEAD_FORK_FD")))
    gc.collect()
    gc.freeze()  # What is loaded is not looked at again, and so not copied, in the forks.
    asked = serve(server)
    if asked is not None:
        become(*asked)
        _worker.main()


if __name__ == "__main__":
    main()
