#!/usr/bin/env bash
# usage: slurm_test.sh CONFIG CHECKPOINT GPUS [test.py arguments]
#
# Test a fine-tuned detector on a Slurm cluster. Environment variables:
# PARTITION (the cluster's default), JOB_NAME, GPUS_PER_NODE (8, or GPUS if
# fewer), CPUS_PER_TASK (5), SRUN_ARGS.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../launch.sh" mmdet slurm test "$@"
