#!/usr/bin/env bash
# Install with what the tests need, then run pytest.
#
# usage: tools/test.sh [--no-transfer] [pytest arguments]
#
# --no-transfer is for tools/install.sh (see there); all else goes to pytest.
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
exec .venv/bin/python -m pytest \
    "${pytest_arguments[@]+"${pytest_arguments[@]}"}"
