"""The first and the last lines of a run. Nothing here imports torch: a run that has come to its end says so at once."""

from pathlib import Path
from typing import Any

from hindsight import runs
from hindsight.config.direction import Direction
from hindsight.config.order import order_of
from hindsight.shown_numbers import short
from hindsight.training.setup import RunSetup


def start_lines(setup: RunSetup, metadata: dict[str, Any], step: int, devices: str) -> list[str]:
    """Say what is going to be trained.

    Args:
        setup: the run.
        metadata: content of its metadata.json.
        step: where it goes on; 0 for a new run.
        devices: such as "2 x gpu".
    """
    config, place = setup.config, setup.locations["train"]
    train, val = (setup.manifests[name].splits[name] for name in ("train", "val"))
    documents = "" if train.documents is None else f"{train.documents:,} documents, "
    left = setup.total_steps - step
    tokens = left * setup.windows["train"].batch_tokens
    lines = [
        f"run      {setup.run_name}, {order_of(config)}",
        f"model    {config.model.name}, {short(metadata['n_parameters'])} parameters{_begun(metadata)}",
        f"data     {place.remote.url if place.remote is not None else place.folder}: {documents}"
        f"{short(train.tokens)} tokens; {short(val.tokens)} to validate on"
        f"{'; text_order=reversed' if setup.manifests['train'].is_reversed else ''}",
        f"to go    {left:,} of {setup.total_steps:,} steps, {short(tokens)} tokens",
        f"devices  {devices}, {config.precision.name}",
        f"folder   {setup.folder}",
        *(f"note     {note}" for note in setup.notes),
    ]
    return [*lines, f"{setup.run_name}: goes on from step {step}."] if step else lines


def _begun(metadata: dict[str, Any]) -> str:
    """Say how many parameters are trained where some are frozen, and which weights they began with."""
    n_trained = metadata["n_trainable_parameters"]
    trained = f", {short(n_trained)} of them trained" if n_trained < metadata["n_parameters"] else ""
    initial = metadata.get(runs.INITIAL_WEIGHTS)
    if initial is None:
        return trained
    step = f" at step {initial['step']}" if "step" in initial else ""
    return f"{trained}, from {initial['from']}{step}"


def nothing_to_do(setup: RunSetup, step: int | None) -> str:
    """Say that a run has come to its end before."""
    return f"{setup.run_name}: nothing to do, it is at step {step} of {setup.config.max_duration}."


def end_lines(setup: RunSetup) -> list[str]:
    """Say the last losses of a run, the unigram entropy to compare them with, its files, and the next command.

    With energy=true also what the run has spent, all its starts together.
    """
    losses = []
    for name, key in (("train", runs.TRAIN_LOSS), ("validation", runs.EVAL_LOSS)):
        if (value := runs.last_value(setup.folder / runs.METRICS, key)) is not None:
            losses.append(f"{name} {value:.4f}")
    names = [name for name in (runs.METRICS, runs.SAMPLES, runs.ENERGY, runs.WEIGHTS) if (setup.folder / name).exists()]
    spent = runs.energy_of(runs.read_energy(setup.folder))
    energy = [f"energy   {spent['kwh']:.3g} kWh, {spent['co2e_kg']:.3g} kg CO2e"] if spent["kwh"] else []
    checkpoints = setup.config.checkpoint.folder or f"{runs.CHECKPOINTS}/"
    return [
        f"loss     {', '.join(losses)} nats/token; unigram entropy {setup.val_unigram_entropy_nats:.4f}",
        *energy,
        f"files    {setup.folder}: {', '.join([*names, checkpoints])}",
        f"next     {_next_command(setup)}",
    ]


def _next_command(setup: RunSetup) -> str:
    """Name the comparison with the run of the other direction, or the forward one, or how to train that run."""
    if setup.order.readings:
        return f"python evaluate_tokens.py {_shown(setup.folder)}"
    direction, name = setup.config.direction, setup.run_name
    other = Direction.backward if direction is Direction.forward else Direction.forward
    order = order_of(setup.config).replace(":", "")
    twin = setup.folder.with_name(other.name.join(name.rsplit(order, 1)))
    if twin != setup.folder and (twin / runs.METRICS).is_file():
        pair = (setup.folder, twin) if direction is Direction.forward else (twin, setup.folder)
        return f"python compare_directions.py 'runs=[{','.join(map(_shown, pair))}]'"
    named = "" if order in name else " and another run_name"
    key = "direction" if direction is not None else "order"
    return f"the same command with {key}={other.name}{named}, then python compare_directions.py runs=[...,...]"


def _shown(folder: Path) -> str:
    """Write a folder as a command would: relative to the current one where it lies in it."""
    return str(folder.relative_to(Path.cwd())) if folder.is_relative_to(Path.cwd()) else str(folder)
