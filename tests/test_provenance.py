import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.processes import ROOT

from hindsight.provenance import PACKAGES, version_changes, versions


def test_changed_versions_are_named_with_both_and_equal_ones_are_not():
    before = {"python": "3.11.7", "torch": "2.7.0", "numpy": "2.1.3"}
    assert version_changes(before, dict(before)) is None
    message = version_changes(before, before | {"torch": "2.15.0"})
    assert message is not None
    assert "torch 2.7.0 (now 2.15.0):" in message
    assert "numpy" not in message
    assert "numpy 2.1.3 (now missing)" in (version_changes(before, {"python": "3.11.7", "torch": "2.7.0"}) or "")


def test_versions_are_those_of_what_computes():
    assert versions().keys() == {"python", *PACKAGES}


CODE = "from hindsight.provenance import git_commit; print(git_commit())"


def said(checkout: Path) -> str:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=checkout, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def git(checkout: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
    done = subprocess.run(["git", "-C", str(checkout), *who, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small checkout with one commit."""
    for name in ("hindsight/__init__.py", "hindsight/provenance.py", "README.md", ".gitignore"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "results").mkdir()
    (tmp_path / "results/report.md").write_text("before")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "all")
    return tmp_path


def test_a_checkout_without_changes_is_its_commit(checkout):
    assert said(checkout) == git(checkout, "rev-parse", "HEAD")


@pytest.mark.parametrize(
    "name",
    ["README.md", "new.py", "hindsight/new.py", "hindsight/new/a.py", "conf/study/new.yaml", "hindsight/provenance.py"],
)
def test_what_differs_from_the_commit_is_said(checkout, name):
    (checkout / name).parent.mkdir(parents=True, exist_ok=True)
    with open(checkout / name, "a") as file:
        file.write("\n")
    assert said(checkout) == git(checkout, "rev-parse", "HEAD") + "-dirty"


@pytest.mark.parametrize(
    "name", ["results/report.md", "results/new/figure.py", "runs/a/config.yaml", "notes.txt", "texts/a/b.txt"]
)
def test_what_no_run_reads_is_no_difference(checkout, name):
    (checkout / name).parent.mkdir(parents=True, exist_ok=True)
    (checkout / name).write_text("after")
    assert said(checkout) == git(checkout, "rev-parse", "HEAD")


def test_a_copy_without_git_has_no_commit(checkout):
    shutil.rmtree(checkout / ".git")
    assert said(checkout) == "None"


def test_before_the_first_commit_there_is_none(checkout):
    shutil.rmtree(checkout / ".git")
    git(checkout, "init", "-q")
    assert said(checkout) == "None"
