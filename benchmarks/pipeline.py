"""From text to batches, measured in one run: `OMP_NUM_THREADS=1 python -m benchmarks.pipeline [TEXT]`, from the root.

TEXT is a corpus of .txt files, as corpus= takes it; without it, 50 MB are made up. The whole way is measured on TEXT as
it is; the steps, and once more the whole way, on 50 MB of its documents, drawn by a seed, in a plain file. What is
compared takes turns; a ratio is taken within a round, and what is printed is the median over rounds. Memory is the most
that each process held, summed over all processes of a command; what they share counts for each.

The contenders for the whole way, from text to a vocabulary of 50257 to MDS and h5:

- ours: train_tokenizer.py, convert_to_mds.py, convert_to_h5.py, with two workers;
- tokenizers: the same with `tokenizers` and Streaming's MDSWriter in one process of one thread;
- published: the steps of the published code (arXiv:2401.17505): transformers' train_new_from_iterator, encoding a file
  at a time to .pt, and a chunked int32 h5.
"""

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.contenders import ROUNDS, VOCAB_SIZE
from benchmarks.loading import compare_loaders, compare_starts, measure_first_batch, measure_import
from benchmarks.table import HEAD, Row
from hindsight.config.corpus import CorpusConfig
from hindsight.text.documents import Corpus
from hindsight.text.sampling import documents_of

ROOT = Path(__file__).resolve().parent.parent
WORKERS = 2
ONE_THREAD = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
"""The environment in which `tokenizers` and ffbpe compute in one thread."""
TEXT_BYTES = 50_000_000
SMALL_BYTES, LARGE_BYTES = 200_000_000, 2_000_000_000
"""Text for the comparison of memory."""


class Run(NamedTuple):
    """What a command took."""

    seconds: float
    peak_mib: float


def make_text(path: Path, n_bytes: int, seed: int = 0) -> Path:
    """Write documents of made-up words, whose frequencies fall as those of a language do (Zipf's law)."""
    rng = random.Random(seed)  # noqa: S311 - made-up words keep no secret
    syllables = [a + b + c for a in "bcdfghjklmnprstvw" for b in "aeiou" for c in ("", "n", "r", "s", "t")]
    lexicon = ["".join(rng.choices(syllables, k=rng.choice((1, 2, 2, 3, 3, 4)))) for _ in range(300_000)]
    weights = [1 / (rank + 3) for rank in range(len(lexicon))]
    cumulative = [total := 0.0] and [total := total + weight for weight in weights]
    written = 0
    with path.open("w", encoding="utf-8") as file:
        while written < n_bytes:
            words = rng.choices(lexicon, cum_weights=cumulative, k=2000)
            lines = (" ".join(words[start : start + 20]).capitalize() + ".\n" for start in range(0, len(words), 20))
            written += file.write("".join(lines) + "\n")
    return path


def draw_text(corpus: str, path: Path, n_bytes: int) -> Path:
    """Write documents of a corpus, drawn by a seed, to a plain file."""
    with path.open("wb") as file:
        for document in documents_of(Corpus(CorpusConfig(corpus=corpus)), n_bytes, seed=0):
            file.write(document.raw.rstrip(b"\n") + b"\n\n")
    return path


def repeat_text(source: Path, path: Path, n_bytes: int) -> Path:
    """Write documents of another text over and over, each time with another first line."""
    documents = [document.raw for document in Corpus(CorpusConfig(corpus=str(source))).documents()]
    written = number = 0
    with path.open("wb") as file:
        while written < n_bytes:
            written += file.write(b"%d\n" % number + documents[number % len(documents)] + b"\n")
            number += 1
    return path


# ------------------------------------------------------------------------------------------------------------ measuring


def measure(*commands: list[str], one_thread: bool = False) -> Run:
    """Run commands one after the other: seconds, and the most memory that they and their children held."""
    environment = os.environ | (ONE_THREAD if one_thread else {})
    peak, began = 0.0, time.perf_counter()
    for command in commands:
        with (
            tempfile.TemporaryFile() as said,
            subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, env=environment, stdout=said, stderr=subprocess.STDOUT
            ) as process,
            watched(process.pid) as held,
        ):
            if process.wait() != 0:
                said.seek(0)
                raise RuntimeError(f"{command} failed: {said.read().decode(errors='replace')}")
        peak = max(peak, sum(held.values()))
    return Run(time.perf_counter() - began, peak)


@contextmanager
def watched(pid: int) -> Iterator[dict[int, float]]:
    """Look five times a second at the most that a process and its children have held so far, in MiB, by process."""
    held: dict[int, float] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            held.update(tree_mib(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield held
    finally:
        ended.set()
        watcher.join()


def tree_mib(pid: int) -> dict[int, float]:
    """The most that a process and its children have held so far, in MiB, by process."""
    held: dict[int, float] = {}
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        held[pid] = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                held |= tree_mib(int(child))
    except (OSError, StopIteration):  # it has ended
        pass
    return held


def in_turns(contenders: dict[str, Callable[[], Run]], rounds: int) -> dict[str, list[Run]]:
    """Run every contender once a round, in an order that turns round."""
    runs: dict[str, list[Run]] = {name: [] for name in contenders}
    for i in range(rounds):
        for name in list(contenders)[:: 1 if i % 2 == 0 else -1]:
            runs[name].append(contenders[name]())
            sys.stderr.write(f"{name}: {runs[name][-1].seconds:.2f} s, {runs[name][-1].peak_mib:.0f} MiB\n")
    return runs


def ratio(ours: list[Run], theirs: list[Run], key: str = "seconds") -> float:
    """Ours over theirs, the median over rounds."""
    return statistics.median(getattr(a, key) / getattr(b, key) for a, b in zip(ours, theirs, strict=True))


# ---------------------------------------------------------------------------------------------------------- contenders


def ours(text: str, folder: Path) -> list[list[str]]:
    """Our three commands."""
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer, mds, h5 = (folder / name for name in ("tokenizer", "mds", "h5"))
    common = [f"tokenizer={tokenizer}", f"workers={WORKERS}"]
    return [
        ["train_tokenizer.py", f"corpus={text}", f"out={tokenizer}", f"vocab_size={VOCAB_SIZE}"],
        ["convert_to_mds.py", f"corpus={text}", f"out={mds}", *common],
        ["convert_to_h5.py", f"corpus={mds}", f"out={h5}", *common],
    ]


# --------------------------------------------------------------------------------------------------------------- rows


def compare_pipelines(text: str, folder: Path, rounds: int = ROUNDS) -> Iterator[Row]:
    """Compare the whole way."""
    runs = in_turns(
        {
            "ours": lambda: measure(*ours(text, folder / "ours")),
            "tokenizers": lambda: measure(_call("plain", text, folder / "plain"), one_thread=True),
            "published": lambda: measure(_call("published", text, folder / "published")),
        },
        rounds,
    )
    for name, taken in runs.items():
        seconds = statistics.median(run.seconds for run in taken)
        yield Row(
            f"text → tokenizer → MDS and h5: {name}", f"{seconds:.1f} s, {max(r.peak_mib for r in taken):.0f} MiB"
        )
    faster = 1 / ratio(runs["ours"], runs["tokenizers"])
    yield Row("ours against tokenizers in one process: times faster", f"{faster:.1f}", "≥ 8", faster >= 8)
    share = ratio(runs["ours"], runs["published"])
    yield Row("ours against the published steps: share of the time", f"{share:.3f}", "≤ 0.15", share <= 0.15)
    share = ratio(runs["ours"], runs["published"], "peak_mib")
    yield Row("ours against the published steps: share of the memory", f"{share:.2f}")


def compare_on_part(text: str, folder: Path) -> Iterator[Row]:
    """Compare the whole way on a part of the text, once."""
    fast = measure(*ours(text, folder / "ours"))
    slow = measure(_call("plain", text, folder / "plain"), one_thread=True)
    value = f"{slow.seconds / fast.seconds:.1f} ({fast.seconds:.1f} s, {fast.peak_mib:.0f} MiB)"
    yield Row(f"the same on {os.path.getsize(text) / 1e6:.0f} MB of it: times faster", value)


def compare_trainers(text: str, folder: Path, rounds: int = ROUNDS) -> Iterator[Row]:
    """Compare our two trainers, imports aside and as commands, and what they do with a thread each.

    `trainer=tokenizers` hands BpeTrainer batches of short pieces, which makes it faster than it is on an iterator of
    documents, as its documentation uses it. That is measured too.
    """
    trainers = ("ffbpe", "tokenizers", "BpeTrainer")
    merges: dict[str, list[list[str]]] = {}

    def learned(trainer: str, one_thread: bool = False) -> Run:
        command = _call("learn", text, trainer, folder / "learned.json")
        peak_mib = measure(command, one_thread=one_thread).peak_mib
        result = json.loads((folder / "learned.json").read_text(encoding="utf-8"))
        merges[trainer] = result["merges"]
        return Run(result["seconds"], peak_mib)

    def run(trainer: str) -> Run:
        if trainer == "BpeTrainer":
            return measure(_call("learn", text, trainer, folder / "learned.json"))
        out = folder / f"tokenizer_{trainer}"
        shutil.rmtree(out, ignore_errors=True)
        arguments = [f"corpus={text}", f"out={out}", f"vocab_size={VOCAB_SIZE}", f"trainer={trainer}"]
        return measure(["train_tokenizer.py", *arguments])

    for what, train in (("learning a vocabulary", learned), ("train_tokenizer.py", run)):
        runs = in_turns({trainer: partial(train, trainer) for trainer in trainers}, rounds)
        for key, target in (("seconds", 0.3), ("peak_mib", 1.0)):
            share = ratio(runs["ffbpe"], runs["tokenizers"], key)
            yield Row(f"{what}, ffbpe over tokenizers: {key}", f"{share:.2f}", f"≤ {target}", share <= target)
            share = ratio(runs["ffbpe"], runs["BpeTrainer"], key)
            yield Row(f"{what}, ffbpe over BpeTrainer on documents: {key}", f"{share:.2f}")
    runs = in_turns({trainer: partial(learned, trainer, one_thread=True) for trainer in trainers[:2]}, rounds)
    share = ratio(runs["ffbpe"], runs["tokenizers"])
    yield Row("learning a vocabulary, one thread each, ffbpe over tokenizers: seconds", f"{share:.2f}")
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

    def converted() -> Run:
        shutil.rmtree(folder / "mds", ignore_errors=True)
        arguments = [f"corpus={text}", f"tokenizer={tokenizer}", f"out={folder / 'mds'}", f"workers={WORKERS}"]
        return measure(["convert_to_mds.py", *arguments])

    bare = _call("bare_loop", text, tokenizer, folder / "tokens.bin")
    runs = in_turns({"convert_to_mds.py": converted, "bare loop": lambda: measure(bare)}, rounds)
    share = ratio(runs["convert_to_mds.py"], runs["bare loop"])
    yield Row("convert_to_mds.py over a bare loop of one process", f"{share:.2f}", "≤ 1.5", share <= 1.5)


def compare_memory(text: str, tokenizer: Path, folder: Path) -> Iterator[Row]:
    """Convert a small and a large text, and compare the memory that it takes."""
    peaks = []
    for n_bytes in (SMALL_BYTES, LARGE_BYTES):
        source = repeat_text(Path(text), folder / "long.txt", n_bytes)
        out = folder / "long"
        arguments = [f"corpus={source}", f"tokenizer={tokenizer}", f"out={out}", f"workers={WORKERS}"]
        run = measure(["convert_to_mds.py", *arguments])
        peaks.append(run.peak_mib)
        value = f"{run.seconds:.1f} s, {n_bytes / 1e6 / run.seconds:.1f} MB/s, {run.peak_mib:.0f} MiB"
        met = run.peak_mib < 1500
        yield Row(f"convert_to_mds.py, {n_bytes / 1e9} GB, {WORKERS} workers", value, "< 1500 MiB", met)
        shutil.rmtree(out)
    source.unlink()
    share = peaks[1] / peaks[0]
    yield Row("peak memory, 2 GB over 0.2 GB of text", f"{share:.2f}", "≤ 1.1", share <= 1.1)


def measure_reading(folder: Path) -> Iterator[Row]:
    """Measure what benchmarks.loading.py does."""
    yield from compare_loaders(folder / "corpus")[1]
    for num_workers in (0, 2):
        seconds = measure_first_batch(folder / "corpus", num_workers)
        yield Row(f"first batch, {num_workers} workers, 100M tokens", f"{seconds:.3f} s")
    yield from compare_starts(folder / "large")
    for statement in ("import streaming", "import load_text_streaming", "import conversion"):
        yield Row(statement, f"{measure_import(statement):.2f} s")


def _call(function: str, *arguments: object) -> list[str]:
    """A command that calls a function of contenders.py in a process of its own."""
    passed = ", ".join(f"Path({str(a)!r})" if isinstance(a, Path) else repr(a) for a in arguments)
    return ["-c", f"from pathlib import Path; from benchmarks import contenders; contenders.{function}({passed})"]


def main() -> None:
    """Print the table, row by row."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        whole = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else None
        make = make_text if whole is None else partial(draw_text, whole)
        text = str(make(folder / "text.txt", TEXT_BYTES))
        sys.stdout.write(f"{HEAD}\n")
        (folder / "reading").mkdir()
        tokenizer = folder / "tokenizer_ffbpe"

        def rows() -> Iterator[Row]:
            yield from compare_trainers(text, folder)
            yield from compare_conversion(text, tokenizer, folder)
            yield from compare_pipelines(whole or text, folder)
            if whole is not None:
                yield from compare_on_part(text, folder)
            yield from compare_memory(text, tokenizer, folder)
            yield from measure_reading(folder / "reading")

        for row in rows():
            sys.stdout.write(f"{row}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
