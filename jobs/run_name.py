"""Print run_name, given or by default, for arguments of train_composer.py: `python -m jobs.run_name model=gpt2 ...`."""

from hindsight.command_line import check_arguments
from hindsight.output import say

if __name__ == "__main__":
    say(check_arguments("train_composer").name_of_run())
