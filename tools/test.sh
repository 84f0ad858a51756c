#!/usr/bin/env bash
# usage: tools/test.sh [--stack openmmlab|onedl|newest] [--no-transfer]
#                      [--all | pytest arguments]
#
# Install what the tests need, then run pytest; --stack and --no-transfer are
# options of tools/install.sh. Without pytest arguments the suite runs in
# TEST_PROCESSES processes (default: one per core, at most 4); with --all, also
# the tests marked slow, which run once a week.
set -euo pipefail

root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
stack=onedl
install_options=(--dev)
marked=()
pytest_options=()
while [ $# -gt 0 ]; do
    case $1 in
        # Before anything is installed.
        -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" && exit 0 ;;
        --all) marked=(-m '') ;;
        --no-transfer) install_options+=("$1") ;;
        --stack=*) stack=${1#*=} ;;
        --stack)
            stack=${2:-}
            shift $(($# > 1))
            ;;
        *) pytest_options+=("$1") ;;
    esac
    shift
done
environment=.venv
[ "$stack" = onedl ] || environment=.venv-$stack

bash "$root/tools/install.sh" "${install_options[@]}" --stack "$stack"
cd "$root"
# Processes that run side by side should not start threads of their own.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
if [ ${#pytest_options[@]} -eq 0 ]; then
    # Each process spends 20 s of CPU time on imports before its first test, so
    # more processes than cores do not pay.
    pytest_options=(-n "${TEST_PROCESSES:-auto}")
    [ -n "${TEST_PROCESSES:-}" ] || pytest_options+=(--maxprocesses 4)
    # Whole files: their tests share fixtures that take seconds to set up.
    # tests/conftest.py puts the longest first, which xdist would undo.
    pytest_options+=(--dist loadfile --no-loadscope-reorder)
fi
pytest_options+=(${marked[@]+"${marked[@]}"})
exec "$environment/bin/python" -m pytest "${pytest_options[@]}"
