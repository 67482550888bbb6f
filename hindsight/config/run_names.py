"""The name that a run has where none is given: <model>-<data>-<order>-seed<seed>.

<model> is the named model, and what differs from it: gpt_nano-l2-d24-t128. Keys of SHORT are abbreviated, others stand
with their name, such as dropout0.1; -t128 are the tokens of a window (data.context_length), -from_gpt2 the end of
model.init_from. Two runs in one folder with different models then have different names.
"""

import hashlib
import re
from dataclasses import asdict, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any

from hindsight import runs
from hindsight.config.data import DataConfig
from hindsight.config.keys import defaults_of, flatten
from hindsight.config.model import ModelConfig
from hindsight.errors import InputError
from hindsight.yaml_files import parse_yaml

MODELS = Path(__file__).parents[2] / "conf" / "model"
SHORT = {
    "n_layers": "l",
    "d_model": "d",
    "n_heads": "h",
    "n_kv_heads": "kv",
    "context_length": "ctx",
    "vocab_size": "v",
    "logit_softcap": "cap",
    "block": "",
    "cell": "",
}
"""Abbreviations of keys of model."""
LONGEST = 60
"""Characters of what differs; beyond them, its hash stands for it."""
LONGEST_SOURCE = 24
"""Characters of the name of initial weights; beyond them, a hash of where they are stands for it."""


def default_run_name(model: ModelConfig, data: DataConfig, order: str, seed: int, runs_dir: str) -> str:
    """Name a run by its model, data, order (and document_mask) and seed.

    Earlier versions left out what differs from the named model. A run that one of them began is found by that name.
    """
    data_name = data.path.rstrip("/").split("/")[-1] if "://" in data.path else Path(data.path).resolve().name
    rest = f"{data_name}-{order.replace(':', '')}-seed{seed}"
    before = f"{model.name}-{rest}"
    name = "-".join([model.name, *_differences(model, data), rest])
    is_new = name == before or (Path(runs_dir, name) / runs.CONFIG).exists()
    return before if not is_new and _has_model(Path(runs_dir, before), model, data) else name


def model_name(model: ModelConfig) -> str:
    """Name a model by the named one and what differs from it, but for the number of ids, such as gpt_nano-l2."""
    same_ids = settings_of_named(model.name).get("vocab_size")
    return "-".join([model.name, *_differences(replace(model, vocab_size=same_ids), DataConfig())])


def _differences(model: ModelConfig, data: DataConfig) -> list[str]:
    named = settings_of_named(model.name)
    values: dict[str, Any] = {field.name: getattr(model, field.name) for field in fields(model)}
    found = [
        _part(name, value)
        for name, value in values.items()
        if name != "name" and _plain(value) != named.get(name, defaults_of(model).get(name))
    ]
    if data.context_length is not None and data.context_length != model.context_length:
        found.append(f"t{data.context_length}")
    text = "-".join(found)
    return found if len(text) <= LONGEST else [hashlib.sha256(text.encode()).hexdigest()[:10]]


def settings_of_named(name: str) -> dict[str, Any]:
    """Read what a named model sets; nothing for a name that conf/model does not know."""
    path = MODELS / f"{name}.yaml"
    values: dict[str, Any] = parse_yaml(path.read_text(encoding="utf-8")) if path.is_file() else {}
    inherited: dict[str, Any] = {}
    for base in values.pop("defaults", []):
        inherited |= settings_of_named(base) if isinstance(base, str) and base != name else {}
    return inherited | values


def _plain(value: Any) -> Any:
    return value.name if isinstance(value, Enum) else value


def _part(name: str, value: Any) -> str:
    if name == "init_from" and value is not None:
        end = re.sub(r"[^\w.+=-]+", "_", value.rstrip("/").rpartition("/")[2], flags=re.ASCII)
        is_short = 0 < len(end) <= LONGEST_SOURCE
        return f"from_{end if is_short else hashlib.sha256(value.encode()).hexdigest()[:8]}"
    if isinstance(value, list):
        elements = "+".join(map(str, value))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - Any, narrowed
        return f"{name}_{elements}"
    if isinstance(value, bool):
        return ("" if value else "no") + name.replace("_", "")
    if name == "logit_softcap" and value is None:
        return "nocap"
    return f"{SHORT.get(name, name.replace('_', ''))}{'auto' if value is None else _plain(value)}"


def _has_model(folder: Path, model: ModelConfig, data: DataConfig) -> bool:
    """Tell whether a run has exactly this model, and windows of this length."""
    try:
        recorded = runs.read_config(folder) if (folder / runs.CONFIG).exists() else {}
    except InputError:
        return False
    before = {f"model.{key}": value for key, value in defaults_of(model).items()} | recorded
    wanted = {f"model.{key}": value for key, value in flatten(asdict(model)).items()}
    wanted["data.context_length"] = data.context_length or model.context_length
    return bool(recorded) and all(before.get(key) == value for key, value in wanted.items())
