"""Energy and CO2e of a run, by codecarbon: measured on each node, offline, and summed over nodes and starts.

What is measured are GPUs (by NVML) and processors (by RAPL) where the machine lets itself be read; what it does not
tell is estimated from the processor's model and load, and main memory by its size. All of a node counts, also what
others compute there meanwhile. kWh become CO2e by the mean mix of the country that is named; nothing is asked of the
network.
"""

import json
import logging
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from hindsight import runs
from hindsight.config.training import TrainConfig
from hindsight.errors import InputError
from hindsight.files import write_atomically
from hindsight.training.callback_order import Phase

log = logging.getLogger("hindsight")

MEASURE_S = 10.0
"""Seconds between two readings of a node."""
KWH, CO2E_KG = f"{runs.TRAIN}energy_kwh", f"{runs.TRAIN}co2e_kg"
"""Names of the metrics: of the whole run so far, all starts together."""


def require_codecarbon(config: TrainConfig) -> None:
    """Raise InputError where energy=true cannot be measured: no codecarbon, or a country that it does not know."""
    if not config.energy:
        return
    try:
        from codecarbon.input import DataSource  # here: it takes a second, and few runs need it
    except ImportError as error:
        raise InputError(
            f"energy=true needs codecarbon ({error}); `pip install codecarbon`, or leave energy out."
        ) from None
    known: dict[str, Any] = DataSource().get_global_energy_mix_data()
    if config.energy_country not in known:
        raise InputError(
            f"energy_country={config.energy_country} is no country of codecarbon; give its code of ISO 3166-1, three "
            "letters such as CHE, DEU or USA."
        )


class Meter:
    """The readings of this node since it began to measure; what codecarbon calls an output handler."""

    def __init__(self, country: str) -> None:
        from codecarbon import OfflineEmissionsTracker

        self.kwh = self.co2e_kg = 0.0
        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)  # it logs before it looks at its log_level
        self.tracker = OfflineEmissionsTracker(
            country_iso_code=country,
            measure_power_secs=MEASURE_S,
            api_call_interval=1,  # every reading is handed to `live_out`
            output_methods=[],
            output_handlers=[self],
            emissions_endpoint=None,
            electricitymaps_api_token="",
            cloud_provider=None,
            allow_multiple_runs=True,  # without its file in the folder for temporary files
            log_level="critical",
        )
        self.tracker.start()

    def read(self) -> None:
        """Take a reading now."""
        self.tracker.flush()

    def stop(self) -> None:
        """Take the last reading."""
        self.tracker.stop()

    def live_out(self, total: Any, delta: Any) -> None:
        """Take over what codecarbon has measured, in its thread."""
        self.kwh, self.co2e_kg = float(total.energy_consumed), float(total.emissions)

    out = live_out

    def task_out(self, data: Any, experiment_name: str) -> None:
        """Take nothing: there are no tasks."""

    def exit(self) -> None:
        """Close nothing."""


class Energy(Callback):
    """Measure the energy of a run, log it with the other metrics, and keep it in runs.ENERGY and metadata.json.

    Args:
        folder: the run's folder.
        config: its settings.
    """

    phase = Phase.measure

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        self.folder, self.interval, self.country = folder, config.log_interval, str(config.energy_country)
        self.meter: Meter | None = None
        self.before = runs.read_energy(folder)
        self.began = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self.spent, self.n_meters = (0.0, 0.0), 0
        self.written_s = 0.0
        self.is_metering = False

    def fit_start(self, state: State, logger: Logger) -> None:
        """Begin to measure, once a node."""
        self.is_metering = True
        if dist.get_local_rank() == 0:
            self.meter = Meter(self.country)
        if dist.get_global_rank() == 0:
            log.info("energy   %s", what_is_read())

    def batch_end(self, state: State, logger: Logger) -> None:
        """Log what was spent up to this step, as far as it was read; after the last step, all of it."""
        is_last = state.max_duration is not None and state.timestamp >= state.max_duration
        if int(state.timestamp.batch) % self.interval and not is_last:
            return
        if is_last and self.meter is not None:
            self.meter.read()
        self._sum_up()
        logger.log_metrics(dict(zip((KWH, CO2E_KG), self.total(), strict=True)))
        if is_last or time.monotonic() - self.written_s >= MEASURE_S:
            self._write()

    def fit_end(self, state: State, logger: Logger) -> None:
        """Stop, with the last evaluation, and record the sum."""
        if self.meter is not None:
            self.meter.stop()
        self._sum_up()
        self._write()
        self.meter, self.is_metering = None, False

    def close(self, state: State, logger: Logger) -> None:
        """Record what is known where a run is left before its end: the last reading of this node, and of the others."""
        if self.meter is not None:
            self.meter.stop()
            if dist.get_world_size() == 1:  # with others, the sum of the last step stays: they may be gone
                self.spent = self.meter.kwh, self.meter.co2e_kg
        if self.is_metering:
            self._write()
        self.meter, self.is_metering = None, False

    def total(self) -> tuple[float, float]:
        """Sum of all starts: kWh, and kg of CO2e."""
        kwh, co2e_kg = self.spent
        before = runs.energy_of(self.before)
        return kwh + before["kwh"], co2e_kg + before["co2e_kg"]

    def _sum_up(self) -> None:
        read = (self.meter.kwh, self.meter.co2e_kg, 1.0) if self.meter is not None else (0.0, 0.0, 0.0)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        total = torch.tensor(read, dtype=torch.float64, device=device)
        dist.all_reduce(total, reduce_operation="SUM")
        self.spent, self.n_meters = (float(total[0]), float(total[1])), int(total[2])

    def _write(self) -> None:
        """Write the starts and their sum, on rank 0."""
        if dist.get_global_rank() != 0:
            return
        self.written_s = time.monotonic()
        kwh, co2e_kg = self.spent
        start = {
            "began": self.began,
            "kwh": kwh,
            "co2e_kg": co2e_kg,
            "country": self.country,
            "nodes": self.n_meters,
        }
        starts, path = [*self.before, start], self.folder / runs.METADATA
        write_atomically(self.folder / runs.ENERGY, json.dumps({"starts": starts}, indent=2) + "\n")
        metadata = runs.read_object(path) | {"energy": runs.energy_of(starts)}
        write_atomically(path, json.dumps(metadata, indent=2) + "\n")


def what_is_read() -> str:
    """Say what of this machine is measured, and what is estimated."""
    from codecarbon.core.cpu import is_rapl_available

    gpus = "GPUs by NVML" if torch.cuda.is_available() else "no GPU"
    if is_rapl_available():
        return f"measured: processor by RAPL, {gpus}; main memory is estimated"
    return (
        f"{gpus}; the processor's power cannot be read here (RAPL: /sys/class/powercap is missing, or not readable by "
        "this user), and is estimated from its model and load, as main memory is from its size"
    )
