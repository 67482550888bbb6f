"""What a result came from: the commit of this code, and the versions of what computes."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

VERSION = "0.10.0"
"""Version of this project, as in CITATION.cff."""
PACKAGES = ("torch", "mosaicml", "mosaicml-streaming", "tokenizers", "transformers", "numpy")
"""Packages on which the numbers of a run may depend."""
CODE = ("hindsight/", "conf/")
"""Folders of code and configs."""
RECORDS = "results"
"""Folder of what studies write, which no run reads."""
OID = "# branch.oid "
"""What stands before the commit in `git status --porcelain=v2`."""
NO_COMMIT = "(initial)"
"""What stands there before the first one."""


def git_commit() -> str | None:
    """Commit of this code, with "-dirty" behind it where files differ from it; None outside a git checkout.

    A new .py or .yaml file is a difference, too, if git does not ignore it and it stands where there were files, or
    among code and configs. What a study writes into results/ is none.
    """
    top = Path(__file__).resolve().parents[1]
    command = ["git", "--no-optional-locks", "-C", str(top), "status", "--porcelain=v2", "--branch", "-z"]
    command += ["--", ".", f":(exclude){RECORDS}"]  # a folder that is new is one entry, however many files it has
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    if done.returncode != 0:
        return None
    entries = [entry for entry in done.stdout.split("\0") if entry]
    commit = next(entry.removeprefix(OID) for entry in entries if entry.startswith(OID))
    if commit == NO_COMMIT:
        return None
    files = [entry for entry in entries if not entry.startswith("# ")]
    new = [entry.removeprefix("? ") for entry in files if entry.startswith("? ")]
    is_code = [name.endswith((".py", ".yaml")) or (name.endswith("/") and name.startswith(CODE)) for name in new]
    return commit + "-dirty" * (len(new) < len(files) or any(is_code))


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
