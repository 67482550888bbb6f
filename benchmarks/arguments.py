"""Arguments of the benchmarks that take no key=value, checked before imports that take seconds."""

import argparse
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

SCALE_PARTS = ("index", "order", "shards", "state", "duplicates", "metrics", "checkpoint")
TARGET_PARTS = ("gpt_4096", "gpt_50257", "gpt_bf16", "lstm", "loss", "start")
COMPARISONS = ("optimizers", "models")


@dataclass(frozen=True)
class Targets:
    """Arguments of benchmarks.targets."""

    parts: list[str]
    record: bool
    json: Path | None


@dataclass(frozen=True)
class StepsToLoss:
    """Arguments of benchmarks.steps_to_loss."""

    comparison: str
    data: Path
    out: Path


def parse_scale(arguments: Sequence[str]) -> list[str]:
    """Read the parts to measure; SystemExit says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description="Measure what grows with what.")
    return _parts(parser, arguments, SCALE_PARTS).parts


def parse_targets(arguments: Sequence[str], parts: Collection[str] = TARGET_PARTS) -> Targets:
    """Read what is to be measured, and where it goes; SystemExit says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.targets", description="Measure beside targets.")
    parser.add_argument("--json", metavar="PATH", type=_file, help="a file for rows and ratios")
    parser.add_argument("--record", action="store_true", help="record the ratios anew")
    given = _parts(parser, arguments, parts)
    return Targets(given.parts, given.record, given.json)


def parse_steps_to_loss(arguments: Sequence[str]) -> StepsToLoss:
    """Read what is compared, on which data, and where results go; SystemExit says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps_to_loss", description="Compare steps to a loss.")
    parser.add_argument("comparison", choices=COMPARISONS)
    parser.add_argument("data", metavar="DATA", type=_shards, help="a folder of convert_to_mds.py")
    parser.add_argument("out", metavar="OUT.jsonl", type=_file, help="the runs that are made, or were")
    given = parser.parse_args(arguments)
    return StepsToLoss(given.comparison, given.data, given.out)


def parse_loss(arguments: Sequence[str]) -> list[int]:
    """Read vocabulary sizes, of which there may be none; SystemExit says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loss", description="Measure head and cross-entropy.")
    parser.add_argument("sizes", nargs="*", metavar="VOCABULARY_SIZE", type=_vocab_size)
    return parser.parse_args(arguments).sizes


def parse_gpu_table(arguments: Sequence[str]) -> Path:
    """Read the folder; SystemExit says what is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_table", description="Print benchmarks/gpu.sh's table."
    )
    parser.add_argument("folder", metavar="FOLDER", type=_stages, help="where benchmarks/gpu.sh wrote")
    return parser.parse_args(arguments).folder


def _parts(parser: argparse.ArgumentParser, arguments: Sequence[str], parts: Collection[str]) -> argparse.Namespace:
    """Parse with names of parts, which are all if none is given."""
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}; all, if none is named")
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.parts) - {*parts}):
        parser.error(f"{', '.join(unknown)}: choose of {', '.join(parts)}")
    given.parts = given.parts or [*parts]
    return given


def _file(text: str) -> Path:
    """A file that is there or can be made."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is no file, and none can be made there")
    return path


def _folder(of: str, file: str) -> Callable[[str], Path]:
    """Read a folder in which something has written a file."""

    def read(text: str) -> Path:
        if not (Path(text) / file).is_file():
            raise argparse.ArgumentTypeError(f"{text} is no folder of {of}: it has no {file}")
        return Path(text)

    return read


_shards = _folder("convert_to_mds.py", "manifest.json")
_stages = _folder("benchmarks/gpu.sh", "stages.tsv")


def _vocab_size(text: str) -> int:
    """A number of ids, of which there are two at least."""
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text} is no vocabulary size")
    return int(text)
