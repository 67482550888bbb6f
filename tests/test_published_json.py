"""Files of the published code of arXiv:2401.17505 become commands of ours. What they hold here is made up."""

import json
import shlex
from dataclasses import asdict

import pytest
from helpers.processes import run_command
from helpers.published_settings import PAPER
from helpers.training_runs import compose_config

from hindsight.command_line import configuration_of
from hindsight.config.keys import flatten
from hindsight.errors import InputError
from hindsight.orders.known import FORMULAS, open_order
from hindsight.orders.order import FixedOrder
from hindsight.training.published_json import answer, is_asked

LATER = {"save_loc": "runs/", "fast_scrambling": False, "val_batch_size": 5, "cooldown_finish": 0.15}


def settings_of(name):
    """A file for a model of the paper, as its tag `original` has it."""
    model = compose_config("train_composer", "direction=forward", f"model=paper_{name}").model
    batch_size, aggregate, warmup_steps, period_steps = PAPER[name]
    is_gpt = name.startswith("gpt")
    sizes = {"n_layers": model.n_layers, "embed_dim": model.d_model, "dropout": model.dropout}
    rest = {"n_heads": model.n_heads, "attn_length": 256, "mlp_ratio": 4.0, "embd_dropout": None} if is_gpt else {}
    recurrent = {} if is_gpt else {"desired_attn_length": 256, "embd_dropout": model.embedding_dropout}
    return {
        "model_params": {"vocab_size": 50257, **sizes, **rest, **recurrent},
        "training_params": {
            "dataset_folder": "datavol/english/english.h5",
            "batch_size": batch_size,
            "aggregate": aggregate,
            "backwards": True,
            "steps_to_train": None,
            "valid_steps": 1000,
            "state_save_loc": "runs",
        },
        "optim_params": {
            "lr": 1e-4,
            "warmup_steps": warmup_steps,
            "oscil_steps": period_steps,
            "lr_shrink": 0.85,
            "lr_init": 1e-7,
            "lr_min": 1e-6,
        },
    }


def changed(tree, **changes):
    """The file with some of its keys changed, or (value: ...) left out."""
    groups = {key: group for group, values in tree.items() for key in values}
    tree = json.loads(json.dumps(tree))
    for key, value in changes.items():
        group = tree[groups.get(key, "training_params")]
        if value is ...:
            del group[key]
        else:
            group[key] = value
    return tree


def asked(tmp_path, tree, *arguments):
    """The arguments of the command, and the notes."""
    path = tmp_path / "given.json"
    path.write_text(tree if isinstance(tree, str) else json.dumps(tree))
    text = answer(["--from-json", str(path), *arguments])
    command, *notes = text.replace(" \\\n", " ").splitlines()
    words = shlex.split(command)
    assert words[:2] == ["python", "train_composer.py"]
    assert all(note.startswith("# ") for note in notes)
    return words[2:], notes


@pytest.mark.parametrize("name", PAPER)
def test_the_file_of_a_model_of_the_paper_is_its_recipe(name, tmp_path):
    words, notes = asked(tmp_path, settings_of(name), *([f"model=paper_{name}"] if name.startswith("lstm") else []))
    assert f"model=paper_{name}" in words
    assert not [word for word in words if word.startswith("model.")]
    ours = compose_config("train_composer", *words)
    recipe = compose_config(
        "train_composer", "direction=backward", f"experiment=paper_{name}", "data.path=data/english"
    )
    differing = {key for key, value in flatten(asdict(ours)).items() if flatten(asdict(recipe))[key] != value}
    # The recipe counts a checkpoint each 1000 steps for all models, where the scripts save each 2000 backward passes.
    assert differing <= {"checkpoint.interval"}
    assert ("LSTM" in "".join(notes)) == (not name.startswith("gpt"))


@pytest.mark.parametrize("name", [*FORMULAS, "random_chunk:7", "uniform_random:3"])
def test_a_permutation_gets_its_name(name, tmp_path):
    order = open_order(name, 32)
    assert isinstance(order, FixedOrder)
    permutation = order.positions_T.tolist()
    tree = changed(settings_of("gpt_nano"), attn_length=32, permutation=permutation, backwards=...)
    words, _ = asked(tmp_path, tree)
    assert {f"order={name}", f"direction={name}"} & set(words)
    assert "data.stride=15" in words
    with pytest.raises(InputError, match="is none that order= has"):
        asked(tmp_path, changed(tree, permutation=permutation[:2][::-1] + permutation[2:][::-1]))


def test_without_a_direction_a_run_has_both(tmp_path):
    words, _ = asked(tmp_path, changed(settings_of("gpt_nano"), backwards=None, **LATER))
    assert "order=both" in words
    assert not [word for word in words if word.startswith("data.stride")]
    words, _ = asked(tmp_path, changed(settings_of("gpt_nano"), backwards=False), "direction=backward")
    assert [word for word in words if word.startswith(("order", "direction"))] == ["direction=backward"]


def test_steps_are_those_of_the_version_that_the_file_is_for(tmp_path):
    small = {"aggregate": 4, "steps_to_train": 1002, "valid_steps": 10, "backup_every": 100, "step_log": 7}
    earlier, _ = asked(tmp_path, changed(settings_of("gpt_nano"), **small))
    assert {"max_duration=250ba", "eval_interval=50ba", "checkpoint.backup_interval=25ba", "log_interval=7"} <= set(
        earlier
    )
    assert {"batch_size=1000", "microbatch_size=250", "checkpoint.interval=500ba"} <= set(earlier)
    assert "optim.schedule=cosine_restarts" in earlier
    later, _ = asked(tmp_path, changed(settings_of("gpt_nano"), **small, **LATER, oscil_steps=...))
    assert {"max_duration=1002ba", "eval_interval=250ba", "checkpoint.backup_interval=100ba"} <= set(later)
    assert {"optim.schedule=constant", "optim.cooldown_share=0.15", "checkpoint.interval=2000ba"} <= set(later)
    later, _ = asked(tmp_path, changed(settings_of("gpt_nano"), **LATER, aggregate=4))
    assert "max_duration=4ep" in later


def test_other_sizes_are_keys_and_what_has_no_counterpart_is_named(tmp_path):
    tree = changed(settings_of("gpt_nano"), n_layers=5, dropout=0.2, attn_length=24, save_every=3000, novelty=[1, 2])
    words, notes = asked(tmp_path, tree)
    assert {"model.n_layers=5", "model.dropout=0.2", "model.embedding_dropout=0.2", "model.context_length=24"} <= set(
        words
    )
    config = compose_config("train_composer", *words)
    assert (config.model.activation.name, config.model.init.name) == ("gelu", "torch")
    text = "\n".join(notes)
    assert "no counterpart: training_params.novelty=[1, 2]" in text
    assert "save_every=3000: the published scripts pass 2000 instead" in text
    assert "block_length=2040" in text  # which windows of 24 tokens divide
    assert "vocab_size=50257: taken from the tokenizer" in text


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ("{", "is no JSON of settings"),
        ("[1]", "is no JSON of settings"),
        ("\x00\x01", "is no JSON of settings"),
        ("[" * 100_000, "nested too deeply"),
        ({"model_params": {}}, "training_params is missing"),
        ({"model_params": 1}, "model_params is missing"),
        ({"batch_size": "many"}, 'training_params: batch_size="many" is no number'),
        ({"batch_size": ...}, "training_params: batch_size is missing"),
        ({"n_layers": 0}, "model_params: n_layers=0 is no number"),
        ({"n_layers": True}, "model_params: n_layers=true is no number"),
        ({"lr": -1.0}, "optim_params: lr=-1.0 is no number"),
        ({"backwards": "yes"}, 'backwards="yes" must be true, false or null'),
        ({"permutation": [0, 0]}, r"permutation=\[0, 0\] is no permutation of 0 to 255"),
        ({"permutation": "x"}, r'permutation="x" is no permutation'),
        ({"n_heads": 7}, r"model.n_heads=7 does not divide"),
        ({"warmup_steps": "x"}, r"optim_params: warmup_steps=\"x\" is no number"),
        ({"lr": float("nan")}, "optim_params: lr=NaN is no number"),
        ({"lr_min": float("inf")}, "optim_params: lr_min=Infinity is no number"),
        ({"valid_steps": 10**400}, "valid_steps=10+ ... is no number"),
        (changed(settings_of("gpt_nano"), **LATER | {"cooldown_finish": "x"}), 'cooldown_finish="x" is no number'),
        ({"state_save_loc": 3}, "training_params: state_save_loc=3 is no text"),
        ({"dataset_folder": "a\nb"}, "dataset_folder=.* is no text"),
    ],
)
def test_what_is_no_such_file_is_refused_in_a_line(tree, message, tmp_path):
    if isinstance(tree, dict) and not {"model_params"} & set(tree):
        tree = changed(settings_of("gpt_nano"), **tree)
    with pytest.raises(InputError, match=message) as refused:
        asked(tmp_path, tree)
    assert str(refused.value).startswith(f"--from-json {tmp_path / 'given.json'}")
    assert len(str(refused.value)) < 400


def test_texts_of_a_file_stay_what_they_are(tmp_path):
    tree = changed(settings_of("gpt_nano"), state_save_loc="/x y/z,w", dataset_folder="it's [a],b${c}.h5")
    words, _ = asked(tmp_path, tree)
    config = configuration_of("train_composer", words)
    assert (config.runs_dir, config.data.path) == ("/x y/z,w", "data/it's [a],b${c}")


def test_what_is_typed_beside_a_file_and_does_not_fit_is_refused_by_name(tmp_path):
    tree = settings_of("gpt_nano")
    with pytest.raises(InputError, match=r"given.json takes key=value beside it; add -m to the command"):
        asked(tmp_path, tree, "-m", "seed=1,2")
    with pytest.raises(InputError, match=r"given.json: .*seed=1,2"):
        asked(tmp_path, tree, "seed=1,2")
    with pytest.raises(InputError, match=r"given.json: .*lerning_rate"):
        asked(tmp_path, tree, "optim.lerning_rate=1")


def test_as_an_option_of_the_command(tmp_path):
    (tmp_path / "en.json").write_text(json.dumps(settings_of("gpt_nano")))
    done = run_command("python", "train_composer.py", f"--from-json={tmp_path / 'en.json'}", "data.path=here")
    assert (done.returncode, done.stderr) == (0, "")
    assert "    data.path=here \\\n" in done.stdout
    done = run_command("python", "train_composer.py", "--from-json", str(tmp_path / "none.json"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "none.json cannot be read (No such file or directory)" in done.stderr
    with pytest.raises(InputError, match="--from-json needs a file"):
        answer(["--from-json"])
    with pytest.raises(InputError, match="--from-json needs a file"):
        answer(["--from-json", "direction=forward"])
    assert not is_asked(["direction=forward"])
