"""What export_hf.py writes and refuses; test_exported_elsewhere.py loads the folders."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from helpers.exports import GPT2, T, export, module_of, opened, written
from helpers.training_runs import by_step, compose_config

from hindsight.config.keys import flatten
from hindsight.config.model import GPT_MODEL_TYPE, RNN_MODEL_TYPE, Activation, Block
from hindsight.errors import InputError
from hindsight.export import logits
from hindsight.export.in_folder.modeling_hindsight_gpt import HindsightGPTConfig, HindsightGPTForCausalLM
from hindsight.export.in_folder.modeling_hindsight_rnn import HindsightRNNConfig, HindsightRNNForCausalLM
from hindsight.export.logits import compare_logits
from hindsight.export.reading import how_it_reads
from hindsight.tokenization.tokenizer import Tokenizer


def test_a_card_says_in_its_first_line_how_the_model_reads(tokenizer_dir, tmp_path):
    said = {
        "forward": "A language model that predicts the next token.",
        "backward": "**This model reads and writes backward**",
        "both": "**This model reads and writes both forward and backward**",
        "even_odd": "**This model reads the tokens of a window in another order, `even_odd`**",
    }
    for name, line in said.items():
        card = (written(opened(GPT2, tokenizer_dir, name), tmp_path / name) / "README.md").read_text()
        assert card.split("---\n")[2].strip().startswith(line)
    positions = json.loads((tmp_path / "even_odd" / "order.json").read_text())["positions"]
    assert positions == [*range(0, T, 2), *range(1, T, 2)]
    assert not (tmp_path / "backward" / "order.json").exists()


def test_the_card_of_a_model_of_reversed_text_shows_no_pipeline_that_would_not_turn_a_text(tokenizer_dir, tmp_path):
    for name in ("forward", "backward", "both"):
        run = opened(GPT2, tokenizer_dir, name, text_order="reversed")
        card = (written(run, tmp_path / name) / "README.md").read_text()
        first_line = card.split("---\n")[2].strip()
        assert first_line.startswith("**This model was trained on texts that were reversed, character by character**")
        assert "pipeline_tag" not in card
        assert 'pipeline("text-generation"' not in card
        assert 'pipeline("backward-text-generation"' in card


def test_a_model_in_the_folder_is_known_by_the_name_in_its_config():
    assert HindsightRNNConfig.model_type == RNN_MODEL_TYPE
    assert HindsightGPTConfig.model_type == GPT_MODEL_TYPE


@pytest.mark.parametrize(
    ("kind", "config"),
    [(HindsightGPTForCausalLM, HindsightGPTConfig), (HindsightRNNForCausalLM, HindsightRNNConfig)],
)
def test_labels_with_a_part_of_the_logits_are_refused(kind, config):
    model = kind(config())
    ids = torch.zeros(1, 4, dtype=torch.long)
    assert model(ids, labels=ids).loss > 0
    with pytest.raises(ValueError, match="logits_to_keep=2: labels need all logits"):
        model(ids, labels=ids, logits_to_keep=2)


def test_the_card_of_a_model_with_code_of_its_own_says_that_it_must_be_allowed(tokenizer_dir, tmp_path):
    modern = replace(GPT2, block=Block.modern, activation=Activation.relu2)
    for name, config, allowed in (("gpt2", GPT2, False), ("modern", modern, True)):
        card = (written(opened(config, tokenizer_dir), tmp_path / name) / "README.md").read_text()
        assert ("trust_remote_code=True" in card) is allowed


def test_ids_behind_the_tokenizers_own_get_their_names(tokenizer_dir, tmp_path):
    spec = json.loads((tokenizer_dir / "tokenizer.json").read_text())
    other = {"<|forward|>": "<|one|>", "<|backward|>": "<|two|>"}
    text = json.dumps(spec)
    for before, after in other.items():
        text = text.replace(before, after)
    changed = tmp_path / "tokenizer"
    shutil.copytree(tokenizer_dir, changed)
    (changed / "tokenizer.json").write_text(text)
    folder = written(opened(GPT2, changed, "both"), tmp_path / "out")
    tokenizer = Tokenizer.load(folder)
    assert [tokenizer.special_id(name) for name in other] == [300, 301]
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == 302


def test_other_logits_are_refused(tokenizer_dir, tmp_path):
    run = opened(GPT2, tokenizer_dir)
    folder, module = written(run, tmp_path / "out"), module_of(run)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "activation_function": "gelu"}))
    with pytest.raises(InputError, match="the logits of the exported model differ by"):
        compare_logits(module, folder, how_it_reads(run), 300)


def test_an_export_that_is_refused_leaves_nothing(trained, tmp_path, monkeypatch):
    # Whatever can be exported has the same logits here; those of another version of transformers might differ.
    monkeypatch.setattr(logits, "TOLERANCE", -1.0)
    with pytest.raises(InputError, match=r"the logits of the exported model differ by .*; nothing was written\."):
        export(trained["forward"], tmp_path / "out")
    assert [*tmp_path.iterdir()] == []


def test_the_card_of_a_run_has_its_losses_and_no_path(trained, tmp_path):
    export(trained["backward"], tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    loss = by_step(trained["backward"], "eval/loss_nats")[12]
    assert f"| loss nats | {loss:.6g} |" in card
    assert str(tmp_path.parent) not in card
    assert str(trained["backward"].parent) not in card


HOME = "/home/somebody/secret"


@pytest.mark.parametrize(
    ("given", "origin", "said"),
    [
        (f"{HOME}/runs/old/", {"run": "old", "step": 7}, "from step `7` of the run `old`,"),
        ("s3://secret/somebody/old", {"run": "old", "step": 7}, "from step `7` of the run `old`,"),
        (f"{HOME}/gpt2", {"folder": f"{HOME}/gpt2"}, "from weights in a folder `gpt2`,"),
        ("me/tiny", {"commit": "c0ffee"}, "from `me/tiny`, commit `c0ffee`,"),
        (f"{HOME}/hub/snapshots/c0ffee", {"commit": "c0ffee"}, "from weights of the Hub, commit `c0ffee`,"),
    ],
)
def test_the_card_says_what_the_run_began_with_and_no_path_of_it(tokenizer_dir, tmp_path, given, origin, said):
    places = {"path": HOME, "cluster": {"folder": HOME}, "data_path": f"s3://secret{HOME}"}
    initial = {"from": given, "fingerprint": "f", **origin}
    metadata = flatten({"initial_weights": initial, **places})
    run = opened(replace(GPT2, init_from=given), tokenizer_dir, **metadata)
    card = (written(run, tmp_path / "out") / "README.md").read_text()
    assert said in card
    assert "model.d_model: 16" in card
    assert "init_from" not in card
    assert "secret" not in card
    assert "somebody" not in card


def test_nothing_else_is_overwritten_and_the_same_export_is_left(trained, tmp_path, caplog):
    caplog.set_level("INFO", logger="hindsight")
    out = tmp_path / "out"
    export(trained["forward"], out)
    card = out / "README.md"
    card.write_text("mine")
    export(trained["forward"], out)
    assert "holds this export already" in caplog.text
    assert card.read_text() == "mine"
    with pytest.raises(InputError, match=r"out=\S+ holds step 12 of the run forward; give a new or an empty folder\."):
        export(trained["backward"], out)
    with pytest.raises(InputError, match="holds step 12"):
        export(trained["forward"], out, "checkpoint=5")
    with pytest.raises(InputError, match="holds something else"):
        export(trained["forward"], trained["forward"])
    assert card.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_damaged_export_is_refused(trained, tmp_path):
    export(trained["gru"], tmp_path / "whole")
    for name in ("model.safetensors", "config.json", "tokenizer.json", "modeling_hindsight_rnn.py"):
        out = shutil.copytree(tmp_path / "whole", tmp_path / name)
        raw = (out / name).read_bytes()
        (out / name).write_bytes(raw[:-9] + bytes([raw[-9] ^ 1]) + raw[-8:])
        with pytest.raises(InputError, match=rf"^out={out} is damaged: {name} is not what was exported; remove"):
            export(trained["gru"], out)
        (out / name).unlink()
        with pytest.raises(InputError, match=rf"is damaged: {name}"):
            export(trained["gru"], out)
    record = json.loads((tmp_path / "whole" / "hindsight_export.json").read_text())
    (tmp_path / "whole" / "hindsight_export.json").write_text(json.dumps({**record, "sha256": None}))
    with pytest.raises(InputError, match=r"is damaged: hindsight_export\.json"):
        export(trained["gru"], tmp_path / "whole")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["push=name"], "push=name must be USER/NAME"),
        (["private=false"], "private=false is for push="),
        (["out=s3://bucket/folder"], "is not on this machine"),
        (["checkpoint=last"], "must be newest, backup, or a step"),
        (["push=https://user:secret@host/name"], "must not hold keys"),
    ],
)
def test_bad_keys_are_told_in_a_line(arguments, message):
    with pytest.raises(InputError, match=message):
        compose_config("export_hf", "run=a", "out=b", *arguments)
