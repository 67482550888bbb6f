"""How fast stored tokens become batches: `OMP_NUM_THREADS=1 python -m benchmarks.loading`, from the repository's root.

The loader of training is timed in turns with Streaming's with its defaults, over the same shards, and with nanoGPT's
get_batch (https://github.com/karpathy/nanoGPT/blob/master/train.py) over the same tokens in one file. Local shards,
page cache warm, batches of 8. A ratio is taken within a round; what is printed is the median over rounds.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.loading.speed import compare_loaders
from benchmarks.loading.start import compare_starts, measure_first_batches, measure_imports
from benchmarks.table import HEAD, Row


def measure_all(folder: Path) -> Iterator[Row]:
    """Measure speed, first batches, starts and imports, in an empty folder."""
    yield from compare_loaders(folder / "corpus")[1]
    yield from measure_first_batches(folder / "corpus")
    yield from compare_starts(folder / "large")
    yield from measure_imports("import torch", "import streaming", "import composer", "import load_text_streaming")


def main() -> None:
    """Print the table, row by row."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    sys.stdout.write(f"{HEAD}\n")
    with tempfile.TemporaryDirectory() as folder:
        for row in measure_all(Path(folder)):
            sys.stdout.write(f"{row}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
