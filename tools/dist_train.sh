#!/usr/bin/env bash
# Start tools/train.py in several processes on this machine: one a GPU, or, where
# there is no GPU, that many on the CPU. Several machines: set NNODES,
# NODE_RANK, MASTER_ADDR and PORT on each.
#
# With MAX_RESTARTS=N torchrun starts all processes again, up to N times, when
# one of them dies; they go on from the last checkpoint.
#
# usage: dist_train.sh CONFIG PROCESSES [train.py arguments]
exec bash "$(dirname "${BASH_SOURCE[0]}")/misc/launch.sh" train "$@"
