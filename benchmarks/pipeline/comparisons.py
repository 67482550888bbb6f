"""The comparisons: each measures our commands beside the contenders of contenders.py, and gives rows of the table."""

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.pipeline.contenders import ROUNDS, VOCAB_SIZE
from benchmarks.pipeline.processes import ONE_THREAD, ROOT, Cost, in_turns, measure, ratio
from benchmarks.pipeline.texts import repeat_text
from benchmarks.table import Row

WORKERS = 2
SMALL_BYTES, LARGE_BYTES = 200_000_000, 2_000_000_000
"""Sizes of the texts for the comparison of memory."""


def our_commands(text: str, folder: Path) -> list[list[str]]:
    """Our three commands from text to h5, which write into a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer, mds, h5 = (folder / name for name in ("tokenizer", "mds", "h5"))
    common = [f"tokenizer={tokenizer}", f"workers={WORKERS}"]
    return [
        ["train_tokenizer.py", f"corpus={text}", f"out={tokenizer}", f"vocab_size={VOCAB_SIZE}"],
        ["convert_to_mds.py", f"corpus={text}", f"out={mds}", *common],
        ["convert_to_h5.py", f"corpus={mds}", f"out={h5}", *common],
    ]


def compare_pipelines(text: str, folder: Path, rounds: int = ROUNDS) -> Iterator[Row]:
    """Compare the whole way from text to MDS and h5."""
    costs = in_turns(
        {
            "ours": lambda: measure(*our_commands(text, folder / "ours")),
            "tokenizers": lambda: measure(_call("plain", text, folder / "plain"), one_thread=True),
            "published": lambda: measure(_call("published", text, folder / "published")),
        },
        rounds,
    )
    for name, taken in costs.items():
        seconds = statistics.median(cost.seconds for cost in taken)
        value = f"{seconds:.1f} s, {max(cost.peak_mib for cost in taken):.0f} MiB"
        yield Row(f"text → tokenizer → MDS and h5: {name}", value)
    faster = 1 / ratio(costs["ours"], costs["tokenizers"])
    yield Row("ours against tokenizers in one process: times faster", f"{faster:.1f}", "≥ 8", faster >= 8)
    share = ratio(costs["ours"], costs["published"])
    yield Row("ours against the published steps: share of the time", f"{share:.3f}", "≤ 0.15", share <= 0.15)
    share = ratio(costs["ours"], costs["published"], "peak_mib")
    yield Row("ours against the published steps: share of the memory", f"{share:.2f}")


def compare_on_part(text: str, folder: Path) -> Iterator[Row]:
    """Compare the whole way on a part of the text, once."""
    fast = measure(*our_commands(text, folder / "ours"))
    slow = measure(_call("plain", text, folder / "plain"), one_thread=True)
    value = f"{slow.seconds / fast.seconds:.1f} ({fast.seconds:.1f} s, {fast.peak_mib:.0f} MiB)"
    yield Row(f"the same on {os.path.getsize(text) / 1e6:.0f} MB of it: times faster", value)


def compare_trainers(text: str, folder: Path, rounds: int = ROUNDS) -> Iterator[Row]:
    """Compare our two trainers of vocabularies: as functions without imports, as commands, and with a thread each.

    `trainer=tokenizers` hands BpeTrainer batches of short pieces, which makes it faster than it is on an iterator of
    documents, as its documentation uses it. That is measured too.
    """
    trainers = ("ffbpe", "tokenizers", "BpeTrainer")
    merges: dict[str, list[list[str]]] = {}

    def function(trainer: str, one_thread: bool = False) -> Cost:
        command = _call("train_vocabulary", text, trainer, folder / "trained.json")
        peak_mib = measure(command, one_thread=one_thread).peak_mib
        result = json.loads((folder / "trained.json").read_text(encoding="utf-8"))
        merges[trainer] = result["merges"]
        return Cost(result["seconds"], peak_mib)

    def command(trainer: str) -> Cost:
        if trainer == "BpeTrainer":
            return measure(_call("train_vocabulary", text, trainer, folder / "trained.json"))
        out = folder / f"tokenizer_{trainer}"
        shutil.rmtree(out, ignore_errors=True)
        arguments = [f"corpus={text}", f"out={out}", f"vocab_size={VOCAB_SIZE}", f"trainer={trainer}"]
        return measure(["train_tokenizer.py", *arguments])

    for what, train in (("training a vocabulary", function), ("train_tokenizer.py", command)):
        costs = in_turns({trainer: partial(train, trainer) for trainer in trainers}, rounds)
        for key, target in (("seconds", 0.3), ("peak_mib", 1.0)):
            share = ratio(costs["ffbpe"], costs["tokenizers"], key)
            yield Row(f"{what}, ffbpe over tokenizers: {key}", f"{share:.2f}", f"≤ {target}", share <= target)
            share = ratio(costs["ffbpe"], costs["BpeTrainer"], key)
            yield Row(f"{what}, ffbpe over BpeTrainer on documents: {key}", f"{share:.2f}")
    costs = in_turns({trainer: partial(function, trainer, one_thread=True) for trainer in trainers[:2]}, rounds)
    share = ratio(costs["ffbpe"], costs["tokenizers"])
    yield Row("training a vocabulary, one thread each, ffbpe over tokenizers: seconds", f"{share:.2f}")
    same = merges["ffbpe"] == merges["tokenizers"] == merges["BpeTrainer"] and all(
        (folder / "tokenizer_ffbpe" / path.name).read_bytes() == path.read_bytes()
        for path in (folder / "tokenizer_tokenizers").glob("*okenizer*.json")
    )
    yield Row("all give the same merges, and both trainers the same files", str(same), "True", same)


def compare_conversion(text: str, tokenizer: Path, folder: Path, rounds: int = ROUNDS) -> Iterator[Row]:
    """Compare our encoder with `tokenizers`, and convert_to_mds.py with a loop that only encodes."""
    done = subprocess.run(
        [sys.executable, *_call("compare_encoders", text, tokenizer)],
        cwd=ROOT, env=os.environ | ONE_THREAD, capture_output=True, text=True, check=True,
    )  # fmt: skip
    faster, name, equal = done.stdout.split()
    met = float(faster) >= 8 and equal == "True"
    value = f"{float(faster):.1f} ({name}; ids identical: {equal})"
    yield Row("encoding, one core: times faster than encode_batch_fast", value, "≥ 8, identical", met)

    def convert() -> Cost:
        shutil.rmtree(folder / "mds", ignore_errors=True)
        arguments = [f"corpus={text}", f"tokenizer={tokenizer}", f"out={folder / 'mds'}", f"workers={WORKERS}"]
        return measure(["convert_to_mds.py", *arguments])

    bare = _call("bare_loop", text, tokenizer, folder / "tokens.bin")
    costs = in_turns({"convert_to_mds.py": convert, "bare loop": lambda: measure(bare)}, rounds)
    share = ratio(costs["convert_to_mds.py"], costs["bare loop"])
    yield Row("convert_to_mds.py over a bare loop of one process", f"{share:.2f}", "≤ 1.5", share <= 1.5)


def compare_memory(text: str, tokenizer: Path, folder: Path) -> Iterator[Row]:
    """Convert a small and a large text, and compare the peak memory."""
    peaks = []
    for n_bytes in (SMALL_BYTES, LARGE_BYTES):
        source = repeat_text(Path(text), folder / "long.txt", n_bytes)
        out = folder / "long"
        arguments = [f"corpus={source}", f"tokenizer={tokenizer}", f"out={out}", f"workers={WORKERS}"]
        cost = measure(["convert_to_mds.py", *arguments])
        peaks.append(cost.peak_mib)
        value = f"{cost.seconds:.1f} s, {n_bytes / 1e6 / cost.seconds:.1f} MB/s, {cost.peak_mib:.0f} MiB"
        met = cost.peak_mib < 1500
        yield Row(f"convert_to_mds.py, {n_bytes / 1e9} GB, {WORKERS} workers", value, "< 1500 MiB", met)
        shutil.rmtree(out)
    source.unlink()
    share = peaks[1] / peaks[0]
    yield Row("peak memory, 2 GB over 0.2 GB of text", f"{share:.2f}", "≤ 1.1", share <= 1.1)


def _call(function: str, *arguments: object) -> list[str]:
    """Arguments of Python that call a function of contenders.py."""
    passed = ", ".join(f"Path({str(a)!r})" if isinstance(a, Path) else repr(a) for a in arguments)
    imports = "from pathlib import Path; from benchmarks.pipeline import contenders"
    return ["-c", f"{imports}; contenders.{function}({passed})"]
