#!/usr/bin/env bash
# usage: tools/demo.sh [--fresh] [--quick] [--no-transfer] [--seed N] [--jobs N]
#                      [--work-dir DIR]
#
# Install what is missing into .venv of this repository, then run the demo:
# pre-train on a small data set with 0, 10 and 100 % of the labels, evaluate,
# transfer to detection and segmentation, plot and report. Finished runs are
# skipped; after Ctrl-C run the same command again to continue.
#
#   --fresh         discard old results, start over
#   --quick         a few steps of every run
#   --no-transfer   skip detection and segmentation, and do not install (or
#                   compile) what they need
#   --seed N        random seed (default: 0)
#   --jobs N        runs at a time (default: number of cores, at most 4)
#   --work-dir DIR  output (default: work_dirs/demo, with --quick
#                   work_dirs/demo_quick, in the current folder)
set -euo pipefail

root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
install_options=()
for argument in "$@"; do
    case $argument in
        # Before anything is installed.
        -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" && exit 0 ;;
        --no-transfer) install_options=(--no-transfer) ;;
    esac
done

bash "$root/tools/install.sh" "${install_options[@]+"${install_options[@]}"}"
# A demo.py in the current folder is not the demo: where Python knows
# PYTHONSAFEPATH (3.11) it does not look there.
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONSAFEPATH=1
# Waiting threads sleep: see tools/train.py.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
# exec: Ctrl-C then reaches the demo alone, which stops cleanly.
exec "$root/.venv/bin/python" -m demo "$@"
