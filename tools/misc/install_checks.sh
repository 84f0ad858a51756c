# Parts of tools/install.sh: which stack, which environment, what is there, what
# is missing. Sourced by it; uses its settings (ROOT, STACK, HERE, ...) and its
# fail().
# shellcheck shell=bash

# ---- which stack ------------------------------------------------------------

# Sets what differs between the stacks: VENV, the folder of the environment;
# LOCK, the constraints; MMLAB, the requirement file and MMCV, the distribution
# with mmcv; LAST_MINOR, the newest Python 3.x; PYTHONS, in order of preference.
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
            # The lock was tried on 3.11.
            PYTHONS=(python3.11 python3.12 python3.10 python3.13)
            return
            ;;
        openmmlab)
            MMLAB=openmmlab
            MMCV=mmcv-lite
            # torch 2.1 has no wheel for a newer one.
            LAST_MINOR=11
            PYTHONS=(python3.10 python3.11)
            ;;
        newest) PYTHONS=(python3.12 python3.13 python3.11 python3.10) ;;
        *) fail "unknown stack '$STACK': take openmmlab, onedl or newest" ;;
    esac
    TRANSFER=0
    [ "$HERE" -eq 0 ] ||
        fail "--here goes with the stack onedl alone, --stack $STACK has an" \
            "environment of its own ($VENV); README.md says how to use an" \
            "existing installation of OpenMMLab's"
}

# ---- which Python -----------------------------------------------------------

# Prints "3.11", or nothing for something that only looks like a Python (the
# shim of a version manager whose version is not selected).
python_version() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' \
        2>/dev/null </dev/null || true
}

is_usable() {
    local major=${1%%.*} minor=${1#*.}
    [ "$major" -eq 3 ] && [ "$minor" -ge 10 ] &&
        [ "$minor" -le "${LAST_MINOR:-$minor}" ]
}

needed_python() {
    if [ -n "$LAST_MINOR" ]; then
        echo "Python 3.10 to 3.$LAST_MINOR is needed for the stack $STACK"
    else
        echo 'Python 3.10 or newer is needed'
    fi
}

# Sets PYTHON_FOUND to the first candidate that runs and is usable.
find_python() {
    local candidate version seen=''
    for candidate in "$@"; do
        version=$(python_version "$candidate")
        [ -n "$version" ] || continue
        if is_usable "$version"; then
            PYTHON_FOUND=$candidate
            return
        fi
        seen="$seen $candidate is $version,"
    done
    fail "$(needed_python),${seen:- none was found:} install" \
        "one, or name it: PYTHON=/path/to/python3.11 tools/install.sh"
}

# Sets ENV_DIR and ENV_PYTHON; makes no environment yet.
choose_environment() {
    if [ "$HERE" -eq 0 ]; then
        ENV_DIR=$ROOT/$VENV
        ENV_PYTHON=$ENV_DIR/bin/python
        return
    fi
    local active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
    if [ -n "${PYTHON:-}" ]; then
        find_python "$PYTHON"
    elif [ -n "$active" ]; then
        find_python "$active/bin/python"
    else
        find_python python python3
    fi
    ENV_PYTHON=$(command -v "$PYTHON_FOUND")
    ENV_DIR=$("$ENV_PYTHON" -c 'import sys; print(sys.prefix)')
}

make_environment() {
    if [ "$HERE" -eq 1 ]; then
        return
    fi
    if env_python -m pip --version >/dev/null 2>&1; then
        check_environment
        return
    fi
    if [ -n "${PYTHON:-}" ]; then
        find_python "$PYTHON"
    else
        find_python "${PYTHONS[@]}" python3 python
    fi
    "$PYTHON_FOUND" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$PYTHON_FOUND has no venv module: install it (on Debian and" \
            "Ubuntu the package python3-venv), or set PYTHON to another one"
    check_disk "$ROOT" "$GIB_FRESH"
    echo "Creating $ENV_DIR with Python $(python_version "$PYTHON_FOUND")"
    "$PYTHON_FOUND" -m venv --clear "$ENV_DIR"
}

# An environment that was there already.
check_environment() {
    local version
    version=$(python_version "$ENV_PYTHON")
    is_usable "$version" ||
        fail "$ENV_DIR has Python $version, but $(needed_python): delete it" \
            "and run this again"
}

warn_if_untried() {
    local version
    version=$(python_version "$ENV_PYTHON")
    [ "$STACK" != onedl ] || [ "${version#*.}" -le 13 ] ||
        echo "Note: the lock was resolved for Python 3.10 to 3.13; with" \
            "$version some of it may not install"
}

# Away from the repository, whose folders would hide what is not installed.
env_python() {
    (cd / && "$ENV_PYTHON" "$@")
}

pip() {
    "$ENV_PYTHON" -m pip --disable-pip-version-check --no-input "$@"
}

# ---- what is there ----------------------------------------------------------

# Changes with every file that decides what gets installed, and when the
# repository is moved (an editable install points to it).
stamp_key() {
    {
        echo "$ROOT"
        cat "$REQUIREMENTS"/*.txt "$ROOT/setup.py" \
            "$ROOT/mmunimoco/version.py"
    } | cksum | tr ' ' '-'
}

# Exit status: are these modules importable in the environment? Only looks for
# their files, which is quick.
has_modules() {
    env_python -c '
import importlib.util as util
import sys
sys.exit(any(util.find_spec(name) is None for name in sys.argv[1:]))' \
        "$@" 2>/dev/null
}

# Exit status: is mmcv there, in the release of the lock (any, if it has no
# pin), with compiled ops?
# With "any" for an argument, the ops do not matter.
has_mmcv() {
    env_python -c '
import glob
import importlib.metadata as metadata
import importlib.util as util
import os
import sys
name, pin, kind = sys.argv[1:]
folder = os.path.dirname(util.find_spec("mmcv").origin)
ops = glob.glob(os.path.join(folder, "_ext.*"))
found = pin in ("", metadata.version(name)) and (ops or kind == "any")
sys.exit(not found)' "$MMCV" "$(pinned "$MMCV")" "$1" 2>/dev/null
}

pinned() {
    sed -n "s/^$1==//p" "$LOCK"
}

# What an earlier run installed counts as asked for, so that an upgrade of the
# lock does not leave it behind.
read_stamp() {
    STAMP=$ENV_DIR/mmunimoco-install.txt
    STAMP_KEY=''
    STAMP_DEV=0
    STAMP_TRANSFER=0
    if [ -f "$STAMP" ]; then
        read -r STAMP_KEY STAMP_DEV STAMP_TRANSFER <"$STAMP" || true
    fi
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
    [ -e "$ROOT/mmunimoco/.mim/configs" ] && has_modules "${modules[@]}"
}

merge_stamp() {
    [ "$STAMP_DEV" != 1 ] || DEV=1
    [ "$STAMP_TRANSFER" != 1 ] || TRANSFER=1
    rm -f "$STAMP"
}

write_stamp() {
    echo "$(stamp_key) $DEV $TRANSFER" >"$STAMP"
}

# ---- what can go wrong ------------------------------------------------------

check_disk() {
    local free_kib
    free_kib=$(df -Pk "$1" | awk 'NR == 2 { print $4 }')
    [ "$free_kib" -ge $(($2 * 1024 * 1024)) ] ||
        fail "$2 GB of free disk are needed, $((free_kib / 1024 / 1024)) GB" \
            "are free at $1"
}

# One small package by pip itself: the same index, mirror, proxy and
# certificates as everything that follows.
check_index() {
    pip download --quiet --no-cache-dir --retries 0 --timeout 10 --no-deps \
        --dest "$SCRATCH/probe" -c "$LOCK" addict \
        >>"$LOG" 2>&1 ||
        fail "the package index cannot be reached: check the network, the" \
            "proxy and pip's settings (pip config list)"
}

check_compiler() {
    command -v "${CXX:-c++}" >/dev/null 2>&1 ||
        fail "no C++ compiler (${CXX:-c++}) to build mmcv's ops with:" \
            "install g++ 9 or newer, or use --no-transfer"
    env_python -c '
import os
import sys
import sysconfig
folder = sysconfig.get_paths()["include"]
sys.exit(not os.path.exists(os.path.join(folder, "Python.h")))' ||
        fail "Python.h is missing, which mmcv's ops are built with: install" \
            "Python's headers (python3-dev), or use --no-transfer"
}

# Two distributions with the same import names overwrite each other's files.
check_other_distributions() {
    local found
    [ "$MMLAB" = mmlab ] || return 0
    found=$(env_python -c '
import importlib.metadata as metadata
import sys
def there(name):
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False
print(*filter(there, sys.argv[1:]))' \
        mmengine mmcv mmcv-full mmcv-lite mmpretrain mmdet mmsegmentation)
    [ -z "$found" ] ||
        fail "$ENV_DIR has OpenMMLab's own $found: keep these and run" \
            "\`pip install --no-deps -e .\`, or uninstall them first"
}

preflight() {
    local gib=$GIB_MORE
    has_modules torch || gib=$GIB_FRESH
    check_disk "$ENV_DIR" "$gib"
    check_other_distributions
    check_index
    if [ "$TRANSFER" -eq 1 ] && ! has_mmcv ops && ! find_mmcv_wheel; then
        check_compiler
    fi
}
