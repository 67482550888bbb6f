"""Text -> a byte-level BPE vocabulary: ffbpe where its merges are those of `tokenizers`, which remains the reference.

Both break ties alike, so that the result is the same file; ffbpe counts words while text comes, and is several times
faster. Whether it gives the same merges is tried at every start.
"""

import itertools
import json
import logging
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from hindsight.config.tokenizer import TrainerName
from hindsight.errors import InputError
from hindsight.tokenization.fast_encoding import HARD_TEXTS
from hindsight.tokenization.tokenizer import BYTE_CHARACTERS, GPT2_PATTERN, bytes_of, can_be_cut, cut, token_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger("hindsight")

SPECIAL_TOKENS = ["<|bos|>", "<|eos|>", "<|forward|>", "<|backward|>", "<|pad|>"]
N_BYTES = 256
CHECK_CHARS = 100_000
"""Text on which ffbpe is tried before it learns."""
CHECK_MERGES = 500
CHECK_PIECE_CHARS = 4096
"""Its pieces; `tokenizers` takes time that grows with the square of a word's length."""


@dataclass
class Draft:
    """A tokenizer on its way into a folder.

    Args:
        spec: content of tokenizer.json.
        theirs: the reference tokenizer, or what was trained from it, as an object of transformers, which knows the
            other files; None for our own settings, so that nobody waits the seconds that importing transformers takes.
    """

    spec: dict[str, Any]
    theirs: "PreTrainedTokenizerFast | None" = None

    @property
    def special(self) -> list[dict[str, Any]]:
        """The special tokens as tokenizer.json has them."""
        return [token for token in self.spec["added_tokens"] if token["special"]]


def new_draft() -> Draft:
    """Make a tokenizer without a vocabulary: GPT-2's pattern, all bytes, our special tokens."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    backend.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    return Draft(json.loads(backend.to_str()))


def train(draft: Draft, texts: Iterable[str], vocab_size: int, wanted: TrainerName) -> tuple[Draft, str]:
    """Learn a vocabulary; InputError if the text is too small for it.

    Args:
        draft: everything but the vocabulary.
        texts: documents; one at a time is in memory.
        vocab_size: number of token ids.
        wanted: the library that learns, if it can be used.

    Returns:
        The tokenizer, and the library that learned it.
    """
    texts = iter(texts)
    first = beginning(texts)
    fit = wanted is not TrainerName.tokenizers and fit_for_ffbpe(draft, first, wanted)
    cuttable = can_be_cut(draft.spec)
    every_text = itertools.chain((first.popleft() for _ in range(len(first))), texts)
    batches = (list(cut(text)) if cuttable else [text] for text in every_text)
    if fit:
        trained = learn(draft, [], N_BYTES + len(draft.special))
        merges = ffbpe_merges(itertools.chain.from_iterable(batches), vocab_size - size_of(trained))
        add_merges(trained.spec["model"], merges)
    else:
        # The trainer's own bars would leave empty lines where there is no terminal.
        trained = learn(draft, batches, vocab_size, show_progress=sys.stderr.isatty())
    if size_of(trained) < vocab_size:
        raise InputError(
            f"vocab_size={vocab_size} is more than this text can fill: it fills {size_of(trained)}; choose at most "
            "that, or give more text."
        )
    return trained, "ffbpe" if fit else "tokenizers"


def check_vocab_size(vocab_size: int, draft: Draft) -> None:
    """Raise InputError if the bytes and the special tokens alone exceed the vocabulary."""
    n_special = len(draft.special)
    if vocab_size < N_BYTES + n_special:
        raise InputError(
            f"vocab_size={vocab_size} is too small: {N_BYTES} bytes and {n_special} special tokens need at "
            f"least {N_BYTES + n_special}."
        )


def beginning(texts: Iterator[str]) -> deque[str]:
    """Take the texts on which ffbpe is tried."""
    first: deque[str] = deque()
    n_chars = 0
    while n_chars < CHECK_CHARS and (text := next(texts, None)) is not None:
        first.append(text)
        n_chars += len(text)
    return first


def size_of(draft: Draft) -> int:
    """The number of token ids."""
    return len(draft.spec["model"]["vocab"].keys() | {token["content"] for token in draft.spec["added_tokens"]})


def learn(draft: Draft, batches: Iterable[list[str]], vocab_size: int, show_progress: bool = False) -> Draft:
    """Learn a vocabulary with `tokenizers`: special tokens, then bytes, then merges."""
    if draft.theirs is not None:
        theirs = draft.theirs.train_new_from_iterator(iter(batches), vocab_size, show_progress=show_progress)
        return Draft(json.loads(theirs.backend_tokenizer.to_str()), theirs)
    backend = tokenizers.Tokenizer.from_str(json.dumps({**draft.spec, "added_tokens": []}))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    names = [token["content"] for token in draft.special]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=names, initial_alphabet=alphabet, show_progress=show_progress
    )
    backend.train_from_iterator(batches, trainer)
    return Draft(json.loads(backend.to_str()))


def fit_for_ffbpe(draft: Draft, first: Iterable[str], wanted: TrainerName) -> bool:
    """Whether ffbpe learns what `tokenizers` would, tried on hard texts and the first ones; the log says why not."""
    level = logging.WARNING if wanted is TrainerName.ffbpe else logging.INFO
    try:
        import ffbpe  # here, because it needs Python 3.11
    except ImportError:
        log.log(level, "ffbpe is not installed: the slower tokenizers learns.")
        return False
    if not splits_like_gpt2(draft):
        log.log(
            level,
            "ffbpe cannot learn for this reference= (words are not GPT-2's, or name a special token): tokenizers does.",
        )
        return False
    start = "".join(text[:CHECK_CHARS] for text in first)[:CHECK_CHARS]
    pieces = [start[at : at + CHECK_PIECE_CHARS] for at in range(0, len(start), CHECK_PIECE_CHARS)]
    ours = new_draft()
    words = tokenizers.Tokenizer.from_str(json.dumps(ours.spec)).pre_tokenizer
    try:
        theirs = ffbpe.PreTokenizer([], pat_str=GPT2_PATTERN)
        for text in HARD_TEXTS:
            counts = Counter(
                token_of(word.encode()) for word, count in theirs.get_words(text).items() for _ in range(count)
            )
            if counts != Counter(word for word, _ in words.pre_tokenize_str(text)):
                raise ValueError(f"other words in {text[:80]!r}")
        merges = ffbpe_merges(pieces, CHECK_MERGES)
        expected = learn(ours, [pieces], N_BYTES + len(ours.special) + CHECK_MERGES).spec["model"]["merges"]
        if merges != expected:
            raise ValueError("other merges")
    except Exception as error:  # a package in its first versions may raise anything
        log.warning("ffbpe does not learn what tokenizers does (%s): the slower tokenizers learns.", error)
        return False
    return True


def splits_like_gpt2(draft: Draft) -> bool:
    """Whether words are GPT-2's, and none can become the name of a special token, whose id it would share."""
    model = draft.spec["model"]
    return (
        can_be_cut(draft.spec)
        and model.get("type") == "BPE"
        and not model.get("continuing_subword_prefix")
        and not model.get("end_of_word_suffix")
        and not any(is_word(token["content"]) for token in draft.special)
    )


def is_word(token: str) -> bool:
    """Whether a name is what merges inside one of GPT-2's words can give."""
    try:
        text = bytes_of(token).decode(errors="replace")
    except ValueError:
        return False
    return len(pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)) < 2


def ffbpe_merges(texts: Iterable[str], n_merges: int) -> list[list[str]]:
    """Learn merges with ffbpe, as many as there are up to a number, in the form of tokenizer.json."""
    import ffbpe

    words = ffbpe.PreTokenizer([], pat_str=GPT2_PATTERN).word_counter()
    words.add_source(iter(texts), max_records=4096, max_bytes=1 << 23, prefetch=1)
    trainer = ffbpe.BpeTrainer([], unit="byte", initial_alphabet="byte_level", tie_break="smallest_pair_id")
    trainer.add_word_counter(words)
    trainer.train(N_BYTES + n_merges)
    with tempfile.TemporaryDirectory() as folder:
        trainer.validate_model().save_merges_txt(Path(folder, "merges"), format="gpt2")
        lines = Path(folder, "merges").read_text(encoding="utf-8").split("\n")
    # "left right => count"; byte-level tokens have no space.
    merges = [line.split(" ")[:2] for line in lines if line]
    known = set(BYTE_CHARACTERS)
    for left, right in merges:
        if left not in known or right not in known:
            raise ValueError(f"a merge of {left!r} and {right!r}, of which one is not known then")
        known.add(left + right)
    if len(known) != trainer.vocab_size or len(merges) != trainer.vocab_size - N_BYTES:
        raise ValueError(f"{len(merges)} merges for a vocabulary of {trainer.vocab_size}")
    return merges


def add_merges(model: dict[str, Any], merges: list[list[str]]) -> None:
    """Add merges to a vocabulary that has none."""
    model["merges"] = merges
    for merge in merges:
        model["vocab"].setdefault("".join(merge), len(model["vocab"]))
