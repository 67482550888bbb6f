import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.exports import export
from helpers.processes import ROOT
from helpers.training_runs import by_step, compose_config
from safetensors.torch import load_file, save_file

from hindsight.config.corpus import TextOrder
from hindsight.config.keys import flatten
from hindsight.config.model import RNN_MODEL_TYPE, Activation, Block, Cell, GPTConfig, ModelConfig, RNNConfig
from hindsight.config.training import TrainConfig
from hindsight.errors import InputError
from hindsight.evaluation.opened_run import OpenedRun
from hindsight.evaluation.stored_weights import StoredWeights
from hindsight.evaluation.trained_run import TrainedRun
from hindsight.export.export import write_folder
from hindsight.export.in_folder.modeling_hindsight_rnn import HindsightRNNConfig
from hindsight.export.logits import compare_logits
from hindsight.export.reading import how_it_reads
from hindsight.orders.both import vocab_size_for
from hindsight.orders.known import open_order
from hindsight.text.graphemes import reverse_text
from hindsight.tokenization.tokenizer import Tokenizer
from language_model import build_model

T = 24
SIZES: dict[str, Any] = {"n_layers": 2, "d_model": 16, "context_length": T}
GPT2 = GPTConfig(name="tiny", n_heads=2, **SIZES)
LLAMA = GPTConfig(name="tiny", n_heads=4, block=Block.llama, mlp_ratio=2.5, **SIZES)
MODELS: dict[str, ModelConfig] = {
    "gpt2": GPT2,
    "gpt2 with exact gelu, tied, no biases": replace(GPT2, activation=Activation.gelu, tied_head=True, bias=False),
    "gpt2 with more positions and ids than needed": replace(GPT2, context_length=4 * T, vocab_size=512, norm_eps=1e-3),
    "llama": LLAMA,
    "llama with biases, tied, 2 kv heads": replace(LLAMA, bias=True, tied_head=True, n_kv_heads=2, rope_theta=50.0),
    "gru": RNNConfig(name="tiny", cell=Cell.gru, **SIZES),
    "lstm with norm, tied": RNNConfig(name="tiny", cell=Cell.lstm, final_norm=True, tied_head=True, **SIZES),
}
TORCHES = [".venv", ".venv-latest"]

SCRIPT = """
import json, sys
import torch
from pathlib import Path
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

assert not any("hindsight" in name for name in sys.modules)
folders, text, turned, texts = json.loads(sys.argv[1])
for folder in map(Path, folders):
    inputs = load_file(folder.parent / "inputs.safetensors")["inputs"]
    code = {"trust_remote_code": True} if list(folder.glob("modeling_*.py")) else {}
    there = folder
    for name in ("loaded", "saved and loaded"):
        model = AutoModelForCausalLM.from_pretrained(there, **code)
        tokenizer = AutoTokenizer.from_pretrained(there, **code)
        assert model.dtype == torch.float32 and not model.training
        with torch.no_grad():
            logits = model(inputs).logits
        ids = torch.tensor(tokenizer(text).input_ids)
        assert set(tokenizer(text)) == {"input_ids", "attention_mask"}
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        greedy = model.generate(inputs[:1, :4], max_new_tokens=8, do_sample=False)
        slow = model.generate(inputs[:1, :4], max_new_tokens=8, do_sample=False, use_cache=False)
        outputs = {"logits": logits, "ids": ids, "greedy": greedy, "slow": slow}
        save_file(outputs, folder.parent / f"{name} {sys.argv[2]}")
        there = folder.parent / f"again {sys.argv[2]}"
        model.save_pretrained(there)
        tokenizer.save_pretrained(there)
        assert not code or list(there.glob("modeling_*.py")), "the code goes along"
told = {}
for name in ("backward", "reversed", "reversed and backward", "both"):
    write = pipeline("backward-text-generation", model=turned[name], trust_remote_code=True)
    answers = [write(text, max_new_tokens=6, do_sample=False) for text in texts]
    only = write(texts[0], max_new_tokens=6, do_sample=False, return_full_text=False)
    assert only[0]["generated_text"] in answers[0][0]["generated_text"]
    again = Path(turned[name]).parent / f"again {sys.argv[2]}"
    write.save_pretrained(again)
    write = pipeline("backward-text-generation", model=str(again), trust_remote_code=True)
    assert write(texts[0], max_new_tokens=6, do_sample=False) == answers[0], "saved and loaded"
    assert len(write(texts[0], num_return_sequences=2)) == 2
    batch = write(texts, batch_size=2, max_new_tokens=6, do_sample=False, num_beams=2, num_return_sequences=2)
    each = [write(text, max_new_tokens=6, do_sample=False, num_beams=2, num_return_sequences=2) for text in texts]
    assert batch == each and len(batch[0]) == 2, "in batches"
    try:
        told["nothing asked"] = write(texts[0], max_new_tokens=0)
    except ValueError as error:
        assert "max_new_tokens" in str(error)
    told[name] = [answer["generated_text"] for [answer] in answers]
write = pipeline("text-generation", model=turned["both"])
told["both, forward"] = write(texts[0], max_new_tokens=6, do_sample=False)[0]["generated_text"]
for folder in folders:
    code = {"trust_remote_code": True} if list(Path(folder).glob("modeling_*.py")) else {}
    write = pipeline("text-generation", model=folder, **code)
    [answer] = write(texts[0], eos_token_id=None, return_tensors=True)
    told[f"length {folder}"] = len(answer["generated_token_ids"])

folder = turned["lively lstm"]
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
rows = [tokenizer(text, return_tensors="pt") for text in texts[:2]]
batch = tokenizer(texts[:2], return_tensors="pt", padding=True)
assert rows[0].input_ids.shape != rows[1].input_ids.shape
options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
n_read = []
model.embedding.register_forward_hook(lambda module, inputs, output: n_read.append(inputs[0].shape[1]))
told["rows"] = [model.generate(**row, **options)[0, -6:].tolist() for row in rows]
told["n read"] = n_read[:6]
told["batch"] = model.generate(**batch, **options)[:, -6:].tolist()
options |= {"num_beams": 3}
told["beams"] = model.generate(**batch, **options)[:, -6:].tolist()
told["beams without a cache"] = model.generate(**batch, **options, use_cache=False)[:, -6:].tolist()
labels = rows[0].input_ids
told["loss"] = model(labels, labels=labels).loss.item()
logits = model(labels).logits
told["loss by hand"] = torch.nn.functional.cross_entropy(logits[0, :-1], labels[0, 1:]).item()
Path(sys.argv[3]).write_text(json.dumps(told))
"""
ASKED = ["and said:", "The old man slept, and it was “good”.\n", "word " * 30]
TEXT = "The old man said: “café”, and slept.\n"


def opened(model: ModelConfig, tokenizer_dir: Path, name: str = "forward", **changes) -> OpenedRun:
    """A run that was never trained: the package takes its module as an argument."""
    tokenizer = Tokenizer.load(tokenizer_dir)
    config = TrainConfig(order=name, model=model, run_name="tiny")
    config.data.context_length = T
    fingerprints = {"data_fingerprint": "d", "tokenizer_fingerprint": tokenizer.fingerprint}
    metadata = {**fingerprints, "n_parameters": 1, "git_commit": "c", "versions": {}, **changes}
    run = TrainedRun("runs/tiny", None, config, metadata, None)
    weights = StoredWeights(Path("ep0-ba3-rank0.pt"), 3, "f")
    order = open_order(name, T, tokenizer)
    return OpenedRun(run, weights, tokenizer, tokenizer_dir, order, TextOrder(changes.get("text_order", "reading")))


def module_of(run: OpenedRun, scale: float = 0.3) -> torch.nn.Module:
    """A model whose every weight shows in the logits."""
    module = build_model(run.config.model, vocab_size_for(run.order, run.tokenizer.vocab_size), seed=0).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            mean = 1.0 if weight.ndim == 1 and name.endswith("norm.weight") else 0.0
            weight.copy_(mean + scale * torch.randn(weight.shape, generator=generator))
    return module


def written(run: OpenedRun, folder: Path, scale: float = 0.3) -> Path:
    folder.mkdir(parents=True)
    write_folder(run, how_it_reads(run), module_of(run, scale), folder)
    return folder


@pytest.fixture(scope="module")
def exported(tokenizer_dir, tmp_path_factory):
    """Every architecture as a folder, with inputs and our logits beside it."""
    parent = tmp_path_factory.mktemp("exported")
    for name, config in MODELS.items():
        run = opened(config, tokenizer_dir)
        folder = written(run, parent / name / "model")
        module, V = module_of(run), run.tokenizer.vocab_size
        inputs_BT = torch.randint(V, (3, T), generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            save_file({"inputs": inputs_BT, "logits": module(inputs_BT)}, folder.parent / "inputs.safetensors")
    return parent


@pytest.fixture(scope="module")
def turned(exported, tokenizer_dir):
    """Runs whose text or tokens are turned."""
    kinds = {
        "backward": opened(GPT2, tokenizer_dir, "backward"),
        "reversed": opened(GPT2, tokenizer_dir, text_order="reversed"),
        "reversed and backward": opened(MODELS["gru"], tokenizer_dir, "backward", text_order="reversed"),
        "both": opened(LLAMA, tokenizer_dir, "both"),
    }
    for name, run in kinds.items():
        written(run, exported / name / "model")
    written(opened(MODELS["lstm with norm, tied"], tokenizer_dir), exported / "lively lstm" / "model", scale=1.5)
    return kinds


@pytest.fixture(scope="module", params=TORCHES)
def elsewhere(request, exported, turned):
    """What transformers makes of all of them in an empty folder, by a Python that knows nothing of this project."""
    interpreter = Path(sys.executable) if request.param == ".venv" else ROOT / request.param / "bin" / "python"
    if not interpreter.exists():
        pytest.skip(f"{request.param} is not there")
    empty = exported / "empty"
    empty.mkdir(exist_ok=True)
    models = [str(exported / name / "model") for name in MODELS]
    others = {name: str(exported / name / "model") for name in [*turned, "lively lstm"]}
    home = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(exported / "home")}
    environment = {**home, "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]}
    command = [str(interpreter), "-I", "-c", SCRIPT, json.dumps([models, TEXT, others, ASKED]), request.param]
    told = exported / f"told {request.param}"
    done = subprocess.run(
        [*command, str(told)], cwd=empty, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "[y/N]" not in done.stdout, "transformers asks whether code may run"
    return request.param, json.loads(told.read_text())


@pytest.fixture
def loaded(elsewhere, exported):
    """What a model gives, loaded, or saved and loaded."""
    return lambda name, model: load_file(exported / model / f"{name} {elsewhere[0]}")


@pytest.fixture
def prompted(elsewhere):
    """What models write."""
    return elsewhere[1]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_transformers_gives_the_logits_of_the_run_without_this_project_also_saved_again(model, loaded, exported):
    expected_BTV = load_file(exported / model / "inputs.safetensors")["logits"]
    assert expected_BTV.std() > 0.4
    for name in ("loaded", "saved and loaded"):
        torch.testing.assert_close(loaded(name, model)["logits"], expected_BTV, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_transformers_generates_what_the_run_finds_likeliest_with_and_without_a_cache(
    model, loaded, exported, tokenizer_dir
):
    module = module_of(opened(MODELS[model], tokenizer_dir))
    ids = load_file(exported / model / "inputs.safetensors")["inputs"][:1, :4]
    for _ in range(8):
        with torch.no_grad():
            ids = torch.cat([ids, module(ids)[:, -1:].argmax(-1)], dim=1)
    for name in ("loaded", "saved and loaded"):
        found = loaded(name, model)
        n = found["greedy"].shape[1]  # fewer where the model ends the text
        assert n == ids.shape[1] or found["greedy"][0, -1] == 1
        assert torch.equal(found["greedy"], ids[:, :n])
        assert torch.equal(found["slow"], ids[:, :n])


@pytest.mark.slow
def test_the_tokenizer_puts_the_id_first_with_which_every_window_begins(loaded, tokenizer_dir):
    tokenizer = Tokenizer.load(tokenizer_dir)
    expected = [tokenizer.bos_id, *tokenizer.tokenize(TEXT)[0].tolist()]
    for name in ("loaded", "saved and loaded"):
        assert loaded(name, "gpt2")["ids"].tolist() == expected


# ---------------------------------------------------------------------------------------------------- turned, and state


def greedy(run: OpenedRun, start_id: int, text: str, turn: bool) -> str:
    """What the model of a run writes on from a text, by itself; texts and tokens are turned here by hand."""
    module, tokenizer = module_of(run), run.tokenizer
    ids = tokenizer.tokenize(text)[0].tolist()
    ids = ids[::-1] if turn else ids
    ids = ids if len(ids) < T else ids[-(T // 2) :]
    read, wrote = [start_id, *ids], []
    while len(wrote) < min(6, T - len(ids)):
        with torch.no_grad():
            wrote.append(int(module(torch.tensor([read + wrote]))[0, -1].argmax()))
        if wrote[-1] == tokenizer.eos_id:
            break
    return tokenizer.detokenize(wrote[::-1] if turn else wrote)


@pytest.mark.slow
def test_a_pipeline_in_the_folder_turns_text_for_models_that_read_backward(prompted, turned):
    for name in ("backward", "both"):
        run = turned[name]
        start_id = how_it_reads(run).start_ids["backward"]
        assert prompted[name] == [greedy(run, start_id, text, turn=True) + text for text in ASKED]
    both = turned["both"]
    start_id = how_it_reads(both).start_ids["forward"]
    assert prompted["both, forward"] == ASKED[0] + greedy(both, start_id, ASKED[0], turn=False)


@pytest.mark.slow
def test_a_pipeline_in_the_folder_turns_text_for_models_of_reversed_text(prompted, turned):
    for name, is_backward in (("reversed", False), ("reversed and backward", True)):
        run = turned[name]
        wrote = [
            reverse_text(greedy(run, run.tokenizer.bos_id, reverse_text(text), turn=is_backward)) for text in ASKED
        ]
        expected = [text + new if is_backward else new + text for text, new in zip(ASKED, wrote, strict=True)]
        assert prompted[name] == expected


@pytest.mark.slow
def test_an_rnn_carries_its_state_beside_padding_and_through_beam_search(prompted):
    assert prompted["batch"] == prompted["rows"]
    assert prompted["n read"][1:] == [1] * 5
    assert prompted["beams"] == prompted["beams without a cache"] != prompted["batch"]
    assert prompted["loss"] == pytest.approx(prompted["loss by hand"], abs=1e-6)


@pytest.mark.slow
def test_a_pipeline_without_a_length_writes_until_the_context_is_full(prompted, exported):
    assert {prompted[f"length {exported / name / 'model'}"] for name in MODELS} == {T}
    assert "nothing asked" not in prompted


# ------------------------------------------------------------------------------------------------ what is in the folder


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


def test_the_model_in_the_folder_of_an_rnn_is_known_by_the_name_in_its_config():
    assert HindsightRNNConfig.model_type == RNN_MODEL_TYPE


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


def test_other_logits_are_refused_and_leave_nothing(tokenizer_dir, tmp_path):
    run = opened(GPT2, tokenizer_dir)
    folder, module = written(run, tmp_path / "out"), module_of(run)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "activation_function": "gelu"}))
    with pytest.raises(InputError, match="the logits of the exported model differ by"):
        compare_logits(module, folder, how_it_reads(run), 300)


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
