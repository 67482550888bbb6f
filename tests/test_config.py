import errno
import re
import subprocess
import sys
from dataclasses import asdict

import pytest
import yaml
from helpers.processes import ROOT, run_command
from helpers.published_settings import PAPER
from helpers.training_runs import compose_config

from hindsight.command_line import help_text, one_line_errors, run_script
from hindsight.config.keys import flatten
from hindsight.config.schemas import SCHEMAS, describe, model_names
from hindsight.config.suggestions import MEANT, suggest
from hindsight.config.training import TrainConfig
from hindsight.errors import InputError
from hindsight.provenance import VERSION
from hindsight.training.setup import check_setup, locate_data

BY_SIZE = ["gpt_nano", "gpt_micro", "gpt_mini", "gpt_small", "gpt1", "gpt_medium", "gpt_xl"]
REQUIRED = {
    "train_tokenizer": ["corpus=a", "out=b"],
    "convert_to_mds": ["corpus=a", "tokenizer=b", "out=c"],
    "convert_to_h5": ["corpus=a", "tokenizer=b", "out=c"],
    "train_composer": ["direction=forward"],
    "compare_directions": ["runs=[a,b]"],
    "evaluate_tokens": ["run=a"],
    "generate_text": ["run=runs/a"],
    "export_hf": ["run=runs/a", "out=b"],
    "plan": [],
    "list_runs": [],
    "run_study": ["study=a"],
    "make_corpus": ["out=a"],
    "throughput": [],
    "inspect_mds": ["path=a"],
}


def test_every_script_has_a_schema_and_a_yaml_and_every_yaml_a_script():
    yamls = {path.stem for path in (ROOT / "conf").glob("*.yaml")}
    assert yamls == set(SCHEMAS) == set(REQUIRED)
    for script in yamls:
        commands = ROOT / f"{script}.py", ROOT / "benchmarks" / script / "__main__.py"
        assert sum(command.is_file() for command in commands) == 1


@pytest.mark.parametrize("script", sorted(SCHEMAS))
def test_every_yaml_of_a_script_loads(script):
    assert type(compose_config(script, *REQUIRED[script])) is SCHEMAS[script]


@pytest.mark.parametrize("model", model_names())
def test_every_yaml_of_a_model_loads_and_names_it(model):
    config = compose_config("train_composer", "direction=backward", f"model={model}")
    assert config.model.name == model


@pytest.mark.parametrize("model", model_names())
def test_a_named_model_has_a_recipe_of_its_own(model):
    files = [*(["paper"] if model.startswith("paper_") else []), model]
    parts = [yaml.safe_load((ROOT / "conf" / "recipe" / f"{name}.yaml").read_text()) for name in files]
    recipe = {key: value for part in parts for key, value in flatten(part).items() if key != "defaults"}
    assert {"optim.lr", "optim.warmup_steps", "batch_size"} <= set(recipe)
    used = flatten(asdict(compose_config("train_composer", "direction=backward", f"model={model}")))
    assert {key: used[key] for key in recipe} == {
        key: float(value) if isinstance(used[key], float) else value for key, value in recipe.items()
    }


@pytest.mark.parametrize("model", PAPER)
def test_the_papers_recipe_is_one_word(model):
    config = compose_config("train_composer", "direction=forward", f"experiment=paper_{model}", "data.path=d")
    microbatch, parts, warmup_steps, period_steps = PAPER[model]
    assert config.model.name == f"paper_{model}"
    assert (config.batch_size, config.microbatch_size or config.batch_size) == (microbatch * parts, microbatch)
    optim = config.optim
    assert (optim.lr, optim.lr_init, optim.lr_min, optim.shrink) == (1e-4, 1e-7, 1e-6, 0.85)
    assert (optim.schedule.name, optim.warmup_steps, optim.period_steps) == (
        "cosine_restarts",
        warmup_steps,
        period_steps,
    )
    assert (optim.betas, optim.eps, optim.weight_decay, optim.grad_clip) == ([0.9, 0.999], 1e-8, 0.01, 1.0)
    assert (optim.decay_all, optim.clip.name) == (True, "norm")
    assert (config.data.stride, config.max_duration) == (127, "1ep")
    assert config.eval_interval == f"{20_000 // parts}ba"  # every 20,000 backward passes


def test_larger_models_take_lower_learning_rates():
    rates = [compose_config("train_composer", "direction=forward", f"model={name}").optim.lr for name in BY_SIZE]
    assert rates == sorted(rates, reverse=True)


def test_an_experiment_wins_over_the_models_recipe_and_the_command_line_over_both():
    given = ["direction=forward", "data.path=d"]
    assert compose_config("train_composer", *given, "model=gpt2").batch_size == 64
    assert compose_config("train_composer", *given, "experiment=gpt2").batch_size == 480
    assert compose_config("train_composer", *given, "experiment=gpt2", "batch_size=16").batch_size == 16
    assert compose_config("train_composer", *given, "model=gpt2", "optim.lr=0.5").optim.lr == 0.5


@pytest.mark.parametrize("arguments", [[], ["model=gpt_nano"], ["model=lstm_large"], ["experiment=demo"]])
def test_help_shows_the_values_that_a_run_gets_with_these_arguments(arguments):
    text = help_text("train_composer", arguments)
    config = compose_config("train_composer", "direction=forward", *arguments)
    for key, value in flatten(asdict(config)).items():
        if key != "direction" and not isinstance(value, list):
            shown = {None: "null"}.get(value, str(value))
            assert re.search(rf"^  {re.escape(key)}=  \(.*; default {re.escape(shown)}\)$", text, re.MULTILINE), key
    assert f"Defaults are those of model={config.model.name}" in text


def test_the_demo_is_an_experiment_and_its_settings_are_nobody_elses():
    demo = compose_config("train_composer", "experiment=demo", "direction=forward")
    assert demo.name_of_run() == "gpt_demo-bible-forward-seed0"
    assert (demo.optim.lr, demo.optim.warmup_steps, demo.batch_size, demo.max_duration) == (2e-3, 50, 8, "400ba")
    assert demo.samples.prompts == ["The", "And it came to pass"]
    plain = compose_config("train_composer", "direction=forward")
    assert (plain.samples.prompts, plain.max_duration, plain.data.path) == ([""], "1ep", demo.data.path)
    assert plain.name_of_run() != demo.name_of_run()


def test_where_the_demo_was_not_made_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = compose_config("train_composer", "direction=backward")
    with pytest.raises(InputError, match=r"^no data at demo/bible: run `make demo` first, or"):
        check_setup(config, locate_data(config))


@pytest.mark.parametrize("script", sorted(SCHEMAS))
def test_help_shows_every_key_with_its_docstring(script):
    rows = describe(SCHEMAS[script])
    text = help_text(script)
    assert rows
    for key, _, _, doc in rows:
        assert len(doc) > 5, f"{key} has no docstring"
        assert f"  {key}=" in text
        assert doc in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["direction=sideways"], ["direction", "sideways", "forward, backward"]),
        ([], ["direction= is required"]),
        (["order=evenodd"], ["order=evenodd is not known", "did you mean order=even_odd?"]),
        (["order=blocks"], ["order=blocks: write blocks:K, such as order=blocks:8"]),
        (["order=blocks:0"], ["at least 1 token", "order=backward"]),
        (["order=even_odd:3"], ["even_odd has no number"]),
        (["order=uniform_random:-1"], ["write uniform_random:SEED"]),
        (["order=words:3"], ["words has no number"]),
        (["order=sentence"], ["order=sentence is not known", "did you mean order=sentences?"]),
        (["order=segments"], ["order=segments: write segments:SEED"]),
        (["direction=forward", "document_mask=perhaps"], ["document_mask", "perhaps"]),
        (["direction=forward", "order=backward"], ["direction=forward is not order=backward; give one of them"]),
        (["direction=forward", "lr=1"], ["lr= is no key", "did you mean optim.lr=?"]),
        (["direction=forward", "optim.learning_rate=1"], ["did you mean optim.lr=?"]),
        (["direction=forward", "learning_rate=1"], ["did you mean optim.lr=?"]),
        (["direction=forward", "batch=8"], ["did you mean batch_size=?"]),
        (["direction=forward", "epochs=3"], ["did you mean max_duration=5ep?"]),
        (["direction=forward", "n_layers=3"], ["did you mean model.n_layers=?"]),
        (["direction=forward", "modle=gpt2"], ["did you mean model=?"]),
        (["direction=forward", "optim=adam"], ["optim= is no key by itself", "optim.lr="]),
        (["direction=forward", "data=x"], ["data= is no key by itself; did you mean data.path=?"]),
        (["direction=forward", "zzz=1"], ["zzz= is no key of this script; --help"]),
        (["direction", "backward"], ["direction: write direction=backward, with ="]),
        (["direction", "=", "backward"], ["direction: write direction=backward, with ="]),
        (["direction =backward"], ["write direction=backward, with = and no spaces"]),
        (["--direction", "backward"], ["--direction: keys have no dashes; write direction=backward."]),
        (["--direction=backward"], ["write direction=backward."]),
        (["direction=forward", "--lr", "3"], ["--lr: keys have no dashes; write optim.lr=3."]),
        (["direction=forward", "-x"], ["-x: keys have no dashes; write key=VALUE."]),
        (["direction=forward,backward"], ["direction=forward,backward gives several values", "add -m"]),
        (["direction=forward", "run_name=a,b"], ["run_name=a,b has a comma", 'run_name="a,b"', "-m"]),
        (
            ["direction=forward", "samples.prompts=a,b"],
            ["'samples.prompts=[\"a,b\"]' for one text with a comma, 'samples.prompts=[a,b]' for several"],
        ),
        (["direction=forward", "data.path='a"], ["data.path='a has no closing '"]),
        (["direction=forward", "seed=(1"], ["seed=(1: ( and ) do not match"]),
        (["direction=forward", "seed='1"], ["a quote is not closed"]),
        (["direction=forward", "samples.prompts="], ["samples.prompts= is empty"]),
        (["direction=forward", "hydra/launcher=xyz"], ["hydra/launcher=xyz does not exist; choose one of basic"]),
        (["-m", "direction=forward", "data.path=a,s3://id:key@b"], ["data.path: an address must not hold keys"]),
        (["direction=forward", "=1"], ["=1"]),
        (["direction=forward", ""], ["write key=VALUE"]),
        (["-m", "direction=forward", "seed=[1"], ["[ and ] do not match"]),
        (["-m", "direction=forward", "lr=1,2"], ["did you mean optim.lr=?"]),
        (["direction=forward", "optim.lrr=1"], ["optim.lrr=", "did you mean optim.lr="]),
        (["direction=forward", "batch_size=many"], ["batch_size", "'many'", "Integer"]),
        (["direction=forward", "loss=fused"], ["loss", "auto, plain, chunked, liger"]),
        (["direction=forward", "batch_size=0"], ["batch_size=0", "greater than 0"]),
        (["direction=forward", "microbatch_size=0"], ["microbatch_size=0", "greater than 0"]),
        (["direction=forward", "microbatch_size=half"], ["microbatch_size=half must be a number of windows, or auto"]),
        *(
            (
                ["direction=forward", f"microbatch_size={bad}"],
                [f"microbatch_size={bad} must be a number of"],
            )
            for bad in ("1.5", "True", "[1]")
        ),
        (
            ["direction=forward", "microbatch_size=auto", "parallelism=fsdp"],
            ["microbatch_size=auto", "parallelism=fsdp", "give a number"],
        ),
        (
            ["direction=forward", "microbatch_size=auto", "optim.name=muon"],
            ["microbatch_size=auto", "optim.name=muon would", "give a number"],
        ),
        (
            ["direction=forward", "microbatch_size=auto", "optim.skip_spikes=6"],
            ["microbatch_size=auto", "optim.skip_spikes would", "give a number"],
        ),
        (["direction=forward", "parallelism=tensor"], ["parallelism", "ddp, fsdp"]),
        (["direction=forward", "parallelism=fsdp", "optim.name=muon"], ["optim.name=muon", "parallelism=fsdp"]),
        (["direction=forward", "max_duration=5 parsecs"], ["max_duration=5 parsecs", "1000ba"]),
        (["direction=forward", "model=gpt9"], ["model=gpt9", "gpt_nano"]),
        (["direction=forward", "experiment=gpt9"], ["experiment=gpt9", "choose one of demo, gpt2, paper_gpt1"]),
        (["direction=forward", "model.n_heads=3"], ["model.n_heads=3", "does not divide", "model.d_model=128"]),
        (["direction=forward", "model=gru_small", "model.n_heads=3"], ["model.n_heads=", "model="]),
        (["direction=forward", "model.dropout=1.0"], ["model.dropout=1.0", "less than 1"]),
        (["direction=forward", "optim.lr_min=1"], ["optim.lr_min=1", "optim.lr="]),
        (["direction=forward", "run_name=a/b"], ["run_name=a/b", "letters"]),
        (["direction=forward", "checkpoint.keep=0"], ["checkpoint.keep=0", "-1"]),
        (["direction=forward", "batch_size=[1"], ["[1"]),
        (["direction=forward", "+foo=1"], ["+foo=1", "neither be added nor removed"]),
        (["direction=forward", "~seed"], ["~seed", "neither be added nor removed"]),
        (["direction=forward", "model=null"], ["None", "--help"]),
        (["direction=forward", "optim.lr=inf"], ["optim.lr=inf"]),
        (["direction=forward", "optim.weight_decay=inf"], ["optim.weight_decay=inf", "finite"]),
        (["direction=forward", "model.mlp_ratio=0.001"], ["model.mlp_ratio=0.001", "model.d_model=128"]),
        (["direction=forward", "model.name="], ["model.name=", "letters"]),
        (["direction=forward", f"run_name={'a' * 129}"], ["run_name=", "at most 128"]),
        (["direction=forward", "seed=4294967295"], ["seed=4294967295", "2**32"]),
        (["direction=forward", "data.path="], ["data.path= is empty"]),
        (["direction=forward", "runs_dir=s3://a/b"], ["runs_dir=s3://a/b is not on this machine"]),
        (
            ["direction=forward", "checkpoint.folder=gs://a/b"],
            ["checkpoint.folder=gs://a/b must be a local folder, or s3://"],
        ),
        (["direction=forward", "data.cache_limit=20"], ["data.cache_limit=20 is no size; write it as 500mb or 20gb"]),
        (["direction=forward", "data.cache_dir=s3://a/b"], ["data.cache_dir=s3://a/b is not on this machine"]),
        (
            ["direction=forward", "optim.schedule=inverse_sqrt", "optim.warmup_steps=0"],
            ["optim.warmup_steps=0", "give at least 1"],
        ),
        (["direction=forward", "max_time=90"], ["max_time=90: '90' is no time; write it as 45s, 90min"]),
        (["direction=forward", "max_time=0s"], ["max_time=0s must be greater than 0"]),
        (["direction=forward", "checkpoint.minutes=-1"], ["checkpoint.minutes=-1"]),
        (
            ["direction=forward", "eval_batches=2", "device_eval_batch_size=4"],
            ["eval_batches=2 counts batches of batch_size", "device_eval_batch_size"],
        ),
        (["direction=forward", "device_eval_batch_size=0"], ["device_eval_batch_size=0", "greater than 0"]),
        (["direction=forward", "evaluate=true", "train.more=5ba"], ["evaluate=true trains nothing"]),
        (["direction=forward", "data.stride=0"], ["data.stride=0", "greater than 0"]),
        (["direction=forward", "optim.name=sgd"], ["optim.name", "adamw, muon"]),
        (["direction=forward", "optim.muon_momentum=1"], ["optim.muon_momentum=1", "less than 1"]),
        (["direction=forward", "optim.skip_spikes=0"], ["optim.skip_spikes=0", "greater than 0, or null for none"]),
        (["direction=forward", "optim.grad_clip=-1"], ["optim.grad_clip=-1", "greater than 0, or null for none"]),
        (["direction=forward", "optim.power=0"], ["optim.power=0", "greater than 0"]),
        (["direction=forward", "optim.clip=sideways"], ["optim.clip", "norm, value, adaptive"]),
        (
            ["direction=forward", "model.block=llama", "model.activation=gelu"],
            ["model.activation=gelu", "model.block=gpt2"],
        ),
        (["direction=forward", "model.activation=relu2"], ["model.activation=relu2 needs model.block=modern"]),
        (["direction=forward", "model.logit_softcap=15"], ["model.logit_softcap=15.0 needs model.block=modern"]),
        (["direction=forward", "model=modern_demo", "model.logit_softcap=0"], ["logit_softcap=0.0", "greater than 0"]),
        (["direction=forward", "model=modern_demo", "model.block=gpt2"], ["model.activation=relu2 needs"]),
        (["direction=forward", "train.more=5"], ["train.more=5: '5' is no duration"]),
        (["direction=forward", "data.path=s3://id:key@a/b"], ["data.path: an address must not hold keys"]),
        (["direction=forward", "model.init_from="], ["model.init_from= is empty"]),
        (["direction=forward", "model.init_from=s3://id:key@a/b"], ["model.init_from: an address must not hold keys"]),
        (["direction=forward", "pretrained=gpt2"], ["did you mean model.init_from=?"]),
        (["direction=forward", "model.freeze=embeddings,norm"], ["model.freeze=embeddings is no part of this model"]),
        (["direction=forward", "model=gru_small", "model.freeze=blocks.0"], ["its parts are embedding, layers, head"]),
    ],
)
def test_bad_settings_end_with_one_line_that_names_the_key_and_status_2(
    arguments, words, tmp_path, capsys, monkeypatch
):
    check_refused("train_composer", arguments, words, tmp_path, capsys, monkeypatch)


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("train_tokenizer", ["out=b", "vocab_size=lots"], ["vocab_size=lots must be a number of token ids, or bytes."]),
        ("train_tokenizer", ["out=b", "vocab_size=1.5"], ["vocab_size=1.5 must be a number of token ids, or bytes."]),
        ("train_tokenizer", ["out=b"], ["corpus= is required", "Only vocab_size=bytes needs none"]),
        ("train_tokenizer", ["out=b", "corpus=a", "vocab_size=0"], ["vocab_size=0 must be greater than 0"]),
        ("train_tokenizer", ["corpus=a", "out=b", "text_order=backward"], ["text_order", "reading, reversed"]),
        ("convert_to_mds", [*REQUIRED["convert_to_mds"], "text_order=1"], ["text_order", "reading, reversed"]),
        ("convert_to_h5", [*REQUIRED["convert_to_h5"], "text_oder=reversed"], ["did you mean text_order=?"]),
        ("throughput", ["variants=[bare,nanogpt]"], ["variants", "bare, metrics, trainer, plain, huggingface"]),
        ("throughput", ["precision=fp16"], ["precision=fp16 needs a scaled loss", "use bf16"]),
        ("throughput", ["peers.precision=fp16"], ["peers.precision=fp16 needs a scaled loss"]),
        ("throughput", ["peers.compile=perhaps"], ["peers.compile", "perhaps"]),
        ("throughput", ["peers=eager"], ["peers= is no key by itself", "peers.compile="]),
        ("throughput", ["loss=fused"], ["loss", "auto, plain, chunked, liger"]),
        ("throughput", ["json=table"], ["json", "table"]),
        ("throughput", ["record=1.1"], ["record", "1.1"]),
        ("throughput", ["trace="], ["trace= is empty"]),
        ("throughput", ["trace=s3://a/b"], ["trace=s3://a/b is not on this machine"]),
        ("throughput", ["recorded="], ["recorded= is empty"]),
    ],
)
def test_bad_settings_of_other_commands_do_too(script, arguments, words, tmp_path, capsys, monkeypatch):
    check_refused(script, arguments, words, tmp_path, capsys, monkeypatch)


def check_refused(script, arguments, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", [f"{script}.py", *arguments])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        run_script(script, lambda _: pytest.fail("main was called"))
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    assert "Traceback" not in captured.err + captured.out
    for word in words:
        assert word in captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["run= is required"]),
        (["a", "b"], ["a and b: give one run at a time"]),
        (["a", "context=wide"], ["context=wide must be windows, or sliding:STRIDE"]),
        (["a", "context=sliding:0"], ["context=sliding:0 must be"]),
        (["a", "context=sliding:"], ["context=sliding: must be"]),
        (["a", "context=sliding:-3"], ["context=sliding:-3 must be"]),
        (["a", "split=test"], ["split=test must be train or val"]),
        (["a", "checkpoint=best"], ["checkpoint=best must be newest, backup, or a step"]),
        (["a", "checkpoint=-1"], ["checkpoint=-1 must be"]),
        (["a", "data=b", "corpus=c"], ["corpus= is scored as a whole", "leave out data= and split="]),
        (["a", "split=train", "corpus=c"], ["corpus= is scored as a whole"]),
        (["a", "corpus=c", "separator=x", "corpus_format=line"], ["separator=x takes the place of the blank line"]),
        (["a", "tokenizer=c"], ["tokenizer=c is for corpus="]),
        (["a", "batch_size=0"], ["batch_size=0 must be greater than 0"]),
        (["a", "out="], ["out= is empty"]),
        (["a", "out=gs://b/c"], ["out=gs://b/c must be here, or s3://BUCKET/FILE"]),
        (["run=s3://b"], ["run=s3://b must be here, or s3://BUCKET/FOLDER"]),
        (["a", "work_dir=b"], ["work_dir= is for an out= on S3"]),
        (["a", "precision=int8"], ["precision", "fp32, bf16, fp16"]),
        (["a", "stride=3"], ["stride= is no key of this script"]),
    ],
)
def test_bad_settings_of_an_evaluation_end_with_one_line_too(arguments, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["evaluate_tokens.py", *arguments])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        run_script("evaluate_tokens", lambda _: pytest.fail("main was called"), alone="run")
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    assert all(word in captured.err for word in words), captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", sorted(SCHEMAS))
def test_every_suggestion_is_a_key(script):
    known = [row[0] for row in describe(SCHEMAS[script])]
    for key in ["lr", "batch", "out_dir", "dataset", "corpsu", "workerss", "seeds", "x.seed"]:
        assert (suggest(key, known) or f"{known[0]}=").partition("=")[0] in known


def test_every_meaning_is_a_key_of_some_command():
    known = {row[0] for script in SCHEMAS for row in describe(SCHEMAS[script])}
    for meant in MEANT.values():
        assert {each.partition("=")[0] for each in meant} <= known


def test_the_version_is_ours_and_needs_no_torch(capsys, monkeypatch):
    code = "import sys, runpy; sys.path.insert(0, '.'); sys.argv = ['train_composer.py', '--version']\n"
    code += "try: runpy.run_path('train_composer.py', run_name='__main__')\n"
    code += "finally: print(sorted({'torch', 'composer'} & sys.modules.keys()))"
    done = run_command("python", "-c", code)
    assert done.returncode == 0, done.stderr
    first, second, modules = done.stdout.splitlines()
    assert first.startswith(f"Hindsight {VERSION}")
    assert "torch 2" in second
    assert "mosaicml 0" in second
    assert modules == "[]"
    assert f"version: {VERSION}\n" in (ROOT / "CITATION.cff").read_text()


def test_help_of_training_tells_of_sweeps_experiments_and_launchers():
    text = help_text("train_composer")
    assert all(word in text for word in ("-m, --multirun", "experiment=NAME", "gpt2", "hydra/launcher=", "--version"))


COMMANDS = sorted(path.name for path in ROOT.glob("*.py") if path.stem in SCHEMAS)


@pytest.mark.parametrize("command", [[each] for each in COMMANDS] + [["-m", "jobs.run_name"]], ids=str)
def test_a_python_without_the_packages_is_told_of_make_setup(command):
    done = subprocess.run(
        [sys.executable, "-S", *command, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "is not installed for" in done.stderr
    assert "make setup" in done.stderr


def test_a_script_itself_ends_with_status_2_before_any_folder_is_made(tmp_path):
    done = run_command("python", "train_composer.py", "direction=sideways", f"runs_dir={tmp_path}/runs")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), "a/b: Not a directory"),
        (PermissionError(errno.EACCES, "Permission denied", "runs/x"), "runs/x: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), "runs/x: the disk is full; make room"),
    ],
)
def test_a_path_that_cannot_be_written_is_one_line_too(error, words, capsys):
    with pytest.raises(SystemExit) as ended, one_line_errors("train_composer"):
        raise error
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_other_failures_of_the_system_keep_their_traceback():
    with pytest.raises(OSError, match="Input/output"), one_line_errors("train_composer"):
        raise OSError(errno.EIO, "Input/output error", "runs/x")


def test_a_key_for_every_field_of_the_config():
    keys = [row[0] for row in describe(TrainConfig)]
    assert len(keys) == len(set(keys))
    assert {"direction", "data.path", "optim.lr", "checkpoint.keep", "model.cell", "model.n_kv_heads"} <= set(keys)


def test_an_experiment_sets_many_keys_and_what_is_given_wins():
    gpt2 = compose_config("train_composer", "direction=forward", "experiment=gpt2", "data.path=d", "batch_size=16")
    assert (gpt2.model.name, gpt2.precision.name, gpt2.batch_size) == ("gpt2", "bf16", 16)
    other = compose_config("train_composer", "direction=forward", "experiment=gpt2", "data.path=d", "model=gru_small")
    assert (other.model.name, other.batch_size) == ("gru_small", 480)


@pytest.mark.skipif(sys.platform != "linux", reason="triton is for Linux")
def test_a_command_that_imported_triton_ends_without_a_report_of_leaks():
    code = "import triton; from hindsight.command_line import run_script; run_script('make_corpus', print)"
    done = subprocess.run([sys.executable, "-c", code, "out=x"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
