"""All that a plan says of a run, as data: what plan.py prints as JSON, and tells in its table.

Nothing here imports torch: every number comes from the settings, the manifest of the data, and formulas.
"""

from dataclasses import dataclass
from typing import Any

from hindsight.config.conversion import ConvertConfig
from hindsight.config.optim import OptimizerName
from hindsight.config.order import BOTH, order_of
from hindsight.config.plan import PlanConfig
from hindsight.config.training import AUTO, Parallelism, Precision, TrainConfig
from hindsight.errors import InputError
from hindsight.loading.windows import SplitWindows
from hindsight.planning.devices import DEVICES, Device, find_device
from hindsight.planning.memory import Memory, divided, memory_of
from hindsight.planning.parameters import (
    FORWARD_SHARE,
    TOKENS_PER_PARAMETER,
    flops_per_token,
    n_by_muon,
    n_matrices,
    n_parameters,
    n_tensors,
    n_trained,
    parameters_by_part,
)
from hindsight.planning.seeds import seeds_of
from hindsight.planning.speed import Speed, speed_of
from hindsight.training import disk
from hindsight.training.course import Course
from hindsight.training.init_source import check_early
from hindsight.training.setup import check_setup, context_length_of, folder_of, local_folder, locate_data

SHARE_OF_MEMORY = 0.9
"""Of a GPU's memory, what a plan fills: CUDA, its libraries, and gaps between tensors take the rest."""
HOUR_S = 3600


@dataclass(frozen=True)
class Sizes:
    """What the data decides.

    Args:
        data: where it is.
        vocab_size: number of token ids of the model.
        train: windows to train on.
        val: windows to evaluate on; None where there is no data yet.
    """

    data: str
    vocab_size: int
    train: SplitWindows
    val: SplitWindows | None


def read_sizes(config: PlanConfig) -> Sizes:
    """Read what the data says of itself, and check the settings against it; or take data_tokens."""
    if config.data_tokens is None:
        locations = locate_data(config)
        if (remote := next((each.remote for each in locations.values() if each.remote), None)) is not None:
            raise InputError(
                f"data.path={remote.url} is not looked at, nothing is fetched for a plan; give data_tokens= and "
                "model.vocab_size=, as its manifest.json says them."
            )
        setup = check_setup(config, locations)
        check_early(setup)
        vocab_size = config.model.vocab_size or setup.vocab_size
        if vocab_size < setup.vocab_size:
            raise InputError(
                f"model.vocab_size={vocab_size} is less than the tokenizer's {setup.vocab_size}; leave it null."
            )
        return Sizes(locations["train"].folder, vocab_size, setup.windows["train"], setup.windows["val"])
    assert config.model.vocab_size is not None
    tokens, length, usual = config.data_tokens, context_length_of(config), ConvertConfig.block_length
    train = SplitWindows(
        folder="",
        name="train",
        n_tokens=tokens,
        block_length=usual if usual % length == 0 else length,
        blocks_per_shard=1,
        context_length=length,
        batch_size=config.batch_size,
        stride=config.data.stride,
        passes=2 if order_of(config) == BOTH else 1,
    )
    return Sizes(f"{tokens:,} tokens (data_tokens=)", config.model.vocab_size, train, None)


def plan_of(config: PlanConfig) -> dict[str, Any]:
    """Plan a run: every number of the table, by its part.

    Raises:
        InputError: settings and data do not fit, as for training; or what the plan is asked is not known.
    """
    device = _device(config)
    sizes = read_sizes(config)
    course = Course.of(config.max_duration, sizes.train)
    parameters = n_parameters(config.model, sizes.vocab_size)
    trained = n_trained(config.model, sizes.vocab_size)
    flops = flops_per_token(config.model, sizes.vocab_size, context_length_of(config))
    evaluated = 0 if sizes.val is None else evaluated_tokens(config, course, sizes.val, sizes.train.passes)
    time = _time(config, course.tokens, evaluated, flops, speed_of(config, flops, device))
    plan: dict[str, Any] = {
        "model": {
            "name": config.model.name,
            "order": order_of(config),
            "vocab_size": sizes.vocab_size,
            "parameters": parameters,
            "trained_parameters": trained,
            "parameters_by_part": parameters_by_part(config.model, sizes.vocab_size),
        },
        "tokens": _tokens(sizes, course, parameters),
        "flops": {
            "per_token": flops,
            "training": flops * course.tokens,
            "evaluation": None if sizes.val is None else round(flops * evaluated * FORWARD_SHARE),
        },
        "memory": _memory(config, sizes.vocab_size, device),
        "time": time,
        "disk": _disk(config, course, sizes.vocab_size),
    }
    if (seeds := seeds_of(config, time["hours"] if time is not None else None)) is not None:
        plan["seeds"] = seeds
    return plan


def evaluated_tokens(config: TrainConfig, course: Course, val: SplitWindows, n_readings: int) -> int:
    """Tokens of all evaluations of a run: one at each interval, and one at the end.

    Args:
        config: the run.
        course: how long it is.
        val: the windows of validation.
        n_readings: ways in which each window is read; 2 with order=both.
    """
    tokens = val.n_tokens
    if config.eval_batches is not None:
        tokens = min(tokens, config.eval_batches * val.batch_tokens)
    return n_readings * tokens * len(course.steps_at(config.eval_interval, with_last=True))


def _device(config: PlanConfig) -> Device | None:
    if config.gpu is None:
        return None
    if (device := find_device(config.gpu)) is None:
        raise InputError(
            f"gpu={config.gpu} is not known; choose one of {', '.join(each.name for each in DEVICES)}, or leave it out "
            "and give peak_tflops=."
        )
    return device


def _tokens(sizes: Sizes, course: Course, parameters: int) -> dict[str, Any]:
    return {
        "data": sizes.data,
        "steps": course.steps,
        "batch": course.batch_tokens,
        "epoch": course.epoch_tokens,
        "training": course.tokens,
        "epochs": course.epochs,
        "per_parameter": course.tokens / parameters,
        "compute_optimal": TOKENS_PER_PARAMETER * parameters,
    }


def _memory(config: PlanConfig, vocab_size: int, device: Device | None) -> dict[str, Any]:
    windows = config.batch_size // config.devices
    length = context_length_of(config)

    def of(microbatch_size: int) -> Memory:
        memory = memory_of(
            config.model,
            vocab_size,
            microbatch_size,
            length,
            is_mixed=config.precision is not Precision.fp32,
            is_checkpointed=config.activation_checkpointing,
            accumulates=microbatch_size < windows,
            n_devices=config.devices,
            is_muon=config.optim.name is OptimizerName.muon,
            loss=config.loss,
            is_gpu=config.gpu is not None or config.precision is Precision.fp16,
        )
        is_whole = config.parallelism is Parallelism.ddp or config.devices == 1
        return memory if is_whole else divided(memory, config.model, vocab_size, config.devices)

    microbatch_size = min(config.windows_at_once or windows, windows)
    usable = int(SHARE_OF_MEMORY * device.memory_bytes) if device is not None else 0
    while config.microbatch_size == AUTO and microbatch_size > 1 and 0 < usable < of(microbatch_size).peak:
        microbatch_size //= 2  # as Composer does
    memory = of(microbatch_size)
    found: dict[str, Any] = {
        "devices": config.devices,
        "microbatch_size": microbatch_size,
        "bytes_by_part": memory.parts(),
        "peak_bytes": memory.peak,
    }
    if device is not None:
        fitting = [size for size in range(1, windows + 1) if windows % size == 0 and of(size).peak <= usable]
        found |= {
            "gpu": device.name,
            "gpu_bytes": device.memory_bytes,
            "fits": memory.peak <= usable,
            "largest_microbatch_size": max(fitting, default=None),
        }
    return found


def _time(config: PlanConfig, trained: int, evaluated: int, flops: int, speed: Speed | None) -> dict[str, Any] | None:
    if speed is None:
        return None
    training_s = trained / speed.tokens_per_second
    evaluation_s = evaluated * FORWARD_SHARE / speed.tokens_per_second
    hours = (training_s + evaluation_s) / HOUR_S
    return {
        "hours": hours,
        "training_hours": training_s / HOUR_S,
        "evaluation_hours": evaluation_s / HOUR_S,
        "device_hours": hours * config.devices,
        "tokens_per_second": speed.tokens_per_second,
        "by": speed.by,
        "mfu": speed.mfu,
    }


def _disk(config: PlanConfig, course: Course, vocab_size: int) -> dict[str, Any]:
    added, model = disk.added(config, course), config.model
    parameters, tensors = n_parameters(model, vocab_size), n_tensors(model, model.parts)
    trained = n_trained(model, vocab_size), tensors - n_tensors(model, model.frozen)
    is_muon = config.optim.name is OptimizerName.muon
    by_muon = (n_by_muon(model, vocab_size), n_matrices(model)) if is_muon else (0, 0)
    each = disk.checkpoint_bytes((parameters, tensors), trained, by_muon)
    folder = folder_of(config)
    place = local_folder(config, folder)
    checkpoints = each * (added.most + added.backups)
    others = disk.weights_bytes(parameters) + disk.LINE_BYTES * (course.steps // config.log_interval)
    free = disk.free_bytes(place)
    return {
        "checkpoint_bytes": each,
        "checkpoints": added.most,
        "backups": added.backups,
        "checkpoints_bytes": checkpoints,
        "folder": str(place),
        "other_bytes": others,
        "total_bytes": checkpoints + others,
        "free_bytes": free,
        "fits": None if free is None else checkpoints + others <= free,
    }
