#!/usr/bin/env bash
# Install mmunimoco and the stack that it was tried with. See --help.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
REQUIREMENTS=$ROOT/requirements
# mmcv's ops: minutes of one core to compile them for the CPU, and GiB of
# memory that one compiler needs.
CORE_MINUTES=32
GIB_PER_JOB=2
# What the stack takes, and what a repair or an upgrade takes.
GIB_FRESH=8
GIB_MORE=3

STACK=onedl
DEV=0
TRANSFER=1
HERE=0

usage() {
    cat <<USAGE
usage: tools/install.sh [--dev] [--no-transfer] [--here] [--stack NAME]

Installs mmunimoco (editable) with the releases of requirements/lock.txt into
.venv of this repository. Does nothing when all of it is installed already;
carries on where an interrupted run stopped.

  --dev          also what tests and lint need
  --no-transfer  no mmdetection and mmsegmentation, and an mmcv without
                 compiled ops: pre-training and classification work fully,
                 and nothing has to be compiled
  --here         use the active environment, not .venv; a torch >= 2.1 with
                 torchvision that is installed there is kept
  --stack NAME   other releases, in an environment of their own, always
                 --no-transfer:
                   openmmlab  the last ones of OpenMMLab (mmcv-lite) with
                              torch 2.1, into .venv-openmmlab; needs Python
                              3.10 or 3.11
                   newest     the newest of everything, also of torch, into
                              .venv-newest (delete it to renew it)
                   onedl      those of requirements/lock.txt (default)

Environment: PYTHON names the interpreter to use; MAX_JOBS is how many files
are compiled at a time; pip's own variables (PIP_INDEX_URL, PIP_FIND_LINKS,
PIP_CACHE_DIR, ...) work as usual.
USAGE
}

fail() {
    echo "tools/install.sh: $*" >&2
    exit 1
}

parse_args() {
    while [ $# -gt 0 ]; do
        case $1 in
            --dev) DEV=1 ;;
            --no-transfer) TRANSFER=0 ;;
            --here) HERE=1 ;;
            --stack=*) STACK=${1#*=} ;;
            --stack)
                [ $# -gt 1 ] || fail 'no name after --stack (see --help)'
                STACK=$2
                shift
                ;;
            -h | --help) usage && exit 0 ;;
            *) fail "unknown option $1 (see --help)" ;;
        esac
        shift
    done
}

# shellcheck source=tools/misc/install_checks.sh
. "$ROOT/tools/misc/install_checks.sh"

# run TITLE COMMAND...: the command with its progress shown; its output goes
# to the log.
run() {
    local title=$1
    shift
    "$@" 2>&1 | "$ENV_PYTHON" "$ROOT/tools/misc/progress.py" "$title" "$LOG"
}

# The same, where there is no going on after an error.
must_run() {
    run "$@" || {
        tail -n 20 "$LOG" >&2
        fail "$1 failed: the whole output is in $LOG"
    }
}

# pip install with the releases of the lock. Python compiles a module when it
# is first imported; to compile all of torch takes as long as to download it.
install() {
    pip install --progress-bar off --no-compile -c "$CONSTRAINTS" "$@"
}

keeps_torch() {
    [ "$HERE" -eq 1 ] && has_modules torch torchvision && env_python -c '
import sys
import torch
import torchvision
version = tuple(int(part) for part in torch.__version__.split(".")[:2])
sys.exit(version < (2, 1))' 2>/dev/null
}

install_torch() {
    CONSTRAINTS=$LOCK
    if keeps_torch; then
        CONSTRAINTS=$SCRATCH/lock.txt
        grep -vE '^(torch|torchvision|triton|cuda-|nvidia-)' "$LOCK" \
            >"$CONSTRAINTS"
    fi
    must_run 'torch, torchvision (3 GB to download)' \
        install torch torchvision -r "$REQUIREMENTS/build.txt"
}

# Sets MMCV_WHEEL when there is a ready wheel for this Python and platform.
find_mmcv_wheel() {
    pip download --quiet --no-deps --only-binary onedl-mmcv \
        --dest "$SCRATCH/wheel" "onedl-mmcv==$(pinned onedl-mmcv)" \
        >>"$LOG" 2>&1 || return 1
    MMCV_WHEEL=$(ls "$SCRATCH"/wheel/onedl_mmcv-*.whl)
}

ops_load() {
    env_python -c 'import mmcv.ops' >>"$LOG" 2>&1
}

remove_mmcv() {
    pip uninstall --yes onedl-mmcv >>"$LOG" 2>&1
}

compile_jobs() {
    local cores gib
    cores=$(getconf _NPROCESSORS_ONLN)
    gib=$(awk '/^MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo \
        2>/dev/null || true)
    [ -z "$gib" ] || [ $((gib / GIB_PER_JOB)) -ge "$cores" ] ||
        cores=$((gib / GIB_PER_JOB))
    echo $((cores > 1 ? cores : 1))
}

# mmcv compiles for the GPU when torch sees one, which needs the CUDA toolkit
# of torch's own major release.
check_cuda_toolkit() {
    env_python -c '
import re
import subprocess
import sys
import torch
from torch.utils.cpp_extension import CUDA_HOME
if torch.cuda.is_available():
    if CUDA_HOME is None:
        sys.exit(1)
    told = subprocess.check_output([CUDA_HOME + "/bin/nvcc", "-V"], text=True)
    major = re.search(r"release (\d+)", told)[1]
    sys.exit(major != torch.version.cuda.split(".")[0])' >>"$LOG" 2>&1 &&
        return
    echo 'Note: no CUDA toolkit of the release that torch was built with, so' \
        'mmcv gets ops for the CPU alone; detection on the GPU needs them' \
        'for the GPU (install the toolkit, delete .venv, run again).'
    export CUDA_VISIBLE_DEVICES=''
}

compile_mmcv() {
    export MMCV_WITH_OPS=1 MAX_JOBS=${MAX_JOBS:-$(compile_jobs)}
    check_cuda_toolkit
    echo "mmcv's ops get compiled with $MAX_JOBS jobs: about" \
        "$((CORE_MINUTES / MAX_JOBS + 1)) minutes (longer for a GPU)," \
        "unless pip has them in its cache"
    must_run "mmcv with compiled ops" \
        install --verbose --no-build-isolation "$@" onedl-mmcv
}

install_mmcv_with_ops() {
    local only_source=()
    if has_mmcv ops; then
        return
    fi
    remove_mmcv
    if [ -n "${MMCV_WHEEL:-}" ]; then
        must_run 'mmcv from a ready wheel' install "$MMCV_WHEEL"
        if ops_load; then
            return
        fi
        remove_mmcv
        only_source=(--no-binary onedl-mmcv)
    fi
    check_compiler
    compile_mmcv "${only_source[@]+"${only_source[@]}"}"
    # pip's cache knows nothing of the torch that a wheel was built against.
    if ! ops_load; then
        remove_mmcv
        compile_mmcv --no-binary onedl-mmcv --no-cache-dir
        ops_load || fail "mmcv's ops do not load: see $LOG"
    fi
}

# An isolated build sees no torch and so leaves the ops out. pip must not keep
# that wheel, or it would be used where ops are needed.
install_mmcv_without_ops() {
    # OpenMMLab has a distribution for this, which needs no care.
    if [ "$MMCV" != onedl-mmcv ] || has_mmcv any; then
        return
    fi
    MMCV_WITH_OPS=0 PIP_CONSTRAINT=$LOCK PIP_BUILD_CONSTRAINT=$LOCK \
        must_run 'mmcv without compiled ops' \
        install --no-cache-dir --no-binary onedl-mmcv onedl-mmcv
}

install_rest() {
    local files=(runtime "$MMLAB") arguments=() name
    [ "$TRANSFER" -eq 0 ] || files+=(transfer)
    [ "$DEV" -eq 0 ] || files+=(tests lint)
    for name in "${files[@]}"; do
        arguments+=(-r "$REQUIREMENTS/$name.txt")
    done
    must_run "The rest: ${files[*]}" \
        install --no-build-isolation "${arguments[@]}"
}

install_project() {
    must_run 'mmunimoco, editable' \
        install --no-build-isolation --no-deps --editable "$ROOT"
    env_python -c 'import mmunimoco' >>"$LOG" 2>&1 ||
        fail "mmunimoco does not import: $(tail -n 1 "$LOG") (see $LOG)"
}

main() {
    parse_args "$@"
    choose_stack
    choose_environment
    read_stamp
    if is_satisfied; then
        echo "mmunimoco is installed in $ENV_DIR, nothing to do"
        return
    fi
    make_environment
    warn_if_untried
    LOG=$ENV_DIR/mmunimoco-install.log
    : >"$LOG"
    SCRATCH=$(mktemp -d)
    trap 'rm -rf "$SCRATCH"' EXIT
    trap 'echo; fail "interrupted, run it again to carry on"' INT TERM
    merge_stamp
    preflight
    install_torch
    if [ "$TRANSFER" -eq 1 ]; then
        install_mmcv_with_ops
    else
        install_mmcv_without_ops
    fi
    install_rest
    install_project
    # What a stack without pins has come to.
    pip freeze >"$ENV_DIR/mmunimoco-releases.txt"
    write_stamp
    echo "mmunimoco is installed in $ENV_DIR"
    [ "$HERE" -eq 1 ] || echo "To use it: source $ENV_DIR/bin/activate"
}

main "$@"
