#!/usr/bin/env bash
# usage: dist_test.sh CONFIG CHECKPOINT PROCESSES [test.py arguments]
#
# Run tools/test.py in several processes on this machine: one per GPU or,
# without GPUs, on the CPU. On several machines set NNODES, NODE_RANK,
# MASTER_ADDR and PORT on each.
exec bash "$(dirname "${BASH_SOURCE[0]}")/misc/launch.sh" test "$@"
