#!/usr/bin/env bash
# Train a segmentor from a pre-trained checkpoint ('none': from random weights), on
# the GPUs of this machine or, with GPUS=1 and no GPU, on its CPU. Several
# machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
#
# usage: dist_train.sh CONFIG CHECKPOINT GPUS [train.py arguments]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../launch.sh" mmseg dist train "$@"
