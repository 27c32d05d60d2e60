#!/bin/bash
#SBATCH --job-name=sweep-7
#SBATCH --comment=bridgehead:sweep-7/1
#SBATCH --nodes=2
#SBATCH --ntasks=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=600
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --open-mode=append
#SBATCH --chdir=/shared/runs/sweep-7
#SBATCH --output=/shared/runs/sweep-7/logs/slurm-%j.out
# Launch 1 of run sweep-7: one agent on each node; then, if the run was paused, its next job.
unset SLURM_EXPORT_ENV SLURM_TRES_PER_TASK SRUN_CPUS_PER_TASK
trap : USR1
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
    --cpu-bind=none --mpi=none --no-kill --kill-on-bad-exit=0 --wait=0 --export=ALL \
    --open-mode=append --output=/shared/runs/sweep-7/logs/slurm-%j.node%t.out \
    --container-image='nvcr.io#nvidia/pytorch:25.01-py3' --container-mounts=/shared/runs/sweep-7:/shared/runs/sweep-7,/opt/bridgehead/bin/bridgehead:/opt/bridgehead/bin/bridgehead --container-workdir=/shared/runs/sweep-7 \
    /opt/bridgehead/bin/bridgehead node --run-dir /shared/runs/sweep-7 --launch 1
exec /opt/bridgehead/bin/bridgehead after --run-dir /shared/runs/sweep-7 --launch 1
