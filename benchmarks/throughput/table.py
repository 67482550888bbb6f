"""The table of the benchmark: a row for each variant, as data and as text, and the ratios that are recorded."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.recorded import Ratio
from benchmarks.throughput.flops import MATMUL_SIZE
from benchmarks.throughput.measure import Result
from benchmarks.throughput.turns import Step
from hindsight.config.throughput import PEERS, Variant
from hindsight.planning.parameters import flops_per_token


def wall(step: Step) -> float:
    """Seconds of a step."""
    return step.seconds


def cpu(step: Step) -> float:
    """CPU seconds of a step."""
    return step.cpu_seconds


def median_of(result: Result, what: Callable[[Step], float]) -> float:
    """Median over the steps of a variant."""
    return statistics.median(what(step) for turn in result.turns for step in turn)


def ratios_of(result: Result, first: Result, what: Callable[[Step], float]) -> list[float]:
    """What a step takes over what one of another variant takes, turn by turn."""
    turns = zip(result.turns, first.turns, strict=True)
    medians = ((statistics.median(map(what, of)) for of in pair) for pair in turns)
    return [ours / theirs for ours, theirs in medians]


def rows_of(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Make a row for each variant; ratios are to the first variant, turn by turn."""
    rows = []
    for result in results:
        setup = result.contender.setup
        flops = flops_per_token(setup.model, setup.vocab_size, setup.context_length)
        step_s = median_of(result, wall)
        ratios, cpu_ratios = (ratios_of(result, results[0], what) for what in (wall, cpu))
        rows.append(
            {
                "variant": result.contender.name,
                "how": result.contender.how,
                "tokens_per_second": setup.step_tokens / step_s,
                "step_seconds": step_s,
                "cpu_seconds": median_of(result, cpu),
                "ratio": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
                "cpu_ratio": statistics.median(cpu_ratios),
                "cpu_ratio_min": min(cpu_ratios),
                "cpu_ratio_max": max(cpu_ratios),
                "peak_memory_mib": result.peak_mib,
                "mfu": setup.step_tokens / step_s * flops / result.best_flops if result.best_flops else None,
                "first_step_seconds": result.first_step_seconds,
                "wait_seconds": sum(step.wait_seconds for turn in result.turns for step in turn),
                "turns_seconds": [[step.seconds for step in turn] for turn in result.turns],
                "turns_cpu_seconds": [[step.cpu_seconds for step in turn] for turn in result.turns],
            }
        )
    return rows


def recorded_ratios(results: Sequence[Result]) -> list[Ratio]:
    """Name what is compared with earlier runs: our variants over the peers, and over the bare loop.

    On a CPU that is CPU time, which other load on the machine changes least; on a GPU the time of a step.
    """
    ratios = []
    for ours in (result for result in results if result.contender.variant not in PEERS):
        yardsticks = PEERS if ours.contender.variant is Variant.bare else (*PEERS, Variant.bare)
        for other in (result for result in results if result.contender.variant in yardsticks):
            setup = ours.contender.setup
            what, name = (wall, "time") if setup.device == "cuda" else (cpu, "CPU time")
            sides = " over ".join(f"{side.contender.name} ({side.contender.how})" for side in (ours, other))
            ratio = statistics.median(ratios_of(ours, other, what))
            ratios.append(Ratio(f"{setup.sizes}: {sides}, {name}", ratio))
    return ratios


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Write the rows as an aligned table."""
    width = max(len(row["variant"]) for row in rows) + 1
    first = rows[0]["variant"]
    lines = [
        f"{'variant':<{width}}{'tokens/s':>11}{'step ms':>9}{'CPU ms':>9}{'time / ' + first:>17}{'(min to max)':>18}"
        f"{'CPU / ' + first:>16}{'(min to max)':>18}{'peak MiB':>10}{'MFU %':>7}{'1st step s':>12}{'waited s':>10}"
    ]
    for row in rows:
        spread, cpu_spread = (
            f"({row[f'{kind}_min']:.3f} to {row[f'{kind}_max']:.3f})" for kind in ("ratio", "cpu_ratio")
        )
        mfu = "?" if row["mfu"] is None else f"{100 * row['mfu']:.1f}"
        lines.append(
            f"{row['variant']:<{width}}{row['tokens_per_second']:>11,.0f}{1000 * row['step_seconds']:>9.1f}"
            f"{1000 * row['cpu_seconds']:>9.1f}{row['ratio']:>17.3f}{spread:>18}{row['cpu_ratio']:>16.3f}"
            f"{cpu_spread:>18}{row['peak_memory_mib']:>10,.0f}{mfu:>7}{row['first_step_seconds']:>12.1f}"
            f"{row['wait_seconds']:>10.2f}"
        )
    return "\n".join(lines)


def describe(results: Sequence[Result]) -> str:
    """Say what was measured, on which device, and which rate counts as an MFU of 100%."""
    setup = results[0].contender.setup
    gpu = setup.device == "cuda"
    device = torch.cuda.get_device_name() if gpu else f"CPU, {setup.threads} thread{'s' * (setup.threads > 1)}"
    hows = {result.contender.how: result.best_flops for result in results}
    names = {how: [each.contender.name for each in results if each.contender.how == how] for how in hows}
    how = hows if len(hows) == 1 else [f"{', '.join(names[how])}: {how}" for how in hows]
    rates = {result.contender.setup.precision.name: result.best_flops for result in results}
    rate = ", ".join(
        f"{'an unknown rate' if flops is None else f'{flops / 1e12:,.3g} TFLOP/s'} for {precision}"
        for precision, flops in rates.items()
    )
    source = "datasheet, dense bf16" if gpu else f"measured: product of {MATMUL_SIZE} x {MATMUL_SIZE} matrices"
    memory = "allocated on the GPU" if gpu else "the whole process, libraries included"
    flops = flops_per_token(setup.model, setup.vocab_size, setup.context_length)
    return (
        f"{setup.sizes}; {'; '.join(how)}; {device}\n"
        f"{setup.rounds} rounds of {setup.steps} steps: medians, ratios turn by turn. Memory: {memory}.\n"
        f"MFU: of {rate} ({source}); {flops / 1e6:,.1f} MFLOP a token (6N + 12LHQT). 1st step: from the model's "
        "making, compilation included. Waited: for the loader, in all timed steps.\n"
    )
