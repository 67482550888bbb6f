"""What a study's file may say, and which runs that makes."""

from math import inf
from pathlib import Path
from typing import Any

import pytest
from helpers.small_data import make_text
from helpers.small_study_file import opened, planned, write_study

from hindsight.config.study import Scale, StudyConfig
from hindsight.studies.links import link
from hindsight.studies.made_data import Data
from hindsight.studies.planned_runs import PlannedRun, best_rates, combination_of, plan_runs
from hindsight.studies.run import StudyWork
from hindsight.studies.study_file import read_study


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "corpus.txt").write_text(make_text(n_documents=30, seed=1), encoding="utf-8")
    return tmp_path


def names(runs: list[PlannedRun]) -> list[str]:
    return [run.name for run in runs]


def test_every_combination_of_the_axes_is_a_run_named_by_its_seed_and_the_axes_with_several_values(folder: Path):
    runs = planned(folder, axes={"data.context_length": [16, 32], "optim.lr": ["1e-3"], "seed": [0]})
    assert names(runs) == [
        "forward-seed0-context_length16",
        "forward-seed0-context_length32",
        "backward-seed0-context_length16",
        "backward-seed0-context_length32",
    ]
    assert [run.config.data.context_length for run in runs] == [16, 32, 16, 32]
    assert runs[0].axes == {
        "order": "forward",
        "seed": 0,
        "data.context_length": 16,
        "optim.lr": 0.001,
        "corpus": "words",
        "tokenizer": "own",
    }
    assert {run.config.optim.lr for run in runs} == {0.001}
    assert names(planned(folder, axes={"order": ["forward", "random_chunk:3"], "seed": [0]}, report=["null"])) == [
        "forward-seed0",
        "random_chunk3-seed0",
    ]


def test_direction_is_the_axis_order(folder: Path):
    changes: dict[str, Any] = {"axes": {"order": None, "direction": ["forward", "backward"]}}
    assert names(planned(folder, **changes)) == [
        f"seed{i}-{order}" for i in (0, 1) for order in ("forward", "backward")
    ]


def test_the_section_null_needs_no_quotes(folder: Path):
    study, _, _ = opened(folder, Scale.tiny, None, report=["gap", None])
    assert study.sections == study.content["report"] == ["gap", "null"]


@pytest.mark.parametrize(("seeds", "expected"), [(None, [7, 3]), (1, [7]), (2, [7, 3]), (4, [7, 3, 0, 1])], ids=str)
def test_seeds_are_the_first_of_the_axis_and_then_the_next_numbers(folder: Path, seeds: int, expected: list[int]):
    runs = planned(folder, seeds=seeds, axes={"seed": [7, 3]})
    assert [run.axes["seed"] for run in runs if run.axes["order"] == "forward"] == expected
    assert names(runs)[0] == "forward-seed7"  # also where only one is left: the run of a longer study
    assert names(planned(folder, seeds=seeds, axes={"seed": [7]}))[0] == "forward-seed7"  # and where it is the only one


def test_a_scale_is_merged_key_by_key_and_null_removes(folder: Path):
    changes = {
        "convert": {"seed": 3},
        "where": [{"if": {"order": "backward"}, "settings": {"batch_size": 2}}],
        "scales": {
            "tiny": {
                "settings": {"max_duration": "2ba", "model.d_model": 8, "samples": {"interval": None}},
                "axes": {"seed": [5]},
                "where": None,
            },
            "cpu": {"evaluation": None},
        },
    }
    tiny, cpu = planned(folder, **changes), planned(folder, Scale.cpu, **changes)
    assert [(run.config.max_duration, run.config.model.d_model, run.config.seed) for run in tiny] == 2 * [("2ba", 8, 5)]
    assert {run.config.samples.interval for run in tiny} == {None}
    assert [run.config.batch_size for run in tiny + cpu] == [4, 4, 4, 4, 2, 2]
    assert read_study(str(folder / "small.yaml"), Scale.tiny).evaluation == {}
    assert read_study(str(folder / "small.yaml"), Scale.cpu).evaluation is None


def test_settings_of_where_hold_for_runs_with_these_values_and_axes_win(folder: Path):
    where = [{"if": {"corpus": "words", "order": ["backward"]}, "settings": {"batch_size": 2, "optim.lr": "2e-3"}}]
    runs = planned(folder, where=where, axes={"seed": [0]}, settings={"optim.lr": 1e-3})
    assert [(run.config.batch_size, run.config.optim.lr) for run in runs] == [(4, 1e-3), (2, 2e-3)]
    runs = planned(folder, where=where, axes={"seed": [0], "optim.lr": [0.1, 0.2]})
    assert [run.config.optim.lr for run in runs] == [0.1, 0.2, 0.1, 0.2]


def test_a_condition_may_be_of_another_scale_and_its_numbers_are_those_of_the_axis(folder: Path):
    conditions: dict[str, Any] = {
        "where": [{"if": {"optim.lr": ["1e-3", 0.5], "seed": [0, 7]}, "settings": {"batch_size": 2}}],
        "without": [{"optim.lr": ["2e-3"], "order": "forward"}, {"optim.lr": 0.5}],
        "axes": {"optim.lr": ["1e-3", "2e-3"], "seed": [0]},
        "scales": {"gpu": {"axes": {"optim.lr": [0.5]}}},
    }
    runs = planned(folder, **conditions)
    assert [(run.axes["order"], run.config.optim.lr, run.config.batch_size) for run in runs] == [
        ("forward", 1e-3, 2),
        ("backward", 1e-3, 2),
        ("backward", 2e-3, 4),
    ]


def test_names_are_what_is_written_whatever_yaml_takes_them_for(folder: Path):
    study = write_study(folder, axes={"seed": [0]})
    text = study.read_text().replace(
        "corpora:\n  words:", "corpora:\n  2021: {corpus: corpus.txt}\n  null: {turned: no}\n  no:"
    )
    text = text.replace("tokenizers:\n  own:", "tokenizers:\n  yes:").replace(
        "axes:", "without:\n- {corpus: [2021], order: backward}\naxes:\n  corpus: [no, null, 2021]\n  tokenizer: yes"
    )
    study.write_text(text)
    config = StudyConfig(study=str(study), corpus_dir=str(folder), data_dir=str(folder / "data"))
    found = read_study(str(study), Scale.tiny)
    runs = plan_runs(found, config, Data(found, config))
    expected = ("no-forward", "no-backward", "null-forward", "null-backward", "2021-forward")
    assert names(runs) == [f"{name}-seed0" for name in expected]
    assert {run.axes["tokenizer"] for run in runs} == {"yes"}


def test_combinations_are_left_out_and_a_corpus_may_have_a_tokenizer_of_its_own(folder: Path):
    changes = {
        "corpora": {"fixed": {"corpus": "corpus.txt", "tokenizer": "bytes"}},
        "tokenizers": {"bytes": {"vocab_size": "bytes"}},
        "axes": {"corpus": ["words", "fixed"], "tokenizer": ["own", "bytes"], "seed": [0]},
    }
    runs = planned(folder, **changes)
    assert [(run.axes["corpus"], run.axes["tokenizer"]) for run in runs if run.axes["order"] == "forward"] == [
        ("words", "own"),
        ("words", "bytes"),
        ("fixed", "bytes"),
    ]
    runs = planned(folder, without=[{"corpus": "words", "tokenizer": "bytes"}], **changes)
    assert [(run.axes["corpus"], run.axes["tokenizer"]) for run in runs if run.axes["order"] == "forward"] == [
        ("words", "own"),
        ("fixed", "bytes"),
    ]


def test_a_tokenizer_may_have_its_own_length_of_blocks_and_a_corpus_too(folder: Path):
    changes: dict[str, Any] = {
        "tokenizers": {"bytes": {"vocab_size": "bytes", "convert": {"block_length": 96}}},
        "axes": {"tokenizer": ["own", "bytes"], "seed": [0]},
    }

    def last_words(**more: Any) -> list[tuple[str, ...]]:
        """The commands that train a tokenizer, and that convert, for each tokenizer."""
        runs = planned(folder, **changes, **more)
        chosen = [run for run in runs if run.axes["order"] == "forward"]
        return [tuple(" ".join(step.command.arguments) for step in run.dataset.steps[-2:]) for run in chosen]

    (own, of_own), (of_bytes, converted) = last_words()
    assert "block_length=32" in of_own
    assert "block_length=96" in converted
    assert "convert" not in own + of_bytes
    assert "block_length" not in own + of_bytes
    (_, of_own), (_, converted) = last_words(corpora={"words": {"convert": {"block_length": 192}}})
    assert "block_length=192" in of_own
    assert "block_length=192" in converted


def test_what_is_the_same_is_made_once_and_what_is_not_is_never_mixed(folder: Path):
    runs = planned(folder, axes={"seed": [0]})
    again = planned(folder, name="other", axes={"seed": [1]}, settings={"batch_size": 8})
    assert {run.dataset.folder for run in runs} == {run.dataset.folder for run in again}
    several: tuple[dict[str, Any], ...] = (
        {"convert": {"val_share": 0.3}},
        {"tokenizers": {"own": {"vocab_size": 301}}},
        {"corpora": {"words": {"text_order": "reversed"}}},
        {"corpora": {"words": {"convert": {"seed": 1}}}},
        {"tokenizers": {"own": {"convert": {"seed": 1}}}},
    )
    for changes in several:
        assert planned(folder, **changes)[0].dataset.folder != runs[0].dataset.folder
    text = (folder / "corpus.txt").read_text()
    (folder / "corpus.txt").write_text(text[:-2] + ("a" if text[-2] != "a" else "b") + text[-1])  # of the same size
    assert planned(folder)[0].dataset.folder != runs[0].dataset.folder
    with (folder / "corpus.txt").open("a") as file:
        file.write("\nmore\n")
    assert planned(folder)[0].dataset.folder != runs[0].dataset.folder


LR = {"lr_sweep": {"rates": ["1e-3", 2e-3], "max_duration": "2ba"}, "axes": {"optim.lr": ["same", "best"], "seed": [0]}}


def test_a_sweep_comes_first_and_its_rates_are_those_of_the_runs_that_wait_for_it(folder: Path):
    study, config, data = opened(folder, Scale.tiny, None, **LR)
    runs = plan_runs(study, config, data)
    assert names(runs)[:4] == [
        "sweep-forward-lr0.001",
        "sweep-forward-lr0.002",
        "sweep-backward-lr0.001",
        "sweep-backward-lr0.002",
    ]
    assert [run.config.max_duration for run in runs] == 4 * ["2ba"] + 4 * ["4ba"]
    assert [run.waits for run in runs] == 4 * [False] + 4 * [True]
    losses: dict[str, float | None] = dict(zip(names(runs)[:4], (3.0, 2.9, 3.0, 3.2), strict=True))
    rates, told = best_rates(runs, losses)
    assert told == [
        {"axes": {"corpus": "words", "tokenizer": "own"}, "best": {"forward": 2e-3, "backward": 1e-3}, "same": 1e-3}
    ]
    known = plan_runs(study, config, data, rates)
    assert [(run.name, run.config.run_name, run.config.optim.lr) for run in known[4:]] == [
        ("forward-seed0-lrsame", "forward-seed0-lr0.001", 1e-3),
        ("forward-seed0-lrbest", "forward-seed0-lr0.002", 2e-3),
        ("backward-seed0-lrsame", "backward-seed0-lr0.001", 1e-3),
        ("backward-seed0-lrbest", "backward-seed0-lr0.001", 1e-3),
    ]
    assert known[6].folder == known[7].folder
    assert best_rates(runs, losses | {names(runs)[3]: None}) == ({}, [])
    assert combination_of(runs[0].axes) == combination_of(known[4].axes)
    rates, (diverged,) = best_rates(runs, losses | {names(runs)[0]: inf})
    assert (diverged["best"], diverged["same"]) == ({"forward": 2e-3, "backward": 1e-3}, 2e-3)
    assert best_rates(runs, losses | {names(runs)[0]: inf, names(runs)[3]: inf}) == ({}, [])


def test_the_sweep_may_have_settings_of_its_own(folder: Path):
    where = [{"if": {"order": "backward"}, "settings": {"optim.warmup_steps": 3}}]
    scales = {"tiny": {"lr_sweep": {"settings": {"optim.warmup_steps": 1}}}}
    sweep: dict[str, Any] = {"settings": {"optim": {"warmup_steps": 2}, "batch_size": 2}}
    changes: dict[str, Any] = LR | {"lr_sweep": LR["lr_sweep"] | sweep}
    for scale, warmup_steps in ((Scale.cpu, 2), (Scale.tiny, 1)):
        runs = planned(folder, scale, where=where, scales=scales, **changes)
        of_sweep = [run.config for run in runs if run.is_sweep]
        assert {(each.optim.warmup_steps, each.batch_size, each.max_duration) for each in of_sweep} == {
            (warmup_steps, 2, "2ba")
        }
        assert {(run.config.optim.warmup_steps, run.config.batch_size) for run in runs if not run.is_sweep} == {
            (0, 4),
            (3, 4),
        }


def test_what_shards_were_made_of_is_not_made_again_but_for_a_floor(folder: Path):
    chain = {"make": {"kind": "markov", "documents": 10}}
    corpora = {"chain": chain, "turned_words": {"turned": "words"}, "turned_chain": {"turned": "chain"}}
    axes = {"corpus": ["words", "chain", "turned_words", "turned_chain"]}
    _, _, data = opened(folder, Scale.tiny, None, corpora=corpora, axes=axes)
    for corpus, tokenizer in (("words", "own"), ("chain", "bytes")):
        of, turned = (data.dataset(name, tokenizer, 32) for name in (corpus, f"turned_{corpus}"))
        assert [*turned.missing] == [*of.missing, turned.steps[-1]]
        for path in of.steps[-1].makes:
            path.parent.mkdir(parents=True)
            path.touch()
        floor = [of.steps[0]] if corpus == "chain" else []
        assert [*turned.missing] == [*floor, turned.steps[-1]]
        if of.floor is not None:
            of.floor.parent.mkdir(parents=True)
            of.floor.touch()  # and the text of the corpus is gone
            assert of.missing == ()


def test_a_tokenizer_that_is_there_needs_none_of_its_texts_even_where_shards_are_missing(folder: Path):
    (folder / "other.txt").write_text("Another text.\n")
    corpora = {"words": {"corpus": "corpus.txt"}, "other": {"corpus": "other.txt"}}
    tokenizers = {"own": {"corpora": ["words", "other"]}}
    _, _, data = opened(folder, Scale.tiny, None, corpora=corpora, tokenizers=tokenizers, axes={"corpus": ["words"]})
    dataset = data.dataset("words", "own", 32)
    links, tokenizer, shards = dataset.steps
    assert dataset.missing == (links, tokenizer, shards)
    tokenizer.makes[0].mkdir(parents=True)
    assert dataset.missing == (shards,)


def test_a_condition_may_be_on_the_one_corpus_of_a_study_without_an_axis_of_corpora(folder: Path):
    where = [{"if": {"corpus": "words"}, "settings": {"batch_size": 2}}]
    runs = planned(
        folder, bases=["tiny"], where=where, scales={"tiny": {"corpora": {"bible": None}, "axes": {"corpus": None}}}
    )
    assert {run.config.batch_size for run in runs} == {2}


def test_links_of_a_folder_that_was_moved_lead_to_the_texts_that_were_moved_with_it(tmp_path: Path):
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    (before / "a.txt").write_text("a")
    link(before / "data" / "both", [str(before / "a.txt")])
    before.rename(after)
    assert (after / "data" / "both" / "0-a.txt").read_text() == "a"
    (after / "data" / "both" / "0-a.txt").unlink()
    (after / "data" / "both" / "0-a.txt").symlink_to(before / "a.txt")  # as earlier versions made them
    link(after / "data" / "both", [str(after / "a.txt")])
    assert (after / "data" / "both" / "0-a.txt").read_text() == "a"


def test_a_task_has_all_cores_and_no_study_divides_them_among_more_runs_than_it_has(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    # as on a machine with more cores than runs, and no GPU
    monkeypatch.setattr("hindsight.studies.run.available_cores", lambda: 64)
    monkeypatch.setattr("hindsight.studies.run.gpus", list)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    study = str(write_study(folder))
    for task, workers, threads in ((None, 4, "16"), (1, 1, "64")):
        work = StudyWork(StudyConfig(study=study, scale=Scale.tiny, corpus_dir=str(folder), task=task))
        assert (work.workers, work.environment["OMP_NUM_THREADS"]) == (workers, threads)


def test_a_value_is_typed_so_that_a_shell_and_hydra_give_it_back(folder: Path):
    prompts = ["The", "And it came, to $HOME", "${a}"]
    (run, *_) = planned(folder, settings={"samples.prompts": prompts, "optim.grad_clip": None})
    assert run.config.samples.prompts == prompts
    assert run.config.optim.grad_clip is None
    assert "optim.grad_clip=null" in run.command.typed
