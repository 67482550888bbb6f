"""Settings of the published code of arXiv:2401.17505, a JSON file a run, as a command of ours: `--from-json FILE`.

Two versions of that code are told apart, both at https://github.com/frotaur/LLM-Arrows-of-Time: tag original, by which
the paper's models were trained, counts steps in backward passes; the later one, whose files have save_loc, counts
optimizer steps, and its rate stays where the warm-up has brought it until a cool-down.
"""

import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from hindsight.command_line import configuration_of, explain
from hindsight.config.conversion import ConvertConfig
from hindsight.config.order import PLAIN
from hindsight.config.run_names import settings_of_named
from hindsight.config.schemas import SCHEMAS, names_in
from hindsight.config.typed_text import quoted
from hindsight.errors import InputError
from hindsight.files import read_json
from hindsight.orders.known import FORMULAS, open_order
from hindsight.orders.order import FixedOrder

OPTION = "--from-json"
GROUPS = ("model_params", "training_params", "optim_params")
MAX_BYTES = 1 << 20
SAVE_EVERY = 2000
"""Steps between two checkpoints, whatever the file says: the published scripts pass this number."""
RANDOM = ("random_chunk", "uniform_random")
SEEDS = 1000
"""Seeds of random orders that are tried to name a permutation."""
ADAMW = {
    "optim.betas": "[0.9,0.999]",
    "optim.eps": 1e-8,
    "optim.weight_decay": 0.01,
    "optim.decay_all": "true",
    "optim.grad_clip": 1.0,
}
"""What the published scripts leave to PyTorch's AdamW, and the clipping of torchenhanced."""


def is_asked(arguments: Sequence[str]) -> bool:
    """Whether the arguments of train_composer.py ask for this."""
    return any(each.partition("=")[0] == OPTION for each in arguments)


def answer(arguments: Sequence[str]) -> str:
    """Give the command that stands for a file, with what has no counterpart; other arguments win over the file's.

    Raises:
        InputError: the file is missing or damaged, is no such file, or our models cannot be made so.
    """
    rest = [*arguments]
    place = next(i for i, each in enumerate(rest) if each.partition("=")[0] == OPTION)
    _, equals, path = rest.pop(place).partition("=")
    if not equals:
        path = rest.pop(place) if place < len(rest) else ""
    if not path or "=" in path:
        raise InputError(f"{OPTION} needs a file: {OPTION} TrainParams/en_med.json.")
    options = [each for each in rest if each.startswith("-")]
    if options:
        raise InputError(f"{OPTION} {path} takes key=value beside it; add {options[0]} to the command that it prints.")
    keys, notes = translate(Path(path))
    given = dict(each.split("=", 1) for each in rest if "=" in each)
    if "direction" in given or "order" in given:
        keys = {key: value for key, value in keys.items() if key not in ("direction", "order")}
    words = [f"{key}={value}" for key, value in (keys | given).items()]
    words += [each for each in rest if "=" not in each]
    try:
        configuration_of("train_composer", words)
    except (InputError, HydraException, OmegaConfBaseException) as error:
        raise InputError(f"{OPTION} {path}: {explain(error, SCHEMAS['train_composer'])}") from None
    command = " \\\n    ".join(["python train_composer.py", *map(shlex.quote, words)])
    return "\n".join([command, *(f"# {note}" for note in notes)])


def translate(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Give our keys for a file, and what is to be known beside them, a line each."""
    file = _File(path)
    model, training, optim = (file.group(name) for name in GROUPS)
    is_later = "save_loc" in training.values
    aggregate = training.number("aggregate", int, 1)
    batch_size = training.number("batch_size", int)
    keys, notes = _order(model, training)
    sizes, model_notes = _model(model)
    keys = keys | sizes
    keys |= _data(model, training, keys, notes)
    keys |= {"batch_size": batch_size * aggregate} | ({"microbatch_size": batch_size} if aggregate > 1 else {})
    keys |= _durations(training, aggregate, is_later)
    keys |= ADAMW | _rate(optim, training)
    if (asked := training.take("save_every")) not in (None, SAVE_EVERY):
        notes.append(f"training_params.save_every={_shown(asked)}: the published scripts pass {SAVE_EVERY} instead")
    unknown = [f"{name}.{key}={_shown(value)}" for name, key, value in file.rest()]
    notes += model_notes + [f"no counterpart: {each}" for each in unknown]
    return keys, notes


class _Group:
    """A group of a file, whose keys are taken one by one.

    Args:
        where: how a message names it.
        values: its keys, as the file has them; `rest` are those that have not been taken yet.
    """

    def __init__(self, where: str, values: dict[str, Any]) -> None:
        self.where, self.values, self.rest = where, values, dict(values)

    def take(self, key: str, default: Any = None) -> Any:
        """Give the value of a key, or the default where it is missing or null."""
        self.rest.pop(key, None)
        value = self.values.get(key)
        return default if value is None else value

    def text(self, key: str, default: str) -> str:
        """Give the text of a key, or the default; InputError for anything else."""
        value = self.take(key, default)
        if not isinstance(value, str) or not value.isprintable():
            raise InputError(f"{self.where}: {key}={_shown(value)} is no text.")
        return value

    def number(self, key: str, kind: type, default: Any = None, least: int | None = None) -> Any:
        """Give the number of a key, or the default; InputError for anything else, and for what is not finite.

        Args:
            key: the key.
            kind: int, or float for both.
            default: what it is if it is missing or null; None if it must be there.
            least: the smallest that it may be; None for 1 if it is an int, else 0.
        """
        value = self.take(key, default)
        lowest = least if least is not None else int(kind is int)
        is_number = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
        if not is_number or not lowest <= value <= sys.maxsize:
            what = "is missing" if value is None else f"{key}={_shown(value)} is no number that this can have"
            raise InputError(f"{self.where}: {key + ' ' if value is None else ''}{what}.")
        return value


class _File:
    """A file of the published code."""

    def __init__(self, path: Path) -> None:
        self.path, self.groups = path, {}
        try:
            self.tree = read_json(path, MAX_BYTES)
        except OSError as error:
            raise InputError(f"{OPTION} {path} cannot be read ({error.strerror}).") from None
        except ValueError as error:
            raise InputError(f"{OPTION} {path} is no JSON of settings ({str(error)[:100]}).") from None

    def group(self, name: str) -> _Group:
        """Give a group, of which `rest` then tells what was not taken; InputError if the file has none of this name."""
        values = self.tree.get(name)
        if not isinstance(values, dict):
            raise InputError(
                f"{OPTION} {self.path}: {name} is missing; give a file of the published code, with {', '.join(GROUPS)}."
            )
        self.groups[name] = _Group(f"{OPTION} {self.path}: {name}", values)
        return self.groups[name]

    def rest(self) -> list[tuple[str, str, Any]]:
        """What was not taken."""
        others = [("the file", name, value) for name, value in self.tree.items() if name not in GROUPS]
        return [(name, key, value) for name, each in self.groups.items() for key, value in each.rest.items()] + others


def _order(model: _Group, training: _Group) -> tuple[dict[str, Any], list[str]]:
    """Name the order in which a window is read."""
    length = _context_length(model)
    backwards, permutation = training.take("backwards"), training.take("permutation")
    if backwards not in (None, True, False):
        raise InputError(f"{training.where}: backwards={_shown(backwards)} must be true, false or null.")
    if permutation is not None:
        name = _name_of(permutation, length, training.where)
        return ({"direction": name} if name in ("forward", "backward") else {"order": name}), []
    if backwards is None:
        note = "model_params.vocab_size: two ids more for <|forward|> and <|backward|>, unless the tokenizer has them"
        return {"order": "both"}, [note]
    return {"direction": "backward" if backwards else "forward"}, []


def _name_of(permutation: Any, length: int, where: str) -> str:
    """Name a permutation of positions."""
    is_list = isinstance(permutation, list) and len(permutation) == length
    if not is_list or sorted(map(str, permutation)) != sorted(map(str, range(length))):
        raise InputError(f"{where}: permutation={_shown(permutation)} is no permutation of 0 to {length - 1}.")
    names = [name for name in PLAIN if name in FORMULAS]
    names += [f"{kind}:{seed}" for seed in range(SEEDS) for kind in RANDOM]
    for name in names:
        try:
            order = open_order(name, length)
        except InputError:  # windows of this length cannot be read so
            continue
        assert isinstance(order, FixedOrder)
        if order.positions_T.tolist() == permutation:
            return name
    raise InputError(f"{where}: permutation={_shown(permutation)} is none that order= has (seeds 0 to {SEEDS - 1}).")


def _context_length(model: _Group) -> int:
    return model.number("attn_length" if "attn_length" in model.values else "desired_attn_length", int)


def _model(model: _Group) -> tuple[dict[str, Any], list[str]]:
    """Give the named model of these sizes, or the nearest kind with its sizes as keys."""
    is_gpt = "n_heads" in model.values
    length, dropout = _context_length(model), model.number("dropout", float, 0.1)
    wanted = {
        "n_layers": model.number("n_layers", int, None if is_gpt else 1),
        **({"n_heads": model.number("n_heads", int)} if is_gpt else {}),
        "d_model": model.number("embed_dim", int),
        **({"mlp_ratio": model.number("mlp_ratio", float, 4.0)} if is_gpt else {}),
        "context_length": length,
        "dropout": dropout,
        "embedding_dropout": model.number("embd_dropout", float, dropout),
    }
    base = "gpt_schema" if is_gpt else "gru"
    named = {name: settings_of_named(name) for name in names_in("model") if name.startswith("paper_")}
    named = {name: each for name, each in named.items() if (each.get("n_heads") is not None) == is_gpt}
    named = {name: each for name, each in named.items() if is_gpt or each["cell"] == base}
    sizes = ("n_layers", "n_heads", "d_model")
    same = [name for name, each in named.items() if all(each.get(key) == wanted.get(key) for key in sizes)]
    name = same[0] if same else ("paper_gpt_nano" if is_gpt else "paper_gru_small")
    defaults = {"mlp_ratio": 4.0, "dropout": 0.0} | named[name]
    keys = {"model": name, **{f"model.{key}": value for key, value in wanted.items() if defaults[key] != value}}
    notes = []
    if not is_gpt:
        other = name.replace("gru", "lstm")
        notes.append(f"the file does not say whether the cell is a GRU or an LSTM: for LSTM, model={other}")
    vocab_size = model.number("vocab_size", int)
    notes.append(f"model_params.vocab_size={vocab_size}: taken from the tokenizer of the data")
    return keys, notes


def _data(model: _Group, training: _Group, keys: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """Give the keys of the data, and say how it is made."""
    length, stored = _context_length(model), training.text("dataset_folder", "TOKENS.h5")
    tokenizer = training.text("tokenizer_path", "TOKENIZER")
    out = f"data/{PurePosixPath(stored).stem}"
    largest = max(ConvertConfig.block_length // length, 1) * length
    block = "" if ConvertConfig.block_length % length == 0 else f" block_length={largest}"
    words = f"corpus={shlex.quote(stored)} tokenizer={shlex.quote(tokenizer)} out={shlex.quote(out)}{block}"
    notes.insert(0, f"the data, once: python convert_to_mds.py {words}")
    notes.append(
        "here documents, or pieces of the file, are held out before windows are cut, and not windows afterwards"
    )
    stride = (length - 1) // 2
    overlaps = keys.get("order") != "both" and stride > 0
    return {"data.path": _quoted(out)} | ({"data.stride": stride} if overlaps else {})


def _durations(training: _Group, aggregate: int, is_later: bool) -> dict[str, Any]:
    """Give what the file counts in steps, as optimizer steps."""
    passes = 1 if is_later else aggregate  # backward passes that one of the file's steps is

    def steps(count: int) -> str:
        return f"{max(count // passes, 1)}ba"

    whole = f"{aggregate if is_later else 1}ep"  # the later code takes the number of batches for that of steps
    length = training.take("steps_to_train")
    valid_share = 0.04 if is_later else 0.05
    keys = {
        "max_duration": whole if length is None else steps(training.number("steps_to_train", int)),
        "eval_interval": steps(int(training.number("valid_steps", int) / valid_share)),
        "checkpoint.interval": steps(SAVE_EVERY),
    }
    if training.take("backup_every") is not None:
        keys["checkpoint.backup_interval"] = steps(training.number("backup_every", int))
    if training.take("step_log") is not None:
        keys["log_interval"] = training.number("step_log", int)
    later, earlier = (training.text(key, "") for key in ("save_loc", "state_save_loc"))
    folder = later or earlier
    return keys | ({"runs_dir": _quoted(folder.rstrip("/") or "/")} if folder else {})


def _rate(optim: _Group, training: _Group) -> dict[str, Any]:
    """Give the learning rate."""
    lr = optim.number("lr", float)
    keys = {
        "optim.lr": lr,
        "optim.warmup_steps": optim.number("warmup_steps", int, 0, least=0),
        "optim.lr_init": optim.number("lr_init", float, 1e-7 * lr),
        "optim.lr_min": optim.number("lr_min", float, 0.0),
    }
    asked = training.take("cooldown_finish", False)
    cooldown = 0.1 * asked if isinstance(asked, bool) else training.number("cooldown_finish", float)
    if "oscil_steps" in optim.values and not cooldown:
        keys["optim.schedule"] = "cosine_restarts"
        keys["optim.period_steps"] = optim.number("oscil_steps", int)
        keys["optim.shrink"] = optim.number("lr_shrink", float, 1.0)
        return keys
    return keys | {"optim.schedule": "constant", "optim.cooldown_share": cooldown}


def _quoted(text: str) -> str:
    """Write a text as an argument has it: in quotes, where a character of it could mean something."""
    return text if re.fullmatch(r"[\w./-]+", text) else quoted(text)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:40]} ..."
