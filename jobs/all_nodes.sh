#!/bin/bash
# Train on all nodes of a job; train_on_nodes in lib.sh runs this on the first node. It ends with the first node that
# fails, and the scheduler then kills the others.
#
# SIGTERM means: save and exit. With Grid Engine it is passed on to the first node, whose ranks tell all others. With
# Slurm all nodes get SIGUSR1 instead, because the launcher gives its processes only 30 s after SIGTERM. When a node has
# exited for that reason, the script waits for all others: if Grid Engine has to kill a part of a job, it deletes the
# job instead of putting it back into the queue.

. jobs/lib.sh

export NODES MASTER_ADDR NODE_RANK

start_by_slurm() {
    local first
    NODES=$SLURM_JOB_NUM_NODES
    first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    MASTER_ADDR=$(scontrol show node --oneliner "$first" | grep -o 'NodeAddr=[^ ]*' | cut -d= -f2)
    trap 'INTERRUPTED=1; scancel --signal=USR1 "$SLURM_JOB_ID"' TERM
    srun --kill-on-bad-exit=1 --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" bash jobs/node.sh "$@" &
    left=1
}

start_by_grid_engine() {
    local hosts first
    mapfile -t hosts < <(cut -d' ' -f1 "$PE_HOSTFILE")
    NODES=${#hosts[@]} MASTER_ADDR=${hosts[0]}
    NODE_RANK=0 bash jobs/node.sh "$@" &
    first=$!
    # shellcheck disable=SC2064 # expanded now, when the process id is known
    trap "INTERRUPTED=1; kill -TERM $first" TERM
    for ((NODE_RANK = 1; NODE_RANK < NODES; NODE_RANK++)); do
        qrsh -inherit -nostdin -V "${hosts[NODE_RANK]}" bash jobs/node.sh "$@" &
    done
    left=$NODES
}

if [ "$SCHEDULER" = slurm ]; then start_by_slurm "$@"; else start_by_grid_engine "$@"; fi

RESULT=""
while INTERRUPTED="" && [ "$left" -gt 0 ]; do
    wait -n
    STATUS=$?
    [ -n "$INTERRUPTED" ] && [ $STATUS -gt 128 ] && continue
    case $STATUS in
    0) ;;
    75 | 143 | 241) RESULT=${RESULT:-$STATUS} ;; # as in finish, lib.sh
    *) [ -n "$RESULT" ] || exit $STATUS ;;
    esac
    left=$((left - 1))
done
exit "${RESULT:-0}"
