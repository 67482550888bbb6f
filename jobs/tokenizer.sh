#!/bin/bash
# Train a tokenizer:
#   qsub jobs/tokenizer.sh corpus=novels out=data/tokenizer
#$ -S /bin/bash
#$ -N tokenizer
#$ -cwd -j y -o logs/
#$ -notify -r y
#$ -pe smp 8
#$ -l h_rt=24:00:00,s_rt=23:55:00
. jobs/lib.sh
run train_tokenizer.py "$@"
