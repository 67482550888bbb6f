"""Perplexities that lm-evaluation-harness computes of an exported folder, beside those of the run."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import polars
import pytest
import torch
from helpers.exports import export
from helpers.small_data import make_text
from helpers.token_runs import T, model_of, score

from hindsight.tokenization.tokenizer import Tokenizer

TASK = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - metric: word_perplexity
  - metric: byte_perplexity
  - metric: bits_per_byte
"""
SHORT = "And the old man said unto him."
"""Fewer tokens than a window has."""
LONG = make_text(n_documents=6, seed=3)


@pytest.fixture(scope="module")
def perplexities(trained, tmp_path_factory):
    """What `lm_eval --model hf` says of both texts."""
    folder = tmp_path_factory.mktemp("lm_eval")
    export(trained["forward"], folder / "model")
    for name, text in {"short": SHORT, "long": LONG}.items():
        (folder / f"{name}.jsonl").write_text(json.dumps({"text": text}) + "\n", encoding="utf-8")
        (folder / f"{name}.yaml").write_text(TASK.format(name=name, file=folder / f"{name}.jsonl"))
    command = [sys.executable, "-m", "lm_eval", "--model", "hf", "--tasks", "short,long", "--device", "cpu"]
    command += ["--model_args", f"pretrained={folder / 'model'},add_bos_token=False,dtype=float32"]
    command += ["--include_path", str(folder), "--output_path", str(folder / "out.json"), "--batch_size", "4"]
    kept = ("PATH", "OMP_NUM_THREADS")  # and not what Composer sets, such as RANK
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {"PYTHONPATH": str(Path(sys.prefix, "lm_eval"))}  # accelerate, where `make setup` puts it
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (result,) = folder.rglob("out*.json")
    return json.loads(result.read_text())["results"]


def of_nats(nats: float, text: str) -> dict[str, float]:
    """The metrics of a text by its nats, as the harness defines them."""
    n_bytes = len(text.encode())
    return {
        "word_perplexity,none": math.exp(nats / len(re.split(r"\s+", text))),
        "byte_perplexity,none": math.exp(nats / n_bytes),
        "bits_per_byte,none": nats / n_bytes / math.log(2),
    }


def assert_same(found: dict[str, float], expected: dict[str, float]) -> None:
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4), name


@pytest.mark.slow
def test_the_perplexity_of_a_text_of_one_window_is_that_of_evaluate_tokens(perplexities, trained, tmp_path):
    (tmp_path / "text.txt").write_text(SHORT, encoding="utf-8")
    score(trained["forward"], tmp_path / "losses.parquet", f"corpus={tmp_path / 'text.txt'}")
    nats = polars.read_parquet(tmp_path / "losses.parquet")["nats"].to_list()
    assert 10 < len(nats) <= T
    assert_same(perplexities["short"], of_nats(sum(nats[:-1]), SHORT))  # the last one is <|eos|>, which lm_eval has not


@pytest.mark.slow
def test_of_a_longer_text_it_is_the_models_by_the_harness_own_rule_of_windows(perplexities, trained, tokenizer_dir):
    tokenizer, model = Tokenizer.load(tokenizer_dir), model_of(trained["forward"])
    ids = tokenizer.tokenize(LONG)[0]
    before = torch.cat([torch.tensor([tokenizer.bos_id]), ids])  # later windows begin with the token before theirs
    nats, n = 0.0, len(ids)
    for start in range(0, n, T):
        stop = min(start + T, n)
        first = max(stop - T, 0)  # the last window is a full one, too
        with torch.no_grad():
            logits_NV = model(before[None, first:stop])[0, start - first :]
        nats += torch.nn.functional.cross_entropy(logits_NV, ids[start:stop], reduction="sum").item()
    assert n > 5 * T
    assert n % T
    assert_same(perplexities["long"], of_nats(nats, LONG))
