"""The keys of every command: its dataclass, and what --help and error lines say of each key."""

import inspect
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, cast, get_args, get_origin, get_type_hints

from docstring_parser.attrdoc import add_attribute_docstrings
from docstring_parser.google import GoogleParser
from omegaconf import MISSING

from hindsight.config.comparison import CompareConfig
from hindsight.config.conversion import ConvertConfig, InspectConfig
from hindsight.config.evaluation import EvaluateConfig
from hindsight.config.export import ExportConfig
from hindsight.config.generation import GenerateConfig
from hindsight.config.listing import ListConfig
from hindsight.config.made_corpus import MakeCorpusConfig
from hindsight.config.model import GPTConfig, ModelConfig, RNNConfig
from hindsight.config.plan import PlanConfig
from hindsight.config.study import StudyConfig
from hindsight.config.throughput import BenchmarkConfig
from hindsight.config.tokenizer import TokenizerConfig
from hindsight.config.training import TrainConfig

CONF_DIR = Path(__file__).resolve().parents[2] / "conf"
SCHEMAS: dict[str, type] = {
    "make_corpus": MakeCorpusConfig,
    "train_tokenizer": TokenizerConfig,
    "convert_to_mds": ConvertConfig,
    "convert_to_h5": ConvertConfig,
    "inspect_mds": InspectConfig,
    "train_composer": TrainConfig,
    "evaluate_tokens": EvaluateConfig,
    "compare_directions": CompareConfig,
    "generate_text": GenerateConfig,
    "export_hf": ExportConfig,
    "plan": PlanConfig,
    "list_runs": ListConfig,
    "run_study": StudyConfig,
    "throughput": BenchmarkConfig,
}
MODEL_SCHEMAS: dict[str, type[ModelConfig]] = {"gpt": GPTConfig, "rnn": RNNConfig}
"""Kinds of models; a named model in conf/model/ begins with <kind>_schema."""


def describe(schema: type, prefix: str = "") -> list[tuple[str, str, str, str]]:
    """All keys below a dataclass as (key, type, default, docstring), nested ones with their full name."""
    rows: list[tuple[str, str, str, str]] = []
    docs: dict[str, str] = {}
    for base in reversed([c for c in schema.__mro__ if is_dataclass(c)]):
        parsed = GoogleParser().parse("")
        add_attribute_docstrings(base, parsed)
        docs.update({p.arg_name: " ".join((p.description or "").split()) for p in parsed.params})
    hints = get_type_hints(schema)
    for item in fields(schema):
        hint, key = hints[item.name], prefix + item.name
        if hint is ModelConfig:
            rows.append((key, "one of " + ", ".join(model_names()), "", docs[item.name]))
            inner: dict[str, tuple[str, str, str, str]] = {}
            for model in MODEL_SCHEMAS.values():
                inner |= {row[0]: row for row in describe(model, f"{key}.")}
            rows.extend(inner.values())
        elif isinstance(hint, type) and is_dataclass(hint):
            rows.extend(describe(hint, f"{key}."))
        else:
            rows.append((key, _type_name(hint), _default(item), docs[item.name]))
    return rows


def names_in(group: str) -> list[str]:
    """The names that GROUP=NAME can take: the files under conf/GROUP/."""
    return sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml"))


def model_names() -> list[str]:
    """The named models under conf/model/."""
    return names_in("model")


def _type_name(hint: Any) -> str:
    if inspect.isclass(hint) and issubclass(hint, Enum):
        return "|".join(member.name for member in hint)
    if get_origin(hint) is list:
        return f"list[{_type_name(get_args(hint)[0])}]"
    if inspect.isclass(hint) and not getattr(hint, "__args__", ()):
        return hint.__name__
    if len(kinds := [kind for kind in get_args(hint) if kind is not NoneType]) < len(get_args(hint)):
        return f"{' or '.join(map(_type_name, kinds))} or null"
    return str(hint).replace("typing.", "")


def _default(item: Any) -> str:
    value = item.default_factory() if callable(item.default_factory) else item.default
    return "required" if value == MISSING else f"default {shown(value)}"


def shown(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, list):
        return f"[{', '.join(shown(element) for element in cast('list[Any]', value))}]"
    if isinstance(value, Enum):
        return value.name
    return {None: "null", "": '""'}.get(value, str(value))
