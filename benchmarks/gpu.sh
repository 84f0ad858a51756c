#!/usr/bin/env bash
# Measure this project on a GPU and run the tests marked gpu, within a few
# minutes; without a GPU, the same tests on the CPU and everything much reduced.
#
# usage: bash benchmarks/gpu.sh [--out FILE.json] [--minutes M]
#                               [--device cpu|cuda] [--quick] [--wheels DIR]
#                               [--transfer [--mmcv SOURCE]]
#
# --minutes (default: 6) is kept. All parts, tests among them, start at once and
# compile side by side; each measures when nothing else runs. The report is
# written after every part, and has what was done before a limit or a crash, and
# what was left out. --quick measures almost nothing, to see that all of it works.
#
# --transfer instead builds mmcv with its CUDA ops beside the environment (CUDA
# toolkit and C++ compiler needed; pip downloads mmcv unless SOURCE, a folder
# or archive, is given) and runs the tests of detection and segmentation.
#
# Any Python that imports torch, torchvision, mmpretrain, rich and pytest will
# do: the first of $PYTHON, .venv/bin/python and python3. PYTHONPATH is kept.
# --wheels installs the wheels in DIR beside that Python first, without network.
set -euo pipefail

root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out='' minutes='' device='' quick=() wheels='' transfer='' mmcv=''
while [ $# -gt 0 ]; do
    case $1 in
        --out) out=$2; shift 2 ;;
        --minutes) minutes=$2; shift 2 ;;
        --device) device=$2; shift 2 ;;
        --quick) quick=(--quick); shift ;;
        --wheels) wheels=$2; shift 2 ;;
        --transfer) transfer=1; shift ;;
        --mmcv) mmcv=$2; shift 2 ;;
        *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 2 ;;
    esac
done
folder=$PWD/work_dirs/gpu/$(date +%Y%m%d_%H%M%S)
mkdir -p "$folder"
out=$(realpath -m "${out:-$folder/report.json}")
[ -z "$mmcv" ] || mmcv=$(realpath "$mmcv")
[ -z "$wheels" ] || wheels=$(realpath "$wheels")
cd "$root"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

python=${PYTHON:-}
for candidate in .venv/bin/python python3; do
    [ -n "$python" ] || ! command -v "$candidate" >/dev/null ||
        python=$candidate
done
if [ -n "$wheels" ]; then
    "$python" -m pip install -q --no-index --no-deps --no-compile \
        --no-cache-dir --target "$folder/site" "$wheels"/*.whl
    export PYTHONPATH="$PYTHONPATH:$folder/site"
fi
# Also says where torch finds a GPU.
if ! found=$("$python" -c 'import torch, torchvision, mmpretrain, rich, pytest
print("cuda" if torch.cuda.is_available() else "cpu")'); then
    echo "error: $python lacks a package (see above); set PYTHON or" \
        "PYTHONPATH, name wheels by --wheels, or run tools/install.sh" >&2
    exit 1
fi
default=6
[ -z "$transfer" ] || default=40
device=${device:-$found}
[ "$device" = "$found" ] || [ "$device" = cpu ] ||
    { echo 'error: --device cuda, but torch finds no CUDA device' >&2; exit 1; }
# A few seconds less, to stop the last part and to write the report.
end=$(awk "BEGIN { print int(60 * ${minutes:-$default} - 8) }")

report() {
    flock "$folder/report.lock" "$python" benchmarks/gpu_report.py "$folder" \
        --out "$out" >"$folder/summary.txt" 2>"$folder/report.log" || true
}
# part NAME LIMIT COMMAND...: run it for LIMIT seconds at most, or what is left
# of all; keep status and output.
part() {
    local name=$1 limit=$2 status=0 left=$((end - SECONDS))
    shift 2
    limit=$((limit < left ? limit : left))
    if [ "$limit" -lt 5 ]; then
        echo "$name: left out, no time"
        echo 'left out' >"$folder/$name.status"
        return
    fi
    echo "$name, at most $limit s"
    : >"$folder/$name.status"
    # SIGINT lets pytest print its summary; a hung kernel needs SIGKILL.
    timeout --signal INT --kill-after 5 "$limit" "$@" \
        >"$folder/$name.log" 2>&1 || status=$?
    echo "$status" >"$folder/$name.status"
    [ "$status" = 0 ] || tail -n 30 "$folder/$name.log"
    # Anew after each part: what is known stays if the machine goes away.
    report
}
# speed NAME CASES [OPTIONS...]: a part that measures.
speed() {
    local name=$1 cases=$2 limit=$((end - SECONDS))
    shift 2
    # A few seconds to end what it is doing.
    part "$name" "$limit" "$python" -m benchmarks.speed --device "$device" \
        ${quick[@]+"${quick[@]}"} --cases "$cases" --out "$folder/$name.json" \
        --minutes "$(awk "BEGIN { x = ($limit - 12) / 60
                                  print (x > 0.1 ? x : 0.1) }")" "$@"
}
# tests NAME LIMIT ARGUMENTS...: a part that runs pytest.
tests() {
    local name=$1 limit=$2
    shift 2
    part "$name" "$limit" flock --shared --no-fork "$folder/turns" \
        "$python" -m pytest -q --tb=short \
        -p no:cacheprovider --continue-on-collection-errors \
        --basetemp "$folder/tmp-$name" -p benchmarks.pytest_lines \
        --lines "$folder/$name.jsonl" "$@"
}

if [ -n "$transfer" ]; then
    [ "$device" = cuda ] || { echo 'error: no CUDA device' >&2; exit 1; }
    ops=$root/work_dirs/gpu/mmcv
    export PYTHONPATH="$ops:$PYTHONPATH" MMCV_WITH_OPS=1 FORCE_CUDA=1
    MAX_JOBS=$(nproc) TORCH_CUDA_ARCH_LIST=$("$python" -c 'import torch
print("%d.%d" % torch.cuda.get_device_capability())')
    export MAX_JOBS TORCH_CUDA_ARCH_LIST
    release=$("$python" -c 'from importlib.metadata import version
print("onedl-mmcv==" + version("onedl-mmcv"))')
    part mmcv "$((end - SECONDS))" "$python" -m pip install \
        --no-build-isolation --no-deps --no-cache-dir --no-binary :all: \
        --upgrade --target "$ops" "${mmcv:-$release}"
    tests transfer "$end" tests/test_configs/test_mmdetection_runs.py \
        tests/test_configs/test_mmsegmentation_runs.py
else
    if [ "$device" = cuda ]; then
        # A part has a process of its own, for a fault of CUDA ends it.
        # Several threads each would wait for one another.
        export OMP_NUM_THREADS=2 TORCHINDUCTOR_COMPILE_THREADS=4
        export BENCHMARK_TURNS=$folder/turns
        speed step-256 step --batch 256 &
        speed step-32 step --batch 32 &
        speed files augment,end2end &
        speed cifar cifar,decode &
        speed head head &
        # Other test files import what a bare GPU machine may lack.
        # Measuring waits for tests.
        limit=$((end / 2))
        tests tests-of-parts "$limit" -m gpu tests/test_gpu \
            --ignore tests/test_gpu/test_no_waiting.py \
            --ignore tests/test_gpu/test_training.py &
        tests tests-of-steps "$limit" -m gpu tests/test_gpu/test_no_waiting.py \
            tests/test_gpu/test_training.py \
            tests/test_configs/test_train_step.py &
        wait
    else
        echo 'no CUDA device: on the CPU'
        tests tests "$((end / 2))" -m 'not gpu' tests/test_gpu
        speed all head,step,augment,cifar,decode,end2end
    fi
fi
report
cat "$folder/summary.txt"
! grep -qvxE '0|left out' "$folder"/*.status
