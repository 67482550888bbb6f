#!/bin/bash
# Convert a corpus; as an array, one for each line of a list:
#   qsub jobs/convert.sh corpus=novels tokenizer=data/tokenizer out=data/novels
#$ -S /bin/bash
#$ -N convert
#$ -cwd -j y -o logs/
#$ -notify -r y
#$ -pe smp 8
#$ -l h_rt=24:00:00,s_rt=23:55:00
. jobs/lib.sh
convert "$@"
