#!/usr/bin/env bash
# Run the tests marked gpu and time a training step on a GPU; without a GPU,
# the same tests on the CPU and a tiny step.
#
# usage: bash benchmarks/gpu_check.sh [--out FILE.json] [--limit SECONDS]
#                                     [--transfer [--mmcv SOURCE]]
#
# Each part may take --limit seconds (default: 420). Results are written test
# by test, so the report holds what was done before a limit or a crash.
#
# --transfer instead builds mmcv with its CUDA ops beside the environment (CUDA
# toolkit and C++ compiler needed; pip downloads mmcv unless SOURCE, a folder
# or archive, is given) and runs the tests of detection and segmentation.
#
# Any Python that imports torch, mmpretrain, rich and pytest will do: the first
# of $PYTHON, .venv/bin/python and python3. PYTHONPATH is kept.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out='' limit=420 transfer='' mmcv=''
while [ $# -gt 0 ]; do
    case $1 in
        --out) out=$2; shift 2 ;;
        --limit) limit=$2; shift 2 ;;
        --transfer) transfer=1; shift ;;
        --mmcv) mmcv=$2; shift 2 ;;
        *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 2 ;;
    esac
done
folder=$PWD/work_dirs/gpu_check/$(date +%Y%m%d_%H%M%S)
mkdir -p "$folder"
out=$(realpath -m "${out:-$folder/report.json}")
[ -z "$mmcv" ] || mmcv=$(realpath "$mmcv")
cd "$root"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

python=${PYTHON:-}
for candidate in .venv/bin/python python3; do
    [ -n "$python" ] || ! command -v "$candidate" >/dev/null ||
        python=$candidate
done
if ! "$python" -c 'import torch, torchvision, mmpretrain, rich, pytest'; then
    echo "error: $python lacks a package (see above); set PYTHON or" \
        "PYTHONPATH, or run tools/install.sh --dev" >&2
    exit 1
fi

# part NAME COMMAND...: run with the time limit, keep status and output.
part() {
    local name=$1 status=0
    shift
    echo "$name, at most $limit s"
    : >"$folder/$name.status"
    # SIGINT lets pytest print its summary; a hung kernel needs SIGKILL.
    timeout --signal INT --kill-after 20 "$limit" "$@" \
        >"$folder/$name.log" 2>&1 || status=$?
    echo "$status" >"$folder/$name.status"
    [ "$status" = 0 ] || tail -n 30 "$folder/$name.log"
    # Anew after each part: what is known stays if the machine goes away.
    "$python" -m benchmarks.gpu_report "$folder" --out "$out" \
        >"$folder/summary.txt" 2>/dev/null || true
}
# tests NAME ARGUMENTS...: a part that runs pytest.
tests() {
    local name=$1
    shift
    part "$name" "$python" -m pytest -q --tb=short -p no:cacheprovider \
        --continue-on-collection-errors --basetemp "$folder/tmp" \
        -p benchmarks.pytest_lines --lines "$folder/$name.jsonl" "$@"
}

device=$("$python" -c 'import torch
print("cuda" if torch.cuda.is_available() else "cpu")')
if [ -n "$transfer" ]; then
    [ "$device" = cuda ] || { echo 'error: no CUDA device' >&2; exit 1; }
    ops=$root/work_dirs/gpu_check/mmcv
    export PYTHONPATH="$ops:$PYTHONPATH" MMCV_WITH_OPS=1 FORCE_CUDA=1
    MAX_JOBS=$(nproc) TORCH_CUDA_ARCH_LIST=$("$python" -c 'import torch
print("%d.%d" % torch.cuda.get_device_capability())')
    export MAX_JOBS TORCH_CUDA_ARCH_LIST
    release=$("$python" -c 'from importlib.metadata import version
print("onedl-mmcv==" + version("onedl-mmcv"))')
    part mmcv "$python" -m pip install --no-build-isolation --no-deps \
        --no-cache-dir --no-binary :all: --upgrade --target "$ops" \
        "${mmcv:-$release}"
    tests transfer tests/test_configs/test_mmdetection_runs.py \
        tests/test_configs/test_mmsegmentation_runs.py
elif [ "$device" = cuda ]; then
    # Other test files import what a bare GPU machine may lack.
    tests tests -m gpu tests/test_gpu tests/test_configs/test_train_step.py
    part step "$python" -m benchmarks.speed --device cuda --cases step \
        --out "$folder/step.json"
else
    echo 'no CUDA device: the same tests on the CPU, and a tiny step'
    tests tests -m 'not gpu' tests/test_gpu
    part step "$python" -m benchmarks.speed --device cpu --quick \
        --cases step --out "$folder/step.json"
fi
cat "$folder/summary.txt"
! grep -qvx 0 "$folder"/*.status
