"""The first import of every command: whether what it needs is installed, before anything else fails to import."""

import importlib.util
import sys
from pathlib import Path

NEEDED = ("yaml", "omegaconf", "hydra", "docstring_parser", "numpy", "tokenizers", "torch", "composer", "streaming")
"""What `make setup` installs, as far as commands import it."""
OLDEST_PYTHON = (3, 10)


def check_installed() -> None:
    """End with one line and status 2 where Python, or the folder of its packages, is not the one of `make setup`."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if not missing and sys.version_info >= OLDEST_PYTHON:
        return
    python = Path(__file__).resolve().parents[1] / ".venv" / "bin" / "python"
    name = Path(sys.argv[0]).name
    what = f"this is Python {sys.version.split()[0]}"
    if missing:
        what = f"{missing[0]} is not installed for {sys.executable}"
    way_out = "run `make setup` once, then use .venv/bin/python, or `source .venv/bin/activate`"
    if python.exists():
        way_out = f"use {python}, which `make setup` made, or `source .venv/bin/activate`"
    sys.stderr.write(f"{name}: {what}; {way_out}.\n")
    sys.exit(2)


check_installed()
