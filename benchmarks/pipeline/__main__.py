"""From text to batches, measured in one run: `OMP_NUM_THREADS=1 python -m benchmarks.pipeline [TEXT]`, from the root.

TEXT is a corpus of .txt files, as corpus= takes it; without it, 50 MB are made up. The whole way is measured on TEXT as
it is; the steps, and once more the whole way, on 50 MB of its documents, drawn by a seed, in a plain file. Contenders
take turns; a ratio is taken within a round, and what is printed is the median over rounds. Memory is the peak of each
process, summed over all processes of a command; shared memory counts for each.

The contenders for the whole way, from text to a vocabulary of 50257 to MDS and h5:

- ours: train_tokenizer.py, convert_to_mds.py, convert_to_h5.py, with two workers;
- tokenizers: the same with `tokenizers` and Streaming's MDSWriter in one process of one thread;
- published: the steps of the published code (arXiv:2401.17505): transformers' train_new_from_iterator, encoding a file
  at a time to .pt, and a chunked int32 h5.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.loading.speed import compare_loaders
from benchmarks.loading.start import compare_starts, measure_first_batches, measure_imports
from benchmarks.pipeline.comparisons import (
    compare_conversion,
    compare_memory,
    compare_on_part,
    compare_pipelines,
    compare_trainers,
)
from benchmarks.pipeline.texts import draw_text, make_text
from benchmarks.table import HEAD, Row

TEXT_BYTES = 50_000_000


def measure_all(whole: str | None, folder: Path) -> Iterator[Row]:
    """Measure every step and the whole way.

    Args:
        whole: the corpus; None for made-up text.
        folder: an empty folder.
    """
    make = make_text if whole is None else partial(draw_text, whole)
    text = str(make(folder / "text.txt", TEXT_BYTES))
    yield from compare_trainers(text, folder)
    tokenizer = folder / "tokenizer_ffbpe"  # made by compare_trainers
    yield from compare_conversion(text, tokenizer, folder)
    yield from compare_pipelines(whole or text, folder)
    if whole is not None:
        yield from compare_on_part(text, folder)
    yield from compare_memory(text, tokenizer, folder)
    yield from compare_loaders(folder / "corpus")[1]
    yield from measure_first_batches(folder / "corpus")
    yield from compare_starts(folder / "large")
    yield from measure_imports("import streaming", "import load_text_streaming", "import hindsight.conversion.convert")


def main() -> None:
    """Print the table, row by row."""
    whole = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else None
    sys.stdout.write(f"{HEAD}\n")
    with tempfile.TemporaryDirectory() as folder:
        for row in measure_all(whole, Path(folder)):
            sys.stdout.write(f"{row}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
