"""Names stay what was typed, on the command line and in the files of conf/."""

import os
import sys
import time
from itertools import pairwise

import pytest
from helpers.processes import run_command
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from omegaconf import OmegaConf

from hindsight import runs
from hindsight.arguments import HYDRA_OPTIONS, INFO
from hindsight.command_line import check_arguments, configuration_of, register_schemas, to_dataclass
from hindsight.config.schemas import CONF_DIR
from hindsight.config.typed_text import check_references
from hindsight.errors import InputError
from hindsight.json_lines import read_records
from hindsight.studies.sweep import runs_of
from hindsight.yaml_files import parse_yaml

LIKE_NUMBERS = [
    "12e4567",
    "2024_01_05",
    "true",
    "False",
    "1e5",
    "0x10",
    "1_000",
    "007",
    "1.0",
    "2024-01-05",
    "inf",
    "-1",
]
ODD = [
    *LIKE_NUMBERS,
    "~",
    "~/x",
    "null",
    "None",
    "a(1).txt",
    "données",
    "a b",
    "a#b",
    "a=b",
    "[ab]*.txt",
    "it's",
    "a\\b",
]


def train_config(*arguments):
    return configuration_of("train_composer", ["direction=forward", *arguments])


@pytest.mark.parametrize("name", LIKE_NUMBERS)
def test_a_name_that_looks_like_a_number_stays_what_was_typed_and_comes_back_from_the_records(name, tmp_path):
    config = train_config(f"run_name={name}", f"wandb.project={name}", f"model.name={name}")
    assert [config.run_name, config.wandb.project, config.model.name] == [name] * 3
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    assert runs.read_config(tmp_path)["run_name"] == name


@pytest.mark.parametrize("name", ODD)
def test_a_path_of_any_characters_stays_what_was_typed(name):
    config = configuration_of("convert_to_mds", [f"{key}={name}" for key in ("corpus", "out", "text_key", "tokenizer")])
    assert [config.corpus, config.out, config.text_key, config.tokenizer] == [name] * 4


PROSE = [
    "cost ${price}",
    "${oc.env:HOME}",
    r"a\${b} and \\${c:d}",
    "it's $5, ${",
    "a, 'b', (c",
    30 * "(",
    " [x] ",
    "$${{a:b}}\\",
    "a\nb\\",
    30 * "${a}",
]


@pytest.mark.parametrize("text", PROSE)
@pytest.mark.parametrize("is_hydra_asked", [False, True])
def test_a_piece_of_text_stays_what_was_typed(text, is_hydra_asked, monkeypatch):
    arguments = ["run=a", "mode=infill", f"prompt={text}", f"ending={text}"]
    if not is_hydra_asked:
        config = configuration_of("generate_text", arguments)
    else:
        monkeypatch.setattr("sys.argv", ["generate_text.py", "hydra.verbose=false", *arguments])
        assert check_arguments("generate_text") is None
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            config = to_dataclass(compose("generate_text", sys.argv[2:]))
    assert (config.prompt, config.ending) == (text, text)


def test_an_escaped_reference_hides_no_other():
    for text in (r"\\${oc.env:HOME}", r"\${a}${oc.env:HOME}", r"${oc.decode:\${a}}", r"$\${${oc.env:HOME}"):
        with pytest.raises(InputError, match="names another key"):
            check_references({"key": text})
    assert check_references({"key": r"\${oc.env:HOME} \\\${a:b}"}) == 0


def test_elements_of_lists_and_of_groups_and_values_of_sweeps_stay_what_was_typed():
    assert train_config('samples.prompts=[1e5,null,"a, b",été, 007]').samples.prompts == [
        "1e5", "null", "a, b", "été", "007",
    ]  # fmt: skip
    assert train_config("samples.prompts=1e5").samples.prompts == ["1e5"]
    nested = train_config("data={path:12e4567,num_workers:2}").data
    assert (nested.path, nested.num_workers) == ("12e4567", 2)
    for values in ("12e4567,true,007", "choice(12e4567,true,007)"):
        swept = runs_of(["-m", "direction=forward", f"run_name={values}"])
        assert [run.run_name for run in swept] == ["12e4567", "true", "007"]


@pytest.mark.parametrize(
    "text", [" and slept, so", 'He said: "No, [sic]', "it's", "'a'", "a\\", "1e5", "{b: c}", "two\nlines ", "a=b"]
)
def test_a_piece_of_text_keeps_its_commas_quotes_and_spaces(text):
    config = configuration_of("generate_text", ["run=a", "mode=infill", f"prompt={text}", f"ending={text}"])
    assert (config.prompt, config.ending) == (text, text)
    assert configuration_of("generate_text", ["run=a", "prompt=null"]).prompt is None


def test_null_is_nothing_where_a_text_may_be_missing_and_a_text_where_not():
    config = train_config("run_name=null", "data.path=null", "samples.interval=null")
    assert (config.run_name, config.data.path, config.samples.interval) == (None, "null", None)


def test_what_hydra_reads_as_text_itself_is_left_to_it_and_other_types_are_numbers_still():
    config = train_config("run_name=lr${optim.lr}", "optim.lr=1e-3", "data.path=a\\,b", "runs_dir='1e5'", "seed=1_0")
    assert [config.run_name, config.data.path, config.runs_dir, config.seed] == ["lr0.001", "a,b", "1e5", 10]


def test_the_files_of_conf_are_read_as_they_are_written(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "m.yaml").write_text(
        "defaults: [gpt_schema, _self_]\nname: 1e5\nn_layers: 2\nn_heads: 2\nd_model: 8\ncontext_length: 8\n"
    )
    (tmp_path / "main.yaml").write_text(
        "defaults: [train_composer_schema, model: m, _self_]\nrun_name: 12e4567\ndata:\n  path: 2024-01-05\n"
        "  val_path: null\nwandb: {project: 007}\nsamples:\n  prompts: [1_000, true]\nbatch_size: 1_0\n"
        "optim: {lr: 1e-3}\n"
    )
    register_schemas()
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        config = to_dataclass(compose("main", ["direction=forward"]))
    assert (config.run_name, config.data.path, config.data.val_path) == ("12e4567", "2024-01-05", None)
    assert (config.wandb.project, config.samples.prompts, config.model.name) == ("007", ["1_000", "true"], "1e5")
    assert (config.batch_size, config.optim.lr, config.model.n_layers) == (10, 1e-3, 2)


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(27))


@pytest.mark.parametrize("text", [BOMB, "direction: " + "[" * 5000 + "]" * 5000, "a: &a\n  b: *a\n"])
def test_yaml_that_is_small_and_means_much_is_refused_in_one_line(text, tmp_path):
    with pytest.raises(ValueError, match=r"alias|nested"):
        parse_yaml(text)
    for name in ("config.yaml", "main.yaml"):
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=r"config\.yaml is damaged"):
        runs.read_config(tmp_path)
    register_schemas()
    with initialize_config_dir(str(tmp_path), version_base="1.3"), pytest.raises(InputError, match=r"main\.yaml"):
        compose("main", [])


@pytest.mark.parametrize(
    "arguments",
    [
        ["samples.prompts=" + "[" * 3000 + "]" * 3000],
        ["optim.betas=" + "[" * 3000 + "]" * 3000],
        ["data=" + "{path:" * 3000 + "a" + "}" * 3000],
        ["run_name=" + "${" * 500 + "a" + "}" * 500],
        ["run_name=" + "${wandb.project}" * 50],
        [f"{a}=" + f"${{{b}}}" * 10 for a, b in pairwise(["run_name", "runs_dir", "data.path", "data.val_path"])],
        ["run_name=${data.path}", "data.path=${run_name}"],
        ["run_name=${no.key}"],
        ["run_name=${"],
        ["x" * 100_000],
    ],
    ids=str,
)
def test_arguments_that_are_small_and_mean_much_are_one_short_line(arguments, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train_composer.py", "direction=forward", *arguments])
    began = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        check_arguments("train_composer")
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.count("\n") == 1
    assert len(said) < 1100
    assert time.monotonic() - began < 5


def test_a_record_that_is_too_large_or_no_file_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("a: b\n" + "# padding\n" * (runs.MAX_RECORD_BYTES // 9))
    with pytest.raises(InputError, match="damaged: it has"):
        runs.read_config(tmp_path)
    os.mkfifo(tmp_path / "metadata.json")
    with pytest.raises(InputError, match="no regular file"):
        runs.read_metadata(tmp_path)


def test_lines_of_metrics_that_are_nested_too_deeply_are_damaged(tmp_path):
    (tmp_path / "finished.json").write_text('{"step":' * 100_000)
    (tmp_path / "metrics.jsonl").write_text('{"a":' * 100_000 + "1" + "}" * 100_000 + "\n{}\n")
    assert runs.finished_step(tmp_path) is None
    with pytest.raises(InputError, match="line 1 is no JSON object"):
        list(read_records(tmp_path / "metrics.jsonl"))


def test_metadata_that_is_nested_too_deeply_is_refused(tmp_path):
    (tmp_path / "metadata.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    with pytest.raises(InputError, match=r"metadata\.json is damaged"):
        runs.read_metadata(tmp_path)


def test_a_command_keeps_its_names(tmp_path):
    done = run_command("python", "make_corpus.py", f"out={tmp_path}/2024_01_05")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["2024_01_05"]


def test_one_path_is_taken_at_a_time(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["inspect_mds.py", "a", "b"])
    with pytest.raises(SystemExit):
        check_arguments("inspect_mds", alone="path")
    assert "a and b: give one path at a time" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["inspect_mds.py", "runs/a=b/c"])
    assert check_arguments("inspect_mds", alone="path").path == "runs/a=b/c"


@pytest.mark.parametrize(
    ("script", "alone", "arguments", "expected"),
    [
        ("inspect_mds", "path", "data/x --cfg job", "--cfg job path=data/x"),
        ("inspect_mds", "path", "-c job data/x --resolve", "-c job --resolve path=data/x"),
        ("compare_directions", "runs", "runs/a runs/b --cfg=job", "--cfg=job runs=['runs/a','runs/b']"),
        ("compare_directions", "runs", "runs/a --info defaults runs/b", "--info=defaults runs=['runs/a','runs/b']"),
        ("compare_directions", "runs", "-i runs/a runs/b", "--info=all runs=['runs/a','runs/b']"),
        ("train_composer", "", "--info seed=1", "--info=all seed=1"),
        ("train_composer", "", "-m hydra.sweep.dir=a/${now:%Y-%m-%d}", "-m hydra.sweep.dir=a/${now:%Y-%m-%d}"),
    ],
)
def test_options_of_hydra_stand_anywhere_with_their_values(script, alone, arguments, expected, monkeypatch):
    monkeypatch.setattr("sys.argv", [f"{script}.py", *arguments.split()])
    assert check_arguments(script, alone) is None
    assert sys.argv[1:] == expected.split()


def test_hydra_takes_its_options_as_they_are_handed_on():
    parser = get_args_parser()
    for option, takes_value in HYDRA_OPTIONS.items():
        [action] = [each for each in parser._actions if option in each.option_strings]
        assert takes_value == {None: True, 0: False, "?": None}[action.nargs], option
        if takes_value is None:
            assert tuple(action.choices or ()) == INFO


def test_help_for_a_sweep_shows_what_all_its_runs_have(monkeypatch, capsys):
    sweep = ["-m", "direction=forward,backward", "optim.lr=range(1,3)", "data.path=a,b", "seed=7", "model=gru_small"]
    monkeypatch.setattr("sys.argv", ["train_composer.py", *sweep, "hydra.sweep.dir=x", "--help"])
    with pytest.raises(SystemExit) as ended:
        check_arguments("train_composer")
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert "direction=  (forward|backward or null; default null)" in said
    assert "seed=  (int; default 7)" in said
    assert "Defaults are those of model=gru_small" in said


@pytest.mark.parametrize(
    "argument",
    ["hydra.sweep.dir=${oc.env:HOME}", "hydra.run.dir=${now:${oc.env:HOME}}", "run_name=${now:%Y}", "hydra.a=${a:b}"],
)
def test_no_reference_reads_more_than_the_time_and_that_only_for_hydras_folders(argument, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train_composer.py", "-m", "direction=forward", argument])
    with pytest.raises(SystemExit):
        check_arguments("train_composer")
    assert "the environment, are not read" in capsys.readouterr().err
