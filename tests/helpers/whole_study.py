"""A study that has run, which tests look at and copy, and its command."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.processes import run_command
from helpers.small_data import make_text
from helpers.small_study_file import write_study
from hindsight.config.study import Scale, StudyConfig
from hindsight.studies.processes import end_servers
from hindsight.studies.results import StudyResult
from hindsight.studies.run import StudyWork

NAMES = ["forward-seed0", "forward-seed1", "backward-seed0", "backward-seed1"]
WAIT_S = 300.0


@pytest.fixture(scope="module")
def study_servers() -> Iterator[None]:
    """Ends the processes from which the studies of a file start their commands."""
    yield
    end_servers()


def keys_of(folder: Path, study: Path | str, **changes: Any) -> dict[str, str]:
    places = {"out": "out", "runs_dir": "runs", "data_dir": "data", "corpus_dir": "."}
    given = {"study": str(study), "scale": "tiny"} | {key: str(folder / name) for key, name in places.items()}
    return given | {key: str(value) for key, value in changes.items()}


def command(folder: Path, study: Path | str, **changes: Any) -> list[str]:
    return ["run_study.py", *(f"{key}={value}" for key, value in keys_of(folder, study, **changes).items())]


def opened(folder: Path, study: Path, **changes: Any) -> StudyWork:
    given: dict[str, Any] = keys_of(folder, study) | {"scale": Scale.tiny}
    return StudyWork(StudyConfig(**given | changes))


def make(folder: Path, n_documents: int = 120, **changes: Any) -> Path:
    """Write a study and its corpus."""
    study = write_study(folder, **changes)
    (folder / "corpus.txt").write_text(make_text(n_documents, seed=1), encoding="utf-8")
    return study


def lasting(result: StudyResult) -> Any:
    """What a study has found, without what differs from start to start: when it was, by which commit, and how fast."""
    values = result.as_json()
    del values["provenance"]
    for run in values["runs"]:
        del run["tokens_per_second"]
        del run["metadata"]["git_commit"]
    return json.loads(json.dumps(values))


def lasting_text(out: Path) -> str:
    """The report as text, without lines that differ from start to start."""
    differing = ("date:", "git commit:", "Made by", "training took")
    lines = (out / "report.md").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith(differing))


@pytest.fixture(scope="session")
def whole_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that has run, by the command."""
    folder = tmp_path_factory.mktemp("whole")
    done = run_command("python", *command(folder, make(folder)), timeout_s=WAIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    table = "4 runs, "  # before data is made, and again with what the data tells
    assert done.stdout.index(table) < done.stdout.index("convert_to_mds.py ") < done.stdout.rindex(table)
    assert done.stdout.rindex(table) < done.stdout.index("is trained")
    return folder


@pytest.fixture
def copied_study(whole_study: Path, tmp_path: Path) -> Path:
    """A copy of it, the data only."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("corpus.txt", "small.yaml"):
        shutil.copy(whole_study / name, folder)
    shutil.copytree(whole_study / "data", folder / "data")
    return folder
