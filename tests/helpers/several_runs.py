"""Runs that follow each other in the same processes: `composer -n 2 several_runs.py FILE`, JSON of their arguments."""

import json
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def train_on_two(folder: Path, *given: list[str]) -> None:
    """Train one run after the other on two processes, which start once; `folder` keeps their arguments."""
    from helpers.processes import run_command

    folder.mkdir(exist_ok=True)
    listed = folder / "arguments.json"
    listed.write_text(json.dumps(given))
    done = run_command("composer", "-n", "2", __file__, str(listed), timeout_s=280)
    assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    sys.path[:0] = [str(TESTS), str(TESTS.parent)]
    import train_composer
    from helpers.training_runs import compose_config

    for arguments in json.loads(Path(sys.argv[1]).read_text()):
        train_composer.main(compose_config("train_composer", *arguments))
