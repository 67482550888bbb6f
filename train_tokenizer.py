"""Train a byte-level BPE tokenizer on a corpus and save it as a folder that transformers' AutoTokenizer loads.

Words are split by GPT-2's pattern, every byte is in the alphabet, and nothing is normalized, so that any text comes
back as it was. With reference=, the normalizer, pre-tokenizer, decoder and special tokens are those of another
tokenizer (text comes back as its normalizer leaves it); if it lacks a BOS or an EOS token, our five special tokens join
its own and take the roles that it leaves open.
"""

import contextlib
import hashlib
import heapq
import json
import logging
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers
from tqdm import tqdm

from config import InputError, TokenizerConfig, run_script
from corpus import Corpus, document_hash
from output_files import is_free, local_path, new_folder
from tokenizer import Tokenizer, can_be_cut, cut, require_byte_level

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger("hindsight")

ROLES = {"bos_token": "<|bos|>", "eos_token": "<|eos|>", "pad_token": "<|pad|>"}
SPECIAL_TOKENS = ["<|bos|>", "<|eos|>", "<|forward|>", "<|backward|>", "<|pad|>"]
N_BYTES = 256
RECORD_NAME = "hindsight.json"


def main(config: TokenizerConfig) -> None:
    """Train and save, unless the same tokenizer is there."""
    out = local_path("out", config.out)
    corpus = Corpus(config.corpus, config.corpus_format)
    reference = None if config.reference is None else load_reference(config.reference)
    check_vocab_size(config.vocab_size, reference)
    record: dict[str, Any] = {"settings": settings_of(config, reference)}
    check_out(out, record)

    sample = Sample(config.sample_bytes, config.seed)
    record["corpus_fingerprint"] = corpus.scan(sample.add).fingerprint
    check_out(out, record)
    if not is_free(out):
        log.info("out=%s: already there, nothing to do.", out)
        return

    trained = train(new_tokenizer() if reference is None else reference, corpus, sample, config.vocab_size)
    record["versions"] = {name: version(name) for name in ("tokenizers", "transformers")}
    with new_folder(out) as folder:
        trained.save_pretrained(folder, legacy_format=False)
        tokenizer = Tokenizer.load(folder, key="out")
        record["fingerprint"] = tokenizer.fingerprint
        (folder / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    log.info("out=%s: %d token ids, learned from %.1f MB of text.", out, tokenizer.vocab_size, sample.bytes / 1e6)


def new_tokenizer() -> "PreTrainedTokenizerFast":
    """Make a tokenizer without a vocabulary: GPT-2's pattern, all bytes, our special tokens."""
    from transformers import PreTrainedTokenizerFast  # here, because checks need not wait seconds for it

    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    backend.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    empty = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,  # AutoTokenizer too shall take "<|eos|>" in a text for seven characters
    )
    add_special_tokens(empty)
    return empty


def add_special_tokens(base: "PreTrainedTokenizerFast") -> None:
    """Add those of our special tokens that a tokenizer lacks, and give them the roles that it leaves open."""
    base.add_tokens(list(SPECIAL_TOKENS), special_tokens=True)
    base.add_special_tokens({role: token for role, token in ROLES.items() if getattr(base, role) is None})
    others = [token for token in SPECIAL_TOKENS if token not in ROLES.values()]
    base.add_special_tokens({"additional_special_tokens": others}, replace_additional_special_tokens=False)


def load_reference(reference: str) -> "PreTrainedTokenizerFast":
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
    return base


def settings_of(config: TokenizerConfig, reference: "PreTrainedTokenizerFast | None") -> dict[str, Any]:
    """All that the tokenizer depends on, the corpus aside."""
    content = (
        "" if reference is None else reference.backend_tokenizer.to_str() + json.dumps(reference.special_tokens_map)
    )
    return {
        "vocab_size": config.vocab_size,
        "reference": hashlib.sha256(content.encode()).hexdigest() if content else None,
        "sample_bytes": config.sample_bytes,
        "corpus_format": config.corpus_format.value,
        "seed": config.seed,
    }


def check_vocab_size(vocab_size: int, reference: "PreTrainedTokenizerFast | None") -> None:
    """Raise InputError if the bytes and the special tokens alone exceed the vocabulary."""
    n_special = len(SPECIAL_TOKENS)
    if reference is not None:
        n_special = sum(token.special for token in reference.added_tokens_decoder.values())
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


def train(
    base: "PreTrainedTokenizerFast", corpus: Corpus, sample: Sample, vocab_size: int
) -> "PreTrainedTokenizerFast":
    """Learn a vocabulary; InputError if the text is too small for it."""
    pieces = cut if can_be_cut(json.loads(base.backend_tokenizer.to_str())) else lambda text: [text]

    def batches() -> Iterator[list[str]]:
        with tqdm(total=sample.bytes, desc="learning", unit="B", unit_scale=True, disable=None) as bar:
            for document in sample.choose(corpus.documents()):
                yield list(pieces(document.decode()))
                bar.update(len(document))

    # The trainer's own bars would leave empty lines where there is no terminal.
    trained = base.train_new_from_iterator(batches(), vocab_size, show_progress=sys.stderr.isatty())
    if len(trained) < vocab_size:
        raise InputError(
            f"vocab_size={vocab_size} is more than this text can fill: it fills {len(trained)}; choose at most that, "
            "or give more text."
        )
    return trained


if __name__ == "__main__":
    run_script("train_tokenizer", main)
