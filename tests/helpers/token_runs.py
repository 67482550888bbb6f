"""Small runs whose tokens are scored, and the scoring of them in this process."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import evaluate_tokens
import train_composer
from helpers.training_runs import compose_config, settings
from hindsight.analysis.token_losses import TokenLosses
from hindsight.evaluation.trained_run import read_run
from language_model import build_model

T = 32
LEARNING = ["max_duration=12ba", "optim.lr=0.01", "checkpoint.interval=5ba", "checkpoint.backup_interval=5ba"]


def names(folder: Path) -> dict[str, bytes]:
    """All files of a folder, and what is in them."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def trained(shards, tmp_path_factory):
    """A GPT in each direction and in another order, and a GRU backward: folders by their names."""
    runs = tmp_path_factory.mktemp("trained")
    kinds = {
        "forward": ["direction=forward"],
        "backward": ["direction=backward"],
        "even_odd": ["order=even_odd"],
        "masked": ["order=words", "document_mask=true"],
        "gru": ["direction=backward", "model=gru_small"],
    }
    for name, changes in kinds.items():
        others = ["checkpoint.interval=100ba", "checkpoint.backup_interval=null"] if name != "forward" else []
        given = settings(shards, runs, *LEARNING, *others, *changes, f"run_name={name}")
        if name == "gru":
            given = [each for each in given if each != "model.n_heads=2"]
        train_composer.main(compose_config("train_composer", *given))
    return {name: runs / name for name in kinds}


@pytest.fixture(scope="session")
def read_both_ways(shards, tmp_path_factory):
    """A GPT with order=both: its folder."""
    runs = tmp_path_factory.mktemp("both")
    train_composer.main(compose_config("train_composer", *settings(shards, runs, *LEARNING, "order=both")))
    (folder,) = [path for path in runs.iterdir() if path.is_dir()]
    return folder


def score(run: Path | str, out: Path | str, *arguments: str) -> TokenLosses:
    """Score with evaluate_tokens.py in this process."""
    given = [f"run={run}", f"out={out}", *arguments]
    evaluate_tokens.main(compose_config("evaluate_tokens", *given))
    return TokenLosses.open(Path(out))


def model_of(folder: Path, vocab_size: int = 300) -> torch.nn.Module:
    """The model of a run with its last weights, built without anything of an evaluation."""
    model = build_model(read_run(str(folder)).config.model, vocab_size, seed=9)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()
