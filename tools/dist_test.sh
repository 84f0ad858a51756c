#!/usr/bin/env bash
# Start tools/test.py in several processes on this machine: one a GPU, or, where
# there is no GPU, that many on the CPU. Several machines: set NNODES,
# NODE_RANK, MASTER_ADDR and PORT on each.
#
# usage: dist_test.sh CONFIG CHECKPOINT PROCESSES [test.py arguments]
exec bash "$(dirname "${BASH_SOURCE[0]}")/misc/launch.sh" test "$@"
