#!/usr/bin/env bash
# What tools/dist_train.sh and tools/dist_test.sh share. Not to be called by
# itself.
set -euo pipefail

TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TASK=$1 # train or test
shift

# fail STATUS MESSAGE
fail() {
    echo "dist_$TASK.sh: $2" >&2
    exit "$1"
}

if [ "$TASK" = train ]; then
    [ $# -ge 2 ] || fail 2 "usage: CONFIG PROCESSES [train.py arguments]"
    TARGET=("$1") PROCESSES=$2
    shift 2
else
    [ $# -ge 3 ] ||
        fail 2 "usage: CONFIG CHECKPOINT PROCESSES [test.py arguments]"
    TARGET=("$1" "$2") PROCESSES=$3
    shift 3
fi

# All that can be wrong is said before anything is started.
[[ $PROCESSES =~ ^[1-9][0-9]*$ ]] ||
    fail 2 "the number of processes is '$PROCESSES', but must be 1 or more"
[ -f "${TARGET[0]}" ] || fail 1 "the config ${TARGET[0]} does not exist"
CHECKPOINT=${TARGET[1]:-}
[ "$TASK" = train ] || [[ $CHECKPOINT == *://* ]] || [ -f "$CHECKPOINT" ] ||
    fail 1 "the checkpoint $CHECKPOINT does not exist"

export PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}"
# Restarted processes go on from the last checkpoint (tools/train.py sees that
# they were). They need a store of their own: in the one that torchrun keeps
# they may find the addresses of those before them, and wait for these.
RENDEZVOUS=(
    --node_rank="${NODE_RANK:-0}"
    --master_addr="${MASTER_ADDR:-127.0.0.1}"
    --master_port="${PORT:-29500}"
)
if [ "$TASK" = train ] && [ "${MAX_RESTARTS:-0}" != 0 ]; then
    RENDEZVOUS=(
        --max_restarts="$MAX_RESTARTS"
        --rdzv_backend=c10d
        --rdzv_endpoint="${MASTER_ADDR:-127.0.0.1}:${PORT:-29500}"
    )
    [ "${NNODES:-1}" != 1 ] || RENDEZVOUS+=(--local_addr=127.0.0.1)
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
fi
exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    "${RENDEZVOUS[@]}" \
    --nproc_per_node="$PROCESSES" \
    "$TOOLS/$TASK.py" "${TARGET[@]}" --launcher pytorch "$@"
