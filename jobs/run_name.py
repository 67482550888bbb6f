"""Print run_name, given or by default, for arguments of train_composer.py: `python -m jobs.run_name model=gpt2 ...`."""

import sys

from hindsight.command_line import check_arguments

if __name__ == "__main__":
    sys.stdout.write(check_arguments("train_composer").name_of_run() + "\n")
