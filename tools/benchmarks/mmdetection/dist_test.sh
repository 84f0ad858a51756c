#!/usr/bin/env bash
# usage: dist_test.sh CONFIG CHECKPOINT GPUS [test.py arguments]
#
# Test a fine-tuned detector on the GPUs of this machine or, without GPUs and
# with GPUS=1, on the CPU.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../launch.sh" mmdet dist test "$@"
