# shellcheck shell=bash
# Functions of all jobs. A job sources this file and calls one of these:
#
#   train KEY=VALUE...            train_composer.py, a process for each GPU of this node
#   train_on_nodes KEY=VALUE...   the same on all nodes of the job
#   train_pair LIST KEY=VALUE...  as a task of an array: one direction of one line of a list
#   convert [LIST] KEY=VALUE...   convert_to_mds.py; as a task of an array, with the arguments of one line of a list
#   study KEY=VALUE...            run_study.py; as a task of an array, one run of it
#   compare FOLDER KEY=VALUE...   compare_directions.py for the runs of a folder
#   run COMMAND.py KEY=VALUE...   any command of the project
#
# Each ends with the exit status of the command. If the scheduler warns before it takes the node away, the command saves
# and exits, and the job puts itself back into the queue. docs/clusters.md has the table of signals and exit statuses.

set -u
. jobs/site.sh || exit 2
: "${DATA:=}" # a site.sh from before it had this

# The same variables for both schedulers.
if [ -n "${SLURM_JOB_ID:-}" ]; then
    SCHEDULER=slurm JOB=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID} TASK=${SLURM_ARRAY_TASK_ID:-} NAME=$SLURM_JOB_NAME
    CPUS=${SLURM_CPUS_ON_NODE:-1}
else
    SCHEDULER=sge JOB=$JOB_ID TASK=${SGE_TASK_ID#undefined} NAME=$JOB_NAME
    CPUS=${NSLOTS:-1}
fi

# OpenMP threads that spin while they wait would slow down other jobs on the node.
export OMP_WAIT_POLICY=passive
if [ -n "${CPU_PROCESSES:-}" ]; then
    export CUDA_VISIBLE_DEVICES="" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
fi

# Processes to start on this node: one for each GPU of the job, or CPU_PROCESSES.
processes_here() {
    if [ -n "${CPU_PROCESSES:-}" ]; then
        echo "$CPU_PROCESSES"
    elif [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
        echo "$CUDA_VISIBLE_DEVICES" | tr ',' '\n' | wc -l
    elif [ -n "${SLURM_GPUS_ON_NODE:-}" ]; then
        echo "$SLURM_GPUS_ON_NODE"
    else
        nvidia-smi --list-gpus | wc -l
    fi
}

# From here on, write to a folder of this job, which is the same after requeueing. The scheduler's own file names it.
open_log() {
    LOG_DIR=$LOGS/$1-$JOB${TASK:+.$TASK}
    mkdir -p "$LOG_DIR" || exit 1
    echo "$(date +%FT%T) $LOG_DIR/job.log"
    exec >>"$LOG_DIR/job.log" 2>&1
    say "job $JOB${TASK:+ task $TASK} starts on $(hostname)"
}

say() { echo "== $(date +%FT%T) $*"; }

# Let squeue and qstat show the name of the run. An array of Grid Engine keeps its name, which is that of all its tasks,
# because other jobs may wait for it.
rename_job() {
    if [ "$SCHEDULER" = slurm ]; then
        scontrol update "JobId=$SLURM_JOB_ID" "JobName=$1"
    elif [ -z "$TASK" ]; then
        qalter -N "$1" "$JOB" >/dev/null
    fi || say "the job could not be renamed"
}

WARNED="" LEAVING="" CHILD=""

# SIGUSR1 and SIGUSR2 are the scheduler's warnings: save, exit, and requeue. SIGTERM comes with scancel, and with a
# preemption after which Slurm requeues the job by itself: save and exit.
listen() {
    trap 'WARNED=1; leave USR1' USR1
    trap 'WARNED=1; leave USR2' USR2
    trap 'leave TERM' TERM
}

# Ask the command to save and exit. Training processes get SIGTERM directly: the launcher would pass it on, but kill
# them after 30 s.
leave() {
    say "SIG$1: asked to leave"
    LEAVING=1
    if [ -n "$CHILD" ]; then
        pkill -TERM -P "$CHILD" -f train_composer.py || kill -TERM "$CHILD" 2>/dev/null # it may have ended by itself
    fi
}

# Run a command to its end; its exit status is in STATUS. It ignores SIGUSR1 and SIGUSR2, because Grid Engine sends its
# warnings to all processes of a job, and they would kill the launcher.
supervise() {
    say "$*"
    (
        trap '' USR1 USR2
        exec "$@"
    ) &
    CHILD=$!
    [ -z "$LEAVING" ] || kill -TERM "$CHILD"
    while :; do
        LEAVING=""
        wait "$CHILD"
        STATUS=$?
        [ -n "$LEAVING" ] && [ $STATUS -gt 128 ] || break # else a signal ended the wait, not the command
    done
    CHILD=""
}

# End the job with STATUS. Put it back into the queue if it was warned and the command has exited for that reason: with
# the exit status of an interrupted run (75), or killed by SIGTERM before it handled signals (143; 241 by the launcher).
finish() {
    say "status $STATUS"
    case $STATUS in
    75 | 143 | 241)
        if [ -n "$WARNED" ] && [ "$SCHEDULER" = slurm ]; then
            trap '' TERM # requeueing kills what is left of the job
            say "back into the queue"
            scontrol requeue "$SLURM_JOB_ID" && exit "$STATUS"
        elif [ -n "$WARNED" ]; then
            say "back into the queue"
            exit 99
        fi
        ;;
    esac
    exit "$STATUS"
}

# Name log and job after the run that these arguments of train_composer.py start; bad arguments end the job here.
start_training() {
    local run_name
    run_name=$(python -m jobs.run_name "$@" 2>&1) || {
        open_log "$NAME"
        echo "$run_name"
        [ -n "$DATA" ] || say "DATA in jobs/site.sh names no shards: name them there, or give data.path=FOLDER"
        STATUS=2
        finish
    }
    open_log "$run_name"
    rename_job "$run_name"
}

train() {
    in_an_order "$@" || set -- direction=forward "$@"
    listen
    start_training "$@"
    supervise composer -n "$(processes_here)" --stdout "$LOG_DIR/rank{rank}.out" --stderr "$LOG_DIR/rank{rank}.err" \
        train_composer.py "$@"
    finish
}

# Whether the arguments say in which order a window is read.
in_an_order() {
    case " $*" in *" direction="* | *" order="*) ;; *) return 1 ;; esac
}

# Each line of a list is a pair of runs: task 1 is the forward run of line 1, task 2 the backward run of line 1, ...
train_pair() {
    local list=$1 line direction=forward
    shift
    : "${TASK:?is empty: submit this job as an array}"
    [ $((TASK % 2)) = 1 ] || direction=backward
    line=$(line_of "$list" $(((TASK + 1) / 2))) || exit 1
    # shellcheck disable=SC2086 # the line is split into its arguments
    train $line "direction=$direction" "runs_dir=runs/$(basename "$list" .txt)" "$@"
}

# Print a line of a list, by its number; comments and empty lines do not count.
line_of() {
    local line
    line=$(grep -v -e '^#' -e '^[[:space:]]*$' "$1" | sed -n "${2}p")
    [ -n "$line" ] || {
        say "$1 has no line $2" >&2
        return 1
    }
    echo "$line"
}

run() {
    listen
    open_log "$NAME"
    supervise python "$@"
    finish
}

# In an array the first argument is a list; the task takes the arguments of its line, and the other ones.
convert() {
    local line=""
    if [ -n "$TASK" ]; then
        line=$(line_of "$1" "$TASK") || exit 1
        shift
    fi
    # shellcheck disable=SC2086 # the line is split into its arguments
    run convert_to_mds.py "workers=$CPUS" $line "$@"
}

# A task of an array trains and evaluates one run of a study, by its number in the study's table, which begins with 0.
# Arrays of Grid Engine begin with 1.
study() {
    local first=0
    [ "$SCHEDULER" = slurm ] || first=1
    run run_study.py ${TASK:+"task=$((TASK - first))"} "$@"
}

compare() {
    local folder=$1 runs
    shift
    runs=$(printf ',%s' "$folder"/*/)
    run compare_directions.py "runs=[${runs#,}]" "out=${folder%/}-comparison" "$@"
}

# Train with a process for each GPU of each node: all_nodes.sh starts node.sh on every node.
train_on_nodes() {
    in_an_order "$@" || set -- direction=forward "$@"
    listen
    start_training "$@"
    export LOG_DIR
    export MASTER_PORT=$((10000 + JOB % 20000)) # another job that shares a node has another
    supervise bash jobs/all_nodes.sh "$@"
    finish
}
