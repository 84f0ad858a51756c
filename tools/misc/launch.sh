#!/usr/bin/env bash
# Called by tools/dist_train.sh and tools/dist_test.sh.
set -euo pipefail

TOOLS=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TASK=$1 # train or test
shift

# fail STATUS MESSAGE
fail() {
    echo "dist_$TASK.sh: $2" >&2
    exit "$1"
}

if [ "$TASK" = train ]; then
    [ $# -ge 2 ] || fail 2 'usage: CONFIG PROCESSES [train.py arguments]'
    TARGET=("$1")
else
    [ $# -ge 3 ] ||
        fail 2 'usage: CONFIG CHECKPOINT PROCESSES [test.py arguments]'
    TARGET=("$1" "$2")
    shift
fi
PROCESSES=$2
shift 2

[[ $PROCESSES =~ ^[1-9][0-9]*$ ]] ||
    fail 2 "the number of processes must be 1 or more, got '$PROCESSES'"
[ -f "${TARGET[0]}" ] || fail 1 "config ${TARGET[0]} does not exist"
CHECKPOINT=${TARGET[1]:-}
[ "$TASK" = train ] || [[ $CHECKPOINT == *://* || $CHECKPOINT == none ]] ||
    [ -f "$CHECKPOINT" ] ||
    fail 1 "checkpoint $CHECKPOINT does not exist"

export PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}"
MASTER_ADDR=${MASTER_ADDR:-127.0.0.1}
PORT=${PORT:-29500}
RENDEZVOUS=(
    --node_rank="${NODE_RANK:-0}"
    --master_addr="$MASTER_ADDR"
    --master_port="$PORT"
)
if [ "$TASK" = train ] && [ "${MAX_RESTARTS:-0}" != 0 ]; then
    RENDEZVOUS=(
        --max_restarts="$MAX_RESTARTS"
        --rdzv_backend=c10d
        --rdzv_endpoint="$MASTER_ADDR:$PORT"
    )
    [ "${NNODES:-1}" != 1 ] || RENDEZVOUS+=(--local_addr=127.0.0.1)
    # In torchrun's own store, restarted processes may find the addresses of
    # the dead ones and wait for them.
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
fi
exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    "${RENDEZVOUS[@]}" \
    --nproc_per_node="$PROCESSES" \
    "$TOOLS/$TASK.py" "${TARGET[@]}" --launcher pytorch "$@"
