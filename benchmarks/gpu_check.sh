#!/usr/bin/env bash
# Check the project on a GPU machine; without a GPU, check the CPU half and say
# what was skipped. Needs no network, no installation and no compiled mmcv: any
# Python that imports torch, mmpretrain, rich and pytest will do.
#
# usage: tools/gpu_check.sh [--out FILE.json] [further arguments: --help]
#        tools/gpu_check.sh --transfer [--mmcv-source PATH] [--out FILE.json]
#
# --transfer builds mmcv's CUDA ops (CUDA toolkit and compiler needed; network,
# unless the source is given) beside the environment and trains ten steps of
# detection and segmentation configs at full size. It has not run yet.
#
# The first of $PYTHON, .venv/bin/python, python3 and python that imports these
# is taken; PYTHONPATH is kept, so packages may be carried along.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"

# Names all that is missing, not the first alone.
PROBE='
import sys
from importlib.util import find_spec
missing = [name for name in sys.argv[1:] if find_spec(name) is None]
if missing:
    sys.exit("it lacks " + ", ".join(missing))
import mmunimoco'

errors=
for python in "${PYTHON:-}" "$ROOT/.venv/bin/python" python3 python; do
    [ -n "$python" ] || continue
    command -v "$python" >/dev/null || continue
    if error=$("$python" -c "$PROBE" \
        torch torchvision mmengine mmcv mmpretrain rich pytest 2>&1); then
        exec "$python" -m mmunimoco.gpu_check "$@"
    fi
    errors+="  $python: ${error##*$'\n'}"$'\n'
done
echo "error: no Python here imports torch, mmpretrain, rich and pytest; set" \
    "PYTHON or PYTHONPATH, or run tools/install.sh --dev" >&2
printf '%s' "$errors" >&2
exit 1
