"""The studies that ship: each is read at every scale, and runs whole at scale=tiny."""

import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from helpers.processes import ROOT
from helpers.study_pages import read_result
from helpers.training_runs import compose_config

from hindsight import runs
from hindsight.config.keys import flatten
from hindsight.config.made_corpus import CorpusKind
from hindsight.config.schemas import names_in
from hindsight.config.study import Scale, StudyConfig
from hindsight.errors import InputError
from hindsight.studies.ahead import ahead_of, check_ahead
from hindsight.studies.commands import arguments_of
from hindsight.studies.made_data import Data
from hindsight.studies.planned_runs import PlannedRun, plan_runs
from hindsight.studies.processes import end_servers
from hindsight.studies.results import COMPARISON, REPORT_HTML, REPORT_MD
from hindsight.studies.run import StudyWork
from hindsight.studies.study_file import Study, read_study
from hindsight.synthetic.floors import floor_of
from hindsight.synthetic.known import LANGUAGES, language_of
from hindsight.synthetic.writing import SEEN_SHARE

SHIPPED = names_in("study")
MEANT = {
    "boundary_controls",
    "demo",
    "lr_per_order",
    "novels",
    "null",
    "paper_context",
    "paper_languages",
    "paper_main",
    "paper_sizes",
    "permutations",
    "synthetic",
    "tokenizer_controls",
    "words_and_sentences",
}


def texts_of(study: Study) -> list[str]:
    """Paths of all texts that a study reads and does not make."""
    entries = [entry.get("make", entry) for entry in study.corpora.values()]
    return [str(entry["corpus"]) for entry in entries if "corpus" in entry]


def planned(name: str, scale: Scale, folder: Path) -> tuple[Study, list[PlannedRun]]:
    """Plan the runs of a study, with a line for each text that it reads."""
    study = read_study(name, scale)
    for text in texts_of(study):
        (folder / text).parent.mkdir(parents=True, exist_ok=True)
        (folder / text).write_text("A line.\n")
    config = StudyConfig(study=name, scale=scale, corpus_dir=str(folder), data_dir=str(folder / "data"))
    return study, plan_runs(study, config, Data(study, config))


def documented() -> dict[str, list[int]]:
    """Number of runs at scale=cpu, and of those of the sweep, as docs/studies.md has them."""
    text = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `") and line.endswith(" min |")]
    return {row[1].strip(" `"): [int(number) for number in re.findall(r"\d+", row[3])] for row in rows}


def test_the_studies_of_the_documentation_are_those_that_ship():
    assert set(SHIPPED) == MEANT == set(documented())


@pytest.mark.parametrize("scale", list(Scale))
@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_study_plans_runs_in_two_orders_at_every_scale(name: str, scale: Scale, tmp_path: Path):
    study, plan = planned(name, scale, tmp_path)
    assert study.question.endswith("?")
    orders = {run.axes["order"] for run in plan}
    assert {"forward", "backward"} <= orders
    assert len({run.name for run in plan}) == len(plan)
    for run in plan:
        check_ahead(run)
        is_of_epochs = run.config.max_duration.endswith("ep")
        assert (ahead_of(run) is None) == is_of_epochs
    of_sweep = sum(run.is_sweep for run in plan)
    if scale is Scale.cpu:
        assert documented()[name] == [len(plan) - of_sweep, *([of_sweep] if of_sweep else [])]
    if scale is Scale.tiny:
        assert len(plan) <= 8, "together they take less than four minutes"


@pytest.mark.parametrize("number", [0, 1])
def test_the_study_demo_has_the_runs_of_make_demo(number: int, tmp_path: Path):
    _, plan = planned("demo", Scale.cpu, tmp_path)
    run = plan[number]
    made = compose_config("train_composer", "experiment=demo", f"direction={run.axes['order']}")
    config = replace(run.config)  # in its normal form, in which direction= is set
    differences = {key for key, value in flatten(asdict(made)).items() if flatten(asdict(config))[key] != value}
    assert differences == {"data.path", "run_name", "runs_dir"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    tokenizer, shards = (step.command for step in run.dataset.steps[-2:])
    assert (tokenizer.script, shards.script) == ("train_tokenizer", "convert_to_mds")
    assert f"out=$(DEMO)/tokenizer {tokenizer.arguments[-1]}" in makefile
    assert f"out=$(DEMO)/bible {shards.arguments[-1]}" in makefile


@pytest.mark.parametrize("name", SHIPPED)
def test_where_a_text_can_be_had_is_said_of_each(name: str, tmp_path: Path):
    for scale in Scale:
        study = read_study(name, scale)
        for entry in study.corpora.values():
            assert ("source" in entry) == ("corpus" in entry.get("make", entry))
        if texts_of(study):
            config = StudyConfig(study=name, scale=scale, corpus_dir=str(tmp_path), data_dir=str(tmp_path / "data"))
            with pytest.raises(InputError, match=r"corpus_dir=.*https://"):
                plan_runs(study, config, Data(study, config))


@pytest.mark.parametrize("scale", [Scale.cpu, Scale.gpu])
@pytest.mark.parametrize("name", SHIPPED)
def test_no_synthetic_corpus_is_a_good_part_of_its_language_and_a_window_is_a_document(
    name: str, scale: Scale, tmp_path: Path
):
    study, plan = planned(name, scale, tmp_path)
    floors: dict[str, dict[str, Any]] = {}
    for corpus, entry in study.corpora.items():
        given = CorpusKind[entry.get("make", {}).get("kind", "bible")]
        if given in LANGUAGES:
            made = compose_config("make_corpus", "out=a", *arguments_of(entry["make"]))
            floors[corpus] = floor_of(made.kind, made.settings, language_of(made.kind, made.settings))
            assert floors[corpus]["seen_share"] < SEEN_SHARE, corpus
    for run in plan:
        corpus = study.corpora[run.axes["corpus"]].get("turned", run.axes["corpus"])
        if corpus in floors:
            assert run.config.data.context_length == floors[corpus]["tokens_per_document"], run.name


def test_the_study_of_ones_own_in_the_documentation_plans_its_runs(tmp_path: Path):
    text = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    example = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    assert len(example) == 1
    (tmp_path / "letters.yaml").write_text(example[0], encoding="utf-8")
    _, plan = planned(str(tmp_path / "letters.yaml"), Scale.cpu, tmp_path)
    assert [run.name for run in plan] == [f"{order}-seed{n}" for order in ("forward", "backward") for n in range(3)]


def test_a_study_that_does_not_ship_is_refused_with_those_that_do():
    with pytest.raises(InputError, match="did you mean study=paper_main"):
        read_study("paper_mian", Scale.tiny)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Corpora, tokenizers and shards, which the studies share, like the processes that commands are forked from."""
    yield tmp_path_factory.mktemp("data")
    end_servers()


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_study_runs_whole_at_scale_tiny(name: str, data_dir: Path, tmp_path: Path):
    out, runs_dir = tmp_path / "out", tmp_path / "runs"
    config = StudyConfig(
        study=name,
        scale=Scale.tiny,
        out=str(out),
        runs_dir=str(runs_dir),
        data_dir=str(data_dir),
        corpus_dir=str(tmp_path),
    )
    assert StudyWork(config).run() == 0
    study, result = read_study(name, Scale.tiny), read_result(out)
    assert result.question == study.question
    assert {run.state for run in result.runs} == {"done"}
    assert all(run.loss_nats is not None for run in result.runs)
    scored = {Path(run.folder, runs.TOKEN_LOSSES).is_file() for run in result.runs if not run.is_sweep}
    assert scored == {study.evaluation is not None}
    for file in (out / REPORT_HTML, out / REPORT_MD, out / COMPARISON / "comparison.json"):
        assert file.is_file()
    assert study.question in (out / REPORT_MD).read_text(encoding="utf-8")
