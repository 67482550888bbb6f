"""Small training runs, and what they have written."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir

from hindsight.command_line import register_schemas, to_dataclass
from hindsight.config.schemas import CONF_DIR

TINY = [
    "model=gpt_nano",
    "model.n_layers=2",
    "model.d_model=24",
    "model.n_heads=2",
    "model.context_length=64",
    "data.context_length=32",
    "batch_size=8",
    "optim.lr=6e-4",
    "optim.warmup_steps=2",
    "eval_interval=100ba",
    "wandb.mode=disabled",
    "progress_bar=false",
    "samples.interval=null",
]


def compose_config(script: str, *overrides: str) -> Any:
    """The configuration of a script as it would be with these arguments."""
    register_schemas()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return to_dataclass(compose(script, list(overrides)))


def last_of_each(arguments: list[str]) -> list[str]:
    """Arguments of a command, of which the last for each key holds: Hydra takes a key once."""
    return [*{argument.split("=", 1)[0]: argument for argument in arguments}.values()]


def settings(shards: Path | str, runs: Path, *changes: str) -> list[str]:
    """Arguments of a run of six steps; a recurrent model has no heads."""
    direction = [] if any(change.startswith("order=") for change in changes) else ["direction=forward"]
    given = [*direction, f"data.path={shards}", f"runs_dir={runs}", "max_duration=6ba", *TINY, *changes]
    is_rnn = any(change.startswith(("model=gru", "model=lstm")) for change in changes)
    return last_of_each([key for key in given if not (is_rnn and key == "model.n_heads=2")])


def train(shards: Path | str, runs: Path, *changes: str) -> Path:
    """Train in this process; the run's folder."""
    import train_composer

    config = compose_config("train_composer", *settings(shards, runs, *changes))
    train_composer.main(config)
    return runs / config.name_of_run()


def records(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of a run's metrics so far."""
    path = folder / "metrics.jsonl"
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
    return [json.loads(line) for line in whole.splitlines()]


def lines(folder: Path) -> int:
    """How many lines of metrics a run has written, also while it is at the next."""
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def by_step(folder: Path, key: str = "train/loss_nats") -> dict[int, float]:
    """The values of a metric, by their steps."""
    return {record["step"]: record[key] for record in records(folder) if key in record}


class Losses(NamedTuple):
    """A line of metrics."""

    step: int
    train_nats: float
    eval_nats: float | None


def losses(folder: Path) -> list[Losses]:
    """Step, training loss and validation loss of every line: what must be the same, and each step once."""
    return [Losses(line["step"], line["train/loss_nats"], line.get("eval/loss_nats")) for line in records(folder)]
