"""What training is to reach, measured side by side in one table: `make bench`, about ten minutes on two cores.

`python -m benchmarks.targets [--record] [--json PATH] [PART ...]`, from the repository's root; without names, all
parts. Each is a run of benchmarks.throughput with one thread, or another benchmark. What counts on a CPU are ratios of
CPU time, taken in turns in one run. They are compared with those that were recorded on the same kind of machine
(recorded.py); --record records them anew. --json writes rows and ratios into a file. On a GPU benchmarks/gpu.sh takes
the place of this.
"""

import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.arguments import parse_targets

if __name__ == "__main__":
    parse_targets(sys.argv[1:])  # before the imports below, which take seconds

from benchmarks import loss as loss_benchmark
from benchmarks import start as start_benchmark
from benchmarks.recorded import Ratio, compare, machine_kind, read_recorded, record
from benchmarks.table import HEAD, Row
from benchmarks.throughput.measure import Result, measure
from benchmarks.throughput.setup import Contender, make_contenders
from benchmarks.throughput.table import cpu, median_of, ratios_of, recorded_ratios, rows_of, wall
from hindsight.command_line import configuration_of
from hindsight.config.throughput import Variant
from hindsight.errors import InputError
from hindsight.files import write_atomically

RECORDED = Path(__file__).with_name("recorded.json")
Part = tuple[list[Row], list[Ratio]]
OURS_AT_BEST = ["compile=true", "loss=chunked", "peers.compile=false"]
GPT2S: dict[Variant, tuple[str, float | None]] = {
    Variant.plain: ("a GPT-2 in plain PyTorch, as nanoGPT's,", None),
    Variant.huggingface: ("Hugging Face's GPT-2", 1.4),
}
"""Peers of a GPT: their names, and how many times our CPU time theirs is to be."""
HOW = "--record (make bench RECORD=1)"


def contenders_of(settings: Sequence[str], changes: Sequence[str]) -> list[Contender]:
    """What `python -m benchmarks.throughput` measures with these settings; changes take the place of equal keys."""
    given = {setting.partition("=")[0]: setting for setting in (*settings, *changes)}
    return make_contenders(configuration_of("throughput", [*given.values()]))


def title(ours: Result) -> str:
    """Name our side of a row."""
    setup = ours.contender.setup
    return f"GPT ({ours.contender.how}), V {setup.vocab_size:,}"


def at_least(name: str, other: Result, ours: Result, target: float | None) -> Row:
    """Say how many times the CPU time of one side is that of the other."""
    ratios = ratios_of(other, ours, cpu)
    ratio = statistics.median(ratios)
    value = f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    time = statistics.median(ratios_of(other, ours, wall))
    value += f"; by time {time:.2f}; {1000 * median_of(ours, cpu):,.0f} ms of CPU, {ours.peak_mib:,.0f} MiB"
    return Row(name, value) if target is None else Row(name, value, f"≥ {target}", ratio >= target)


def gpt_4096(changes: Sequence[str] = ()) -> Part:
    """Measure gpt_demo at V = 4096: in the Trainer, and beside peers, which come last among the variants."""
    sizes = ["variants=[bare,trainer,plain,huggingface]", "vocab_size=4096", *OURS_AT_BEST, "rounds=3", "steps=4"]
    bare, trainer, *peers = results = measure(contenders_of(sizes, changes))
    rows = [
        at_least(f"{title(bare)}: {name} over ours, CPU time", peer, bare, target)
        for peer in peers
        for name, target in [GPT2S[peer.contender.variant]]
    ]
    rows.append(at_least("the bare loop over the Trainer with everything on but W&B, CPU time", bare, trainer, 0.97))
    waited = sum(step.wait_seconds for turn in trainer.turns for step in turn)
    whole = sum(step.seconds for turn in trainer.turns for step in turn)
    rows.append(Row("the Trainer's waits for data, of its time", f"{waited / whole:.2%}"))
    rows.append(Row("to the first step, compilation included", f"{bare.first_step_seconds:.1f} s"))
    for row in rows_of(results):
        mfu = "?" if row["mfu"] is None else f"{row['mfu']:.1%}"
        value = f"{row['tokens_per_second']:,.0f} tokens/s, MFU {mfu}"
        rows.append(Row(f"{row['variant']} ({row['how']})", value))
    return rows, recorded_ratios(results)


def gpt_50257(changes: Sequence[str] = ()) -> Part:
    """Measure gpt_demo at V = 50257 beside Hugging Face's."""
    sizes = ["variants=[bare,huggingface]", "vocab_size=50257", *OURS_AT_BEST, "rounds=3", "steps=2"]
    bare, huggingface = results = measure(contenders_of(sizes, changes))
    name = f"{title(bare)}: Hugging Face's GPT-2 over ours, CPU time"
    memory = Row("peak memory of the process, ours over Hugging Face's", f"{bare.peak_mib / huggingface.peak_mib:.2f}")
    return [at_least(name, huggingface, bare, 1.4), memory], recorded_ratios(results)


def gpt_bf16(changes: Sequence[str] = ()) -> Part:
    """Measure gpt_demo in bfloat16 at V = 16384 beside Hugging Face's, in float32 and in bfloat16."""
    sizes = ["vocab_size=16384", *OURS_AT_BEST, "rounds=3", "steps=3", "precision=bf16"]
    contenders = contenders_of(["variants=[bare,huggingface]", *sizes], changes)
    contenders += contenders_of(["variants=[huggingface]", *sizes, "peers.precision=fp32"], changes)
    bare, bf16, fp32 = results = measure(contenders)
    rows = [
        at_least(f"{title(bare)}: Hugging Face's GPT-2 in fp32 over ours in bf16, CPU time", fp32, bare, 2.2),
        at_least(f"{title(bare)}: Hugging Face's GPT-2 in bf16 over ours in bf16, CPU time", bf16, bare, None),
    ]
    return rows, recorded_ratios(results)


def lstm(changes: Sequence[str] = ()) -> Part:
    """Measure an LSTM in the Trainer beside one nn.LSTM with head and loss."""
    sizes = ["variants=[plain,trainer]", "model=lstm_medium", "vocab_size=4096", "rounds=3", "steps=2"]
    plain, trainer = results = measure(contenders_of(sizes, changes))
    return [
        at_least("LSTM 3 x 512: a loop around nn.LSTM over the Trainer, CPU time", plain, trainer, 0.95)
    ], recorded_ratios(results)


def loss() -> Part:
    """Measure head and loss by themselves at V = 50257, B x T = 8192."""
    return loss_benchmark.rows(50257), []


def start() -> Part:
    """Measure a second start of the demo."""
    *_, whole = start_benchmark.rows_of(start_benchmark.measure_starts(2, []))
    return [replace(whole, name=f"{whole.name}, demo, second start")], []


PARTS: dict[str, Callable[[], Part]] = {
    "gpt_4096": gpt_4096,
    "gpt_50257": gpt_50257,
    "gpt_bf16": gpt_bf16,
    "lstm": lstm,
    "loss": loss,
    "start": start,
}


def measured(name: str, part: Callable[[], Part]) -> Part:
    """Measure a part; a row says so where it fails, and the others go on."""
    try:
        return part()
    except (InputError, RuntimeError) as error:
        return [Row(name, f"not measured: {error}", "", False)], []


def main(arguments: Sequence[str], parts: Mapping[str, Callable[[], Part]] = PARTS, path: Path = RECORDED) -> None:
    """Measure the parts, print one table, and compare with what was recorded in a file."""
    given = parse_targets(arguments, parts)
    recorded = read_recorded(path)
    rows: list[Row] = []
    ratios: list[Ratio] = []
    for name in given.parts:
        of_rows, of_ratios = measured(name, parts[name])
        rows, ratios = rows + of_rows, ratios + of_ratios
        sys.stderr.write("\n".join(map(str, of_rows)) + "\n")  # what is there already, if the rest is interrupted
    machine = machine_kind("cpu", 1)
    compared = compare(recorded, machine, ratios, HOW)
    sys.stdout.write("\n".join([machine, "", HEAD, *map(str, rows), "", *compared]) + "\n")
    if given.json is not None:
        values = {ratio.name: ratio.value for ratio in ratios}
        report = {
            "machine": machine,
            "rows": [*map(asdict, rows)],
            "ratios": values,
            "compared_with_recorded": compared,
        }
        write_atomically(given.json, json.dumps(report, indent=2) + "\n")
    if given.record:
        record(path, machine, ratios)


if __name__ == "__main__":
    main(sys.argv[1:])
