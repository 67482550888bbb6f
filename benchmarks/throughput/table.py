"""The table of the benchmark: a row for each variant, as data and as text."""

import statistics
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.throughput.flops import MATMUL_SIZE
from benchmarks.throughput.measure import Result
from benchmarks.throughput.setup import Setup
from hindsight.planning.parameters import flops_per_token


def rows_of(results: Sequence[Result], setup: Setup, best_flops: float | None) -> list[dict[str, Any]]:
    """Make a row for each variant; ratios are to the first variant, turn by turn."""
    flops = flops_per_token(setup.model, setup.vocab_size, setup.context_length)
    rows = []
    for result in results:
        step_s = statistics.median(seconds for turn in result.turns for seconds in turn)
        turns = zip(result.turns, results[0].turns, strict=True)
        ratios = [statistics.median(turn) / statistics.median(first) for turn, first in turns]
        rows.append(
            {
                "variant": result.variant.name,
                "tokens_per_second": setup.step_tokens / step_s,
                "step_seconds": step_s,
                "ratio": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
                "peak_memory_mib": result.peak_mib,
                "mfu": setup.step_tokens / step_s * flops / best_flops if best_flops else None,
                "turns_seconds": result.turns,
            }
        )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Write the rows as an aligned table."""
    lines = [
        f"{'variant':<12}{'tokens/s':>11}{'step ms':>10}{'time / ' + rows[0]['variant']:>15}{'(min to max)':>18}"
        f"{'peak MiB':>10}{'MFU %':>8}"
    ]
    for row in rows:
        spread = f"({row['ratio_min']:.3f} to {row['ratio_max']:.3f})"
        mfu = "?" if row["mfu"] is None else f"{100 * row['mfu']:.1f}"
        lines.append(
            f"{row['variant']:<12}{row['tokens_per_second']:>11,.0f}{1000 * row['step_seconds']:>10.1f}"
            f"{row['ratio']:>15.3f}{spread:>18}{row['peak_memory_mib']:>10,.0f}{mfu:>8}"
        )
    return "\n".join(lines)


def describe(setup: Setup, best_flops: float | None) -> str:
    """Say what was measured, on which device, and which rate counts as an MFU of 100%."""
    gpu = setup.device == "cuda"
    device = torch.cuda.get_device_name() if gpu else f"CPU, {setup.threads} thread{'s' * (setup.threads > 1)}"
    rate = "an unknown rate" if best_flops is None else f"{best_flops / 1e12:,.3g} TFLOP/s"
    source = "datasheet, dense bf16" if gpu else f"measured: fp32 product of {MATMUL_SIZE} x {MATMUL_SIZE} matrices"
    memory = "allocated on the GPU" if gpu else "the whole process, libraries included"
    return (
        f"{setup.model.name}, vocabulary {setup.vocab_size}, batch {setup.batch_size} x {setup.context_length} tokens, "
        f"microbatch {setup.microbatch_size}, {setup.precision}{', compiled' * setup.compile}; {device}\n"
        f"{setup.rounds} rounds of {setup.steps} steps: medians, ratios turn by turn. Memory: {memory}.\n"
        f"MFU: of {rate} ({source}); "
        f"{flops_per_token(setup.model, setup.vocab_size, setup.context_length) / 1e6:,.1f} MFLOP a token "
        "(6N + 12LHQT).\n"
    )
