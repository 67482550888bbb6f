"""What a study's file may not say: each is refused by its key, before anything is made."""

from pathlib import Path
from typing import Any

import pytest
from helpers.small_data import make_text
from helpers.small_study_file import planned, write_study

from hindsight.config.study import Scale, StudyConfig
from hindsight.errors import InputError
from hindsight.studies.run import StudyWork
from hindsight.studies.study_file import read_study


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "corpus.txt").write_text(make_text(n_documents=30, seed=1), encoding="utf-8")
    return tmp_path


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
        ({"published": [{"label": "x", "percent": 1, "if": {"corpus": ["word"]}}]}, "corpus=word is not .*mean words?"),
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
        ({"published": [{"label": "x"}]}, "published.0. needs a label, a text, and percent, a number"),
        ({"published": [{"percent": 1}]}, "published.0. needs a label"),
        ({"published": [{"label": 2405, "percent": 1}]}, "published.0. needs a label, a text"),
        ({"published": [{"label": "x", "nats": 1}]}, "published.0.*nats"),
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


@pytest.mark.parametrize("place", ["afile", "afile/below", "/proc/x"])
def test_a_folder_that_cannot_be_made_is_named_by_its_key(folder: Path, place: str):
    (folder / "afile").touch()
    config = StudyConfig(study=str(write_study(folder)), scale=Scale.tiny, corpus_dir=str(folder))
    config.out = str(folder / place)
    with pytest.raises(InputError, match=r"^out=.* cannot be made a folder"):
        StudyWork(config)


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
