"""The status with which processes leave is the one that was meant, whatever gloo's threads are doing then."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.processes import ROOT

SCRIPT = Path(__file__).parents[1] / "helpers" / "exit_race.py"


@pytest.mark.slow
@pytest.mark.dist
def test_threads_that_are_late_do_not_change_the_status():
    ended = subprocess.run(
        [sys.executable, SCRIPT], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert {*ended.stdout.split()} == {"2"}, ended.stdout + ended.stderr
