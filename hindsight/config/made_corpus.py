"""Keys of make_corpus.py."""

from dataclasses import dataclass
from enum import Enum

from omegaconf import MISSING

from hindsight.config.checks import require, require_no_credentials, require_positive, require_seed, require_text

Setting = str | int | float | bool
MAX_CONTEXTS = 1024
"""Most contexts of a Markov chain, whose stationary law is solved for exactly."""


class CorpusKind(Enum):
    """What a corpus is made of: text that is there, or a synthetic language."""

    bible = "bible"
    excerpts = "excerpts"
    markov = "markov"
    reversible_markov = "reversible_markov"
    hidden_markov = "hidden_markov"
    code = "code"
    many_to_one = "many_to_one"
    linear_map = "linear_map"
    primes = "primes"


_DRAWN: dict[str, Setting] = {"documents": 20_000, "seed": 0}
KEYS: dict[CorpusKind, dict[str, Setting]] = {
    CorpusKind.bible: {"documents": 1189},
    CorpusKind.excerpts: {"corpus": MISSING, "document_bytes": 100_000},
    CorpusKind.markov: {**_DRAWN, "length": 60, "symbols": 4, "markov_order": 1},
    CorpusKind.reversible_markov: {**_DRAWN, "length": 60, "symbols": 4},
    CorpusKind.hidden_markov: {**_DRAWN, "length": 60, "symbols": 3, "states": 3},
    CorpusKind.code: {**_DRAWN, "samples": 8, "symbols": 8, "letters": 2},
    CorpusKind.many_to_one: {**_DRAWN, "samples": 12, "values": 64, "multiplicity": 8},
    CorpusKind.linear_map: {**_DRAWN, "samples": 1, "bits": 20, "nonzeros": 2, "flips": 0.0},
    CorpusKind.primes: {**_DRAWN, "samples": 1, "digits": 4, "reversed_digits": False},
}
"""The keys that each kind has, with what stands for null."""


@dataclass
class MakeCorpusConfig:
    """Write a corpus: the demo's (the Bible in English), excerpts of another corpus, or a synthetic language.

    A synthetic language comes with its exact floor, in nats per token, in OUT.floor.json: docs/synthetic.md.
    """

    out: str = MISSING
    """File to write; documents are separated by a blank line, as corpus_format=cc100 expects."""
    kind: CorpusKind = CorpusKind.bible
    """bible: the demo's corpus, a chapter a document; excerpts: the beginning of each document of corpus=. Synthetic:
    markov, reversible_markov, hidden_markov: chains; code, many_to_one: words and what they are mapped to; linear_map:
    bits and a sparse linear map of them; primes: products of two primes."""
    corpus: str | None = None
    """excerpts: text file in the format cc100 (also .xz, .gz, .bz2, .zst) whose documents are shortened."""
    document_bytes: int | None = None
    """excerpts: bytes of a document; whole lines are taken while they do not exceed it, the first one always; null for
    100000."""
    documents: int | None = None
    """Synthetic: number of documents, all equally long; null for 20000. bible: number of chapters, the first ones; null
    for 1189, which are all."""
    seed: int | None = None
    """Synthetic: seed of the language (probabilities, matrix, map) and of its documents; null for 0."""
    length: int | None = None
    """Chains: symbols in a document; null for 60."""
    symbols: int | None = None
    """Chains and code: number of different symbols (letters); null for 4, hidden_markov 3, code 8."""
    markov_order: int | None = None
    """markov: how many earlier symbols the next one depends on, 1 to 3; null for 1."""
    states: int | None = None
    """hidden_markov: hidden states; null for 3. With 2, a text and its reverse are equally likely."""
    samples: int | None = None
    """code, many_to_one, linear_map, primes: independent samples in a document; null for 8 of code, 12 of many_to_one,
    otherwise 1."""
    letters: int | None = None
    """code: letters of a word; null for 2."""
    values: int | None = None
    """many_to_one: number of different x, a multiple of multiplicity; null for 64."""
    multiplicity: int | None = None
    """many_to_one: number of x that have the same y; null for 8."""
    bits: int | None = None
    """linear_map: bits of x, and of y; null for 20."""
    nonzeros: int | None = None
    """linear_map: bits of x whose sum (modulo 2) is a bit of y; of an even number, one row has one less, for otherwise
    the map has no inverse; null for 2."""
    flips: float | None = None
    """linear_map: probability with which a bit of y is flipped; null for 0."""
    digits: int | None = None
    """primes: digits of the largest prime; shorter ones begin with zeros; null for 4."""
    reversed_digits: bool | None = None
    """primes: whether numbers are written with their last digit first; null for false."""

    def __post_init__(self) -> None:
        require_no_credentials("", self)
        require_text("", self, "out", "corpus")
        for key in dict.fromkeys(key for keys in KEYS.values() for key in keys):
            kinds = [f"kind={kind.name}" for kind, keys in KEYS.items() if key in keys]
            require(
                getattr(self, key) is None or key in KEYS[self.kind],
                f"{key}={getattr(self, key)} is for {', '.join(kinds)}, not for kind={self.kind.name}; leave it out.",
            )
        missing = [key for key, default in KEYS[self.kind].items() if default == MISSING and not getattr(self, key)]
        require(not missing, f"kind={self.kind.name} needs {'= and '.join(missing)}=.")
        require_positive("", self, "document_bytes", "documents")
        if self.seed is not None:
            require_seed(self.seed)
        _check_sizes(self.settings)

    @property
    def settings(self) -> dict[str, Setting]:
        """All keys that the kind has, with defaults in place of null."""
        given = {key: getattr(self, key) for key in KEYS[self.kind]}
        return {key: KEYS[self.kind][key] if value is None else value for key, value in given.items()}


BOUNDS: dict[str, tuple[int, int]] = {
    "length": (2, 4096),
    "symbols": (2, 26),
    "markov_order": (1, 3),
    "states": (2, 8),
    "samples": (1, 1024),
    "letters": (1, 4),
    "values": (2, 1_000_000),
    "bits": (2, 256),
    "digits": (1, 6),
}
"""Least and most that a key may be."""


def _check_sizes(settings: dict[str, Setting]) -> None:
    """Refuse sizes of a language that are out of bounds, or do not fit each other."""
    numbers = {key: int(value) for key, value in settings.items() if key in BOUNDS}
    for key, number in numbers.items():
        least, most = BOUNDS[key]
        require(least <= number <= most, f"{key}={number} must be from {least} to {most}.")
    if "markov_order" in numbers:
        symbols, order, length = numbers["symbols"], numbers["markov_order"], numbers["length"]
        require(
            symbols**order <= MAX_CONTEXTS,
            f"symbols={symbols} and markov_order={order} make {symbols**order} contexts; at most {MAX_CONTEXTS}.",
        )
        require(length > order, f"length={length} must be greater than markov_order={order}.")
    if "letters" in numbers:
        words = numbers["symbols"] ** numbers["letters"]
        require(words <= 10_000, f"symbols= and letters= make {words} words; choose fewer, at most 10000.")
    if "multiplicity" in settings:
        multiplicity, values = int(settings["multiplicity"]), numbers["values"]
        require(
            multiplicity >= 1 and values % multiplicity == 0,
            f"multiplicity={multiplicity} must divide values={values}: each y has equally many x.",
        )
    if "nonzeros" in settings:
        nonzeros, bits, flips = int(settings["nonzeros"]), numbers["bits"], float(settings["flips"])
        require(1 <= nonzeros < bits, f"nonzeros={nonzeros} must be at least 1 and less than bits={bits}.")
        require(0 <= flips <= 0.5, f"flips={flips} must lie between 0 and 0.5.")
