"""Train a byte-level BPE tokenizer on a corpus and save it as a folder that transformers' AutoTokenizer loads.

Words are split by GPT-2's pattern, every byte is in the alphabet, and nothing is normalized, so that any text comes
back as it was. With reference=, the normalizer, pre-tokenizer, decoder and special tokens are those of another
tokenizer (text comes back as its normalizer leaves it); if it lacks a BOS or an EOS token, our five special tokens join
its own and take the roles that it leaves open.
"""

import contextlib
import hashlib
import heapq
import itertools
import json
import logging
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers
from tqdm import tqdm

from config import InputError, TokenizerConfig, TrainerName, run_script
from corpus import Corpus, document_hash
from encoder import HARD_TEXTS
from output_files import is_free, local_path, new_folder
from tokenizer import (
    CONFIG_FILE,
    GPT2_PATTERN,
    TOKENIZER_FILE,
    Tokenizer,
    bytes_of,
    can_be_cut,
    cut,
    require_byte_level,
    token_of,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger("hindsight")

ROLES = {"bos_token": "<|bos|>", "eos_token": "<|eos|>", "pad_token": "<|pad|>"}
SPECIAL_TOKENS = ["<|bos|>", "<|eos|>", "<|forward|>", "<|backward|>", "<|pad|>"]
N_BYTES = 256
RECORD_NAME = "hindsight.json"
CHECK_CHARS = 200_000
"""Text on which ffbpe is tried before it learns."""
CHECK_MERGES = 1000
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


def main(config: TokenizerConfig) -> None:
    """Train and save, unless the same tokenizer is there."""
    out = local_path("out", config.out)
    corpus = Corpus(config.corpus, config.corpus_format)
    draft = new_draft() if config.reference is None else load_reference(config.reference)
    check_vocab_size(config.vocab_size, draft)
    record: dict[str, Any] = {"settings": settings_of(config, draft)}
    check_out(out, record)

    sample = Sample(config.sample_bytes, config.seed)
    record["corpus_fingerprint"] = corpus.scan(sample.add).fingerprint
    check_out(out, record)
    if not is_free(out):
        log.info("out=%s: already there, nothing to do.", out)
        return

    trained, library = train(draft, texts_of(corpus, sample), config.vocab_size, config.trainer)
    libraries = ["tokenizers", library, *([] if trained.theirs is None else ["transformers"])]
    record["versions"] = {name: version(name) for name in libraries}
    with new_folder(out) as folder:
        save(trained, folder)
        tokenizer = Tokenizer.load(folder, key="out")
        record["fingerprint"] = tokenizer.fingerprint
        (folder / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    log.info("out=%s: %d token ids, learned from %.1f MB of text.", out, tokenizer.vocab_size, sample.bytes / 1e6)


def new_draft() -> Draft:
    """Make a tokenizer without a vocabulary: GPT-2's pattern, all bytes, our special tokens."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    backend.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    return Draft(json.loads(backend.to_str()))


def add_special_tokens(base: "PreTrainedTokenizerFast") -> None:
    """Add those of our special tokens that a tokenizer lacks, and give them the roles that it leaves open."""
    base.add_tokens(list(SPECIAL_TOKENS), special_tokens=True)
    base.add_special_tokens({role: token for role, token in ROLES.items() if getattr(base, role) is None})
    base.add_special_tokens({"additional_special_tokens": without_role()}, replace_additional_special_tokens=False)


def without_role() -> list[str]:
    """Our special tokens that are no BOS, EOS or padding."""
    return [token for token in SPECIAL_TOKENS if token not in ROLES.values()]


def load_reference(reference: str) -> Draft:
    """Load the tokenizer whose settings are taken over; InputError if there is none or it is not byte-level."""
    from transformers import AutoTokenizer

    if reference.startswith(("/", ".", "~")) and not Path(reference).expanduser().is_dir():
        raise InputError(f"reference={reference} does not exist: give a tokenizer folder, or a name on the Hub.")
    try:
        base = AutoTokenizer.from_pretrained(str(Path(reference).expanduser()))
    except Exception as error:  # whatever the files in question make transformers raise
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"reference={reference} cannot be loaded ({reason}); give a tokenizer folder, or a name on the Hub and a "
            "connection to it."
        ) from error
    if not base.is_fast:
        raise InputError(f"reference={reference} has no tokenizer.json; give a tokenizer that has.")
    require_byte_level(json.loads(base.backend_tokenizer.to_str()), f"reference={reference}")
    if base.bos_token is None or base.eos_token is None:
        add_special_tokens(base)
    base.init_kwargs["split_special_tokens"] = True
    return Draft(json.loads(base.backend_tokenizer.to_str()), base)


def settings_of(config: TokenizerConfig, draft: Draft) -> dict[str, Any]:
    """All that the tokenizer depends on, the corpus aside."""
    theirs = draft.theirs
    content = "" if theirs is None else theirs.backend_tokenizer.to_str() + json.dumps(theirs.special_tokens_map)
    return {
        "vocab_size": config.vocab_size,
        "reference": hashlib.sha256(content.encode()).hexdigest() if content else None,
        "sample_bytes": config.sample_bytes,
        "corpus_format": config.corpus_format.value,
        "seed": config.seed,
    }


def check_vocab_size(vocab_size: int, draft: Draft) -> None:
    """Raise InputError if the bytes and the special tokens alone exceed the vocabulary."""
    n_special = len(draft.special)
    if vocab_size < N_BYTES + n_special:
        raise InputError(
            f"vocab_size={vocab_size} is too small: {N_BYTES} bytes and {n_special} special tokens need at "
            f"least {N_BYTES + n_special}."
        )


def check_out(out: Path, record: dict[str, Any]) -> None:
    """Raise InputError if `out` holds something else than what this record describes, as far as it goes."""
    if is_free(out):
        return
    there: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        there = json.loads((out / RECORD_NAME).read_text(encoding="utf-8"))
    for key, value in record.items():
        if there.get(key) != value:
            what = "a tokenizer made from another corpus or with other settings" if there else "something else"
            raise InputError(f"out={out} holds {what}; choose another out, or remove it.")


class Sample:
    """Documents drawn over the whole corpus: those with the smallest hashes, as many as it takes to reach a size.

    Args:
        limit_bytes: size to reach; None for all documents.
        seed: seed of the hash.
    """

    def __init__(self, limit_bytes: int | None, seed: int) -> None:
        self.limit_bytes = limit_bytes
        self.seed = seed
        self.bytes = 0
        self._drawn: list[tuple[float, int, int]] = []  # a heap, the document to drop next on top

    def add(self, number: int, document: bytes) -> None:
        """Consider a document, and drop those that are no longer needed."""
        self.bytes += len(document)
        if self.limit_bytes is None:
            return
        heapq.heappush(self._drawn, (-document_hash(self.seed, number, b"sample"), number, len(document)))
        while self.bytes - self._drawn[0][2] >= self.limit_bytes:
            self.bytes -= heapq.heappop(self._drawn)[2]

    def choose(self, documents: Iterator[bytes]) -> Iterator[bytes]:
        """Keep the documents that were drawn."""
        drawn = {number for _, number, _ in self._drawn}
        for number, document in enumerate(documents):
            if self.limit_bytes is None or number in drawn:
                yield document


def texts_of(corpus: Corpus, sample: Sample) -> Iterator[str]:
    """Read the documents of the sample, with a progress bar."""
    with tqdm(total=sample.bytes, desc="learning", unit="B", unit_scale=True, disable=None) as bar:
        for document in sample.choose(corpus.documents()):
            yield document.decode()
            bar.update(len(document))


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
        trainer.save_files(Path(folder, "vocab"), Path(folder, "merges"), format="gpt2")
        lines = Path(folder, "merges").read_text(encoding="utf-8").split("\n")
    # "left right => count"; byte-level tokens have no space.
    merges = [line.split(" ")[:2] for line in lines if line]
    tokens = sorted((token_id, token) for token, token_id in trainer.vocab.items() if token_id >= N_BYTES)
    if ["".join(merge) for merge in merges] != [token_of(token) for _, token in tokens]:
        raise ValueError("its file of merges has an unknown form")
    return merges


def add_merges(model: dict[str, Any], merges: list[list[str]]) -> None:
    """Add merges to a vocabulary that has none."""
    model["merges"] = merges
    for merge in merges:
        model["vocab"].setdefault("".join(merge), len(model["vocab"]))


def save(draft: Draft, folder: Path) -> None:
    """Write a tokenizer so that transformers' AutoTokenizer loads it; the files are those that transformers writes."""
    if draft.theirs is not None:
        draft.theirs.save_pretrained(folder, legacy_format=False)
    else:
        form = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        others = {"additional_special_tokens": without_role()}
        _write(
            folder / CONFIG_FILE,
            {
                "added_tokens_decoder": {
                    token["id"]: {key: value for key, value in token.items() if key != "id"} for token in draft.special
                },
                **ROLES,
                **others,
                "clean_up_tokenization_spaces": False,
                "extra_special_tokens": {},
                "model_max_length": int(1e30),  # none
                "split_special_tokens": True,  # AutoTokenizer too shall take "<|eos|>" in a text for seven characters
                "tokenizer_class": "PreTrainedTokenizerFast",
            },
        )
        _write(
            folder / "special_tokens_map.json",
            {role: {"content": name, **form} for role, name in ROLES.items()} | others,
        )
    tokenizers.Tokenizer.from_str(json.dumps(draft.spec)).save(str(folder / TOKENIZER_FILE))


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_script("train_tokenizer", main)
