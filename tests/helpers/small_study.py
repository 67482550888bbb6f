"""A small study, trained here by the real commands: runs, what is known of them, and their comparison."""

import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import compare_directions
import convert_to_mds
import train_composer
import train_tokenizer
from helpers.small_data import convert_config
from helpers.training_runs import TINY, compose_config, last_of_each
from hindsight import runs
from hindsight.config.comparison import CompareConfig
from hindsight.config.tokenizer import TokenizerConfig
from hindsight.json_lines import read_records
from hindsight.shards import mds
from hindsight.shards.manifest import Manifest
from hindsight.studies.results import RunResult, StudyResult

T = 16
"""Tokens of a document of a synthetic language: 14 letters, a line feed, EOS."""
LETTERS = "abcd"
COINS_NATS = 14 * math.log(len(LETTERS)) / T
"""Floor of `coins`: 14 independent letters, and the two tokens at the end tell nothing."""
MAP_NATS = 7 * math.log(2) / T
"""Floor of `map`: the last 7 of its letters follow from the first 7."""


def coins(n_documents: int) -> str:
    """Documents of letters that are drawn evenly, each by itself."""
    rng = random.Random(1)
    return "\n\n".join("".join(rng.choices(LETTERS, k=14)) for _ in range(n_documents)) + "\n"


def linear_map(n_documents: int) -> str:
    """Documents of 7 bits, a or b, and their image, c or d: each bit of it is the sum of two of them over F2."""
    rng = random.Random(2)
    bits = [[rng.randrange(2) for _ in range(7)] for _ in range(n_documents)]
    images = [[x[i] ^ x[i - 1] if i else x[0] for i in range(7)] for x in bits]
    lines = ("".join("ab"[b] for b in x) + "".join("cd"[b] for b in y) for x, y in zip(bits, images, strict=True))
    return "\n\n".join(lines) + "\n"


def make_bytes_data(root: Path, name: str, text: str) -> Path:
    """Convert a text by the tokenizer of bytes, a window for each of its documents."""
    tokenizer = root / "tokenizers" / "bytes"
    if not tokenizer.exists():
        train_tokenizer.main(TokenizerConfig(vocab_size="bytes", out=str(tokenizer)))
    (root / f"{name}.txt").write_text(text, encoding="utf-8")
    out = root / "data" / name
    convert_to_mds.main(convert_config(root / f"{name}.txt", tokenizer, out, block_length=T, shard_bytes=1 << 20))
    return out


def turn(data: Path, out: Path) -> Path:
    """Write a dataset with every window of another turned."""
    manifest = Manifest.load(str(data), "data")
    for split in manifest.splits:
        entries = []
        for number, entry in enumerate(mds.read_index(data / split)):
            tokens = mds.read_shard(data / split, entry, manifest.dtype, manifest.block_length)
            tokens_NB = tokens.reshape(-1, manifest.block_length)
            (out / split).mkdir(parents=True, exist_ok=True)
            entries.append(mds.write_shard(out / split, number, np.ascontiguousarray(tokens_NB[:, ::-1]), manifest))
        (out / split / "index.json").write_text(mds.index_of(entries))
    for path in data.iterdir():
        if path.is_file():
            (out / path.name).write_bytes(path.read_bytes())
        elif path.name not in manifest.splits:
            (out / path.name).symlink_to(path.resolve())
    return out


def train_run(runs_dir: Path, data: Path, axes: Mapping[str, Any], *overrides: str, **known: Any) -> RunResult:
    """Train one run of a study in this process, and give what is known of it."""
    name = "-".join(str(value) for value in axes.values())
    keys = [f"{key}={value}" for key, value in axes.items() if key not in ("corpus", "tokenizer")]
    given = last_of_each([f"data.path={data}", f"runs_dir={runs_dir}", f"run_name={name}", *TINY, *overrides, *keys])
    train_composer.main(compose_config("train_composer", *given))
    return run_result(runs_dir / name, dict(axes), [" ".join(["python train_composer.py", *given])], **known)


def run_result(folder: Path, axes: dict[str, Any], commands: list[str], **known: Any) -> RunResult:
    """Read what the folder of a run says."""
    lines = [line for line in read_records(folder / runs.METRICS) if runs.EVAL_LOSS in line]
    evaluations = [
        {key: line[key] for key in ("step", "tokens")}
        | {name: line[runs.EVAL + name] for name in runs.METRIC_NAMES if runs.EVAL + name in line}
        for line in lines
    ]
    return RunResult(
        folder.name,
        axes,
        str(folder),
        commands,
        "done",
        settings=runs.read_config(folder),
        metadata=runs.read_metadata(folder),
        evaluations=evaluations,
        tokens_planned=int(evaluations[-1]["tokens"]),
        tokens_per_second=runs.last_value(folder / runs.METRICS, runs.TOKENS_PER_SECOND),
        **known,
    )


def compare(out: Path, results: Sequence[RunResult]) -> dict[str, Any]:
    """Compare runs into the folder of a study; the content of comparison.json."""
    folders = [run.folder for run in results if run.state == "done" and not run.is_sweep]
    compare_directions.main(CompareConfig(runs=folders, out=str(out / "comparison"), report=False))
    return json.loads((out / "comparison" / "comparison.json").read_text())


def study_result(results: Sequence[RunResult], report: Sequence[str], **known: Any) -> StudyResult:
    """Put runs together as a study."""
    axes: dict[str, list[Any]] = {}
    for run in results:
        for key, value in run.axes.items():
            if not run.is_sweep and value not in axes.setdefault(key, []):
                axes[key].append(value)
    study = {"axes": axes, "report": [*report]} | known.pop("study", {})
    provenance = {"command": "python run_study.py study=small", "date": "2026-01-02T03:04:05"}
    result = {"name": "small", "scale": "tiny", "question": "How does the gap grow?", "provenance": provenance}
    return StudyResult(**(result | {"study": study, "runs": [*results]} | known))
