"""A study of seconds, as a file."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hindsight.config.study import Scale, StudyConfig
from hindsight.studies.made_data import Data
from hindsight.studies.planned_runs import PlannedRun, plan_runs
from hindsight.studies.study_file import Study, read_study

SMALL: dict[str, Any] = {
    "question": "Is it harder backward?",
    "corpora": {"words": {"corpus": "corpus.txt"}},
    "tokenizers": {"own": {"vocab_size": 300}},
    "convert": {"val_share": 0.2, "block_length": 32},
    "settings": {
        "model": "gpt_nano",
        "model.n_layers": 1,
        "model.d_model": 16,
        "model.n_heads": 2,
        "model.context_length": 32,
        "max_duration": "4ba",
        "batch_size": 4,
        "optim.warmup_steps": 0,
        "checkpoint.interval": "1ba",
        "samples.interval": None,
        "wandb.mode": "disabled",
    },
    "axes": {"order": ["forward", "backward"], "seed": [0, 1]},
    "report": ["gap", "curves"],
}


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Change nested keys; None removes one."""
    found = copy.deepcopy(dict(base))
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(found.get(key), Mapping):
            found[key] = merged(found[key], value)
        elif value is None and key in found:
            del found[key]
        else:
            found[key] = value
    return found


def write_study(folder: Path, name: str = "small", **changes: Any) -> Path:
    """Write the file of the small study, changed; beside it, its corpus is looked for."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(merged(SMALL, changes), sort_keys=False), encoding="utf-8")
    return path


def opened(folder: Path, scale: Scale, seeds: int | None, **changes: Any) -> tuple[Study, StudyConfig, Data]:
    """Write a study and read it, with its data."""
    path = str(write_study(folder, **changes))
    study = read_study(path, scale, seeds)
    config = StudyConfig(study=path, corpus_dir=str(folder), data_dir=str(folder / "data"))
    return study, config, Data(study, config)


def planned(folder: Path, scale: Scale = Scale.tiny, seeds: int | None = None, **changes: Any) -> list[PlannedRun]:
    """Write a study and plan its runs."""
    study, config, data = opened(folder, scale, seeds, **changes)
    return plan_runs(study, config, data)
