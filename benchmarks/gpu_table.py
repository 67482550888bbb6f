"""The table of benchmarks/gpu.sh: `python -m benchmarks.gpu_table FOLDER`, of whatever stages have ended so far."""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.arguments import parse_gpu_table
from benchmarks.table import HEAD, Row
from hindsight import runs
from hindsight.json_lines import parse

MFU_TARGET = 0.5
TRAINER_TARGET = 0.97
TIMED_OUT, NO_TIME = 124, 125
TESTS = {"tests": "tests marked gpu", "slow_tests": "tests marked gpu and slow"}
NAMES = {"forward": "train forward", "backward": "train backward", **TESTS}
SECTION = re.compile(r"^== (\w+), at most \d+ s: .*$", re.MULTILINE)
"""What the script writes into its log before the output of a stage."""
ENDED = re.compile(r"^(?:=+ )?((?:\d+ \w+(?:, )?)+) in [\d.]+s", re.MULTILINE)
"""The last line of pytest."""
BEGUN = re.compile(r"^(\S+\.py::.+?)(?: (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b.*)? *$", re.MULTILINE)
"""The line of a test, of `pytest -v`: it gets its result at the test's end."""


def rows_of_stages(folder: Path) -> Iterator[Row]:
    """A row for each stage: whether it succeeded, and how long it took."""
    for line in (folder / "stages.tsv").read_text().splitlines():
        name, status, seconds = line.split("\t")
        ended = {0: "done", TIMED_OUT: "took too long", NO_TIME: "no time was left"}
        text = ended.get(int(status), f"failed with status {status}")
        yield Row(f"stage {NAMES.get(name, name)}", f"{text}, {seconds} s", "done", status == "0")


def rows_of_throughput(name: str, report: dict[str, Any]) -> Iterator[Row]:
    """Rows of a run of benchmarks.throughput."""
    setup = report["setup"]
    gpu = setup["device"] == "cuda"
    sizes = f"{setup['model']['name']}, {setup['batch_size']} x {setup['context_length']}"
    variants = {row["variant"]: row for row in report["variants"]}
    for variant, row in variants.items():
        mfu = "?" if row["mfu"] is None else f"{row['mfu']:.3f}"
        value = (
            f"MFU {mfu}, {row['tokens_per_second']:,.0f} tokens/s, {row['peak_memory_mib']:,.0f} MiB, first step after "
            f"{row['first_step_seconds']:.0f} s"
        )
        has_target = gpu and variant in ("bare", "trainer") and row["mfu"] is not None
        target = (f"MFU ≥ {MFU_TARGET}", row["mfu"] >= MFU_TARGET) if has_target else ("", None)
        yield Row(f"{name}: {variant} ({row['how']}), {sizes}", value, *target)
    if {"bare", "trainer"} <= variants.keys():
        ratio = variants["bare"]["step_seconds"] / variants["trainer"]["step_seconds"]
        target = (f"≥ {TRAINER_TARGET}", ratio >= TRAINER_TARGET) if gpu else ("", None)
        yield Row(f"{name}: tokens/s in the Trainer over the bare loop's", f"{ratio:.3f}", *target)
    if {"bare", "huggingface"} <= variants.keys():
        ratio = variants["huggingface"]["step_seconds"] / variants["bare"]["step_seconds"]
        yield Row(f"{name}: Hugging Face's step over ours", f"{ratio:.2f}")


def rows_of_pair(folder: Path) -> Iterator[Row]:
    """Rows of the runs forward and backward on real text."""
    evals: dict[str, float] = {}
    path = folder / "pair.jsonl"
    lines_of_file = path.read_text(errors="replace").splitlines() if path.exists() else []
    records = [record for record in map(parse, lines_of_file) if record is not None]  # a kill cuts a line
    for direction in ("forward", "backward"):
        lines = [record for record in records if record.get("direction") == direction]
        of = [line for line in lines if runs.EVAL_LOSS in line]
        if lines:
            speeds = [line[runs.TOKENS_PER_SECOND] for line in lines if runs.TOKENS_PER_SECOND in line]
            evals |= {direction: of[-1][runs.EVAL_LOSS]} if of else {}
            loss = f"{of[-1][runs.EVAL_LOSS]:.4f} nats/token" if of else "no evaluation"
            speed = f"{speeds[-1]:,.0f}" if speeds else "?"
            yield Row(f"{direction} on real text, {lines[-1].get('step', '?')} steps", f"{loss}, {speed} tokens/s")
    if len(evals) == 2:
        gap = 100 * (evals["backward"] / evals["forward"] - 1)
        yield Row("backward over forward, one seed: says nothing of the arrow", f"{gap:+.2f}%")


def rows_of_tests(log: str) -> Iterator[Row]:
    """How the tests of each stage ended, by the last line of pytest; if it was killed before, by the lines of tests."""
    _, *split = SECTION.split(log)
    for stage, said in dict(zip(split[::2], split[1::2], strict=True)).items():  # of a stage made twice, the last time
        if stage not in TESTS:
            continue
        ended, begun = ENDED.findall(said), BEGUN.findall(said)
        counts = Counter(result.lower() for _, result in begun if result)
        value = ended[-1] if ended else ", ".join(f"{n} {result}" for result, n in counts.items()) or "none ended"
        if not ended:
            value += f", then stopped in {begun[-1][0]}" if begun and not begun[-1][1] else ", then stopped"
        is_good = bool(ended) and "failed" not in value and "error" not in value
        yield Row(TESTS[stage], value, "none failed", is_good)


def main(folder: Path) -> None:
    """Print the table."""
    log = (folder / "log.txt").read_text(errors="replace") if (folder / "log.txt").exists() else ""
    rows: list[Row] = []
    machine, compared = "", []
    for path in sorted(folder.glob("*/throughput.json")):
        report = json.loads(path.read_text())
        rows += rows_of_throughput(path.parent.name, report)
        machine, compared = report["machine"], [*compared, *report["compared_with_recorded"]]
    rows += [*rows_of_pair(folder), *rows_of_tests(log), *rows_of_stages(folder)]
    sys.stdout.write("\n".join([machine, "", HEAD, *map(str, rows), "", *dict.fromkeys(compared)]) + "\n")


if __name__ == "__main__":
    main(parse_gpu_table(sys.argv[1:]))
