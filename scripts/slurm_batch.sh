#!/usr/bin/env bash
# All videos of a folder or list as an array job of SLURM: task I of N takes the I-th share of the videos.
# Corpus and output lie on a disk that all nodes see:
#   sbatch --array=1-100 scripts/slurm_batch.sh CORPUS OUTPUT [more options of tcmr batch]
# The same line again, after a time limit or a failed node, goes on: nothing that is done is done twice.
#SBATCH --job-name=tcmr-batch
#SBATCH --cpus-per-task=16
#SBATCH --mem-per-cpu=3G
#SBATCH --time=12:00:00
#SBATCH --output=tcmr-batch-%A-%a.log
set -euo pipefail
corpus=$1 output=$2
shift 2
exec ${TCMR:-tcmr} batch "$corpus" --output_folder "$output" --engine processes \
    --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_MAX" --workers "$SLURM_CPUS_PER_TASK" "$@"
