#!/bin/bash
# Training on two nodes with four ranks each: sbatch examples/slurm/train.sh
# Slurm sends SIGTERM two minutes before the time is over: the run is saved, and the next job goes on with it, on any number of ranks.
#SBATCH --job-name=nbnet
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
#SBATCH --output=%x-%j.log

set -euo pipefail
source .venv/bin/activate                  # pip install nbnet mpi4py, built with the cluster's MPI
export NUMBA_NUM_THREADS=$SLURM_CPUS_PER_TASK
export NUMBA_CACHE_DIR=$PWD/.numba_cache    # kernels are compiled once, for all nodes

run=runs/cifar10
if [[ -f $run/model.safetensors ]]; then
    words=(--resume "$run")
else
    words=(--data cifar10 --model resnet9 --epochs 50 --batch-size 256 --out "$run")
fi
srun --kill-on-bad-exit=1 --cpu-bind=cores nbnet train --mpi "${words[@]}"
