"""Seconds from the command to the first step: `python -m benchmarks.start [--json] [key=value ...]`.

The demo's training is started again and again, each time as a new run, and killed after its first step. A first start,
which brings files into the page cache, does not count. More key=value are added to the command, such as
`wandb.mode=disabled`. The moments are those at which a run's files appear: `config.yaml` when settings and data are
checked and the model is built, the first line of output when Composer's Trainer is, and `metrics.jsonl` when the first
step is made. CPU seconds are those of all its processes until then: they say more than seconds where others compute.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.table import HEAD, Row
from hindsight import runs

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 5
TARGET_S = 10.0
WHOLE = "command to first step"
PATIENCE_S = 300.0
POLL_S = 0.005


class Moment(NamedTuple):
    """Since the command, at a moment of a start."""

    wall_s: float
    cpu_s: float
    """Of the process and of those that it started."""


class Start(NamedTuple):
    """The moments of a start."""

    folder: Moment
    """Settings and data are checked, and the model is built: the run's folder is there."""
    trainer: Moment
    """The Trainer is built."""
    step: Moment
    """The first step is made and logged."""


def make_data(folder: Path) -> Path:
    """Convert the demo's text as `make demo` does; return the folder of the shards."""
    corpus, tokenizer, data = f"corpus={folder}/corpus.txt", f"tokenizer={folder}/tokenizer", f"{folder}/bible"
    commands = [
        ["make_corpus.py", f"out={folder}/corpus.txt"],
        ["train_tokenizer.py", corpus, f"out={folder}/tokenizer", "vocab_size=4096"],
        ["convert_to_mds.py", corpus, tokenizer, f"out={data}", "val_share=0.05"],
    ]
    for command in commands:
        subprocess.run([sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    return Path(data)


def measure_start(data: Path, folder: Path, settings: list[str]) -> Start:
    """Start a run in an empty folder, and kill it after its first step.

    Args:
        data: the demo's shards.
        folder: for the run.
        settings: more key=value for train_composer.py.
    """
    command = [sys.executable, "train_composer.py", "experiment=demo", "direction=forward", f"data.path={data}"]
    command += [f"runs_dir={folder}", "run_name=run", *settings]
    printed = folder / "printed.txt"
    waited_for = [folder / "run" / runs.CONFIG, printed, folder / "run" / runs.METRICS]
    moments: list[Moment] = []
    with printed.open("wb") as file:
        began = time.perf_counter()
        started = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            while len(moments) < len(waited_for) and time.perf_counter() - began < PATIENCE_S:
                path = waited_for[len(moments)]
                if path.exists() and path.stat().st_size:
                    moments.append(Moment(time.perf_counter() - began, cpu_seconds(started.pid)))
                elif started.poll() is not None:
                    break
                else:
                    time.sleep(POLL_S)
        finally:
            if started.poll() is None:
                os.killpg(started.pid, signal.SIGKILL)
            started.wait()
    if len(moments) < len(waited_for):
        raise RuntimeError(f"{' '.join(command)} made no first step: {printed.read_text(encoding='utf-8')}")
    return Start(*moments)


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process, of those that it waited for, and of those of its children that run."""
    process = psutil.Process(pid)
    total = sum(process.cpu_times()[:4])
    for child in process.children(recursive=True):
        try:
            total += sum(child.cpu_times()[:4])
        except psutil.NoSuchProcess:  # counted by the next call among those that were waited for
            continue
    return total


def phases_of(starts: list[Start]) -> dict[str, Moment]:
    """Name the phases, and the whole: medians over starts, each by itself."""

    def between(later: str, earlier: str) -> list[Moment]:
        pairs = [(getattr(start, later), getattr(start, earlier)) for start in starts]
        return [Moment(after.wall_s - before.wall_s, after.cpu_s - before.cpu_s) for after, before in pairs]

    phases = {
        "imports, checks, model": [start.folder for start in starts],
        "Trainer with loggers": between("trainer", "folder"),
        "first step": between("step", "trainer"),
        WHOLE: [start.step for start in starts],
    }
    return {
        name: Moment(*(statistics.median(values) for values in zip(*moments, strict=True)))
        for name, moments in phases.items()
    }


def rows_of(starts: list[Start]) -> list[Row]:
    """Rows of the table."""
    phases = phases_of(starts)
    rows = [Row(name, f"{phase.wall_s:.2f} s, CPU {phase.cpu_s:.2f} s") for name, phase in phases.items()]
    return [*rows[:-1], replace(rows[-1], target=f"≤ {TARGET_S:.0f} s", met=phases[WHOLE].wall_s <= TARGET_S)]


def measure_starts(rounds: int, settings: list[str]) -> list[Start]:
    """Start the demo's training so many times, and once before, which does not count."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = make_data(folder)
        starts = []
        for number in range(rounds + 1):
            (folder / str(number)).mkdir()
            starts.append(measure_start(data, folder / str(number), settings))
    return starts[1:]


def main() -> None:
    """Measure, and print the table, or with --json the same numbers."""
    starts = measure_starts(ROUNDS, [argument for argument in sys.argv[1:] if argument != "--json"])
    if "--json" in sys.argv[1:]:
        phases = {name: phase._asdict() for name, phase in phases_of(starts).items()}
        sys.stdout.write(json.dumps(phases, indent=2) + "\n")
    else:
        sys.stdout.write("\n".join([HEAD, *map(str, rows_of(starts))]) + "\n")


if __name__ == "__main__":
    main()
