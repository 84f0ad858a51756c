#!/usr/bin/env bash
# Install what is missing, then run the demo; --help lists the options.
set -euo pipefail

install_options=()
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Help must not wait for an installation.
for argument in "$@"; do
    case $argument in
        -h | --help)
            echo 'usage: tools/demo.sh [--fresh] [--quick] [--no-transfer]'
            echo '                     [--seed N] [--jobs N] [--work-dir DIR]'
            echo
            echo 'Installs into .venv of this repository what is missing, then'
            echo 'pre-trains on a small data set with 0, 10 and 100 % of the'
            echo 'labels, evaluates, transfers to detection and segmentation,'
            echo 'draws and reports. Finished stages are skipped; after'
            echo 'Ctrl-C run it again to go on.'
            echo
            echo '  --fresh         start over, forget old results'
            echo '  --quick         the same path, much reduced'
            echo '  --no-transfer   leave detection and segmentation out, and do'
            echo '                  not install (or compile) what they need'
            echo '  --seed N        random seed (default: 0)'
            echo '  --jobs N        stages that run at a time (default: the number'
            echo '                  of cores, at most 4)'
            echo '  --work-dir DIR  where to write (default, below the current'
            echo '                  folder: work_dirs/demo, with --quick'
            echo '                  work_dirs/demo_quick)'
            exit 0
            ;;
        --no-transfer) install_options=(--no-transfer) ;;
    esac
done

bash "$root/tools/install.sh" "${install_options[@]+"${install_options[@]}"}"
# exec: Ctrl-C then reaches the demo alone, which ends cleanly.
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$root/.venv/bin/python" -m demo "$@"
