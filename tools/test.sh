#!/usr/bin/env bash
# Install with what the tests need, then run pytest.
#
# usage: tools/test.sh [--stack openmmlab|onedl|newest] [--no-transfer]
#                      [pytest arguments]
#
# --stack and --no-transfer are for tools/install.sh (see there); all else goes
# to pytest. Without any of it the whole suite runs, a process for each core up
# to four. Tests of what a stack leaves out are skipped.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

stack=onedl
environment=.venv
install_arguments=(--dev)
pytest_arguments=()
while [ $# -gt 0 ]; do
    case $1 in
        --no-transfer) install_arguments+=("$1") ;;
        --stack=*) stack=${1#*=} ;;
        --stack)
            stack=${2:-}
            shift $(($# > 1))
            ;;
        *) pytest_arguments+=("$1") ;;
    esac
    shift
done
[ "$stack" = onedl ] || environment=.venv-$stack

bash "$ROOT/tools/install.sh" "${install_arguments[@]}" --stack "$stack"
cd "$ROOT"
if [ ${#pytest_arguments[@]} -eq 0 ]; then
    # The processes would get in each other's way with threads of their own.
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
    pytest_arguments=(-n auto --maxprocesses 4 --dist loadfile)
    # In the order of tests/conftest.py, not by the number of tests.
    pytest_arguments+=(--no-loadscope-reorder)
fi
exec "$environment/bin/python" -m pytest "${pytest_arguments[@]}"
