"""Measure training steps side by side in one run: tokens/s, peak memory, model FLOPs utilization (MFU).

`python -m benchmarks.throughput key=value ...`, from the repository's root.

Every variant (setup.py, loops.py) runs in a process of its own, so that its peak memory is its own, and only one
computes at a time. They take turns (A B C D A B C D ...), so that other load on the machine hits all alike; what is
compared are medians, and ratios taken within a round. The first round, and the first step of every turn, warm up and do
not count. How MFU is computed is in flops.py.
"""

import json
import logging
from pathlib import Path

from hindsight.command_line import check_arguments, run_script
from hindsight.config.throughput import BenchmarkConfig
from hindsight.errors import InputError

if __name__ == "__main__":
    check_arguments("throughput")  # before the imports below, which take seconds

from omegaconf import OmegaConf

from benchmarks.throughput.measure import measure
from benchmarks.throughput.setup import make_setup
from benchmarks.throughput.table import describe, rows_of, table
from hindsight.files import write_atomically
from hindsight.provenance import versions

log = logging.getLogger("hindsight")


def main(config: BenchmarkConfig) -> None:
    """Measure the variants, print the table, and write throughput.json if out= names a folder."""
    setup = make_setup(config)
    if config.out is not None:
        try:
            Path(config.out).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"out={config.out} cannot be made a folder ({error.strerror}); choose another.") from None
    results, best_flops = measure(config.variants, setup)
    rows = rows_of(results, setup, best_flops)
    log.info("%s\n%s", describe(setup, best_flops), table(rows))
    if config.out is not None:
        path = Path(config.out, "throughput.json")
        settings = OmegaConf.to_container(OmegaConf.structured(setup), enum_to_str=True)
        report = {"setup": settings, "best_flops_per_second": best_flops, "versions": versions(), "variants": rows}
        write_atomically(path, json.dumps(report, indent=2) + "\n")
        log.info("\nNumbers: %s", path)


if __name__ == "__main__":
    run_script("throughput", main)
