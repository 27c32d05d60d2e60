"""The least program of mpi4py, which starts MPI when it is imported and ends it at exit."""

from mpi4py import MPI

MPI.COMM_WORLD.Barrier()
