#!/usr/bin/env bash
# Train on a Slurm cluster. GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS
# may be set in the environment.
#
# BATCH=1 submits a batch job instead of waiting here; SBATCH_ARGS (such as
# '--time=24:00:00') is given to sbatch. GRACE seconds (default 120) before its
# time is over, and when it is preempted, the run saves a checkpoint and exits
# with status 75. A batch job is then requeued and goes on; without BATCH, srun
# is called again.
set -euo pipefail
REQUEUE=75

if [ $# -lt 4 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [train.py arguments]" >&2
    exit 2
fi

PARTITION=$1
JOB_NAME=$2
CONFIG=$3
WORK_DIR=$4
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
CPUS_PER_TASK=${CPUS_PER_TASK:-5}
TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)


if [ "${BATCH:-0}" = 1 ]; then
    # The job calls this script again, by its place: Slurm runs a copy.
    BATCH=0
    export BATCH GPUS GPUS_PER_NODE CPUS_PER_TASK SRUN_ARGS
    # SBATCH_ARGS is several words on purpose.
    # shellcheck disable=SC2086
    exec sbatch -p "$PARTITION" \
        --job-name="$JOB_NAME" \
        --gres="gpu:$GPUS_PER_NODE" \
        --ntasks="$GPUS" \
        --ntasks-per-node="$GPUS_PER_NODE" \
        --cpus-per-task="$CPUS_PER_TASK" \
        --signal="TERM@${GRACE:-120}" \
        --requeue \
        --open-mode=append \
        ${SBATCH_ARGS:-} \
        --wrap "exec bash $(printf '%q ' "$TOOLS/slurm_train.sh" "$@")"
fi

# start [train.py arguments]: its exit status goes to STATUS.
start() {
    STATUS=0
    # SRUN_ARGS is several words on purpose.
    # shellcheck disable=SC2086
    (
        set -x
        PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}" \
            exec srun -p "$PARTITION" \
            --job-name="$JOB_NAME" \
            --gres="gpu:$GPUS_PER_NODE" \
            --ntasks="$GPUS" \
            --ntasks-per-node="$GPUS_PER_NODE" \
            --cpus-per-task="$CPUS_PER_TASK" \
            --kill-on-bad-exit=1 \
            --signal="TERM@${GRACE:-120}" \
            ${SRUN_ARGS:-} \
            python -u "$TOOLS/train.py" "$CONFIG" \
            --work-dir="$WORK_DIR" --launcher=slurm "$@"
    ) || STATUS=$?
}

# Slurm may signal this shell too: it waits for what its processes do.
trap : TERM
start "${@:5}"
while [ "$STATUS" -eq "$REQUEUE" ]; do
    if [ -n "${SLURM_JOB_ID:-}" ]; then
        echo "slurm_train.sh: saved; job $SLURM_JOB_ID is requeued" >&2
        exec scontrol requeue "$SLURM_JOB_ID"
    fi
    echo 'slurm_train.sh: saved; starting again' >&2
    start "${@:5}" --resume
done
exit "$STATUS"
