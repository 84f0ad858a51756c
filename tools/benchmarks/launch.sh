#!/usr/bin/env bash
# What the scripts in mmdetection/ and mmsegmentation/ share: start train.py or
# test.py of the installed mmdet or mmseg, on GPUs by torchrun or Slurm, on a
# CPU in one process. Not to be called by itself.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
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

# All that can be wrong is said before anything is started.
[[ $GPUS =~ ^[1-9][0-9]*$ ]] ||
    fail 2 "the number of GPUs is '$GPUS'; on a CPU it is 1"
[ -f "$CONFIG" ] || fail 1 "the config $CONFIG does not exist"
if [ "$CHECKPOINT" = none ]; then
    [ "$TASK" = train ] ||
        fail 2 "'none' cannot be tested: name a fine-tuned checkpoint"
elif [[ $CHECKPOINT != *://* ]]; then
    [ -f "$CHECKPOINT" ] || fail 1 "the checkpoint $CHECKPOINT does not exist"
    CHECKPOINT=$(cd "$(dirname "$CHECKPOINT")" && pwd)/$(basename "$CHECKPOINT")
fi
# Only looked for: importing it takes seconds.
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
    # The configs read it, as what their backbone starts from.
    export PRETRAINED=$CHECKPOINT
else
    COMMAND+=("$CHECKPOINT")
fi
if [ "$TASK" = train ] && [[ " $* " = *' --auto-scale-lr '* ]]; then
    # The hosts scale the learning rate alone. Slurm starts GPUS processes in
    # all, torchrun as many on each machine.
    PROCESSES=$GPUS
    [ "$STARTER" = slurm ] || PROCESSES=$((GPUS * ${NNODES:-1}))
    SCHEDULE=$(python "$ROOT/tools/benchmarks/scale_schedule.py" \
        "$CONFIG" "$PROCESSES" "$@") ||
        fail 1 "the schedule of $CONFIG cannot be scaled (see above)"
    if [ -n "$SCHEDULE" ]; then
        read -r -a OPTIONS <<<"$SCHEDULE"
        COMMAND+=(--cfg-options "${OPTIONS[@]}")
    fi
fi
for argument in "$@"; do
    # mmseg's train.py has no such option; mmengine's runner scales anyway.
    if [ "$HOST-$TASK-$argument" = mmseg-train---auto-scale-lr ]; then
        COMMAND+=(--cfg-options auto_scale_lr.enable=True)
    else
        COMMAND+=("$argument")
    fi
done

if [ "$STARTER" = slurm ]; then
    GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
    # Without PARTITION it is the cluster's default. SRUN_ARGS is several words
    # on purpose.
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
        fail 1 "there is no CUDA device here; on a CPU ask for 1 process"
    exec python "${COMMAND[@]}" --launcher none
fi
exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    "${COMMAND[@]}" --launcher pytorch
