"""The gangs that `test_mpi.py` submits: `ranks.py function`, or `ranks.py COMMAND LAUNCHER [MPI]`; six ranks, two a node."""

from __future__ import annotations

import socket
import sys
from typing import Any

import bridgehead as bh


@bh.mpi(ranks=6, ranks_per_node=2)
def around(comm: Any) -> tuple[int, int]:
    """The sum of all ranks, and how many hosts there are."""
    return comm.allreduce(comm.rank), len(set(comm.allgather(socket.gethostname())))


def build(what: str, launcher: str = "agent", mpi: str = "auto") -> bh.Pipeline:
    p = bh.Pipeline("ranks")
    if what == "function":
        p.add(around)
    else:
        leaves = {"GANG_LEAVES": "1"} if what.endswith("mpich") else {}  # See tests/mpi/gang.c.
        gang = bh.program(what, ranks=6, ranks_per_node=2, launcher=launcher, mpi=mpi, timeout=60, env=leaves)
        p.add(gang.options(name="program"))
    return p


if __name__ == "__main__":
    build(*sys.argv[1:]).run()
