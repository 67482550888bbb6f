#!/bin/bash
# GPT-2 124M on two nodes:
#   qsub jobs/train_gpt2_nodes.sh direction=backward data.path=data/novels
# Without arguments: forward, on DATA of jobs/site.sh.
#$ -S /bin/bash
#$ -N train_gpt2_nodes
#$ -cwd -j y -o logs/
#$ -notify -r y
#$ -pe mpi 2
#$ -l gpu=1
#$ -l h_rt=24:00:00,s_rt=23:55:00
. jobs/lib.sh
train_on_nodes experiment=gpt2 "data.path=$DATA" "$@"
