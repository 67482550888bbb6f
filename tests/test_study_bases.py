"""What several studies have in common: conf/study/base/."""

from pathlib import Path
from typing import Any

import pytest
from helpers.small_study_file import write_study

from hindsight.config.schemas import names_in
from hindsight.config.study import Scale
from hindsight.errors import InputError
from hindsight.studies.study_bases import FOLDER, layers_of
from hindsight.studies.study_file import path_of, read_study
from hindsight.yaml_files import parse_yaml


def test_a_scale_of_a_base_is_over_the_study_and_below_its_own_scale(tmp_path: Path):
    scales = {"tiny": {"settings": {"model.d_model": 8}, "axes": {"corpus": ["words"]}, "corpora": {"bible": None}}}
    changes: dict[str, Any] = {"bases": ["tiny"], "settings": {"batch_size": 2, "optim.lr": 0.1}, "scales": scales}
    study = read_study(str(write_study(tmp_path, **changes)), Scale.tiny)
    assert study.settings["max_duration"] == "2ba"  # of the base; the study has 4ba
    assert study.settings["device_eval_batch_size"] == 128
    assert (study.settings["batch_size"], study.settings["optim.lr"]) == (4, 0.1)
    assert study.settings["model.d_model"] == 8
    assert study.axes["corpus"] == ["words"]
    assert study.axes["seed"] == [0]
    assert [*study.corpora] == ["words"]
    assert "bases" not in study.content
    assert read_study(str(tmp_path / "small.yaml"), Scale.cpu).settings["batch_size"] == 2


def test_bases_are_merged_in_the_order_in_which_they_are_named(tmp_path: Path):
    path = write_study(tmp_path, bases=["french", "english"], scales={"cpu": {"corpora": {"words": None}}})
    at_every_scale, of_scales = layers_of(path, "study")
    french, english, own = of_scales["cpu"]
    assert [*french["corpora"], *english["corpora"], *own["corpora"]] == ["french", "english", "words"]
    assert at_every_scale[:2] == [{}, {}]
    assert at_every_scale[2]["question"] == "Is it harder backward?"


def test_every_base_is_that_of_a_study_that_ships():
    files = [path_of(name).read_text(encoding="utf-8") for name in names_in("study")]
    assert {base for file in files for base in parse_yaml(file).get("bases", [])} == {*names_in(FOLDER)}


@pytest.mark.parametrize(
    ("bases", "words"),
    [
        (["tiyn"], "bases: tiyn is not in conf/study/base; did you mean tiny?"),
        ([{"tiny": 1}], "is not in conf/study/base"),
        ("tiny", "bases must be a list, in [ ]."),
    ],
)
def test_a_base_that_is_none_is_refused(bases: Any, words: str, tmp_path: Path):
    path = write_study(tmp_path, bases=bases)
    with pytest.raises(InputError, match="study=") as refused:
        read_study(str(path), Scale.tiny)
    assert words in str(refused.value)


def test_a_file_without_a_study_is_refused_in_one_sentence(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("# nothing yet\n")
    with pytest.raises(InputError) as refused:
        read_study(str(tmp_path / "a.yaml"), Scale.tiny)
    assert str(refused.value).count("study=") == 1
    assert "is empty; docs/studies.md says" in str(refused.value)
