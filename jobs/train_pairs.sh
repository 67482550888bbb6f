#!/bin/bash
# Both directions of each line of a list, a run a task, two tasks a line:
#   qsub -t 1-4 jobs/train_pairs.sh jobs/pairs.txt data.path=data/novels
#$ -S /bin/bash
#$ -N train_pairs
#$ -cwd -j y -o logs/
#$ -notify -r y
#$ -l gpu=1
#$ -l h_rt=24:00:00,s_rt=23:55:00
. jobs/lib.sh
train_pair "$@"
