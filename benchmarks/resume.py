"""How long a resume takes, and how much data it reads again: `python -m benchmarks.resume`, from the repository's root.

A tiny GPT is trained to step 10 and to step 10,000 on a made-up text. Both runs are then resumed in turns, for one step
each time. A time begins after the imports and ends when the run has saved that step.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir

import convert_to_mds
import train_composer
import train_tokenizer
from benchmarks.table import HEAD, Row
from hindsight.command_line import register_schemas, to_dataclass
from hindsight.config.conversion import ConvertConfig
from hindsight.config.schemas import CONF_DIR
from hindsight.config.tokenizer import TokenizerConfig
from hindsight.config.training import TrainConfig
from load_text_streaming import TextStreamingDataset

STEPS = (10, 10_000)
ROUNDS = 5
SETTINGS = [
    "direction=forward",
    "model=gpt_nano",
    "model.n_layers=1",
    "model.d_model=16",
    "model.n_heads=1",
    "model.context_length=32",
    "batch_size=2",
    "eval_interval=1000000ba",
    "eval_batches=1",
    "checkpoint.interval=1000000ba",
    "samples.interval=null",
    "wandb.mode=disabled",
    "progress_bar=false",
    "log_interval=1000",
]


def make_data(folder: Path) -> Path:
    """Convert a made-up text of about 30,000 windows of 32 tokens; return the folder of the shards."""
    letters = np.random.default_rng(0).choice(list("abcdefgh     \n"), 1_200_000)
    (folder / "text.txt").write_text("".join(letters))
    train_tokenizer.main(
        TokenizerConfig(corpus=str(folder / "text.txt"), out=str(folder / "tokenizer"), vocab_size=270)
    )
    convert_to_mds.main(
        ConvertConfig(
            corpus=str(folder / "text.txt"),
            tokenizer=str(folder / "tokenizer"),
            out=str(folder / "data"),
            block_length=64,
            val_share=0.01,
        )
    )
    return folder / "data"


@contextmanager
def counting_reads() -> Iterator[list[int]]:
    """Count the windows that are read for training, in the one element of the list."""
    original, count = TextStreamingDataset.get_item, [0]

    def get_item(self: Any, number: int) -> dict[str, Any]:
        count[0] += self.windows.name == "train"
        return original(self, number)

    TextStreamingDataset.get_item = get_item
    try:
        yield count
    finally:
        TextStreamingDataset.get_item = original


def resume(config: TrainConfig, step: int) -> tuple[float, int]:
    """Resume a run for one more step; return the seconds, and the number of windows that were read."""
    with counting_reads() as count:
        began = time.monotonic()
        resumed_from = train_composer.train(replace(config, max_duration=f"{step + 1}ba"))
        seconds = time.monotonic() - began
    if resumed_from != step:
        raise RuntimeError(f"The run went on from step {resumed_from}, not {step}.")
    return seconds, count[0]


def main() -> None:
    """Train both runs, resume them in turns, and print the table."""
    register_schemas()
    seconds: dict[int, list[float]] = {step: [] for step in STEPS}
    windows: dict[int, list[int]] = {step: [] for step in STEPS}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = make_data(folder)
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            config = to_dataclass(compose("train_composer", [*SETTINGS, f"data.path={data}", f"runs_dir={folder}"]))
        for step in STEPS:
            train_composer.train(replace(config, run_name=f"run{step}", max_duration=f"{step}ba"))
        for offset in range(ROUNDS):
            for step in STEPS:
                taken, read = resume(replace(config, run_name=f"run{step}"), step + offset)
                seconds[step].append(taken)
                windows[step].append(read)
    early, late = (statistics.median(seconds[step]) for step in STEPS)
    rows = [
        Row(f"a start at step {step}, one step, a checkpoint", f"{statistics.median(seconds[step]):.2f} s")
        for step in STEPS
    ]
    ratio = late / early
    most = max(windows[STEPS[1]])
    rows += [
        Row(f"step {STEPS[1]:,} over step {STEPS[0]}", f"{ratio:.2f}", "≤ 1.2", ratio <= 1.2),
        Row(f"windows read for a step of 2, at step {STEPS[1]:,}", str(most), "≤ 8", most <= 8),
    ]
    sys.stdout.write("\n".join([HEAD, *map(str, rows)]) + "\n")


if __name__ == "__main__":
    main()
