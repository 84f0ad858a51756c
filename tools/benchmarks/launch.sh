#!/usr/bin/env bash
# Called by the scripts in mmdetection/ and mmsegmentation/: run train.py or
# test.py of the installed mmdet or mmseg, on GPUs with torchrun or Slurm, on a
# CPU in one process.
set -euo pipefail

ROOT=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
HOST=$1    # mmdet or mmseg
STARTER=$2 # dist or slurm
TASK=$3    # train or test
shift 3

# fail STATUS MESSAGE
fail() {
    echo "${STARTER}_$TASK.sh: $2" >&2
    exit "$1"
}

[ $# -ge 3 ] || fail 2 "usage: CONFIG CHECKPOINT GPUS [$TASK.py arguments]"
CONFIG=$1 CHECKPOINT=$2 GPUS=$3
shift 3

[[ $GPUS =~ ^[1-9][0-9]*$ ]] ||
    fail 2 "the number of GPUs must be 1 or more (1 on a CPU), got '$GPUS'"
[ -f "$CONFIG" ] || fail 1 "config $CONFIG does not exist"
if [ "$CHECKPOINT" = none ]; then
    [ "$TASK" = train ] ||
        fail 2 "cannot test 'none': pass a fine-tuned checkpoint"
elif [[ $CHECKPOINT != *://* ]]; then
    [ -f "$CHECKPOINT" ] || fail 1 "checkpoint $CHECKPOINT does not exist"
    FOLDER=$(CDPATH='' cd "$(dirname "$CHECKPOINT")" && pwd)
    CHECKPOINT=$FOLDER/$(basename "$CHECKPOINT")
fi
# Found without importing it, which takes seconds.
TOOLS=$(python -c "
import sys
from importlib.util import find_spec
spec = find_spec(sys.argv[1])
if spec is None:
    sys.exit(1)
print(spec.submodule_search_locations[0])" "$HOST")/.mim/tools ||
    fail 1 "$HOST is not installed: run tools/install.sh (without --no-transfer)"
[ -f "$TOOLS/$TASK.py" ] ||
    fail 1 "$TOOLS/$TASK.py does not exist: install $HOST from a wheel"

export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
COMMAND=("$TOOLS/$TASK.py" "$CONFIG")
if [ "$TASK" = train ]; then
    # The configs initialise their backbone from it.
    export PRETRAINED=$CHECKPOINT
else
    COMMAND+=("$CHECKPOINT")
fi
if [ "$TASK" = train ] && [[ " $* " = *' --auto-scale-lr '* ]]; then
    # mmengine scales only the learning rate, not schedules that count
    # iterations. GPUS is the total with Slurm, per machine with torchrun.
    PROCESSES=$GPUS
    [ "$STARTER" = slurm ] || PROCESSES=$((GPUS * ${NNODES:-1}))
    SCHEDULE=$(python "$ROOT/tools/benchmarks/scale_schedule.py" \
        "$CONFIG" "$PROCESSES" "$@") ||
        fail 1 "cannot scale the schedule of $CONFIG (see above)"
    if [ -n "$SCHEDULE" ]; then
        read -r -a OPTIONS <<<"$SCHEDULE"
        COMMAND+=(--cfg-options "${OPTIONS[@]}")
    fi
fi
for argument in "$@"; do
    # mmseg's train.py lacks this option, mmengine's runner has it.
    if [ "$HOST-$TASK-$argument" = mmseg-train---auto-scale-lr ]; then
        COMMAND+=(--cfg-options auto_scale_lr.enable=True)
    else
        COMMAND+=("$argument")
    fi
done

if [ "$STARTER" = slurm ]; then
    GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
    # SRUN_ARGS may be several words.
    # shellcheck disable=SC2086
    exec srun ${PARTITION:+--partition="$PARTITION"} \
        --job-name="${JOB_NAME:-$(basename "$CONFIG" .py)}" \
        --gres="gpu:$GPUS_PER_NODE" \
        --ntasks="$GPUS" \
        --ntasks-per-node="$GPUS_PER_NODE" \
        --cpus-per-task="${CPUS_PER_TASK:-5}" \
        --kill-on-bad-exit=1 \
        ${SRUN_ARGS:-} \
        python -u "${COMMAND[@]}" --launcher slurm
fi

if ! python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    [ "$GPUS" -eq 1 ] && [ "${NNODES:-1}" -eq 1 ] ||
        fail 1 "no CUDA device found; on a CPU use 1 process"
    # Waiting threads sleep: see tools/train.py.
    export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
    exec python "${COMMAND[@]}" --launcher none
fi
exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    "${COMMAND[@]}" --launcher pytorch
