#!/usr/bin/env bash
# Train a segmentor from a pre-trained checkpoint ('none': from random weights) on
# a Slurm cluster. PARTITION, JOB_NAME, GPUS_PER_NODE (8, or all of fewer),
# CPUS_PER_TASK and SRUN_ARGS may be set in the environment.
#
# usage: slurm_train.sh CONFIG CHECKPOINT GPUS [train.py arguments]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../launch.sh" mmseg slurm train "$@"
