"""A plan as people read it: a block of lines for each of its parts."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hindsight.planning.parameters import TOKENS_PER_PARAMETER
from hindsight.shown_numbers import short, size

Plan = Mapping[str, Any]
INDENT = 10


def table(plan: Plan) -> str:
    """Write a plan as text; what is not known says what would tell."""
    blocks = [
        ("model", _model(plan["model"])),
        ("tokens", _tokens(plan["tokens"])),
        ("compute", _compute(plan["flops"])),
        ("memory", _memory(plan["memory"])),
        ("time", _time(plan["time"])),
        ("disk", _disk(plan["disk"])),
        *([("seeds", _seeds(plan["seeds"]))] if "seeds" in plan else []),
    ]
    lines: list[str] = []
    for name, block in blocks:
        lines += [f"{'' if number else name:<{INDENT}}{line}" for number, line in enumerate(block)]
    return "\n".join(lines)


def duration(hours: float) -> str:
    """Write hours as people say them."""
    if hours * 60 < 1:
        return f"{hours * 3600:.0f} s"
    if hours < 1:
        return f"{hours * 60:.0f} min"
    return f"{hours:,.1f} h" + (f" ({hours / 24:,.1f} days)" if hours > 48 else "")


def _parts(parts: Mapping[str, int], write: Callable[[float], str]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {write(value)}" for name, value in parts.items() if value)


def _model(model: Plan) -> Iterator[str]:
    yield f"{model['name']}, {model['order']}: {model['parameters']:,} parameters, {model['vocab_size']:,} token ids"
    yield _parts(model["parameters_by_part"], short)
    if model["trained_parameters"] < model["parameters"]:
        yield f"{model['trained_parameters']:,} are trained; the others are frozen"


def _tokens(tokens: Plan) -> Iterator[str]:
    yield f"{tokens['steps']:,} steps of {tokens['batch']:,} tokens: {short(tokens['training'])} tokens"
    plural = "" if tokens["epochs"] == 1 else "s"
    yield f"{tokens['epochs']:.3g} epoch{plural} of {short(tokens['epoch'])} tokens: {tokens['data']}"
    optimal = tokens["compute_optimal"]
    yield (
        f"{tokens['per_parameter']:.3g} tokens a parameter; compute-optimal are about {TOKENS_PER_PARAMETER}, "
        f"{short(optimal)} tokens ({optimal / tokens['batch']:,.0f} steps)"
    )


def _compute(flops: Plan) -> Iterator[str]:
    yield f"{short(flops['training'])}FLOP to train, {short(flops['per_token'])}FLOP a token"
    if flops["evaluation"] is None:
        yield "evaluations are not counted: data_tokens= says nothing of them"
    else:
        share = flops["evaluation"] / flops["training"] if flops["training"] else 0.0
        yield f"{short(flops['evaluation'])}FLOP to evaluate, {share:.1%} of that"


def _memory(memory: Plan) -> Iterator[str]:
    devices = memory["devices"]
    where = "a device" if devices == 1 else f"each of {devices} devices"
    yield f"about {size(memory['peak_bytes'])} on {where}, microbatches of {memory['microbatch_size']} windows"
    yield _parts(memory["bytes_by_part"], size)
    if "gpu" in memory:
        largest = memory["largest_microbatch_size"]
        way_out = f"microbatch_size={largest} is the largest that does" if largest else "not even one window does"
        fits = "fits" if memory["fits"] else "does not fit"
        yield f"{fits} into 90% of the {size(memory['gpu_bytes'])} of one {memory['gpu']}; {way_out}"


def _time(time: Plan | None) -> Iterator[str]:
    if time is None:
        yield "not known: give mfu= with gpu=, tokens_per_second=, or run= for the speed of a run"
        return
    evaluating = f", {duration(time['evaluation_hours'])} of it evaluating" if time["evaluation_hours"] else ""
    in_all = f"; {duration(time['device_hours'])} of devices" if time["device_hours"] != time["hours"] else ""
    yield f"{duration(time['hours'])}{evaluating}{in_all}"
    mfu = "" if time["mfu"] is None else f", MFU {time['mfu']:.1%}"
    yield f"{short(time['tokens_per_second'])} tokens/s by {time['by']}{mfu}"


def _disk(disk: Plan) -> Iterator[str]:
    fits = "does not fit: " if disk["fits"] is False else ""
    free = "" if disk["free_bytes"] is None else f"; {size(disk['free_bytes'])} are free there"
    yield f"{fits}{size(disk['total_bytes'])} in {disk['folder']}{free}"
    backups = f" and {disk['backups']:,} backups" if disk["backups"] else ""
    yield (
        f"{disk['checkpoints']:,} checkpoints{backups} of {size(disk['checkpoint_bytes'])}; weights, metrics "
        f"{size(disk['other_bytes'])}"
    )


def _seeds(seeds: Plan) -> Iterator[str]:
    margin = seeds["margin_nats"]
    how = f"standard deviation {seeds['std_nats']:.3g}, {seeds['by']}; power 0.8, two-sided 5%"
    if margin is not None:
        needed = "more than a million seeds" if seeds["seeds"] is None else f"{seeds['seeds']:,} seeds"
        yield f"{needed} find a gap of {margin:g} nats ({how})"
    if seeds["runs"] is not None:
        hours = "" if seeds["hours"] is None else f", {duration(seeds['hours'])}"
        yield f"{seeds['runs']:,} runs, forward and backward{hours}"
    found = ", ".join(f"{n} find {value:.3g}" for n, value in seeds["margin_for_seeds_nats"].items())
    yield f"of seeds, {found} nats" + (f" ({how})" if margin is None else "")
