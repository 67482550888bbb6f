"""What a study's file may say, which runs that makes, and how what cannot be is refused."""

from math import inf
from pathlib import Path
from typing import Any

import pytest
from helpers.small_data import make_text
from helpers.small_study_file import write_study

from hindsight.config.study import Scale, StudyConfig
from hindsight.errors import InputError
from hindsight.studies.links import link
from hindsight.studies.made_data import Data
from hindsight.studies.planned_runs import PlannedRun, best_rates, combination_of, plan_runs
from hindsight.studies.run import StudyWork
from hindsight.studies.study_file import Study, read_study


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "corpus.txt").write_text(make_text(n_documents=30, seed=1), encoding="utf-8")
    return tmp_path


def planned(folder: Path, scale: Scale = Scale.tiny, seeds: int | None = None, **changes: Any) -> list[PlannedRun]:
    study, config, data = opened(folder, scale, seeds, **changes)
    return plan_runs(study, config, data)


def opened(folder: Path, scale: Scale, seeds: int | None, **changes: Any) -> tuple[Study, StudyConfig, Data]:
    path = str(write_study(folder, **changes))
    study = read_study(path, scale, seeds)
    config = StudyConfig(study=path, corpus_dir=str(folder), data_dir=str(folder / "data"))
    return study, config, Data(study, config)


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


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"axes": {"optim.learning_rate": [1]}}, "axes: optim.learning_rate is no axis.*did you mean optim.lr?"),
        ({"axes": {"corpuss": ["words"]}}, "did you mean corpus?"),
        ({"axes": {"colour": ["red"]}}, "axes: colour is no axis: neither corpus nor tokenizer, nor a key"),
        ({"axes": {"order": ["backward", "both"]}}, "a study without forward: axes.order is"),
        ({"axes": {"order": None}}, "a study without forward"),
        ({"axes": {"order": ["forward"]}}, "gap needs two orders"),
        ({"axes": {"order": ["forward", "bakward"]}}, "did you mean order=backward?"),
        ({"axes": {"seed": []}}, "axes.seed must be a list"),
        ({"axes": {"seed": [0, 0]}}, "axes.seed has a value twice"),
        ({"axes": {"seed": ["a"]}}, "must be whole numbers"),
        ({"axes": {"corpus": ["word"]}}, "axes.corpus: word is not in corpora; did you mean words?"),
        ({"axes": {"tokenizer": ["owm"]}}, "did you mean own?"),
        ({"axes": {"run_name": ["a", "b"]}}, "run_name is the study's own"),
        ({"settings": {"optim.lrr": 1}}, "settings: optim.lrr is no key of train_composer.py; did you mean optim.lr?"),
        ({"settings": {"data.path": "x"}}, "data.path is the study's own; name a corpus"),
        ({"settings": {"max_duration": "0ba"}}, "max_duration=0ba must be greater than 0"),
        ({"settings": {"max_duration": "100tok"}}, "max_duration=100tok is no step: .* 128 in all"),
        ({"settings": {"batch_size": -1}}, "batch_size=-1 must be greater than 0"),
        ({"settings": {"model": "gtp_nano"}}, "model=gtp_nano does not exist; choose one of .*gpt_nano"),
        ({"settings": 3}, "settings must be keys and values"),
        ({"convert": {"valshare": 0.1}}, "convert: there is no key valshare; did you mean val_share?"),
        ({"convert": {"out": "x"}}, "convert: out is the study's own"),
        ({"evaluation": {"contextt": "windows"}}, "did you mean context?"),
        ({"evaluation": {"checkpoint": 1}}, "evaluation: checkpoint is the study's own"),
        ({"evaluation": {"split": "train"}}, "evaluation: split is the study's own"),
        ({"evaluation": {"context": "bogus"}}, "evaluation: context=bogus must be windows, or sliding:STRIDE"),
        ({"evaluation": {"batch_size": "many"}}, "evaluation: batch_size: Value .many. of type"),
        ({"evaluation": {"context": "sliding:64"}}, "evaluation: context=sliding:64 would leave out tokens"),
        (
            {"evaluation": {"context": "sliding:16"}, "axes": {"order": ["forward", "even_odd"]}},
            "evaluation: context=sliding:16 has no meaning for order=even_odd",
        ),
        (
            {"tokenizers": {"own": {"vocabsize": 3}}},
            "tokenizers.own: there is no key vocabsize; did you mean vocab_size",
        ),
        ({"tokenizers": {"own": {"convert": {"seeds": 3}}}}, "tokenizers.own.convert: there is no key seeds"),
        ({"tokenizers": {"own": {"corpora": ["wordz"]}}}, "wordz is not in corpora; did you mean words?"),
        ({"corpora": {"words": {"kind": "x"}}}, "corpora.words: there is no key kind"),
        ({"corpora": {"words": {"corpus": None}}}, "needs one of corpus, make and turned; it has none"),
        ({"corpora": {"words": {"make": {"out": "x"}}}}, "corpus and make"),
        ({"corpora": {"b": {"make": {"outt": "x"}}}}, "corpora.b.make: there is no key outt"),
        ({"corpora": {"b": {"turned": "wordz"}}}, "corpora.b.turned: wordz is not in corpora"),
        ({"corpora": {"a/b": {"corpus": "x"}}}, "names folders"),
        ({"corpora": {"other": {"corpus": "x"}}}, "axes.corpus is missing"),
        ({"where": [{"iff": {}}]}, "where.0.: there is no key iff; did you mean if?"),
        ({"where": [{"if": {"sed": 1}}]}, "sed is no axis; did you mean seed?"),
        ({"where": [{"if": {"batch_size": 4}}]}, "where.0..if: batch_size is no axis"),
        ({"where": [{"if": {"order": "bakward"}}]}, "where.0..if: order=bakward is not on its axis.*mean backward?"),
        ({"published": [{"label": "x", "nats": 1, "if": {"corpus": ["word"]}}]}, "corpus=word is not .*mean words?"),
        ({"without": [{"seed": -1}]}, "without.0.: seed=-1 is not on its axis"),
        ({"where": [{"if": {}, "settings": {"batchsize": 1}}]}, "did you mean batch_size?"),
        ({"without": [{"order": "both"}]}, "order=both is not on its axis"),
        ({"without": [{"order": "forward"}]}, "leaves out every run forward"),
        ({"without": [{"corpus": "words"}]}, "has no runs"),
        ({"lr_sweep": {"rate": [1]}}, "there is no key rate; did you mean rates?"),
        ({"lr_sweep": {"rates": [1e-3]}}, "two or more learning rates"),
        ({"lr_sweep": {"rates": [1e-3, 1], "max_duration": "0ba"}}, "must be greater than 0"),
        ({"lr_sweep": {"rates": [1e-3, 1], "settings": {"warmup": 1}}}, "lr_sweep.settings: warmup is no key"),
        ({"lr_sweep": {"rates": [1e-3, 1], "settings": {"optim": {"lr": 1}}}}, "optim.lr is an axis, or a key of"),
        ({"lr_sweep": {"rates": [1e-3, 1], "settings": {"max_duration": "2ba"}}}, "max_duration is an axis, or a key"),
        ({"lr_sweep": {"rates": [1e-3, 1], "settings": {"order": "words"}}}, "settings: order is given by axes"),
        ({"few_documents": "no"}, "few_documents: no must be true or false"),
        ({"question": ["a"]}, "question: .* must be a text"),
        ({"published": [{"label": "x"}]}, "published.0. needs a label, and a number as percent or nats"),
        ({"published": [{"percent": 1}]}, "published.0. needs a label"),
        ({"axes": {"seed": [-1, 0]}}, "axes.seed=.* must be whole numbers, none less than 0"),
        ({"lr_sweep": {"rates": [1e-3, 1], "seed": 1}}, "lr_sweep.seed=1 is one of the seeds of the runs"),
        ({"axes": {"direction": ["forward", "backward"]}}, "axes has order and direction, which are the same"),
        ({"settings": {"seed": 7}}, "settings: seed is given by axes"),
        ({"where": [{"if": {}, "settings": {"order": "backward"}}]}, "settings: order is given by axes"),
        ({"settings": {"checkpoint.folder": "ck"}}, "checkpoint.folder is the study's own"),
        ({"axes": {"optim.lr": ["same", "best"]}}, "same and best needs lr_sweep"),
        ({"axes": {"optim.lr": ["fastest"]}}, "must be numbers, or same and best"),
        ({"report": ["gaps"]}, "report: there is no key gaps; did you mean gap?"),
        ({"reprot": ["gap"]}, "there is no key reprot; did you mean report?"),
        ({"published": [{"lable": "x"}]}, "did you mean label?"),
        ({"scales": {"huge": {}}}, "scales: there is no key huge"),
        ({"scales": {"tiny": {"axis": {}}}}, "there is no key axis; did you mean axes?"),
        (
            {"corpora": {"words": {"corpus": "missing.txt", "source": "www.a.b"}}},
            "corpus_dir=, .*It comes from www.a.b",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_by_its_key(folder: Path, changes: dict[str, Any], words: str):
    with pytest.raises(InputError, match=words) as raised:
        planned(folder, **changes)
    assert str(raised.value).startswith("study=")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"convert": {"val_share": 2}}, "convert: val_share=2.0 "),
        ({"convert": {"val_share": "abc"}}, "convert: val_share: Value 'abc'"),
        ({"tokenizers": {"own": {"vocab_size": "many"}}}, "tokenizers: vocab_size=many "),
        ({"corpora": {"words": {"corpus": None, "make": {"kind": "bibel"}}}}, "corpora: {make: ...}: kind"),
    ],
    ids=str,
)
def test_values_of_commands_that_make_data_are_checked_before_any_is_started(
    folder: Path, changes: dict[str, Any], words: str
):
    study = str(write_study(folder, **changes))
    config = StudyConfig(study=study, scale=Scale.tiny, corpus_dir=str(folder), data_dir=str(folder / "data"))
    with pytest.raises(InputError) as raised:
        StudyWork(config)
    assert words in str(raised.value)
    assert not (folder / "data").exists()


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


@pytest.mark.parametrize("place", ["afile", "afile/below", "/proc/x"])
def test_a_folder_that_cannot_be_made_is_named_by_its_key(folder: Path, place: str):
    (folder / "afile").touch()
    config = StudyConfig(study=str(write_study(folder)), scale=Scale.tiny, corpus_dir=str(folder))
    config.out = str(folder / place)
    with pytest.raises(InputError, match=r"^out=.* cannot be made a folder"):
        StudyWork(config)


def test_a_task_has_all_cores_and_no_study_divides_them_among_more_runs_than_it_has(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("hindsight.studies.run.available_cores", lambda: 64)
    monkeypatch.setattr("hindsight.studies.run.gpus", list)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    study = str(write_study(folder))
    for task, workers, threads in ((None, 4, "16"), (1, 1, "64")):
        work = StudyWork(StudyConfig(study=study, scale=Scale.tiny, corpus_dir=str(folder), task=task))
        assert (work.workers, work.environment["OMP_NUM_THREADS"]) == (workers, threads)


def test_the_folder_of_another_study_is_refused(folder: Path):
    (folder / "study.json").write_text('{"name": "other", "scale": "tiny"}')
    config = StudyConfig(study=str(write_study(folder)), scale=Scale.tiny, corpus_dir=str(folder), out=str(folder))
    with pytest.raises(InputError, match=r"^out=.* has study=other scale=tiny; give another folder"):
        StudyWork(config)
    (folder / "study.json").write_text('{"name": "small", "scale": "tiny"}')
    assert StudyWork(config).planned


def test_few_documents_are_for_the_scale_tiny(folder: Path):
    assert planned(folder, few_documents=True)
    with pytest.raises(InputError, match="few_documents: true is for scale=tiny"):
        planned(folder, Scale.cpu, few_documents=True)


def test_a_study_that_is_not_there_is_named_with_those_that_are(tmp_path: Path):
    with pytest.raises(InputError, match="study=nowhere is not known"):
        read_study("nowhere", Scale.tiny)
    with pytest.raises(InputError, match="does not exist"):
        read_study(str(tmp_path / "a.yaml"), Scale.tiny)
    (tmp_path / "b.yaml").write_text("a: [1\n")
    with pytest.raises(InputError, match="is no study"):
        read_study(str(tmp_path / "b.yaml"), Scale.tiny)
    (tmp_path / "empty.yaml").touch()
    with pytest.raises(InputError, match=r"empty\.yaml is empty"):
        read_study(str(tmp_path / "empty.yaml"), Scale.tiny)
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(InputError, match=r"folder\.yaml is a folder"):
        read_study(str(tmp_path / "folder.yaml"), Scale.tiny)
    (tmp_path / "c.yaml").write_text("- a\n")
    with pytest.raises(InputError, match="must be keys and values"):
        read_study(str(tmp_path / "c.yaml"), Scale.tiny)


def test_a_value_is_typed_so_that_a_shell_and_hydra_give_it_back(folder: Path):
    prompts = ["The", "And it came, to $HOME", "${a}"]
    (run, *_) = planned(folder, settings={"samples.prompts": prompts, "optim.grad_clip": None})
    assert run.config.samples.prompts == prompts
    assert run.config.optim.grad_clip is None
    assert "optim.grad_clip=null" in run.command.typed
