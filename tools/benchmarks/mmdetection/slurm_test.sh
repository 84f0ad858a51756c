#!/usr/bin/env bash
# Test a fine-tuned detector on a Slurm cluster. PARTITION, JOB_NAME,
# GPUS_PER_NODE (8, or all of fewer), CPUS_PER_TASK and SRUN_ARGS may be set in
# the environment.
#
# usage: slurm_test.sh CONFIG CHECKPOINT GPUS [test.py arguments]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../launch.sh" mmdet slurm test "$@"
