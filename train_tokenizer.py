"""Train a byte-level BPE tokenizer on a corpus and save it as a folder that transformers' AutoTokenizer loads.

Words are those of GPT-2's pattern, every byte is in the alphabet, and nothing is normalized, so that decoding gives
back any text. With reference=, the normalizer, pre-tokenizer, decoder and special tokens are those of another tokenizer
(decoding then gives the normalized text); if it lacks a BOS or an EOS token, our five special tokens are added, and get
the roles that none of its own tokens has. With vocab_size=bytes, the vocabulary is the bytes and the special tokens.
"""

import hindsight.installed  # noqa: F401 - says `make setup` before an import below fails

# isort: split
import hashlib
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hindsight.command_line import run_script
from hindsight.config.tokenizer import BYTES, TokenizerConfig
from hindsight.errors import InputError
from hindsight.files import is_free, local_path, new_folder
from hindsight.text.documents import Corpus
from hindsight.text.finding import describe_not_taken
from hindsight.text.sampling import Sample
from hindsight.tokenization.bpe_training import Draft, check_vocab_size, new_draft, train, with_bytes_only
from hindsight.tokenization.hf_folder import load_reference, put_bos_first, read_record, save, write_record
from hindsight.tokenization.tokenizer import Tokenizer

log = logging.getLogger("hindsight")


def main(config: TokenizerConfig) -> None:
    """Train and save a tokenizer, unless the same one is there."""
    out = local_path("out", config.out)
    if isinstance(config.vocab_size, str):
        make_of_bytes(config, out)
        return
    corpus = Corpus(config)
    if corpus.not_taken:
        log.warning("corpus=%s: files that are not taken: %s.", config.corpus, describe_not_taken(corpus.not_taken))
    draft = draft_of(config)
    check_vocab_size(config.vocab_size, draft)
    record: dict[str, Any] = {"settings": settings_of(config, draft)}
    check_out(out, record)

    sample = Sample(corpus, config.sample_bytes, config.seed)
    if not is_free(out):
        if corpus.stamp is None or read_record(out).get("stamp") != corpus.stamp:
            check_out(out, record | {"corpus_fingerprint": sample.read().fingerprint})
        log.info("out=%s: already there, nothing to do.", out)
        return
    with new_folder(out) as folder:
        trained, library = train(draft, sample.texts(), config.vocab_size, config.trainer)
        record |= {"corpus_fingerprint": sample.fingerprint, "stamp": corpus.stamp}
        tokenizer = store(folder, trained, config, record, library)
    log.info("out=%s: %d token ids, trained on %.1f MB of text.", out, tokenizer.vocab_size, sample.bytes / 1e6)


def make_of_bytes(config: TokenizerConfig, out: Path) -> None:
    """Save the tokenizer for vocab_size=bytes, which depends on no text, unless it is there."""
    if config.corpus is not None:
        log.info("vocab_size=%s: nothing is trained, and corpus=%s is not read.", BYTES, config.corpus)
    draft = draft_of(config)
    record: dict[str, Any] = {"settings": settings_of(config, draft)}
    check_out(out, record)
    if not is_free(out):
        log.info("out=%s: already there, nothing to do.", out)
        return
    with new_folder(out) as folder:
        tokenizer = store(folder, with_bytes_only(draft), config, record)
    log.info("out=%s: %d token ids, the bytes and the special tokens.", out, tokenizer.vocab_size)


def draft_of(config: TokenizerConfig) -> Draft:
    """Begin a tokenizer: with our settings, or with those of the reference."""
    return new_draft() if config.reference is None else load_reference(config.reference)


def store(folder: Path, trained: Draft, config: TokenizerConfig, record: dict[str, Any], *libraries: str) -> Tokenizer:
    """Write a tokenizer, and its record, into its folder."""
    if config.add_bos:
        trained = put_bos_first(trained)
    named = ["tokenizers", *libraries, *([] if trained.hf_tokenizer is None else ["transformers"])]
    record["versions"] = {name: version(name) for name in named}
    tokenizer = save(trained, folder)
    record["fingerprint"] = tokenizer.fingerprint
    write_record(folder, record)
    return tokenizer


def settings_of(config: TokenizerConfig, draft: Draft) -> dict[str, Any]:
    """Give everything that the tokenizer depends on, except the corpus."""
    text = {
        "sample_bytes": config.sample_bytes,
        **config.reading(),
        "on_error": config.on_error.value,
        "seed": config.seed,
    }
    return {
        "vocab_size": config.vocab_size,
        **({"add_bos": True} if config.add_bos else {}),  # records from before this key have none
        "reference": hashlib.sha256(draft.origin.encode()).hexdigest() if draft.origin else None,
        **({} if config.vocab_size == BYTES else text),
    }


def check_out(out: Path, record: dict[str, Any]) -> None:
    """Raise InputError if `out` holds anything but a tokenizer with these entries in its record."""
    if is_free(out):
        return
    there = read_record(out)
    for key, value in record.items():
        if there.get(key) != value:
            what = "a tokenizer made from another corpus or with other settings" if there else "something else"
            raise InputError(f"out={out} holds {what}; choose another out, or remove it.")


if __name__ == "__main__":
    run_script("train_tokenizer", main)
