"""Runs that begin with weights that were trained before."""

import json
import logging
import math
import shutil
from pathlib import Path

import pytest
import torch
from helpers.initial_weights import GPT2, LLAMA, LLAMA_JSON, T, V, begin, mean_nats, their_nats, theirs, write_folder
from helpers.processes import run_command
from helpers.recorded_runs import make_run
from helpers.small_data import convert_config
from helpers.token_runs import model_of
from helpers.training_runs import by_step, compose_config, losses, settings, train
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

import convert_to_mds
import export_hf
import train_composer
from hindsight.analysis.pairs import pair_runs
from hindsight.analysis.recorded import read_run
from hindsight.config.model import GPTConfig
from hindsight.errors import InputError
from hindsight.evaluation.trained_run import read_run as read_trained
from hindsight.hf_weights import to_hugging_face
from hindsight.training.hf_sizes import ratio_of, sizes_of
from hindsight.training.init_source import check_early
from hindsight.training.initial_weights import fingerprint_of
from load_text_streaming import build_loaders


@pytest.fixture(scope="module")
def gpt2(tokenizer_dir, tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("hf") / "gpt2", theirs("gpt2"), tokenizer_dir)


@pytest.mark.parametrize(("kind", "changes"), [("gpt2", GPT2), ("llama", LLAMA)])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_the_first_loss_is_that_of_transformers_with_the_same_weights(
    shards, tokenizer_dir, tmp_path, kind, changes, direction
):
    folder = write_folder(tmp_path / kind, theirs(kind), tokenizer_dir)
    begun = begin(shards, tmp_path, *changes, f"model.init_from={folder}", f"direction={direction}")
    expected = their_nats(theirs(kind), begun.batch())
    assert expected > math.log(V) + 0.1  # far from what drawn weights give
    assert begun.loss_nats() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["forward", "backward", "gru"])
def test_an_exported_run_begins_another_with_the_losses_of_the_run_itself(shards, trained, tmp_path, name):
    folder = tmp_path / "exported"
    export_hf.main(compose_config("export_hf", f"run={trained[name]}", f"out={folder}"))
    changes = [f"direction={'forward' if name == 'forward' else 'backward'}"]
    changes += ["model=gru_small"] if name == "gru" else []
    ours = begin(shards, tmp_path, *changes, f"model.init_from={trained[name]}")
    # Positions behind the windows of the run, which were never trained, are not exported.
    shorter = [] if name == "gru" else ["model.context_length=32"]
    exported = begin(shards, tmp_path, *changes, *shorter, f"model.init_from={folder}")
    assert exported.loss_nats() == ours.loss_nats()
    assert ours.loss_nats() < 0.9 * begin(shards, tmp_path, *changes).loss_nats()


def test_a_modern_run_begins_another_by_itself_and_as_an_exported_folder(shards, tmp_path):
    changes = ["model.block=modern", "model.activation=relu2", "model.logit_softcap=5", "model.init=zero_out"]
    run = train(shards, tmp_path, *changes, "max_duration=3ba", "optim.lr=0.01", "run_name=a")
    folder = tmp_path / "exported"
    export_hf.main(compose_config("export_hf", f"run={run}", f"out={folder}"))
    for source in (run, folder):
        begun = begin(shards, tmp_path, *changes, "model.init=torch", f"model.init_from={source}")
        assert begun.record["fingerprint"] == fingerprint_of(model_of(run))
        with pytest.raises(InputError, match=r"of other sizes than model=\S+; give model\.logit_softcap=5\.0\.$"):
            begin(shards, tmp_path, *changes[:2], f"model.init_from={source}")
    assert begun.loss_nats() < 0.95 * begin(shards, tmp_path, *changes).loss_nats()


def as_parts(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    parts = {f"model-{i}.safetensors": names[i::3] for i in range(3)}
    for file, its in parts.items():
        save_file({name: weights[name] for name in its}, folder / file)
    index = {"weight_map": {name: file for file, its in parts.items() for name in its}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


def as_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def as_openai(folder: Path) -> None:
    """As in the folder `gpt2` on the Hub: no prefix, and the causal mask as a buffer."""
    weights = load_file(folder / "model.safetensors")
    shorter = {name.removeprefix("transformer."): weight for name, weight in weights.items()}
    save_file(shorter | {"h.0.attn.bias": torch.ones(1, 1, T, T)}, folder / "model.safetensors")


def as_half(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({name: weight.bfloat16() for name, weight in weights.items()}, folder / "model.safetensors")


@pytest.mark.parametrize("form", [as_parts, as_pickle, as_openai])
def test_weights_in_another_form_are_the_same_to_the_bit(shards, gpt2, tmp_path, form):
    copy = shutil.copytree(gpt2, tmp_path / "copy")
    form(copy)
    one, other = (begin(shards, tmp_path, *GPT2, f"model.init_from={folder}") for folder in (gpt2, copy))
    assert one.record["fingerprint"] == other.record["fingerprint"] == fingerprint_of(other.module)


def test_weights_in_bfloat16_begin_a_run_in_float32(shards, gpt2, tmp_path):
    copy = shutil.copytree(gpt2, tmp_path / "copy")
    as_half(copy)
    begun = begin(shards, tmp_path, *GPT2, f"model.init_from={copy}")
    assert {weight.dtype for weight in begun.module.state_dict().values()} == {torch.float32}
    assert begun.loss_nats() == pytest.approx(their_nats(theirs("gpt2"), begun.batch()), rel=0.02)


@pytest.mark.parametrize("name", ["forward", "gru"])
def test_a_run_of_ours_goes_on_from_the_weights_of_its_newest_checkpoint(shards, trained, tmp_path, name):
    source = trained[name]
    changes = ["model=gru_small"] if name == "gru" else []
    given = settings(
        shards, tmp_path, *changes, f"model.init_from={source}", "optim.lr=0.01", "run_name=a", "max_duration=1ba"
    )
    given = [each for each in given if name != "gru" or each != "model.n_heads=2"]
    train_composer.main(compose_config("train_composer", *given))
    metadata = json.loads((tmp_path / "a" / "metadata.json").read_text())
    record = metadata["initial_weights"]
    assert (record["run"], record["step"], record["from"]) == (name, 12, str(source))
    assert record["fingerprint"] == fingerprint_of(model_of(source))
    setup = train_composer.prepare(compose_config("train_composer", *given))
    batch = next(iter(build_loaders(setup)["train"].dataloader))
    with torch.no_grad():
        expected = mean_nats(model_of(source)(batch["input_ids"]), batch["targets"])
    assert by_step(tmp_path / "a")[1] == pytest.approx(expected, abs=1e-6)


def test_a_run_that_was_written_as_a_folder_of_transformers_comes_back_to_the_bit(
    shards, trained, tokenizer_dir, tmp_path
):
    config = read_trained(str(trained["forward"])).config.model
    assert isinstance(config, GPTConfig)
    ours = model_of(trained["forward"])
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=V, n_positions=T, n_embd=24, n_layer=2, n_head=2, tie_word_embeddings=False)
    )
    model.load_state_dict(to_hugging_face(ours.state_dict(), config))
    folder = write_folder(tmp_path / "folder", model, tokenizer_dir)
    assert begin(shards, tmp_path, f"model.init_from={folder}").record["fingerprint"] == fingerprint_of(ours)


@pytest.mark.parametrize("tied", [False, True])
def test_an_lstm_in_a_folder_of_transformers_begins_a_run(shards, tokenizer_dir, tmp_path, tied):
    changes = ["model=lstm_small", "model.final_norm=true", f"model.tied_head={str(tied).lower()}", "seed=3"]
    ours = begin(shards, tmp_path, *changes)
    weights = {
        name: weight for name, weight in ours.module.state_dict().items() if not (tied and name == "head.weight")
    }
    AutoTokenizer.from_pretrained(tokenizer_dir).save_pretrained(tmp_path / "rnn")
    save_file(weights, tmp_path / "rnn" / "model.safetensors")
    config = {"model_type": "hindsight_rnn", "cell": "lstm", "n_layers": 2, "d_model": 24, "final_norm": True}
    (tmp_path / "rnn" / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": tied}))
    begun = begin(shards, tmp_path, *changes[:3], "seed=4", f"model.init_from={tmp_path / 'rnn'}")
    assert begun.record["fingerprint"] == fingerprint_of(ours.module)


def test_a_model_without_biases_takes_a_gpt2_whose_biases_are_zero_and_no_other(shards, gpt2, tmp_path):
    changes = [*GPT2, "model.bias=false", f"model.init_from={tmp_path / 'copy'}"]
    copy = shutil.copytree(gpt2, tmp_path / "copy")
    begun = begin(shards, tmp_path, *changes)
    assert begun.loss_nats() == pytest.approx(their_nats(theirs("gpt2"), begun.batch()), abs=1e-5)
    weights = load_file(copy / "model.safetensors")
    weights["transformer.h.1.mlp.c_fc.bias"][3] = 1.0
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(InputError, match=r"has biases that are not 0 \(transformer.h.1.mlp.c_fc.bias\)"):
        begin(shards, tmp_path, *changes)


def test_special_tokens_of_the_data_that_the_weights_do_not_know_get_the_mean_of_the_others(
    corpus, gpt2, shards, tokenizer_dir, tmp_path
):
    more = AutoTokenizer.from_pretrained(tokenizer_dir)
    more.add_tokens(["<|one|>", "<|two|>"], special_tokens=True)
    more.save_pretrained(tmp_path / "more")
    convert_to_mds.main(convert_config(corpus, tmp_path / "more", tmp_path / "data"))
    before = begin(shards, tmp_path, *GPT2, f"model.init_from={gpt2}")
    after = begin(tmp_path / "data", tmp_path, *GPT2, f"model.init_from={gpt2}")
    assert (after.record["rows_copied"], after.record["rows_added"]) == (V, 2)
    rows = after.module.get_parameter("embedding.weight")
    assert torch.equal(rows[:V], before.module.get_parameter("embedding.weight"))
    assert torch.allclose(rows[V:], rows[:V].mean(dim=0), atol=1e-7)
    assert torch.equal(after.batch()["input_ids"], before.batch()["input_ids"])
    assert 0 < after.loss_nats() - before.loss_nats() < math.log(1 + 2 / V)


def test_both_directions_in_one_model_begin_with_a_model_of_one(shards, trained, tmp_path):
    begun = begin(shards, tmp_path, "order=both", f"model.init_from={trained['forward']}")
    assert begun.record["rows_copied"] == begun.setup.vocab_size == V


@pytest.mark.parametrize(("vocab_size", "rows"), [(None, (V, 0, 20)), (320, (320, 0, 0)), (330, (320, 10, 0))])
def test_rows_behind_the_tokenizers_ids_are_kept_where_the_model_has_them(
    shards, tokenizer_dir, tmp_path, vocab_size, rows
):
    folder = write_folder(tmp_path / "padded", theirs("gpt2", 320), tokenizer_dir)
    padding = [f"model.vocab_size={vocab_size}"] if vocab_size else []
    begun = begin(shards, tmp_path, *GPT2, *padding, f"model.init_from={folder}")
    assert tuple(begun.record[f"rows_{what}"] for what in ("copied", "added", "left_out")) == rows
    if vocab_size == 320:
        assert begun.loss_nats() == pytest.approx(their_nats(theirs("gpt2", 320), begun.batch()), abs=1e-5)


def test_a_name_on_the_hub_is_found_in_its_cache_too_and_the_commit_is_recorded(shards, gpt2, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    place, commit = tmp_path / "cache" / "models--somebody--tiny", "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(gpt2, place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    begun = begin(shards, tmp_path, *GPT2, "model.init_from=somebody/tiny")
    assert (begun.record["from"], begun.record["commit"]) == ("somebody/tiny", commit)


def test_the_base_of_the_rotary_positions_is_read_in_the_forms_of_transformers_4_and_5():
    new = {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}
    assert sizes_of(LLAMA_JSON | new, "a") == sizes_of(LLAMA_JSON | {"rope_theta": 500.0}, "a")
    default = sizes_of(LLAMA_JSON, "a")
    assert isinstance(default, GPTConfig)
    assert default.rope_theta == 10_000


@pytest.mark.parametrize(
    ("d_hidden", "d_model", "ratio"), [(3072, 768, 4.0), (11008, 4096, 2.6875), (2048, 768, 2.667)]
)
def test_the_ratio_that_is_advised_is_the_shortest_that_makes_the_width(d_hidden, d_model, ratio):
    assert ratio_of(d_hidden, d_model) == ratio
    assert round(ratio * d_model) == d_hidden


def test_a_run_goes_on_bit_for_bit_with_frozen_parts_and_without_the_folder_that_it_began_with(
    shards, gpt2, tmp_path, caplog
):
    caplog.set_level(logging.INFO, logger="hindsight")
    source = shutil.copytree(gpt2, tmp_path / "gpt2")
    changes = [
        *GPT2,
        f"model.init_from={source}",
        "model.freeze=[embedding,blocks.0]",
        "optim.lr=0.01",
        "checkpoint.interval=3ba",
        "run_name=a",
    ]
    whole = train(shards, tmp_path / "whole", *changes)
    shutil.rmtree(source)
    parts = shutil.copytree(tmp_path / "whole", tmp_path / "parts") / "a"
    for name in ("checkpoints/ep0-ba6-rank0.pt", "newest_checkpoint.json", "finished.json", "model.safetensors"):
        (parts / name).unlink()
    train(shards, tmp_path / "parts", *changes)
    assert "goes on from step 3" in caplog.text
    assert losses(parts) == losses(whole)
    weights, others = (load_file(folder / "model.safetensors") for folder in (whole, parts))
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    records = [json.loads((folder / "metadata.json").read_text()) for folder in (whole, parts)]
    assert records[0]["initial_weights"] == records[1]["initial_weights"]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        (["model.init_from=a/gpt2/"], "gpt_micro-from_gpt2-bible-forward-seed0"),
        (["model.init_from=runs/gpt_nano-l2-novels-forward-seed0"], "gpt_micro-from_8d90235c-bible-forward-seed0"),
        (["model.freeze=[embedding,blocks.0-1]"], "gpt_micro-freeze_embedding+blocks.0-1-bible-forward-seed0"),
    ],
)
def test_what_a_run_begins_with_is_in_its_name(changes, name):
    assert compose_config("train_composer", "direction=forward", *changes).name_of_run() == name


def test_runs_from_other_weights_are_no_pair(tmp_path):
    def run(name: str, direction: str, weights: str | None, source: str = "gpt2") -> Path:
        given = [f"model.init_from={source}"] if weights else []
        metadata = {"initial_weights": {"from": source, "fingerprint": weights}} if weights else {}
        return make_run(tmp_path / name, direction, [5.0, 4.0], *given, **metadata)

    same = run("fw", "forward", "a1"), run("bw", "backward", "a1")
    pairs, _ = pair_runs([read_run(folder) for folder in same])
    assert [(pair.runs[0].folder, pair.runs[1].folder) for pair in pairs] == [same]
    for other in (
        run("changed", "backward", "b2"),
        run("moved", "backward", "b2", "other"),
        run("drawn", "backward", None),
    ):
        pairs, left_out = pair_runs([read_run(folder) for folder in (same[0], other)])
        assert pairs == []
        assert "model.init_from=gpt2" in left_out[0]


def test_a_run_that_may_go_on_needs_the_weights_no_more(shards, tmp_path):
    config = compose_config("train_composer", *settings(shards, tmp_path, "model.init_from=./gone", "run_name=a"))
    with pytest.raises(InputError, match="does not exist"):
        train_composer.prepare(config)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.yaml").touch()
    check_early(train_composer.prepare(config))


@pytest.mark.slow
@pytest.mark.dist
def test_two_processes_begin_with_the_weights_of_one(shards, trained, tmp_path):
    changes = [f"model.init_from={trained['forward']}", "max_duration=2ba"]
    one = train(shards, tmp_path, *changes, "run_name=one")
    given = settings(shards, tmp_path, *changes, "run_name=two")
    done = run_command("composer", "-n", "2", "train_composer.py", *given)
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads((tmp_path / name / "metadata.json").read_text()) for name in ("one", "two")]
    assert [record["world_size"] for record in records] == [1, 2]
    assert records[0]["initial_weights"] == records[1]["initial_weights"]
    assert records[1]["initial_weights"]["fingerprint"] == fingerprint_of(model_of(trained["forward"]))
    assert by_step(tmp_path / "two") == pytest.approx(by_step(one), rel=1e-4)
