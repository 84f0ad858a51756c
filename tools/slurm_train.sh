#!/usr/bin/env bash
# usage: slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [train.py arguments]
#
# Train on a Slurm cluster. Environment variables: GPUS (8), GPUS_PER_NODE (8,
# or GPUS if fewer), CPUS_PER_TASK (5), SRUN_ARGS.
#
# GRACE seconds (120) before its time limit, and when it is preempted, the run
# saves a checkpoint and exits with status 75; srun is then called again and
# the run resumes. BATCH=1 submits a batch job instead of waiting, with SBATCH_ARGS
# (such as '--time=24:00:00'); that job is requeued.
set -euo pipefail
REQUEUE=75

if [ $# -lt 4 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [train.py arguments]" >&2
    exit 2
fi
CONFIG=$3
WORK_DIR=$4
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
CPUS_PER_TASK=${CPUS_PER_TASK:-5}
TOOLS=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
RESOURCES=(
    -p "$1"
    --job-name="$2"
    --gres="gpu:$GPUS_PER_NODE"
    --ntasks="$GPUS"
    --ntasks-per-node="$GPUS_PER_NODE"
    --cpus-per-task="$CPUS_PER_TASK"
    --signal="TERM@${GRACE:-120}"
)

# quote WORDS: for any shell; printf %q writes what only bash reads.
quote() {
    local quote="'\\''"
    printf "'%s' " "${@//\'/$quote}"
}

if [ "${BATCH:-0}" = 1 ]; then
    # The job runs this file by its path: Slurm would run a copy of it.
    BATCH=0
    export BATCH GPUS GPUS_PER_NODE CPUS_PER_TASK SRUN_ARGS
    # SBATCH_ARGS may be several words.
    # shellcheck disable=SC2086
    exec sbatch "${RESOURCES[@]}" --requeue --open-mode=append \
        ${SBATCH_ARGS:-} \
        --wrap "exec bash $(quote "$TOOLS/slurm_train.sh" "$@")"
fi

# start [train.py arguments]: set STATUS to the exit status of the run.
start() {
    STATUS=0
    # SRUN_ARGS may be several words.
    # shellcheck disable=SC2086
    (
        set -x
        PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}" \
            exec srun "${RESOURCES[@]}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
            python -u "$TOOLS/train.py" "$CONFIG" \
            --work-dir="$WORK_DIR" --launcher=slurm "$@"
    ) || STATUS=$?
}

# Slurm may signal this shell too; it has to wait for the run.
trap : TERM
start "${@:5}"
while [ "$STATUS" -eq "$REQUEUE" ]; do
    if [ -n "${SLURM_JOB_ID:-}" ]; then
        echo "slurm_train.sh: saved; requeueing job $SLURM_JOB_ID" >&2
        exec scontrol requeue "$SLURM_JOB_ID"
    fi
    echo 'slurm_train.sh: saved; starting again' >&2
    start "${@:5}" --resume
done
exit "$STATUS"
