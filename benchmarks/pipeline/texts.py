"""The texts that are tokenized: made up, drawn from a corpus, or repeated to any size."""

import random
from pathlib import Path

from hindsight.config.corpus import CorpusConfig
from hindsight.text.documents import Corpus
from hindsight.text.sampling import documents_of


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
    """Write the documents of another text over and over, each time with a number as its first line."""
    documents = [document.raw for document in Corpus(CorpusConfig(corpus=str(source))).documents()]
    written = number = 0
    with path.open("wb") as file:
        while written < n_bytes:
            written += file.write(b"%d\n" % number + documents[number % len(documents)] + b"\n")
            number += 1
    return path
