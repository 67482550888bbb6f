"""Folders of runs as train_composer.py leaves them, made up, and files of token losses that belong to them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from helpers.training_runs import compose_config, last_of_each
from hindsight import runs
from hindsight.analysis.token_losses import TokenLossWriter

METADATA = {
    "git_commit": "a1",
    "data_fingerprint": "d1",
    "tokenizer_fingerprint": "t1",
    "val_unigram_entropy_nats": 6.25,
    "n_parameters": 1000,
    "total_steps": 20,
    "world_size": 1,
    "versions": {"torch": "2.7.0"},
}


def evaluation(loss_nats: float) -> dict[str, float]:
    values = {"loss_nats": loss_nats, "bits_per_byte": loss_nats / 2, "perplexity": 50.0, "accuracy": 0.25}
    return {f"eval/{name}": value for name, value in values.items()}


def make_run(folder: Path, direction: str, losses: list[float], *overrides: str, **metadata: Any) -> Path:
    """Write a run folder as train_composer.py does, with an evaluation every 10 steps."""
    given = last_of_each(["model=gpt_demo", "data.path=here", *overrides])
    config = compose_config("train_composer", f"order={direction}", f"run_name={folder.name}", *given)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    (folder / "metadata.json").write_text(json.dumps(METADATA | metadata))
    lines: list[dict[str, Any]] = []
    for step in range(1, 10 * len(losses) + 1):
        line: dict[str, Any] = {"step": step, "tokens": 64 * step, "seconds": step / 8}
        line |= {"train/loss_nats": 5.0, "train/tokens_per_second": 100.0 * step}
        lines.append(line | (evaluation(losses[step // 10 - 1]) if step % 10 == 0 else {}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    samples = [{"step": step, "prompt": "The", "text": f"{folder.name} wrote this at {step}"} for step in (10, 20)]
    (folder / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return folder


def make_pair(root: Path, *overrides: str, losses: tuple[float, float] = (4.0, 4.1), suffix: str = "") -> list[Path]:
    forward = make_run(root / f"fw{suffix}", "forward", [5.0, losses[0]], *overrides)
    return [forward, make_run(root / f"bw{suffix}", "backward", [5.0, losses[1]], *overrides)]


def make_seeds(root: Path, losses: dict[str, list[float]], *overrides: str, **metadata: Any) -> dict[str, list[Path]]:
    """Write runs of several orders, the losses of each by seed, from 0; a loss of NaN stands for no run."""
    return {
        order: [
            make_run(
                root / f"{order.replace(':', '')}{seed}", order, [5.0, loss], f"seed={seed}", *overrides, **metadata
            )
            for seed, loss in enumerate(of)
            if not np.isnan(loss)
        ]
        for order, of in losses.items()
    }


def write_token_losses(
    folder: Path, nats: list[list[float]], name: str = "token_losses.parquet", **changes: Any
) -> Path:
    """Write the losses of a run's documents, a list each; `changes` are of what the file says of itself."""
    config, metadata = runs.read_config(folder), json.loads((folder / "metadata.json").read_text())
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    said = {"run": folder.name, "folder": str(folder), "order": config.get("order") or config["direction"]}
    said |= {"seed": config["seed"], "step": steps[-1], "split": "val", "data": "here", "git_commit": "a1"}
    said |= {key: metadata[key] for key in ("data_fingerprint", "tokenizer_fingerprint")}
    length = config.get("data.context_length") or config["model.context_length"]
    said |= {"context": "windows", "context_length": length, "document_mask": False} | changes
    lengths = [len(document) for document in nats]
    n, zeros = sum(lengths), np.zeros(sum(lengths))
    columns = {"place": np.arange(n), "document": np.repeat(np.arange(len(nats)), lengths)}
    columns |= {"document_place": np.concatenate([np.arange(length) for length in lengths])}
    columns |= {"nats": np.concatenate(nats)} | dict.fromkeys(
        ("window_place", "context", "id", "rank", "likeliest"), zeros
    )
    with TokenLossWriter(folder / name, said, [b"a"], {}) as writer:
        writer.add(columns | {"bytes": zeros + 1})
    return folder / name
