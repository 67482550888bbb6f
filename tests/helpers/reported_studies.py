"""Studies that the tests of reports share: one that is trained here by the real commands, and runs that are made up."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from helpers.recorded_runs import make_run
from helpers.small_study import (
    COINS_NATS,
    MAP_NATS,
    coins,
    compare,
    linear_map,
    make_bytes_data,
    run_result,
    study_result,
    train_run,
    turn,
)
from helpers.study_pages import Study
from hindsight.studies.results import RunResult

SEEDS, ORDERS, RATES = (0, 1, 2), ("forward", "backward"), (1e-3, 1e-2)
SIZE = ["model.n_layers=1", "model.d_model=16", "max_duration=8ba", "eval_interval=2ba", "batch_size=16"]
SIZE += ["data.context_length=16", "checkpoint.interval=1000ba", "metrics=false"]
FLOORS = {
    "coins": {"kind": "coins", "settings": {"letters": 4}, "nats_per_token": COINS_NATS, "is_null": True}
    | {"is_calibration": True, "role": "null", "derivation": "14 ln 4 over 16 tokens"},
    "map": {"kind": "linear_map", "settings": {"bits": 7, "nonzeros": 2}, "nats_per_token": MAP_NATS}
    | {"role": "positive", "derivation": "7 ln 2 over 16 tokens"},
}


@pytest.fixture(scope="session")
def study_runs(tmp_path_factory) -> list[RunResult]:
    """Runs of two synthetic languages in both directions, of one of them turned, and of a sweep of rates."""
    root = tmp_path_factory.mktemp("study")
    data = {"coins": make_bytes_data(root, "coins", coins(400)), "map": make_bytes_data(root, "map", linear_map(100))}
    data["turned"] = turn(data["map"], root / "data" / "turned")
    results = [
        train_run(root / "runs", data[corpus], {"corpus": corpus, "order": order, "seed": seed}, *SIZE)
        for corpus in ("coins", "map")
        for order in ORDERS
        for seed in SEEDS
    ]
    results += [
        train_run(root / "runs", data["turned"], {"corpus": "turned", "order": "forward", "seed": seed}, *SIZE)
        for seed in SEEDS[:2]
    ]
    return results + [
        train_run(
            root / "sweep",
            data["map"],
            {"corpus": "map", "optim.lr": rate, "order": order, "seed": 100},
            *SIZE,
            "max_duration=4ba",
            is_sweep=True,
        )
        for rate in RATES
        for order in ORDERS
    ]


@pytest.fixture(scope="session")
def small_study(study_runs, tmp_path_factory) -> Study:
    out = tmp_path_factory.mktemp("results")
    compare(out, study_runs)
    rates = [{"axes": {"corpus": "map"}, "best": {"forward": 1e-2, "backward": 1e-3}, "same": 1e-2}]
    report = ["floors", "gap", "curves", "learning_rate", "null", "exact"]
    corpora = {"corpora": {"turned": {"turned": "map"}}}
    return Study(out, study_result(study_runs, report, floors=FLOORS, rates=rates, study=corpora))


def made_up(root: Path, axes: dict[str, Any], loss: float | list[float], *overrides: str, **metadata: Any) -> RunResult:
    """A run whose folder is made up, with an evaluation every 10 steps, of 64 tokens each: two, or as many losses."""
    name = "-".join(map(str, axes.values())).replace(":", "")
    curve = loss if isinstance(loss, list) else [5.0, loss]
    folder = make_run(root / name, axes["order"], curve, f"seed={axes['seed']}", *overrides, **metadata)
    return run_result(folder, axes, [f"python train_composer.py run_name={name}"])


@pytest.fixture
def context_runs(tmp_path) -> list[RunResult]:
    """Two languages at two context_runs; the gap grows with the context."""
    losses = itertools.product(("english", "french"), (16, 64), ORDERS, SEEDS)
    return [
        made_up(
            tmp_path / "runs",
            {"corpus": corpus, "data.context_length": context, "order": order, "seed": seed},
            4.0 + 0.01 * seed + (0.001 * context + 0.002 * seed) * (order == "backward"),
            f"data.context_length={context}",
            data_fingerprint=corpus,
        )
        for corpus, context, order, seed in losses
    ]
