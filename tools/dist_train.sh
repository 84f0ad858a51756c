#!/usr/bin/env bash
# usage: dist_train.sh CONFIG PROCESSES [train.py arguments]
#
# Run tools/train.py in several processes on this machine: one per GPU or,
# without GPUs, on the CPU. On several machines set NNODES, NODE_RANK,
# MASTER_ADDR and PORT on each.
#
# With MAX_RESTARTS=N torchrun restarts all processes up to N times when one of
# them dies; they resume from the last checkpoint.
exec bash "$(dirname "${BASH_SOURCE[0]}")/misc/launch.sh" train "$@"
