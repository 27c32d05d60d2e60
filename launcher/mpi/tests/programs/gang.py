"""What the tests run as a gang of Python ranks: the sum over all ranks, or a wait in a barrier that one rank never comes to."""

import pathlib
import signal
import sys

from mpi4py import MPI

comm = MPI.COMM_WORLD
if sys.argv[1:2] == ["wait"]:
    # A file says that this rank has come so far.
    pathlib.Path(sys.argv[2], str(comm.rank)).touch()
    while comm.rank == 0:
        signal.pause()
    comm.Barrier()
# One write for each rank: lines of ranks must not mix.
print(f"rank {comm.rank} of {comm.size} sum {comm.allreduce(comm.rank + 1)}\n", end="", flush=True)
