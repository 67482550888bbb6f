"""What a result came from: the commit of this code, and the versions of what computes."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

VERSION = "0.10.0"
"""Version of this project, as in CITATION.cff."""
PACKAGES = ("torch", "mosaicml", "mosaicml-streaming", "tokenizers", "transformers", "numpy")
"""Packages on which the numbers of a run may depend."""


def git_commit() -> str | None:
    """Commit of this code, with "-dirty" behind it where the files differ from it; None outside a git checkout."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def versions() -> dict[str, str]:
    """Versions of Python and of PACKAGES; nothing of the environment, which may hold credentials."""
    return {"python": platform.python_version()} | {package: version(package) for package in PACKAGES}


def version_changes(before: dict[str, str], now: dict[str, str]) -> str | None:
    """Say which versions differ between a run's earlier start and this one; None if none does, or none was recorded.

    Args:
        before: versions in the run's metadata.json.
        now: `versions()` of this process.
    """
    changes = [
        f"{name} {before.get(name, 'missing')} (now {now.get(name, 'missing')})"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if not before or not changes:
        return None
    return (
        f"the run was last started with {', '.join(changes)}: its losses may differ in their last digits from here on."
    )
