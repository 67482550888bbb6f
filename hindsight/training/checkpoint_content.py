"""Whether a checkpoint can be one that a run has saved: its archive, its numbers, its counts, its tensors.

Nothing here loads it. A file whose content cannot be is damaged, whoever made it: the one before is taken.
"""

import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import nn

from hindsight.config.optim import OptimConfig, OptimizerName
from hindsight.training.checkpoint_pickle import (
    MERSENNE_TWISTER,
    STATE_LENGTH,
    Content,
    DamagedError,
    ForeignError,
    StoredArray,
    StoredTensor,
    read_pickle,
)
from hindsight.training.lr_plan import Plan, from_records
from hindsight.training.muon import Muon, matrices_of
from hindsight.training.setup import RunSetup
from hindsight.training.spikes import VALUES, WINDOW

PICKLE = "data.pkl"
NUMBERS = "data/"
BYTE_ORDER = "byteorder"
MOST_PICKLE_BYTES = 64 << 20
CHUNK_BYTES = 1 << 20
STATE_KEYS = {
    "model",
    "optimizers",
    "schedulers",
    "algorithms",
    "callbacks",
    "scaler",
    "timestamp",
    "rank_zero_seed",
    "run_name",
    "dataset_state",
    "integrations",
    "metadata",
}
"""What Composer saves of a run of ours; what else it knows would be loaded by its own code."""
MOMENTS, MOMENTUM = ("exp_avg", "exp_avg_sq"), "momentum_buffer"
"""What AdamW, and Muon, keep of a weight."""
LONGEST = timedelta(days=365_000)
LARGEST = 1 << 100
"""Bound of a number that is no count."""
ROUNDING = 1 + 1e-6
EXPONENTS = {"Half": (np.uint16, 0x7C00), "BFloat16": (np.uint16, 0x7F80), "Float": (np.uint32, 0x7F80_0000)}
EXPONENTS["Double"] = (np.uint64, 0x7FF0_0000_0000_0000)
"""The exponent of NaN and infinity, by the kind of number."""


def require(holds: bool, otherwise: str) -> None:
    """Raise DamagedError unless something holds."""
    if not holds:
        raise DamagedError(otherwise)


def read_content(archive: zipfile.ZipFile, file_size: int) -> Content:
    """Read an archive as torch.save writes it, without building what it holds, and verify its checksums.

    Raises:
        DamagedError: it holds what cannot be, or weights or moments of the optimizer that are not finite.
        ForeignError: it holds something else than the state of a run.
        zipfile.BadZipFile: a part of it does not match its checksum.
    """
    sizes = _check_archive(archive, file_size)
    root = archive.infolist()[0].filename.split("/")[0]
    require(sizes.get(PICKLE, 0) <= MOST_PICKLE_BYTES, f"{PICKLE} has {sizes.get(PICKLE)} bytes")
    if PICKLE not in sizes:
        raise ForeignError(f"an archive without {PICKLE}")
    numbers = {name.removeprefix(NUMBERS): size for name, size in sizes.items() if name.startswith(NUMBERS)}
    order = archive.read(f"{root}/{BYTE_ORDER}") if BYTE_ORDER in sizes else sys.byteorder.encode()
    require(order == sys.byteorder.encode(), "its numbers are in the byte order of another machine")
    content = read_pickle(archive.read(f"{root}/{PICKLE}"), numbers)
    for name in sizes:
        storage = content.storages.get(name.removeprefix(NUMBERS)) if name.startswith(NUMBERS) else None
        kind, exponent = EXPONENTS.get(storage.kind, (None, 0)) if storage is not None else (None, 0)
        with archive.open(f"{root}/{name}") as file:
            while chunk := file.read(CHUNK_BYTES):  # the end of it raises BadZipFile at a wrong checksum
                if kind is not None:
                    is_finite = not ((np.frombuffer(chunk, kind) & kind(exponent)) == exponent).any()
                    require(is_finite, "its weights, or the optimizer's state, have NaN or infinity")
    return content


def _check_archive(archive: zipfile.ZipFile, file_size: int) -> dict[str, int]:
    """Check that entries are neither compressed nor shared, and that PyTorch's reader finds the same as this one."""
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    require(len(set(names)) == len(names) > 0, "its archive has no entries, or two of the same name")
    roots = {name.partition("/")[0] for name in names}
    is_plain = len(roots) == 1 and "" not in roots and not any("\\" in name or ".." in name for name in names)
    require(is_plain and all("/" in name for name in names), "its archive has names that torch.save does not write")
    is_stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    is_stored = is_stored and all(entry.file_size == entry.compress_size for entry in entries)
    require(is_stored, "its archive is compressed, which torch.save's is not")
    is_exact = sum(entry.file_size for entry in entries) < file_size
    is_exact = is_exact and min(entry.header_offset for entry in entries) == 0 and not archive.comment
    require(is_exact, "its archive does not fill the file as torch.save's does")
    return {entry.filename.partition("/")[2]: entry.file_size for entry in entries}


@dataclass(frozen=True)
class Saved:
    """What a run needs to know of a checkpoint before it loads it.

    Args:
        time: counts and durations, as Composer's Timestamp stores them.
        settings: what must not change when its run goes on; None if it is of an older version.
        plan: its learning rate; None if it is of an older version.
    """

    time: dict[str, Any]
    settings: dict[str, Any] | None
    plan: Plan | None


def check_state(tree: Any) -> Saved:
    """Check what holds for a checkpoint of any run.

    Raises:
        DamagedError: it holds numbers that cannot be.
        ForeignError: it is not the state of a run.
    """
    if not isinstance(tree, dict) or not isinstance(state := tree.get("state"), dict):
        raise ForeignError("no state of a run")
    if unknown := sorted(state.keys() - STATE_KEYS):
        raise ForeignError(f"state/{ascii(unknown[0][:80])[1:-1]}")
    if missing := sorted(STATE_KEYS - {"integrations", "metadata", "scaler", "run_name"} - state.keys()):
        raise ForeignError(f"no state/{missing[0]}")
    try:
        time = state["timestamp"]["Timestamp"]
        for name, value in time.items():
            is_duration = name.endswith("_wct") and isinstance(value, timedelta) and timedelta() <= value < LONGEST
            require(is_duration or (not name.endswith("_wct") and is_count(value)), f"its {name} cannot be")
        for whole in ("batch", "sample", "token"):
            require(time[f"{whole}_in_epoch"] <= time[whole], f"its {whole}_in_epoch exceeds its {whole}")
        require(time["epoch"] <= time["batch"], "it has more epochs than steps")
        schedule = state["schedulers"]["LambdaLR"]
        require(schedule["last_epoch"] == time["batch"], "its learning rate is of another step")
        require(all(is_number(value) for value in schedule["base_lrs"] + schedule["_last_lr"]), "its learning rate")
        is_empty = state["algorithms"] == [] and not state.get("integrations")
        require(is_empty and is_count(state["rank_zero_seed"]), "it names algorithms, or no seed")
        for scaler in state.get("scaler", {}).values():
            require(all(is_number(value) for value in scaler.values()), "the scale of its loss cannot be")
        for rank in tree["rng"]:
            _check_random_state(rank)
        saved = [kept for kept in state["callbacks"].values() if "settings" in kept]
        for kept in saved:
            require(type(kept["before_evaluation"]) is bool, "its state of an evaluation cannot be")
            require(all(map(_is_setting, kept["settings"].values())), "its settings cannot be")
        for kept in state["callbacks"].values():
            if "recent" in kept:
                is_whole = kept["recent"].keys() == {*VALUES} and all(map(_is_recent, kept["recent"].values()))
                require(is_whole, "its recent steps cannot be")
                require(is_count(kept["skipped_steps"]), "its number of skipped steps cannot be")
        is_size = all(is_count(kept["size"]) for kept in state["callbacks"].values() if "size" in kept)
        require(is_size, "its microbatch size cannot be")
        plan = from_records(saved[0]["plan"]) if saved and "plan" in saved[0] else None
        require(plan is not None or not saved or "plan" not in saved[0], "its plan of the learning rate cannot be")
        return Saved(time, saved[0]["settings"] if saved else None, plan)
    except (LookupError, TypeError, AttributeError) as error:
        raise DamagedError(f"its state is malformed ({type(error).__name__})") from error


def check_for_run(tree: Any, step: int, setup: RunSetup, model: nn.Module) -> None:
    """Check that a checkpoint fits the run's data, model and optimizer; DamagedError if not.

    Args:
        tree: its content, which has passed `check_state`.
        step: what its name says.
        setup: the run.
        model: its model.
    """
    state, windows = tree["state"], setup.windows["train"]
    time = state["timestamp"]["Timestamp"]
    require(time["batch"] == step, f"its name says step {step}, its content step {time['batch']}")
    within, size, n = time["batch_in_epoch"], windows.batch_size, windows.n_batches
    short = windows.passes * windows.n_windows * windows.context_length - windows.epoch_tokens  # of the last window
    full = within * windows.batch_tokens
    fewest, most = (windows.epoch_tokens, windows.epoch_tokens) if within == n else (full - short, full)
    is_so = {
        "batch": within <= n and time["batch"] == time["epoch"] * n + within,
        "sample": time["sample"] == time["batch"] * size and time["sample_in_epoch"] == within * size,
        "token": time["token"] == time["epoch"] * windows.epoch_tokens + time["token_in_epoch"],
        "token_in_epoch": fewest <= time["token_in_epoch"] <= most,
    }
    wrong = [name for name, holds in is_so.items() if not holds]
    require(not wrong, f"its counts do not fit the data: {wrong and wrong[0]}={time[(wrong or ['batch'])[0]]}")
    try:
        data = state["dataset_state"]["train"]
        places = {(time["epoch"], time["sample_in_epoch"])} | ({(time["epoch"] + 1, 0)} if within == n else set())
        is_there = (data["epoch"], data["sample_in_epoch"]) in places and data["shuffle_seed"] == setup.config.seed
        others = data["num_canonical_nodes"], data["initial_physical_nodes"]
        require(is_there and all(is_count(value) and value > 0 for value in others), "its place in the data cannot be")
        _check_tensors(state, model, setup.config.optim)
    except (LookupError, TypeError, AttributeError) as error:
        raise DamagedError(f"its state is malformed ({type(error).__name__})") from error


def _check_tensors(state: Mapping[str, Any], model: nn.Module, config: OptimConfig) -> None:
    """Compare weights and optimizer with those that the run has; DamagedError if they differ."""
    expected = {name: ("Float", tuple(weight.shape)) for name, weight in model.state_dict().items()}
    found = {plain_name(name): _form(tensor) for name, tensor in state["model"].items()}
    _require_same("the weights", expected, found)
    is_muon = config.name is OptimizerName.muon
    ((kind, optimizer),) = state["optimizers"].items()
    require(kind == (Muon if is_muon else torch.optim.AdamW).__name__, "its optimizer is not that of the run")
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    by_muon = matrices_of(model) if is_muon else {}
    matrices = {name: expected[name] for name, weight in trained.items() if weight in by_muon}
    others = {name: expected[name] for name in trained if name not in matrices}
    kept = {plain_name(name): moments for name, moments in optimizer["state"].items()}
    forms = {MOMENTUM: matrices, **dict.fromkeys(MOMENTS, others), "step": dict.fromkeys(others, ("Float", ()))}
    for moment, wanted in forms.items():
        found = {name: _form(kept[name][moment]) for name in kept if (name in matrices) is (moment == MOMENTUM)}
        _require_same(f"the optimizer's {moment}", wanted, found)
    named = [plain_name(name) for group in optimizer["param_groups"] for name in group["params"]]
    require(sorted(named) == sorted(trained), "its optimizer has other weights than the model")
    for number, group in enumerate(optimizer["param_groups"]):
        if is_muon and number == 0:
            is_same = group["momentum"] == config.muon_momentum
            is_same = is_same and {plain_name(name) for name in group["params"]} == matrices.keys()
        else:
            is_same = [*group["betas"]] == [*config.betas] and group["eps"] == config.eps
        is_same = is_same and group["weight_decay"] in (0.0, config.weight_decay)
        is_same = is_same and group["initial_lr"] == config.lr and is_number(group["lr"])
        is_same = is_same and 0 <= group["lr"] <= config.lr * ROUNDING
        require(is_same, "its optimizer has other settings than the run")
    is_same = all(lr == config.lr for lr in state["schedulers"]["LambdaLR"]["base_lrs"])
    require(is_same, "its schedule has another learning rate than the run")


def _require_same(what: str, expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if differing:
        name = differing[0]
        shape = [str(list(form[1])) if form else "nothing" for form in (found.get(name), expected.get(name))]
        kind = f" ({found[name][0]})" if shape[0] == shape[1] else ""
        raise DamagedError(f"{what} of {ascii(name[:200])[1:-1]} are {shape[0]}{kind}, not {shape[1]}")


def _form(tensor: Any) -> tuple[str, tuple[int, ...]]:
    require(isinstance(tensor, StoredTensor), "a weight is no tensor")
    return tensor.storage.kind, tensor.shape


def plain_name(name: str) -> str:
    """Name of a weight without what torch.compile puts into it."""
    return name.replace("_orig_mod.", "")


def _check_random_state(rank: Mapping[str, Any]) -> None:
    version, numbers, gauss = rank["python"]
    is_python = version == 3 and len(numbers) == STATE_LENGTH + 1 and all(map(is_count, numbers))
    is_python = is_python and max(numbers) < 2**32 and numbers[-1] <= STATE_LENGTH
    name, key, place, has_gauss, cached = rank["numpy"]
    is_numpy = name == MERSENNE_TWISTER and isinstance(key, StoredArray) and has_gauss in (0, 1) and is_number(cached)
    is_numpy = is_numpy and is_count(place) and place <= STATE_LENGTH
    require(is_python and (gauss is None or is_number(gauss)) and is_numpy, "its random state cannot be")
    require(_form(rank["torch"]) == ("Byte", tuple(torch.get_rng_state().shape)), "PyTorch's random state cannot be")
    if "cuda" in rank:
        require(_form(rank["cuda"]) == ("Byte", (16,)), "the GPU's random state cannot be")


def is_count(value: Any) -> bool:
    """Tell whether a value is a whole number that something can be counted with."""
    return type(value) is int and 0 <= value < 1 << 62


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number."""
    return type(value) in (int, float) and abs(value) < LARGEST


def _is_recent(values: Any) -> bool:
    return isinstance(values, list) and len(values) <= WINDOW and all(map(is_number, values))


def _is_setting(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) < 1000 and all(not isinstance(item, list) and _is_setting(item) for item in value)
    if isinstance(value, str):
        return len(value) < 10_000 and value.isprintable()
    return value is None or type(value) is bool or is_number(value)
