#!/usr/bin/env bash
# Test a fine-tuned segmentor on a Slurm cluster. GPUS, GPUS_PER_NODE,
# CPUS_PER_TASK and SRUN_ARGS may be set in the environment.
#
# usage: slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [test.py arguments]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../launch.sh" mmseg slurm test "$@"
