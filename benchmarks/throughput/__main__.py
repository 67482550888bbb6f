"""Measure training steps side by side in one run: tokens/s, CPU time, MFU, peak memory, start, waits for data.

`python -m benchmarks.throughput key=value ...`, from the repository's root.

Every variant (setup.py, loops.py) runs in a process of its own, so that its peak memory is its own, and only one
computes at a time. They take turns (A B C D A B C D ...), so that other load on the machine hits all alike; what is
compared are medians, and ratios taken within a round. The first round, and the first step of every turn, warm up and do
not count. On a machine that others use too, trust the ratios of CPU time. How MFU is computed is in flops.py; what is
compared with earlier runs, in table.py and recorded.py.
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

from benchmarks.recorded import compare, machine_kind, read_recorded, record
from benchmarks.throughput.measure import measure
from benchmarks.throughput.setup import make_contenders
from benchmarks.throughput.table import describe, recorded_ratios, rows_of, table
from hindsight import output
from hindsight.files import write_atomically
from hindsight.provenance import versions

log = logging.getLogger("hindsight")


def main(config: BenchmarkConfig) -> None:
    """Measure the variants, print the table or JSON, compare with what was recorded, and write what is asked for."""
    contenders = make_contenders(config)
    out, trace = (make_folder(key, path) for key, path in (("out", config.out), ("trace", config.trace)))
    recorded, recorded_path = read_recorded(Path(config.recorded)), Path(config.recorded)
    if config.json:
        output.log_to_error()
    results = measure(contenders, trace)
    rows, ratios, setup = rows_of(results), recorded_ratios(results), contenders[0].setup
    machine = machine_kind(setup.device, setup.threads)
    compared = compare(recorded, machine, ratios)
    report = {
        "setup": OmegaConf.to_container(OmegaConf.structured(setup), enum_to_str=True),
        "machine": machine,
        "versions": versions(),
        "best_flops_per_second": {each.contender.setup.precision.name: each.best_flops for each in results},
        "variants": rows,
        "ratios": {ratio.name: ratio.value for ratio in ratios},
        "compared_with_recorded": compared,
    }
    text = json.dumps(report, indent=2)
    if config.json:
        output.say(text)
    else:
        output.say("\n".join([describe(results), table(rows), "", *compared]))
    if out is not None:
        write_atomically(out / "throughput.json", text + "\n")
        log.info("\nNumbers: %s", out / "throughput.json")
    if trace is not None:
        log.info("Traces: %s", ", ".join(str(trace / f"{each.name}.json.gz") for each in contenders))
    if config.record:
        record(recorded_path, machine, ratios)
        log.info("Recorded: %d ratios of %s in %s", len(ratios), machine, recorded_path)


def make_folder(key: str, path: str | None) -> Path | None:
    """Make a folder that is to be written to, before anything is measured."""
    if path is None:
        return None
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{key}={path} cannot be made a folder ({error.strerror}); choose another.") from None
    return Path(path)


if __name__ == "__main__":
    run_script("throughput", main)
