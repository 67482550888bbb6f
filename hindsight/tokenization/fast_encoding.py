"""Text -> token ids, fast: by tiktoken where it gives the ids of `tokenizers`, which is the reference.

Both find the words of a text by a pattern and merge the bytes of each. tiktoken does so ten times faster, but has no
normalizers, and uses the order of the vocabulary as the order of the merges. `choose_encoder` therefore rebuilds a
tokenizer for tiktoken only where everything in it has an equivalent there, compares ids, and logs what it found.
"""

import itertools
import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hindsight.config.conversion import EncoderName
from hindsight.tokenization.tokenizer import BYTE_CHARACTERS, GPT2_PATTERN, Tokenizer, bytes_of

SAMPLE_BYTES = 1 << 18
"""Bytes of a sample, at most, that are compared."""
THREADS = 2
"""Threads that compare; both libraries release the GIL while they encode."""

# tiktoken first searches a text for special tokens. If there are none, its pattern for them is empty, matches at every
# character, and halves the speed (0.14). This one prevents that; a text that holds it is encoded as ordinary text.
_UNUSED_SPECIAL = "<|\ue000 no text holds this \ue000|>"

_SPACES = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u180e"
    "\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b\u2028\u2029\u202f\u205f\u2060\u3000"
)
HARD_TEXTS = [
    "",
    *(
        f"{left}{space}{right}"
        for space in _SPACES
        for left in ("", "a", "1", ".", " ")
        for right in ("", "b", " ", "?")
    ),
    "I'm you're he'S WE'LL they'Ve I'd don'T 's'd'm't'll've're 'LL 'ſ ''s 'sx '' o'clock ’s",
    "x'SAID x'TIS x'Tis x'DO x'Do x'MORE x'Most x'REAL x'Red x'VERY x'LLAMA x'STO x'said x'tis x'do x'most x'rest x'll",
    "a\r\nb\r\n\r\nc\n\r d \r\n e\n\n\nf \n g\n ",
    "".join(map(chr, range(0xA1))),
    " " * 1000 + "x" + " " * 1000,
    "x" + "\n" * 1000 + "x" + " \n" * 500 + "\t" * 1000 + "x",
    "a" * 1000 + "A" * 1001 + "é" * 1000 + "漢" * 1000 + "-" * 1001 + "7" * 1000 + "🙂" * 500,
    "3.14 1,000,000 12½ ٣٤٥ ५६ ๑๒ Ⅷ ① ²³ 𝟘𝟙 x2 2x",
    "e\u0301 é \u212b A\u030a ﬁ ß ẞ İ ı ǆ \u0301\u0301 a\u0300b x\u20dd",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇨🇭 ☎︎ ☎️",
    "\ufeffBOM \ufeff",
    "שלום עולם \u200fمرحبا بالعالم\u200e \u202bx\u202c ١٢",
    "한국어 \u1112\u1161\u11ab 日本語のテキスト 漢字、。 ไทยภาษา हिन्दी বাংলা",
    "𐍈𝒳𠀀 \U000e0001\U0010ffff\ue000\ufffe\uffff\ud7ff",
    "don't_stop (x+y)*2 == 4; https://example.org/?q=a&b=%20#top\t{}[]<>\\",
    _UNUSED_SPECIAL,
    f"a{_UNUSED_SPECIAL}{_UNUSED_SPECIAL} b{_UNUSED_SPECIAL[:-1]}",
]
"""Texts for which tokenizers that are almost the same give different ids."""

LOOKAHEAD = r"\s+(?!\S)|"
"""The alternative of GPT-2's pattern that leaves the last of several spaces to the next word.

It has no effect on a text without adjacent spaces, and without it tiktoken's regular expressions need not backtrack,
which takes 0.6 of the time (0.14).
"""


class Encoder(Protocol):
    """Text -> token ids. An encoder may be made before a fork and used in the children."""

    name: str
    """The library: tiktoken or tokenizers."""

    def encode(self, text: str) -> NDArray[np.uint32]:
        """Give the ids of a text, (T,), without BOS or EOS; names of special tokens are ordinary characters."""
        ...


class TokenizersEncoder:
    """The reference: the library in whose format tokenizers are stored.

    Args:
        tokenizer: the tokenizer.
    """

    name = "tokenizers"

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> NDArray[np.uint32]:
        """Give the ids of a text."""
        pieces = self._tokenizer.encode_batch(list(self._tokenizer.cut(text)))
        return np.fromiter(itertools.chain.from_iterable(pieces), np.uint32, sum(map(len, pieces)))


class TiktokenEncoder:
    """The same ids from tiktoken, as far as `choose_encoder` compares them.

    Args:
        tokenizer: the tokenizer, which also encodes texts on which tiktoken fails.

    Raises:
        ValueError: something in the tokenizer has no equivalent in tiktoken.
    """

    name = "tiktoken"

    def __init__(self, tokenizer: Tokenizer) -> None:
        import tiktoken  # imported late: it may not be installed

        self._tokenizer = tokenizer
        self._reference = TokenizersEncoder(tokenizer)
        ids = mergeable_ids(tokenizer.spec)
        ranks = ids
        self._id_of_rank: NDArray[np.uint32] | None = None
        if not _ascends(list(ids.values())[256:]):
            ranks = {token: rank for rank, token in enumerate(ids)}
            self._id_of_rank = np.array(list(ids.values()), np.uint32)
        special = {_UNUSED_SPECIAL: max(ranks.values()) + 1}
        pattern = word_pattern(tokenizer.spec)
        self._encoding = tiktoken.Encoding("hindsight", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
        self._without_lookahead: tiktoken.Encoding | None = None
        if pattern == GPT2_PATTERN:
            self._without_lookahead = tiktoken.Encoding(
                "hindsight_without_lookahead",
                pat_str=pattern.replace(LOOKAHEAD, ""),
                mergeable_ranks=ranks,
                special_tokens=special,
            )

    def encode(self, text: str) -> NDArray[np.uint32]:
        """Give the ids of a text."""
        return np.concatenate([self._encode(piece) for piece in self._tokenizer.cut(text)])

    def _encode(self, text: str) -> NDArray[np.uint32]:
        """Give the ids of a piece; from the reference if tiktoken raises, as on a million spaces in a row."""
        raw = text.encode()
        encoding = self._without_lookahead
        if encoding is None or has_adjacent_spaces(raw):
            encoding = self._encoding
        try:
            ids = encoding.encode_to_numpy(text, disallowed_special=())
        except ValueError:
            return self._reference.encode(text)
        if self._id_of_rank is not None:
            ids = self._id_of_rank[ids]
        if self._tokenizer.bytes_per_token[ids].sum() != len(raw):  # tiktoken drops what the pattern does not match
            return self._reference.encode(text)
        return ids


def has_adjacent_spaces(raw: bytes) -> bool:
    """Whether white space may follow white space in UTF-8 text: True without need now and then, never wrongly False."""
    content = np.frombuffer(raw, np.uint8)
    space = content <= ord(" ")
    if (space[1:] & space[:-1]).any():
        return True
    at = np.flatnonzero((content == 0xC2) | (content - 0xE1 <= 2))  # where other white space may begin
    third = content[np.minimum(at + 2, len(raw) - 1)]
    return bool(_wide_spaces()[content[at] - 0xC2, content[at + 1], third].any())


@lru_cache(maxsize=1)
def _wide_spaces() -> NDArray[np.bool_]:
    """Mark white space beyond ASCII by its bytes in UTF-8: the first less C2, the second, and the third.

    Of two bytes there is only U+0085 and U+00A0; the index then stands for them followed by any byte.
    """
    table = np.zeros((0xE4 - 0xC2, 256, 256), bool)
    for space in _SPACES:
        if not space.isascii():
            first, *others = space.encode()
            table[(first - 0xC2, *others)] = True
    return table


def choose_encoder(tokenizer: Tokenizer, wanted: EncoderName, sample: Iterable[str]) -> Encoder:
    """Give the fastest encoder whose ids are those of `tokenizers`, by a short comparison.

    It compares the ids of hard texts, of all tokens of the vocabulary, and of the sample. If tiktoken cannot be used,
    or one id differs, the log says why, and the reference is returned.

    Args:
        tokenizer: the tokenizer.
        wanted: tokenizers for the reference without a comparison; the others try tiktoken.
        sample: texts like those to encode; no more than SAMPLE_BYTES of them are read.
    """
    log = logging.getLogger("hindsight")
    reference = TokenizersEncoder(tokenizer)
    if wanted is EncoderName.tokenizers:
        return reference
    level = logging.WARNING if wanted is EncoderName.tiktoken else logging.INFO
    try:
        encoder = TiktokenEncoder(tokenizer)
    except ImportError:
        log.log(level, "tiktoken is not installed: tokenizers, which is slower, encodes.")
    except ValueError as error:
        log.log(level, "tiktoken cannot replace this tokenizer (%s): tokenizers, which is slower, encodes.", error)
    else:
        pieces = (piece for text in _first_bytes(sample) for piece in tokenizer.cut(text))
        texts = [*HARD_TEXTS, *_vocabulary_texts(tokenizer), *pieces]

        def compare(some: list[str]) -> list[str]:
            return [found for text in some if (found := first_difference(encoder, reference, text)) is not None]

        with ThreadPoolExecutor(THREADS) as threads:  # they end here: no thread may be alive when this process forks
            compared = threads.map(compare, (texts[start::THREADS] for start in range(THREADS)))
            differences = list(itertools.chain.from_iterable(compared))
        if not differences:
            return encoder
        log.warning("tiktoken gives other ids (%s): tokenizers, which is slower, encodes.", differences[0])
    return reference


def first_difference(encoder: Encoder, reference: Encoder, text: str) -> str | None:
    """Describe the first id of a text in which two encoders differ; None if they agree."""
    ids, expected = encoder.encode(text), reference.encode(text)
    if np.array_equal(ids, expected):
        return None
    at = next((i for i, (a, b) in enumerate(zip(ids, expected, strict=False)) if a != b), min(len(ids), len(expected)))
    shown = repr(text if len(text) <= 80 else f"{text[:80]}…")
    return f"text {shown}, id number {at}: {ids[at : at + 3].tolist()} instead of {expected[at : at + 3].tolist()}"


def word_pattern(spec: dict[str, Any]) -> str:
    """Give the pattern by which a tokenizer finds words; ValueError if it needs anything else to find them."""
    if spec.get("normalizer"):
        raise ValueError(f"it has a normalizer, {spec['normalizer'].get('type')}")
    steps = _steps(spec.get("pre_tokenizer") or {})
    names = " and ".join(str(step.get("type")) for step in steps)
    splits, byte_level = steps[:-1], steps[-1]
    if byte_level.get("type") != "ByteLevel" or byte_level.get("add_prefix_space", True):
        raise ValueError(f"its pre-tokenizer is {names}, or adds a space")
    by_itself = byte_level.get("use_regex", True)
    if by_itself and not splits:
        return GPT2_PATTERN
    split = splits[0] if splits else {}
    pattern = (split.get("pattern") or {}).get("Regex")
    isolated = split.get("behavior") == "Isolated" and not split.get("invert")
    if by_itself or len(splits) != 1 or split.get("type") != "Split" or not isolated or not pattern:
        raise ValueError(f"its pre-tokenizer is {names}, not one pattern")
    return pattern


def mergeable_ids(spec: dict[str, Any]) -> dict[bytes, int]:
    """Give the id of each byte and then of each merged token, in the order of the merges; ValueError if others exist.

    Special tokens, which no text gives, are left out.
    """
    model = spec["model"]
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise ValueError(f"its model has {key}={model[key]}")
    if model.get("type") != "BPE":
        raise ValueError(f"its model is {model.get('type')}")
    if not all(token["special"] for token in spec["added_tokens"]):
        raise ValueError("it has added tokens that are not special")
    vocab: dict[str, int] = model["vocab"]
    tokens = dict.fromkeys(BYTE_CHARACTERS)
    for merge in model["merges"]:
        tokens.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge))
    ids = {token: vocab[token] for token in tokens}
    unmerged = vocab.keys() - ids.keys() - {token["content"] for token in spec["added_tokens"]}
    if unmerged:
        raise ValueError(f"no merge makes its token {min(unmerged)!r}")
    return {bytes_of(token): token_id for token, token_id in ids.items()}


def _steps(pre_tokenizer: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the single steps of a pre-tokenizer, which may be a sequence of others."""
    inner = pre_tokenizer.get("pretokenizers")
    return [pre_tokenizer] if not inner else [step for one in inner for step in _steps(one)]


def _ascends(numbers: list[int]) -> bool:
    return all(a < b for a, b in itertools.pairwise(numbers))


def _vocabulary_texts(tokenizer: Tokenizer) -> Iterator[str]:
    """Yield texts with the names of all special tokens, and with every token of the vocabulary."""
    special = [token["content"] for token in tokenizer.spec["added_tokens"]]
    yield from special
    yield f"x{'x '.join(special)} {''.join(special)}"
    tokens = (token for token in tokenizer.spec["model"]["vocab"] if token not in special)
    texts = (bytes_of(token).decode(errors="replace") for token in tokens)
    lines = [text if text.startswith(" ") else f"\n{text}" for text in texts]
    for start in range(0, len(lines), 1000):
        yield "".join(lines[start : start + 1000])


def _first_bytes(sample: Iterable[str]) -> Iterator[str]:
    """Yield texts of a sample up to SAMPLE_BYTES; the last one may be cut off."""
    left = SAMPLE_BYTES
    for text in sample:
        start = text[:left].encode()[:left].decode(errors="ignore")
        yield start
        left -= len(start.encode())
        if left <= 0 or len(start) < len(text):
            return
