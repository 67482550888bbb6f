"""What changed files need, in about a minute: `make check`, or `python tests/check.py BASE`.

Changed is what differs from BASE: without it, from where this branch left main, and on main from the last commit. ruff
and pyright see the changed files. Of the tests those run that take no ten seconds, and whose imports reach a changed
file, the nearest first, until the first failure, or the end of the minute; `make test` runs all.
"""

import argparse
import ast
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS_S = 45.0
"""Most seconds for the tests; it takes a few more to start them, and to end."""
READ_BY = {"README.md": "tests/test_readme.py", ".ci/run": "tests/test_readme.py", "conf/": "tests/test_config.py"}
"""Tests of files, or folders, that nothing imports."""
TOLD_TO_STOP = 2
"""pytest's exit status after SIGINT."""


def git(*arguments: str) -> list[str]:
    """The lines that a command of git's writes; none if it fails."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.splitlines() if done.returncode == 0 else []


def changed_files(base: str | None) -> list[str]:
    """Files that differ from a commit, the new ones too, but not those that are gone."""
    base = base or next(iter(git("merge-base", "HEAD", "main")), "HEAD")
    changed = git("diff", "--name-only", "--diff-filter=d", base)
    return sorted({*changed, *git("ls-files", "--others", "--exclude-standard")})


def module_of(path: str) -> str:
    """The name by which a file is imported; tests/ is on the path as the top level is."""
    return path.removeprefix("tests/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports_of(path: Path) -> set[str]:
    """What a file imports anywhere, and what that could mean: `from a import b` is a, or a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def affected_tests(changed: list[str]) -> list[str]:
    """Files of tests from which imports lead to a changed file, the nearest first; all if conftest.py is changed."""
    paths = [
        path for path in git("ls-files", "--cached", "--others", "--exclude-standard", "*.py") if (ROOT / path).exists()
    ]
    modules = {module_of(path): path for path in paths}
    importers: dict[str, list[str]] = {path: [] for path in paths}
    for path in paths:
        for name in imports_of(ROOT / path) & modules.keys():
            importers[modules[name]].append(path)
    read = [test for path in changed for start, test in READ_BY.items() if path.startswith(start)]
    nearest = deque(path for path in [*changed, *read] if path in importers)
    found = dict.fromkeys(nearest)
    while nearest:
        for path in importers[nearest.popleft()]:
            if path not in found:
                found[path] = None
                nearest.append(path)
    everything = paths if "tests/conftest.py" in changed else found
    return [path for path in everything if path.startswith("tests/") and Path(path).name.startswith("test_")]


def run_tests(files: list[str]) -> int:
    """Run what is fast of these files; the exit status, which is 0 too if the time is up before a test fails."""
    workers = "auto" if len(files) > 2 else "0"  # each takes seconds for what it imports
    options = ["-q", "-x", "-n", workers, "-m", "not slow and not cluster"]
    process = subprocess.Popen([sys.executable, "-m", "pytest", *options, *files], cwd=ROOT)
    try:
        status = process.wait(TESTS_S)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        status = process.wait()
        if status == TOLD_TO_STOP:
            sys.stdout.write("The minute is over; make test runs the rest.\n")
            return 0
    return 0 if status == 5 else status  # 5: none of them is fast


def main() -> int:
    """Check what has changed; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", help="commit to compare with")
    changed = changed_files(parser.parse_args().base)
    began = time.monotonic()
    python = [path for path in changed if path.endswith(".py")]
    tests = affected_tests(changed)
    sys.stdout.write(f"{len(changed)} changed files, {len(tests)} files of tests that reach them\n")
    tools = Path(sys.executable).parent
    commands = [[tools / "ruff", "check", *python], [tools / "ruff", "format", "--check", *python]]
    statuses = [subprocess.run(command, cwd=ROOT, check=False).returncode for command in commands if python]
    types = subprocess.Popen([tools / "pyright", *python], cwd=ROOT) if python else None
    statuses.append(run_tests(tests) if tests else 0)
    statuses.append(types.wait() if types else 0)
    sys.stdout.write(f"{'failed' if any(statuses) else 'passed'} in {time.monotonic() - began:.0f} s\n")
    return int(any(statuses))


if __name__ == "__main__":
    sys.exit(main())
