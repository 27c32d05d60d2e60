#!/bin/bash -l
#SBATCH --job-name=sweep-7
#SBATCH --comment=bridgehead:sweep-7/2
#SBATCH --nodes=2
#SBATCH --ntasks=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:a100:2
#SBATCH --mem=16384M
#SBATCH --time=1440
#SBATCH --partition=gpu
#SBATCH --account=physics
#SBATCH --qos=long
#SBATCH --constraint=[rack1|rack2]
#SBATCH --reservation=winter
#SBATCH --exclude=n[7-8,11],m3
#SBATCH --nodelist=n2
#SBATCH --licenses=matlab:1
#SBATCH --signal=USR1@300
#SBATCH --dependency=afterany:41:42
#SBATCH --array=0-1%1
#SBATCH --no-requeue
#SBATCH --no-kill
#SBATCH --open-mode=append
#SBATCH --chdir=/shared/runs/sweep-7
#SBATCH --output=/shared/runs/sweep-7/logs/slurm-%A_%a.out
#SBATCH --mail-type=END,FAIL
#SBATCH --mail-user=me@example.org
#SBATCH --nice=10
# Launch 2 of run sweep-7: one agent on each node; then, if the run was paused, its next job.
unset SLURM_EXPORT_ENV SLURM_TRES_PER_TASK SRUN_CPUS_PER_TASK
trap : USR1
export GREETING='it'\''s "$HOME"'
export OMP_NUM_THREADS=8
module load cuda
export SCRATCH=/scratch/$USER
export SRUN_CPUS_PER_TASK=8
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
    --cpu-bind=none --mpi=none --no-kill --kill-on-bad-exit=0 --wait=0 --export=ALL \
    --cpus-per-task=8 \
    --open-mode=append --output=/shared/runs/sweep-7/logs/slurm-%A_%a.node%t.out \
    /opt/bridgehead/bin/bridgehead node --run-dir /shared/runs/sweep-7 --launch 2
exec /opt/bridgehead/bin/bridgehead after --run-dir /shared/runs/sweep-7 --launch 2
