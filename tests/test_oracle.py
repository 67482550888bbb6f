"""The whole path, from shards to the comparison, on a source whose arrow is known."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import oracle
from helpers.small_data import convert_config
from helpers.token_runs import score
from helpers.training_runs import TINY, compose_config, last_of_each, train

import compare_directions
import convert_to_mds
from hindsight import runs
from hindsight.tokenization.tokenizer import Tokenizer
from language_model import build_model

T = 32


@pytest.fixture(scope="module")
def source(tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of the source, in pieces of one block."""
    folder = tmp_path_factory.mktemp("oracle")
    oracle.write_source(folder / "tokens.h5", n_pieces=60, length=64, seed=4)
    convert_to_mds.main(convert_config(folder / "tokens.h5", tokenizer_dir, folder / "shards"))
    return folder / "shards"


def oracle_run(source: Path, folder: Path, order: str, logits: np.ndarray) -> Path:
    """A run whose checkpoint holds the oracle's weights, and which was evaluated with them."""
    given = last_of_each([*TINY, *oracle.MODEL, "max_duration=1ba", "optim.warmup_steps=0", f"order={order}"])
    run = train(source, folder, *given)
    config, tokenizer = compose_config("train_composer", *given).model, Tokenizer.load(source / "tokenizer")
    model = build_model(config, tokenizer.vocab_size, seed=0)
    oracle.answer_with(model, config, logits, tokenizer.bos_id)
    (path,) = (run / runs.CHECKPOINTS).glob("*.pt")
    state = torch.load(path, weights_only=False)
    for name, weight in model.state_dict().items():
        state["state"]["model"][f"module.{name}"].copy_(weight)
    torch.save(state, path)
    return train(source, folder, *given, "evaluate=true")


@pytest.mark.parametrize("backward", ["unigram", "exact"])
def test_the_gap_of_a_known_source_is_its_mutual_information(backward, source, tmp_path):
    logits = oracle.unigram_logits() if backward == "unigram" else oracle.exact_logits("backward")
    pair = [
        oracle_run(source, tmp_path / "runs", "forward", oracle.exact_logits("forward")),
        oracle_run(source, tmp_path / "runs", "backward", logits),
    ]
    backward_nats = oracle.UNIGRAM_NATS if backward == "unigram" else oracle.FORWARD_NATS
    for run, nats in zip(pair, (oracle.FORWARD_NATS, backward_nats), strict=True):
        rows = score(run, run / runs.TOKEN_LOSSES).read(["context", "nats"])
        np.testing.assert_allclose(rows["nats"][rows["context"] > 0], nats, atol=1e-5)
        np.testing.assert_allclose(rows["nats"][rows["context"] == 0], oracle.UNIGRAM_NATS, atol=1e-5)
        sliding = score(run, tmp_path / f"{run.name}.parquet", "context=sliding:8").read(["context", "nats"])
        assert (sliding["context"] == 0).sum() == 1, "one token of the stream has nothing before it"
        assert sorted(set(sliding["context"]))[-8:] == [*range(T - 8, T)]
        np.testing.assert_allclose(sliding["nats"][sliding["context"] > 0], nats, atol=1e-5)
    out = tmp_path / "comparison"
    compare_directions.main(
        compose_config("compare_directions", f"runs=[{pair[0]},{pair[1]}]", f"out={out}"),
    )
    (gap,) = json.loads((out / "comparison.json").read_text())["pairs"]
    # The first token of a window has no context, which costs both the same.
    expected = (T - 1) / T * math.log(oracle.K / oracle.M) if backward == "unigram" else 0.0
    assert gap["gap_nats"] == pytest.approx(expected, abs=1e-5)
    # The gap lives wherever there is context, all of it.
    first, *others = json.loads((out / "tables" / "cut_context.json").read_text())
    assert first["label"] == "0"
    assert first["gap_nats"] == pytest.approx(0, abs=1e-5)
    for row in others:
        assert row["gap_nats"] == pytest.approx(backward_nats - oracle.FORWARD_NATS, abs=1e-5)
    assert sum(row["contribution_nats"] for row in [first, *others]) == pytest.approx(gap["gap_nats"], abs=1e-6)
    assert (out / "report.html").exists()
