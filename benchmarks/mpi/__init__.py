"""MPI gangs against mpiexec, srun and files: `python -m mpi`. What is measured is in `rows`, how in `gangs`, `steps` and `slurm`."""
