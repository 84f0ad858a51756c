# Parts of tools/install.sh, which sources this file: the stack, the
# environment, what is installed, and checks before anything is downloaded.
# shellcheck shell=bash

# ---- Stack and environment --------------------------------------------------

# Set VENV (folder of the environment), LOCK (constraints), MMLAB (requirement
# file), MMCV (distribution), LAST_MINOR (newest supported Python 3.x, if any)
# and PYTHONS (in order of preference).
choose_stack() {
    VENV=.venv-$STACK
    LOCK=$REQUIREMENTS/lock-$STACK.txt
    MMLAB=mmlab
    MMCV=onedl-mmcv
    LAST_MINOR=''
    case $STACK in
        onedl)
            VENV=.venv
            LOCK=$REQUIREMENTS/lock.txt
            PYTHONS=(python3.11 python3.12 python3.10 python3.13)
            return
            ;;
        openmmlab)
            MMLAB=openmmlab
            MMCV=mmcv-lite
            LAST_MINOR=11 # the newest with a wheel of torch 2.1
            PYTHONS=(python3.10 python3.11)
            ;;
        newest) PYTHONS=(python3.12 python3.13 python3.11 python3.10) ;;
        *) fail "unknown stack '$STACK': use openmmlab, onedl or newest" ;;
    esac
    TRANSFER=0
    [ "$HERE" -eq 0 ] ||
        fail "--here works with the stack onedl only; --stack $STACK has its" \
            "own environment ($VENV). To use an existing installation of" \
            "OpenMMLab's packages see docs/releases.md"
}

# Print "3.11", or nothing if the command does not run, like the shim of a
# version manager that has no version selected.
python_version() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' \
        2>/dev/null </dev/null || true
}

is_supported() {
    local major=${1%%.*} minor=${1#*.}
    [ "$major" -eq 3 ] && [ "$minor" -ge 10 ] &&
        [ "$minor" -le "${LAST_MINOR:-$minor}" ]
}

needed_python() {
    if [ -n "$LAST_MINOR" ]; then
        echo "the stack $STACK needs Python 3.10 to 3.$LAST_MINOR"
    else
        echo 'Python 3.10 or newer is needed'
    fi
}

# Set PYTHON_FOUND to the first supported command; $PYTHON overrides them all.
find_python() {
    local candidate version seen=''
    [ -z "${PYTHON:-}" ] || set -- "$PYTHON"
    for candidate in "$@"; do
        version=$(python_version "$candidate")
        [ -n "$version" ] || continue
        if is_supported "$version"; then
            PYTHON_FOUND=$candidate
            return
        fi
        seen="$seen $candidate is $version,"
    done
    fail "$(needed_python),${seen:- none was found:} install one, or name it:" \
        'PYTHON=/path/to/python3.11 tools/install.sh'
}

# Set ENV_DIR and ENV_PYTHON; does not create the environment yet.
choose_environment() {
    ENV_DIR=$ROOT/$VENV
    ENV_PYTHON=$ENV_DIR/bin/python
    if [ "$HERE" -eq 1 ]; then
        local active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
        if [ -n "$active" ]; then
            find_python "$active/bin/python"
        else
            find_python python python3
        fi
        ENV_PYTHON=$(command -v "$PYTHON_FOUND")
        ENV_DIR=$("$ENV_PYTHON" -c 'import sys; print(sys.prefix)')
    fi
}

make_environment() {
    local version
    if [ "$HERE" -eq 0 ] && ! pip --version >/dev/null 2>&1; then
        find_python "${PYTHONS[@]}" python3 python
        "$PYTHON_FOUND" -c 'import ensurepip, venv' 2>/dev/null ||
            fail "$PYTHON_FOUND has no venv module: install it (python3-venv" \
                'on Debian and Ubuntu), or set PYTHON to another interpreter'
        check_disk "$ROOT" 8
        echo "Creating $ENV_DIR with Python $(python_version "$PYTHON_FOUND")"
        "$PYTHON_FOUND" -m venv --clear "$ENV_DIR"
    fi
    version=$(python_version "$ENV_PYTHON")
    is_supported "$version" ||
        fail "$ENV_DIR has Python $version, but $(needed_python): delete it" \
            'and run this again'
    [ "$STACK" != onedl ] || [ "${version#*.}" -le 13 ] ||
        echo "Note: the lock was resolved for Python 3.10 to 3.13; with" \
            "$version some packages may not install"
}

# Runs in /: folders of the repository would hide missing packages.
env_python() {
    (cd / && "$ENV_PYTHON" "$@")
}

pip() {
    "$ENV_PYTHON" -m pip --disable-pip-version-check --no-input "$@"
}

# ---- What is installed ------------------------------------------------------

# probe QUESTION...: the exit status is the answer; see probe.py.
probe() {
    env_python "$ROOT/tools/misc/probe.py" "$@" 2>>"${LOG:-/dev/null}"
}

pinned() {
    sed -n "s/^$1==//p" "$LOCK"
}

# has_mmcv ops|any: is mmcv installed as pinned, with or without compiled ops?
has_mmcv() {
    probe mmcv "$MMCV" "$(pinned "$MMCV")" "$1"
}

# The stamp records what is installed: a checksum of everything that decides
# that (ROOT too: an editable install points to it), DEV and TRANSFER.
stamp_key() {
    {
        echo "$ROOT"
        cat "$REQUIREMENTS"/*.txt "$ROOT/setup.py" \
            "$ROOT/mmunimoco/version.py"
    } | cksum | tr ' ' '-'
}

read_stamp() {
    STAMP=$ENV_DIR/mmunimoco-install.txt
    STAMP_KEY='' STAMP_DEV=0 STAMP_TRANSFER=0
    [ ! -f "$STAMP" ] ||
        read -r STAMP_KEY STAMP_DEV STAMP_TRANSFER <"$STAMP" || true
}

is_satisfied() {
    local modules=(torch torchvision mmengine mmcv mmpretrain mmunimoco)
    [ "$STAMP_KEY" = "$(stamp_key)" ] || return 1
    [ "$STAMP_DEV" -ge "$DEV" ] || return 1
    [ "$STAMP_TRANSFER" -ge "$TRANSFER" ] || return 1
    [ "$STAMP_DEV" -eq 0 ] || modules+=(pytest pre_commit)
    if [ "$STAMP_TRANSFER" -eq 1 ]; then
        has_mmcv ops || return 1
        modules+=(mmdet mmseg)
    fi
    [ -e "$ROOT/mmunimoco/.mim/configs" ] && probe modules "${modules[@]}"
}

# What an earlier run installed is upgraded too. Without a stamp, an
# interrupted run is not taken for a complete one.
merge_stamp() {
    [ "$STAMP_DEV" != 1 ] || DEV=1
    [ "$STAMP_TRANSFER" != 1 ] || TRANSFER=1
    rm -f "$STAMP"
}

write_stamp() {
    echo "$(stamp_key) $DEV $TRANSFER" >"$STAMP"
}

# ---- Checks -----------------------------------------------------------------

# check_disk FOLDER GIB
check_disk() {
    local free
    free=$(df -Pk "$1" | awk 'NR == 2 { print int($4 / 1048576) }')
    [ "$free" -ge "$2" ] ||
        fail "$2 GB of free disk space are needed, $1 has $free GB"
}

# Uses pip: the same index, mirror, proxy and certificates as the installation.
check_index() {
    pip download --quiet --no-cache-dir --retries 0 --timeout 10 --no-deps \
        --dest "$SCRATCH/probe" -c "$LOCK" addict >>"$LOG" 2>&1 ||
        fail "the package index cannot be reached: check the network, the" \
            "proxy and pip's settings (pip config list)"
}

check_compiler() {
    command -v "${CXX:-c++}" >/dev/null 2>&1 ||
        fail "no C++ compiler (${CXX:-c++}) to compile mmcv's ops with:" \
            'install g++ 9 or newer, or use --no-transfer'
    probe python_headers ||
        fail "Python.h, needed to compile mmcv's ops, is missing: install" \
            "Python's headers (python3-dev), or use --no-transfer"
}

# Two distributions with the same import name overwrite each other's files.
check_other_packages() {
    local found
    [ "$MMLAB" = mmlab ] || return 0
    if found=$(probe other_packages mmengine mmcv mmcv-full mmcv-lite \
        mmpretrain mmdet mmsegmentation) && [ -n "$found" ]; then
        fail "$ENV_DIR has OpenMMLab's own $found: to keep it, run" \
            "\`pip install --no-deps -e .\` instead; else uninstall it first"
    fi
}

check_before_install() {
    if probe modules torch; then
        check_disk "$ENV_DIR" 3
    else
        check_disk "$ENV_DIR" 8
    fi
    check_other_packages
    check_index
    if [ "$TRANSFER" -eq 1 ] && ! has_mmcv ops && ! find_mmcv_wheel; then
        check_compiler
    fi
}
