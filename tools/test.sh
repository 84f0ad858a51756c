#!/usr/bin/env bash
# Install with what the tests need, then run pytest.
#
# usage: tools/test.sh [--no-transfer] [pytest arguments]
#
# --no-transfer is for tools/install.sh (see there); all else goes to pytest.
# Without any of it the whole suite runs, a process for each core up to four.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

install_arguments=(--dev)
pytest_arguments=()
for argument in "$@"; do
    case $argument in
        --no-transfer) install_arguments+=("$argument") ;;
        *) pytest_arguments+=("$argument") ;;
    esac
done

bash "$ROOT/tools/install.sh" "${install_arguments[@]}"
cd "$ROOT"
if [ ${#pytest_arguments[@]} -eq 0 ]; then
    # The processes would get in each other's way with threads of their own.
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
    pytest_arguments=(-n auto --maxprocesses 4 --dist loadfile)
fi
exec .venv/bin/python -m pytest "${pytest_arguments[@]}"
