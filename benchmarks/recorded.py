"""Ratios that were measured earlier, by kind of machine: what has become slower since.

A ratio is the time of one thing over that of another in the same run, so that it depends little on what else the
machine does; larger is slower. A kind of machine is a model of processor and the number of threads, or a model of GPU,
with the version of torch.
"""

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch

from hindsight.errors import InputError
from hindsight.files import read_json, write_atomically
from hindsight.provenance import git_commit

SLOWER = 1.1
"""A ratio so many times the recorded one is told."""
MAX_BYTES = 1 << 20
COMMIT_LENGTH = 7


@dataclass(frozen=True)
class Ratio:
    """A time over another."""

    name: str
    """What over what, and of which sizes: only equal names are compared."""
    value: float


def machine_kind(device: str, threads: int) -> str:
    """Name the kind of this machine.

    Args:
        device: cpu or cuda.
        threads: threads of PyTorch on the CPU.
    """
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{processor()}, {threads} thread{'s' * (threads > 1)}, torch {torch.__version__}"


def processor() -> str:
    """Model of the processor, with its family and number, because virtual machines shorten the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if "model name" not in said:
        return platform.processor() or platform.machine()
    return f"{said['model name']} ({said.get('cpu family', '?')}.{said.get('model', '?')})"


def read_recorded(path: Path, key: str = "recorded") -> dict[str, Any]:
    """Read {kind of machine: {name of a ratio: {"ratio", "date", "commit"}}}; empty where there is no file.

    Raises:
        InputError: the file is something else.
    """
    try:
        content = read_json(path, MAX_BYTES)
        for ratios in content.values():
            for entry in ratios.values():
                f"{entry['ratio']:.3f} {entry['date']} {entry['commit']}"
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{key}={path} holds no recorded ratios ({error}); name another file, or remove it and record anew."
        ) from None
    return content


def compare(recorded: dict[str, Any], machine: str, ratios: Sequence[Ratio], how: str = "record=true") -> list[str]:
    """Say, a line each, which ratios are over 10% larger than the recorded ones, and which were never recorded.

    Args:
        recorded: what read_recorded gives.
        machine: its kind.
        ratios: those of today.
        how: the argument with which they are recorded.
    """
    if not ratios:
        return []
    known = recorded.get(machine)
    if known is None:
        return [f"Nothing is recorded of {machine}; {how} does."]
    slower, new = [], 0
    for ratio in ratios:
        entry = known.get(ratio.name)
        if entry is None:
            new += 1
        elif ratio.value > SLOWER * entry["ratio"]:
            percent = 100 * (ratio.value / entry["ratio"] - 1)
            slower.append(
                f"SLOWER by {percent:.0f}%: {ratio.name}: {ratio.value:.3f}, recorded {entry['ratio']:.3f} "
                f"({entry['date']}, commit {entry['commit']})"
            )
    if len(ratios) > new:
        slower = slower or ["Nothing is over 10% slower than recorded on this kind of machine."]
    if new:
        slower.append(f"{new} of {len(ratios)} ratios were never recorded on this kind of machine; {how} does.")
    return slower


def record(path: Path, machine: str, ratios: Sequence[Ratio], key: str = "recorded") -> None:
    """Write ratios into the file, in place of earlier ones of the same name and kind of machine."""
    content = read_recorded(path, key)
    commit = git_commit() or "unknown"
    made = {"date": date.today().isoformat(), "commit": commit[:COMMIT_LENGTH] + "-dirty" * commit.endswith("-dirty")}
    content.setdefault(machine, {}).update({ratio.name: {"ratio": round(ratio.value, 4), **made} for ratio in ratios})
    ordered = {kind: dict(sorted(of.items())) for kind, of in sorted(content.items())}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(ordered, indent=2) + "\n")
