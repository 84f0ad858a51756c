#!/usr/bin/env bash
# Install mmunimoco and its dependencies; --help lists the options.
set -euo pipefail

ROOT=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
REQUIREMENTS=$ROOT/requirements
# Cost of compiling mmcv's ops for the CPU.
CORE_MINUTES=32
GIB_PER_JOB=2

STACK=onedl
DEV=0
TRANSFER=1
HERE=0

usage() {
    cat <<USAGE
usage: tools/install.sh [--dev] [--no-transfer] [--here] [--stack NAME]

Install mmunimoco (editable) and the releases pinned in requirements/lock.txt
into .venv in this repository. A complete installation is left alone; after an
interruption, run the same command again to continue.

  --dev          also install what the tests, lint and docs need
  --no-transfer  leave out mmdetection, mmsegmentation and mmcv's compiled ops;
                 pre-training and classification do not need them
  --here         install into the active environment instead of .venv; torch
                 >= 2.1 with torchvision is kept if it is installed there
  --stack NAME   the releases to install; stacks other than onedl imply
                 --no-transfer:
                   onedl      requirements/lock.txt (default)
                   openmmlab  OpenMMLab's last releases (mmcv-lite) with torch
                              2.1, in .venv-openmmlab; Python 3.10 or 3.11
                   newest     the newest release of every package, in
                              .venv-newest; delete that folder to upgrade

Environment variables: PYTHON (interpreter), MAX_JOBS (parallel compiler jobs),
CXX, and pip's own (PIP_INDEX_URL, PIP_FIND_LINKS, PIP_CACHE_DIR, ...).
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
                [ $# -gt 1 ] || fail '--stack needs a name (see --help)'
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

# step TITLE COMMAND...: show the command's progress, append its output to $LOG
# and stop if it fails.
step() {
    local title=$1
    shift
    "$@" 2>&1 | "$ENV_PYTHON" "$ROOT/tools/misc/progress.py" "$title" "$LOG" || {
        tail -n 20 "$LOG" >&2
        fail "$title failed; the whole output is in $LOG"
    }
}

# --no-compile: byte-compiling all of torch takes as long as downloading it.
install() {
    pip install --progress-bar off --no-compile -c "$CONSTRAINTS" "$@"
}

install_torch() {
    CONSTRAINTS=$LOCK
    if [ "$HERE" -eq 1 ] && probe supported_torch; then
        CONSTRAINTS=$SCRATCH/lock.txt
        grep -vE '^(torch|torchvision|triton|cuda-|nvidia-)' "$LOCK" \
            >"$CONSTRAINTS"
    fi
    step 'torch, torchvision (3 GB to download)' \
        install torch torchvision -r "$REQUIREMENTS/build.txt"
}

# Set MMCV_WHEEL if there is a wheel for this Python and platform.
find_mmcv_wheel() {
    pip download --quiet --no-deps --only-binary onedl-mmcv \
        --dest "$SCRATCH/wheel" "onedl-mmcv==$(pinned onedl-mmcv)" \
        >>"$LOG" 2>&1 || return 1
    MMCV_WHEEL=$(ls "$SCRATCH"/wheel/onedl_mmcv-*.whl)
}

remove_mmcv() {
    pip uninstall --yes onedl-mmcv >>"$LOG" 2>&1
}

ops_load() {
    env_python -c 'import mmcv.ops' >>"$LOG" 2>&1
}

# One job per core, as far as there is memory for them.
compile_jobs() {
    local jobs gib
    jobs=$(getconf _NPROCESSORS_ONLN)
    gib=$(awk '/^MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo \
        2>/dev/null || true)
    [ -z "$gib" ] || [ $((gib / GIB_PER_JOB)) -ge "$jobs" ] ||
        jobs=$((gib / GIB_PER_JOB))
    echo $((jobs > 1 ? jobs : 1))
}

compile_mmcv() {
    export MMCV_WITH_OPS=1 MAX_JOBS=${MAX_JOBS:-$(compile_jobs)}
    if ! probe cuda_toolkit; then
        echo 'Note: mmcv gets ops for the CPU only, because there is no CUDA' \
            'toolkit of the major release that torch was built with. Detection' \
            'on a GPU needs it: install it, delete .venv and run this again.'
        export CUDA_VISIBLE_DEVICES=''
    fi
    echo "Compiling mmcv's ops with $MAX_JOBS jobs takes about" \
        "$((CORE_MINUTES / MAX_JOBS + 1)) minutes, longer for a GPU, unless" \
        "they are in pip's cache"
    step 'mmcv with compiled ops' \
        install --verbose --no-build-isolation "$@" onedl-mmcv
}

install_mmcv_with_ops() {
    local no_wheel=()
    if has_mmcv ops; then
        return
    fi
    remove_mmcv
    if [ -n "${MMCV_WHEEL:-}" ]; then
        step 'mmcv from a wheel' install "$MMCV_WHEEL"
        if ops_load; then
            return
        fi
        remove_mmcv
        no_wheel=(--no-binary onedl-mmcv)
    fi
    check_compiler
    compile_mmcv "${no_wheel[@]+"${no_wheel[@]}"}"
    # pip's cache does not record which torch a wheel was built with.
    if ! ops_load; then
        remove_mmcv
        compile_mmcv --no-binary onedl-mmcv --no-cache-dir
        ops_load || fail "mmcv's ops cannot be imported: see $LOG"
    fi
}

# An isolated build does not see torch and leaves the ops out. --no-cache-dir:
# pip would use that wheel later where ops are needed.
install_mmcv_without_ops() {
    if [ "$MMCV" = mmcv-lite ] || has_mmcv any; then
        return
    fi
    MMCV_WITH_OPS=0 PIP_CONSTRAINT=$LOCK PIP_BUILD_CONSTRAINT=$LOCK \
        step 'mmcv without compiled ops' \
        install --no-cache-dir --no-binary onedl-mmcv onedl-mmcv
}

install_rest() {
    local files=(runtime "$MMLAB") arguments=() name
    [ "$TRANSFER" -eq 0 ] || files+=(transfer)
    [ "$DEV" -eq 0 ] || files+=(tests lint)
    # Their pins fit to lock.txt.
    [ "$DEV" -eq 0 ] || [ "$STACK" != onedl ] || files+=(extras)
    for name in "${files[@]}"; do
        arguments+=(-r "$REQUIREMENTS/$name.txt")
    done
    step "other packages (${files[*]})" \
        install --no-build-isolation "${arguments[@]}"
    step 'mmunimoco, editable' \
        install --no-build-isolation --no-deps --editable "$ROOT"
    env_python -c 'import mmunimoco' >>"$LOG" 2>&1 ||
        fail "mmunimoco cannot be imported: $(tail -n 1 "$LOG") (see $LOG)"
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
    LOG=$ENV_DIR/mmunimoco-install.log
    : >"$LOG"
    SCRATCH=$(mktemp -d)
    trap 'rm -rf "$SCRATCH"' EXIT
    trap 'echo; fail "interrupted; run it again to continue"' INT TERM
    merge_stamp
    check_before_install
    install_torch
    if [ "$TRANSFER" -eq 1 ]; then
        install_mmcv_with_ops
    else
        install_mmcv_without_ops
    fi
    install_rest
    pip freeze >"$ENV_DIR/mmunimoco-releases.txt"
    write_stamp
    echo "mmunimoco is installed in $ENV_DIR"
    [ "$HERE" -eq 1 ] || echo "To use it: source $ENV_DIR/bin/activate"
}

main "$@"
