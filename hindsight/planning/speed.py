"""How fast a run is going to be: by a share of what its devices can do, or by what was measured of another run."""

from dataclasses import asdict, dataclass
from pathlib import Path

from hindsight import runs
from hindsight.config.defaults import with_defaults
from hindsight.config.key_roles import KEY_ROLES
from hindsight.config.keys import flatten
from hindsight.config.plan import PlanConfig
from hindsight.errors import InputError
from hindsight.evaluation.trained_run import read_run
from hindsight.planning.devices import Device
from hindsight.planning.parameters import flops_per_token
from hindsight.studies.sweep import median_speed, speed_settings

TERA = 1e12


@dataclass(frozen=True)
class Speed:
    """How fast a run is going to be.

    Args:
        tokens_per_second: of all devices together.
        by: where the number comes from, in a few words.
        mfu: the share of the devices' best that it is; None if that is not known.
    """

    tokens_per_second: float
    by: str
    mfu: float | None


def speed_of(config: PlanConfig, flops: int, device: Device | None) -> Speed | None:
    """Find the speed that the settings ask for; None if they name none.

    Args:
        config: the settings.
        flops: FLOPs of a token.
        device: the GPU that is named; None for none.
    """
    peak = config.peak_tflops * TERA if config.peak_tflops is not None else (device.flops if device else None)
    best = peak * config.devices / flops if peak is not None else None
    if config.mfu is not None:
        if best is None:
            raise InputError(f"mfu={config.mfu} is a share of what a device can do; give gpu= or peak_tflops= too.")
        return Speed(config.mfu * best, f"mfu={config.mfu:g}", config.mfu)
    if config.tokens_per_second is not None:
        found, by = config.tokens_per_second, "tokens_per_second="
    elif config.run is not None:
        found, by = _of_run(config, flops)
    else:
        return None
    return Speed(found, by, found / best if best is not None else None)


def _of_run(config: PlanConfig, flops: int) -> tuple[float, str]:
    assert config.run is not None
    run, folder = read_run(config.run), Path(config.run)
    measured = median_speed(folder)
    if measured is None:
        raise InputError(f"run={config.run} has no {runs.TOKENS_PER_SECOND} in {runs.METRICS}; give another, or mfu=.")
    devices = run.metadata.get("world_size")
    if type(devices) is not int or devices < 1:
        devices = 1
    vocab_size = run.config.model.vocab_size or run.metadata.get("vocab_size")
    if type(vocab_size) is not int:
        raise InputError(f"run={config.run}: {runs.METADATA} has no vocab_size; give another run, or mfu=.")
    its_flops = flops_per_token(run.config.model, vocab_size, run.context_length)
    had = speed_settings(with_defaults(runs.read_config(folder)))
    is_same = its_flops == flops and all(
        had.get(key) == value for key, value in speed_settings(flatten(asdict(config))).items() if key in KEY_ROLES
    )
    name = f"{folder.name}, {devices} device{'s' * (devices > 1)}"
    scale = config.devices / devices * its_flops / flops
    return measured * scale, f"measured of {name}" if is_same else f"the FLOP/s of {name}, which has other settings"
