#!/usr/bin/env bash
# Train a segmentor from a pre-trained checkpoint ('none': from random weights) on
# a Slurm cluster. GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS may be set
# in the environment.
#
# usage: slurm_train.sh PARTITION JOB_NAME CONFIG CHECKPOINT [train.py arguments]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../launch.sh" mmseg slurm train "$@"
