#!/usr/bin/env bash
# Test a fine-tuned segmentor on the GPUs of this machine or, with
# GPUS=1 and no GPU, on its CPU.
#
# usage: dist_test.sh CONFIG CHECKPOINT GPUS [test.py arguments]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../launch.sh" mmseg dist test "$@"
