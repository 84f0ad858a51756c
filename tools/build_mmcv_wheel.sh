#!/usr/bin/env bash
# usage: tools/build_mmcv_wheel.sh FOLDER
#
# Compile mmcv with its operators once, as a wheel for machines with the same
# Python, torch and CUDA: about 30 minutes of one core, longer for a GPU. Others
# then install in two minutes:
#
#   PIP_FIND_LINKS=FOLDER bash tools/install.sh
set -euo pipefail

case ${1:-} in
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" && exit 0 ;;
    '' | -*) sed -n '2s/^# //p' "$0" >&2 && exit 2 ;;
esac
root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)

# torch and the tools to build with; then the operators, unless they are there.
bash "$root/tools/install.sh" --no-transfer
pin=$(grep '^onedl-mmcv==' "$root/requirements/lock.txt")
MMCV_WITH_OPS=1 MAX_JOBS=${MAX_JOBS:-$(getconf _NPROCESSORS_ONLN)} \
    "$root/.venv/bin/python" -m pip wheel --no-build-isolation --no-deps \
    --no-binary onedl-mmcv --no-cache-dir --wheel-dir "$folder" "$pin"
echo "To use it: PIP_FIND_LINKS=$folder bash tools/install.sh"
