"""What transformers makes of exported folders by a Python that knows nothing of this project."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.exports import GPT2, SIZES, T, module_of, opened, written
from helpers.processes import ROOT, skip
from safetensors.torch import load_file, save_file

from hindsight.config.model import Activation, Block, Cell, GPTConfig, ModelConfig, RNNConfig
from hindsight.evaluation.opened_run import OpenedRun
from hindsight.export.reading import how_it_reads
from hindsight.text.graphemes import reverse_text
from hindsight.tokenization.tokenizer import Tokenizer

LLAMA = GPTConfig(name="tiny", n_heads=4, block=Block.llama, mlp_ratio=2.5, **SIZES)
MODERN = replace(LLAMA, block=Block.modern, activation=Activation.relu2, logit_softcap=1.5, rope_theta=50.0)
MODELS: dict[str, ModelConfig] = {
    "gpt2": GPT2,
    "gpt2 with exact gelu, tied, no biases": replace(GPT2, activation=Activation.gelu, tied_head=True, bias=False),
    "gpt2 with more positions and ids than needed": replace(GPT2, context_length=4 * T, vocab_size=512, norm_eps=1e-3),
    "llama": LLAMA,
    "llama with biases, tied, 2 kv heads": replace(LLAMA, bias=True, tied_head=True, n_kv_heads=2, rope_theta=50.0),
    "modern": MODERN,
    "modern with swiglu, biases, 2 kv heads, no cap, tied": replace(
        MODERN, activation=Activation.swiglu, bias=True, n_kv_heads=2, logit_softcap=None, tied_head=True
    ),
    "gru": RNNConfig(name="tiny", cell=Cell.gru, **SIZES),
    "lstm with norm, tied": RNNConfig(name="tiny", cell=Cell.lstm, final_norm=True, tied_head=True, **SIZES),
}
LIVELY = {"lively lstm": "lstm with norm, tied", "lively modern": "modern"}
"""Models with code of their own, with weights that are large enough for rows of a batch to differ."""
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
for name in ("backward", "reversed", "reversed and backward", "reversed and both", "both"):
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

for name in ("lively lstm", "lively modern"):
    folder, of_model = turned[name], told.setdefault(name, {})
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    rows = [tokenizer(text, return_tensors="pt") for text in texts[:2]]
    batch = tokenizer(texts[:2], return_tensors="pt", padding=True)
    assert rows[0].input_ids.shape != rows[1].input_ids.shape
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    n_read = []
    model.embedding.register_forward_hook(lambda module, inputs, output: n_read.append(inputs[0].shape[1]))
    of_model["rows"] = [model.generate(**row, **options)[0, -6:].tolist() for row in rows]
    of_model["n read"] = n_read[:6]
    of_model["batch"] = model.generate(**batch, **options)[:, -6:].tolist()
    options |= {"num_beams": 3}
    of_model["beams"] = model.generate(**batch, **options)[:, -6:].tolist()
    of_model["beams without a cache"] = model.generate(**batch, **options, use_cache=False)[:, -6:].tolist()
    labels = rows[0].input_ids
    of_model["loss"] = model(labels, labels=labels).loss.item()
    logits = model(labels).logits
    of_model["loss by hand"] = torch.nn.functional.cross_entropy(logits[0, :-1], labels[0, 1:]).item()
Path(sys.argv[3]).write_text(json.dumps(told))
"""
ASKED = ["and said:", "The old man slept, and it was “good”.\n", "word " * 30]
TEXT = "The old man said: “café”, and slept.\n"


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
        "reversed and both": opened(GPT2, tokenizer_dir, "both", text_order="reversed"),
        "both": opened(LLAMA, tokenizer_dir, "both"),
    }
    for name, run in kinds.items():
        written(run, exported / name / "model")
    for kind, name in LIVELY.items():
        written(opened(MODELS[name], tokenizer_dir), exported / kind / "model", scale=1.5)
    return kinds


@pytest.fixture(scope="module", params=TORCHES)
def elsewhere(request, exported, turned):
    """What transformers makes of all of them in an empty folder, by a Python that knows nothing of this project."""
    interpreter = Path(sys.executable) if request.param == ".venv" else ROOT / request.param / "bin" / "python"
    if not interpreter.exists():
        skip(f"{request.param} is not there, which `make setup TORCH=latest` makes")
    empty = exported / "empty"
    empty.mkdir(exist_ok=True)
    models = [str(exported / name / "model") for name in MODELS]
    others = {name: str(exported / name / "model") for name in [*turned, *LIVELY]}
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
    for name, is_backward in (("reversed", False), ("reversed and backward", True), ("reversed and both", True)):
        run = turned[name]
        start_id = how_it_reads(run).start_ids["backward" if is_backward else "forward"]
        wrote = [reverse_text(greedy(run, start_id, reverse_text(text), turn=is_backward)) for text in ASKED]
        expected = [text + new if is_backward else new + text for text, new in zip(ASKED, wrote, strict=True)]
        assert prompted[name] == expected


@pytest.mark.slow
@pytest.mark.parametrize("kind", LIVELY)
def test_our_own_code_keeps_what_was_read_beside_padding_and_through_beam_search(prompted, kind):
    told = prompted[kind]
    assert told["batch"] == told["rows"]
    assert told["n read"][1:] == [1] * 5
    assert told["beams"] == told["beams without a cache"] != told["batch"]
    assert told["loss"] == pytest.approx(told["loss by hand"], abs=1e-6)


@pytest.mark.slow
def test_a_pipeline_without_a_length_writes_until_the_context_is_full(prompted, exported):
    assert {prompted[f"length {exported / name / 'model'}"] for name in MODELS} == {T}
    assert "nothing asked" not in prompted
