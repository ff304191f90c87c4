#!/bin/bash
# A study on many machines: a Slurm array, one task a node. Task 0 makes the study, the others join
# it; the database is the only thing they share. See docs/many-machines.md.
#
#   umask 077; echo "export TUNER_STORAGE='postgresql://USER:PASSWORD@HOST/DATABASE'" > ~/.tuner-storage
#   sbatch docs/slurm.sh search_spaces/batching.yaml
#
# Where nodes differ, choose one kind (sbatch --constraint=…), or add --allow-mixed to the worker below:
# each kind then has trials and a front of its own.
#
#SBATCH --job-name=tuner-workers
#SBATCH --array=0-3
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --exclusive
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=tuner-%A_%a.log
set -euo pipefail

# Not on the command line, where every user of the node can read it.
. "$HOME/.tuner-storage"
space=${1:?say the search space: sbatch docs/slurm.sh FILE.yaml}
name=shared-$SLURM_ARRAY_JOB_ID
# The steps get the signal two minutes before the end: tuner stores what it has and ends its server.
if [ "$SLURM_ARRAY_TASK_ID" = "$SLURM_ARRAY_TASK_MIN" ]; then
  srun tuner study --space "$space" --name "$name" --sampler tpe --trials 200 --quiet
else
  srun tuner worker --study "$name" --wait 30m --quiet
fi
