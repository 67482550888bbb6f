"""Exports of runs in this process."""

from pathlib import Path

import export_hf
from helpers.training_runs import compose_config


def export(run: Path, out: Path, *arguments: str) -> None:
    """Write a run as a folder for transformers."""
    export_hf.main(compose_config("export_hf", f"run={run}", f"out={out}", *arguments))
