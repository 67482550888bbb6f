"""Runs that follow each other in the same processes: `composer -n 2 several_runs.py FILE`, JSON of their arguments."""

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    tests = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(tests), str(tests.parent)]
    import train_composer
    from helpers.training_runs import compose_config

    for arguments in json.loads(Path(sys.argv[1]).read_text()):
        train_composer.main(compose_config("train_composer", *arguments))
