#!/bin/bash
# A study; as an array, a run a task, the first is 1:
#   qsub -t 1-12 jobs/study.sh study=paper_main scale=gpu
#$ -S /bin/bash
#$ -N study
#$ -cwd -j y -o logs/
#$ -notify -r y
#$ -l gpu=1
#$ -l h_rt=24:00:00,s_rt=23:55:00
. jobs/lib.sh
study "$@"
