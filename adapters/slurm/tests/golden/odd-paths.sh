#!/bin/bash
#SBATCH --job-name=sweep-7
#SBATCH --comment=bridgehead:sweep-7/1
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=10
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --open-mode=append
#SBATCH --chdir="/shared/it's a \"run\" #1"
#SBATCH --output="/shared/it's a \"run\" #1/logs/slurm-%j.out"
# Launch 1 of run sweep-7: one agent on each node; then, if the run was paused, its next job.
unset SLURM_EXPORT_ENV SLURM_TRES_PER_TASK SRUN_CPUS_PER_TASK
trap : USR1
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
    --cpu-bind=none --mpi=none --no-kill --kill-on-bad-exit=0 --wait=0 --export=ALL \
    --open-mode=append --output='/shared/it'\''s a "run" #1/logs/slurm-%j.node%t.out' \
    '/opt/my tools/bridgehead' node --run-dir '/shared/it'\''s a "run" #1' --launch 1
exec '/opt/my tools/bridgehead' after --run-dir '/shared/it'\''s a "run" #1' --launch 1
