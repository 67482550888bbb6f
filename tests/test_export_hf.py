import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.processes import ROOT
from safetensors.torch import load_file, save_file

from hindsight.config.corpus import TextOrder
from hindsight.config.model import Activation, Block, Cell, GPTConfig, ModelConfig, RNNConfig
from hindsight.config.training import TrainConfig
from hindsight.evaluation.opened_run import OpenedRun
from hindsight.evaluation.stored_weights import StoredWeights
from hindsight.evaluation.trained_run import TrainedRun
from hindsight.export.export import write_folder
from hindsight.export.reading import how_it_reads
from hindsight.orders.both import vocab_size_for
from hindsight.orders.known import open_order
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

LOAD = """
import json, sys
import torch
from pathlib import Path
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

assert not any("hindsight" in name for name in sys.modules)
folders, text = json.loads(sys.argv[1])
for folder in map(Path, folders):
    inputs = load_file(folder.parent / "inputs.safetensors")["inputs"]
    code = {"trust_remote_code": True} if list(folder.glob("modeling_*.py")) else {}
    there = folder
    for name in ("loaded", "saved and loaded"):
        model, tokenizer = AutoModelForCausalLM.from_pretrained(there, **code), AutoTokenizer.from_pretrained(there)
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
"""
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


def module_of(run: OpenedRun) -> torch.nn.Module:
    """A model whose every weight shows in the logits."""
    module = build_model(run.config.model, vocab_size_for(run.order, run.tokenizer.vocab_size), seed=0).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            mean = 1.0 if weight.ndim == 1 and name.endswith("norm.weight") else 0.0
            weight.copy_(mean + 0.3 * torch.randn(weight.shape, generator=generator))
    return module


def written(run: OpenedRun, folder: Path) -> Path:
    folder.mkdir(parents=True)
    write_folder(run, how_it_reads(run), module_of(run), folder)
    return folder


def elsewhere(script: str, *arguments: str, python: str = ".venv", cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in an empty folder, by a Python that knows nothing of this project."""
    interpreter = sys.executable if python == ".venv" else str(ROOT / python / "bin" / "python")
    if not Path(interpreter).exists():
        pytest.skip(f"{python} is not there")
    cwd.mkdir(exist_ok=True)
    environment = {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(cwd.parent / "home"),
        "OMP_NUM_THREADS": "1",
        "PATH": "/usr/bin",
    }
    command = [interpreter, "-I", "-c", script, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


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


@pytest.fixture(scope="module", params=TORCHES)
def loaded(request, exported):
    """What transformers makes of all of them, without this project: what a name and a model give."""
    folders = [str(exported / name / "model") for name in MODELS]
    done = elsewhere(LOAD, json.dumps([folders, TEXT]), request.param, python=request.param, cwd=exported / "empty")
    assert done.returncode == 0, done.stderr
    return lambda name, model: load_file(exported / model / f"{name} {request.param}")


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
