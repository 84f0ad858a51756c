#!/usr/bin/env bash
# usage: dist_train.sh CONFIG CHECKPOINT GPUS [train.py arguments]
#
# Train a detector from a pre-trained checkpoint ('none' for random weights) on
# the GPUs of this machine or, without GPUs and with GPUS=1, on the CPU. On
# several machines set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
exec bash "$(dirname "${BASH_SOURCE[0]}")/../launch.sh" mmdet dist train "$@"
