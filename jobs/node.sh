#!/bin/bash
# Train on one node of a job, with a process for each of its GPUs; all_nodes.sh starts this on every node.

. jobs/lib.sh

listen
here=$(processes_here)
supervise composer -n "$here" --world_size $((NODES * here)) --node_rank "${SLURM_NODEID:-$NODE_RANK}" \
    --master_addr "$MASTER_ADDR" --master_port "$MASTER_PORT" \
    --stdout "$LOG_DIR/rank{rank}.out" --stderr "$LOG_DIR/rank{rank}.err" train_composer.py "$@"
exit "$STATUS"
