"""run_study.py refuses what cannot be, before anything is made, and what is there from other settings."""

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.processes import ROOT
from helpers.small_study_file import write_study
from helpers.whole_study import make, opened

from hindsight import runs
from hindsight.config.study import Only
from hindsight.errors import InputError
from hindsight.studies.run_lengths import loss_at_end

pytestmark = pytest.mark.usefixtures("study_servers")


BAD: list[tuple[dict[str, Any], str]] = [
    ({"settings": {"model.d_model": 1 << 17, "model.n_layers": 64}}, "of the 4 runs that are missing need"),
    ({"settings": {"data.context_length": 24}}, "data.context_length=24 does not divide block_length=32"),
    ({"settings": {"batch_size": 100_000}}, "batch_size=100000 is more than an epoch"),
]


@pytest.mark.parametrize(("changes", "words"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_what_does_not_fit_the_data_or_the_disk_is_said_before_the_first_run(
    copied_study: Path, changes: dict[str, Any], words: str
):
    study = write_study(copied_study, **changes)
    with pytest.raises(InputError, match=words):
        opened(copied_study, study).run()
    assert not (copied_study / "runs").exists()


def test_what_is_known_to_have_no_room_is_said_before_further_data_is_made(copied_study: Path):
    study = write_study(
        copied_study,
        corpora={"longer": {"corpus": "corpus.txt", "convert": {"block_length": 64}}},
        axes={"corpus": ["words", "longer"]},
        settings={"model.d_model": 1 << 17, "model.n_layers": 64, "max_duration": "1ep"},  # as long as data, if there
    )
    with pytest.raises(InputError, match="of the 4 runs that are missing need"):
        opened(copied_study, study).run()
    assert len([*(copied_study / "data").glob("*/manifest.json")]) == 1


AHEAD: list[tuple[dict[str, Any], str]] = [
    BAD[0],
    ({"settings": BAD[0][0]["settings"] | {"max_duration": "1000tok"}}, BAD[0][1]),
    ({"settings": {"data.context_length": 24}}, r"study=small: .*24 does not divide block_length=32 of .*words-own-"),
    ({"settings": {"data.context_length": 64}, "convert": {"block_length": 64}}, "exceeds model.context_length=32"),
    ({"settings": {"data.stride": 64}}, "data.stride=64 would leave out tokens"),
    (
        {"axes": {"order": ["forward", "quarter_end_in_concat"]}, "settings": {"data.context_length": 2}},
        "order=quarter_end_in_concat needs",
    ),
]


@pytest.mark.parametrize(("changes", "words"), AHEAD, ids=lambda value: value if isinstance(value, str) else "")
def test_what_the_settings_alone_tell_is_said_before_data_is_made(tmp_path: Path, changes: dict[str, Any], words: str):
    study = make(tmp_path, **changes)
    with pytest.raises(InputError, match=words):
        opened(tmp_path, study).run()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("duration", ["4ba", "500tok", "1ep"])
def test_the_table_before_data_has_what_the_settings_alone_tell(
    whole_study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], duration: str
):
    def rows(folder: Path) -> list[list[str]]:
        study = write_study(folder, settings={"max_duration": duration})
        assert opened(folder, study, only=Only.table, runs_dir=str(tmp_path / "runs")).run() == 0
        return [line.split()[2:5] for line in capsys.readouterr().out.splitlines()[2:6]]

    (tmp_path / "there").mkdir()
    shutil.copy(whole_study / "corpus.txt", tmp_path / "there")
    before = rows(tmp_path / "there")
    shutil.copytree(whole_study / "data", tmp_path / "there" / "data")
    if duration == "1ep":
        assert before == 4 * [3 * ["unknown"]] != rows(tmp_path / "there")
    else:
        assert before == rows(tmp_path / "there")
        assert before[0][0] == "512"


def test_a_run_that_was_begun_with_other_settings_is_refused(whole_study: Path, copied_study: Path):
    shutil.copytree(whole_study / "runs", copied_study / "runs")
    study = write_study(copied_study, settings={"optim.lr": 0.1})
    with pytest.raises(InputError, match=r"run_name=forward-seed0 cannot go on .*optim.lr=0.1 \(the run has 0.003\)"):
        opened(copied_study, study).run()


def test_a_run_of_another_length_is_refused_and_so_is_one_that_was_made_longer(whole_study: Path, copied_study: Path):
    shutil.copytree(whole_study / "runs", copied_study / "runs")
    study = write_study(copied_study, settings={"max_duration": "6ba"})
    with pytest.raises(InputError, match=r"forward-seed0 .* has 4 steps, and max_duration=6ba is 6 steps.*runs_dir="):
        opened(copied_study, study).run()
    for path in (copied_study / "runs").rglob(runs.METADATA):
        records = json.loads(path.read_text())
        plan = [{"after": after, "until": until, "how": "continue", "lr": 0.0} for after, until in ((0, 4), (4, 6))]
        path.write_text(json.dumps(records | {"total_steps": 6, runs.LR_PLAN: plan}))
    with pytest.raises(InputError, match=r"was made longer, from 4 steps to 6, and max_duration=6ba"):
        opened(copied_study, study).run()
    assert not (copied_study / "out").exists()


@pytest.mark.parametrize(("key", "value"), [("eval_batches", 1), ("eval_interval", "2ba")])
def test_a_run_that_was_evaluated_otherwise_is_refused(whole_study: Path, copied_study: Path, key: str, value: Any):
    shutil.copytree(whole_study / "runs", copied_study / "runs")
    of_study = "null" if key == "eval_batches" else "100ba"
    study = write_study(copied_study, settings={key: value})
    words = rf"run_name=forward-seed0 in .* has {key}={of_study}, and the study has {key}={value}; .*runs_dir="
    with pytest.raises(InputError, match=words):
        opened(copied_study, study).run()
    assert not (copied_study / "out").exists()


@pytest.mark.parametrize("total", [3, 5], ids=["beyond its end", "before its end"])
def test_the_loss_of_a_run_is_that_of_its_planned_step(whole_study: Path, copied_study: Path, total: int):
    folder = copied_study / "run"
    shutil.copytree(whole_study / "runs" / "small-tiny" / "forward-seed0", folder)
    assert loss_at_end(folder) == runs.last_value(folder / runs.METRICS, runs.EVAL_LOSS)
    records = json.loads((folder / runs.METADATA).read_text())
    (folder / runs.METADATA).write_text(json.dumps(records | {"total_steps": total}))
    assert loss_at_end(folder) is None


def test_few_documents_to_validate_on_are_refused_unless_the_study_takes_them(tmp_path: Path):
    study = make(tmp_path, n_documents=30)
    with pytest.raises(InputError, match=r"few documents to validate on .*a study asks for 20"):
        opened(tmp_path, study).run()
    study = write_study(tmp_path, few_documents=True)
    assert opened(tmp_path, study, only=Only.table).run() == 0


def test_two_studies_into_one_folder_are_refused_and_tasks_are_not(whole_study: Path):
    holding = "from hindsight.files import locked; from pathlib import Path; import sys\n"
    holding += (
        "with locked(Path(sys.argv[1]), '', sys.argv[2] == 'shared'): print('held', flush=True); sys.stdin.read()"
    )
    places = ["out", "runs/small-tiny"]  # of one start that has another out=
    for kind, place in itertools.product(("alone", "shared"), places):
        arguments = [sys.executable, "-c", holding, str(whole_study / place / ".study"), kind]
        with subprocess.Popen(arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"held\n"
            with pytest.raises(InputError, match=rf"study=small: another process works on it in .*{place} \(process "):
                opened(whole_study, whole_study / "small.yaml").run()
            if place != "out":  # what is there may be reported
                assert opened(whole_study, whole_study / "small.yaml", only=Only.report).run() == 0
            if kind == "shared":
                assert opened(whole_study, whole_study / "small.yaml", task=1).run() == 0
            assert other.stdin is not None
            other.stdin.close()
