# shellcheck shell=bash
# The settings of your site; every job sources this file first, in the folder from which it was submitted.
# As they stand, they work where the defaults of the scheduler do. Change them here, and nowhere else.
#
# Source it on the login node too, once a session: `. jobs/site.sh`. sbatch then knows the partition, qsub the queue.

# The environment. With modules, for example:
#   module load cuda/12.6 python/3.11
[ -f .venv/bin/activate ] || {
    echo "$PWD has no .venv: run make setup there, or change jobs/site.sh" >&2
    return 2
}
# shellcheck source=/dev/null
. .venv/bin/activate

# The shards on which train_gpt2 trains where its arguments name none (data.path=):
export DATA=

# Folder of the jobs' log folders; a relative path starts at the folder from which jobs are submitted.
export LOGS=logs

# Slurm reads its options from variables:
#   export SBATCH_PARTITION=gpu SBATCH_ACCOUNT=language SBATCH_QOS=normal

# Grid Engine does not, so qsub gets them from here:
#   SGE_OPTIONS=(-q gpu.q -P language -l mem_free=16G)
SGE_OPTIONS=()
qsub() { command qsub "${SGE_OPTIONS[@]}" "$@"; }

# The GPUs of a job, where the scheduler itself does not set CUDA_VISIBLE_DEVICES. Univa's Grid Engine names them so:
#   export CUDA_VISIBLE_DEVICES=${SGE_HGR_gpu// /,}

# Keys and tokens belong in files that only you can read, not here:
#   . ~/.config/hindsight/secrets.sh
