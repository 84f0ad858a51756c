#!/usr/bin/env bash
# usage: slurm_train.sh CONFIG CHECKPOINT GPUS [train.py arguments]
#
# Train a detector from a pre-trained checkpoint ('none' for random weights) on
# a Slurm cluster. Environment variables: PARTITION (the cluster's default),
# JOB_NAME, GPUS_PER_NODE (8, or GPUS if fewer), CPUS_PER_TASK (5), SRUN_ARGS.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../launch.sh" mmdet slurm train "$@"
