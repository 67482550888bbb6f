#!/bin/bash
# Compare the runs of a folder, when the array that trains them is done:
#   qsub -hold_jid train_pairs jobs/compare.sh runs/pairs
#$ -S /bin/bash
#$ -N compare
#$ -cwd -j y -o logs/
#$ -notify -r y
#$ -l h_rt=01:00:00
. jobs/lib.sh
compare "$@"
