"""Text -> a byte-level BPE vocabulary: by ffbpe where its merges equal those of `tokenizers`, which is the reference.

Both break ties in the same way, so that the resulting files are the same; ffbpe counts words while it reads, and is
several times faster. Every training begins with a check, on a little text, that its merges are the same.
"""

import itertools
import json
import logging
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
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
"""Characters of the text on which ffbpe is checked before it trains."""
CHECK_MERGES = 500
"""Merges that are compared."""
CHECK_PIECE_CHARS = 4096
"""Length of the pieces of that text: the time of `tokenizers` grows with the square of a word's length."""


@dataclass
class Draft:
    """A tokenizer that is being made.

    Args:
        spec: content of tokenizer.json.
        hf_tokenizer: the reference tokenizer, or what was trained from it, as an object of transformers, which writes
            the other files; None for our own settings, so that transformers, which takes seconds, is not imported.
        roles: the special token for each role, by transformers' name of the role; empty for ours, or hf_tokenizer's.
        origin: what identifies the reference; empty if there is none.
    """

    spec: dict[str, Any]
    hf_tokenizer: "PreTrainedTokenizerFast | None" = None
    roles: dict[str, str] = field(default_factory=dict)
    origin: str = ""

    @property
    def special(self) -> list[dict[str, Any]]:
        """The special tokens, in the form of tokenizer.json."""
        return [token for token in self.spec["added_tokens"] if token["special"]]


def new_draft(special: Iterable[str] = SPECIAL_TOKENS) -> Draft:
    """Make a tokenizer without a vocabulary: GPT-2's pattern, all bytes, special tokens."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    backend.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    backend.add_special_tokens(list(special))
    return Draft(json.loads(backend.to_str()))


def train(draft: Draft, texts: Iterable[str], vocab_size: int, trainer: TrainerName) -> tuple[Draft, str]:
    """Train a vocabulary; InputError if the text is too small for it.

    Args:
        draft: everything but the vocabulary.
        texts: documents; one at a time is in memory.
        vocab_size: number of token ids.
        trainer: the library to train with, if it can be used.

    Returns:
        The tokenizer, and the library that trained it.
    """
    texts = iter(texts)
    first = first_texts(texts)
    use_ffbpe = trainer is not TrainerName.tokenizers and can_use_ffbpe(draft, first, trainer)
    cuttable = can_be_cut(draft.spec)
    every_text = itertools.chain((first.popleft() for _ in range(len(first))), texts)
    batches = (list(cut(text)) if cuttable else [text] for text in every_text)
    if use_ffbpe:
        trained = with_bytes_only(draft)
        merges = ffbpe_merges(itertools.chain.from_iterable(batches), vocab_size - vocab_size_of(trained))
        add_merges(trained.spec["model"], merges)
    else:
        # The trainer's own bars would leave empty lines where there is no terminal.
        trained = train_with_tokenizers(draft, batches, vocab_size, show_progress=sys.stderr.isatty())
    filled = vocab_size_of(trained)
    if filled < vocab_size:
        raise InputError(
            f"vocab_size={vocab_size} is more than this text can fill: it fills {filled}; choose at most that, or give "
            "more text."
        )
    return trained, "ffbpe" if use_ffbpe else "tokenizers"


def with_bytes_only(draft: Draft) -> Draft:
    """Give a draft the vocabulary of its special tokens and the bytes, without merges."""
    return train_with_tokenizers(draft, [], N_BYTES + len(draft.special))


def check_vocab_size(vocab_size: int, draft: Draft) -> None:
    """Raise InputError if the bytes and the special tokens alone exceed the vocabulary."""
    n_special = len(draft.special)
    if vocab_size < N_BYTES + n_special:
        raise InputError(
            f"vocab_size={vocab_size} is too small: {N_BYTES} bytes and {n_special} special tokens need at "
            f"least {N_BYTES + n_special}."
        )


def first_texts(texts: Iterator[str]) -> deque[str]:
    """Read as many texts as the check of ffbpe needs."""
    first: deque[str] = deque()
    n_chars = 0
    while n_chars < CHECK_CHARS and (text := next(texts, None)) is not None:
        first.append(text)
        n_chars += len(text)
    return first


def vocab_size_of(draft: Draft) -> int:
    """Count the token ids, special tokens included."""
    return len(draft.spec["model"]["vocab"].keys() | {token["content"] for token in draft.spec["added_tokens"]})


def train_with_tokenizers(
    draft: Draft, batches: Iterable[list[str]], vocab_size: int, show_progress: bool = False
) -> Draft:
    """Train a vocabulary with `tokenizers`: special tokens, then bytes, then merges."""
    if draft.hf_tokenizer is not None:
        trained = draft.hf_tokenizer.train_new_from_iterator(iter(batches), vocab_size, show_progress=show_progress)
        drop_empty_post_processor(trained)
        return Draft(json.loads(trained.backend_tokenizer.to_str()), trained)
    backend = tokenizers.Tokenizer.from_str(json.dumps({**draft.spec, "added_tokens": []}))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    names = [token["content"] for token in draft.special]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=names, initial_alphabet=alphabet, show_progress=show_progress
    )
    backend.train_from_iterator(batches, trainer)
    return replace(draft, spec=json.loads(backend.to_str()))


def drop_empty_post_processor(hf_tokenizer: "PreTrainedTokenizerFast") -> None:
    """Remove the post-processor that adds no token, which transformers 5 gives to a tokenizer that has none.

    With transformers 4 and 5 a reference then gives the same tokenizer.json, with the same fingerprint.
    """
    post_processor = json.loads(hf_tokenizer.backend_tokenizer.to_str())["post_processor"] or {}
    if not version("transformers").startswith("4.") and post_processor.get("special_tokens") == {}:
        hf_tokenizer.backend_tokenizer.post_processor = None  # pyright: ignore[reportAttributeAccessIssue]


def can_use_ffbpe(draft: Draft, first: Iterable[str], trainer: TrainerName) -> bool:
    """Whether ffbpe trains what `tokenizers` would: checked on hard texts and the first ones. The log says why not."""
    level = logging.WARNING if trainer is TrainerName.ffbpe else logging.INFO
    try:
        import ffbpe  # imported late: it needs Python 3.11
    except ImportError:
        log.log(level, "ffbpe is not installed: tokenizers, which is slower, trains.")
        return False
    if not has_words_of_gpt2(draft):
        log.log(
            level,
            "ffbpe cannot train for this reference= (words are not GPT-2's, or name a special token): tokenizers does.",
        )
        return False
    start = "".join(text[:CHECK_CHARS] for text in first)[:CHECK_CHARS]
    pieces = [start[at : at + CHECK_PIECE_CHARS] for at in range(0, len(start), CHECK_PIECE_CHARS)]
    untrained = new_draft()
    reference = tokenizers.Tokenizer.from_str(json.dumps(untrained.spec)).pre_tokenizer
    try:
        candidate = ffbpe.PreTokenizer([], pat_str=GPT2_PATTERN)
        for text in HARD_TEXTS:
            counts = Counter(
                token_of(word.encode()) for word, count in candidate.get_words(text).items() for _ in range(count)
            )
            if counts != Counter(word for word, _ in reference.pre_tokenize_str(text)):
                raise ValueError(f"other words in {text[:80]!r}")
        merges = ffbpe_merges(pieces, CHECK_MERGES)
        vocab_size = N_BYTES + len(untrained.special) + CHECK_MERGES
        expected = train_with_tokenizers(untrained, [pieces], vocab_size)
        if merges != expected.spec["model"]["merges"]:
            raise ValueError("other merges")
    except Exception as error:  # a package in its first versions may raise anything
        log.warning("ffbpe does not train what tokenizers does (%s): tokenizers, which is slower, trains.", error)
        return False
    return True


def has_words_of_gpt2(draft: Draft) -> bool:
    """Whether words are GPT-2's, and none of them can become the name of a special token, whose id it would share."""
    model = draft.spec["model"]
    return (
        can_be_cut(draft.spec)
        and model.get("type") == "BPE"
        and not model.get("continuing_subword_prefix")
        and not model.get("end_of_word_suffix")
        and not any(is_word(token["content"]) for token in draft.special)
    )


def is_word(token: str) -> bool:
    """Whether merges inside one of GPT-2's words can give this token."""
    try:
        text = bytes_of(token).decode(errors="replace")
    except ValueError:
        return False
    return len(pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)) < 2


def ffbpe_merges(texts: Iterable[str], n_merges: int) -> list[list[str]]:
    """Train at most so many merges with ffbpe, in the form of tokenizer.json; ValueError if they are inconsistent."""
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
            raise ValueError(f"a merge of {left!r} and {right!r}, one of which is not known before it")
        known.add(left + right)
    if len(known) != trainer.vocab_size or len(merges) != trainer.vocab_size - N_BYTES:
        raise ValueError(f"{len(merges)} merges for a vocabulary of {trainer.vocab_size}")
    return merges


def add_merges(model: dict[str, Any], merges: list[list[str]]) -> None:
    """Add merges, and the tokens that they make, to a vocabulary that has none."""
    model["merges"] = merges
    for merge in merges:
        model["vocab"].setdefault("".join(merge), len(model["vocab"]))
