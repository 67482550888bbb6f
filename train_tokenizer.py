"""Train a byte-level BPE tokenizer on a corpus and save it as a folder that transformers' AutoTokenizer loads.

Words are split by GPT-2's pattern, every byte is in the alphabet, and nothing is normalized, so that any text comes
back as it was. With reference=, the normalizer, pre-tokenizer, decoder and special tokens are those of another
tokenizer (text comes back as its normalizer leaves it); if it lacks a BOS or an EOS token, our five special tokens join
its own and take the roles that it leaves open.
"""

import hashlib
import json
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hindsight.command_line import run_script
from hindsight.config.tokenizer import TokenizerConfig
from hindsight.errors import InputError
from hindsight.files import is_free, local_path, new_folder
from hindsight.text.documents import Corpus
from hindsight.text.sampling import Sample
from hindsight.tokenization.bpe_training import Draft, check_vocab_size, new_draft, train
from hindsight.tokenization.hf_folder import load_reference, read_record, save, write_record

log = logging.getLogger("hindsight")


def main(config: TokenizerConfig) -> None:
    """Train and save, unless the same tokenizer is there."""
    out = local_path("out", config.out)
    corpus = Corpus(config)
    draft = new_draft() if config.reference is None else load_reference(config.reference)
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
        libraries = ["tokenizers", library, *([] if trained.theirs is None else ["transformers"])]
        record["versions"] = {name: version(name) for name in libraries}
        tokenizer = save(trained, folder)
        record["fingerprint"] = tokenizer.fingerprint
        write_record(folder, record)
    log.info("out=%s: %d token ids, learned from %.1f MB of text.", out, tokenizer.vocab_size, sample.bytes / 1e6)


def settings_of(config: TokenizerConfig, draft: Draft) -> dict[str, Any]:
    """All that the tokenizer depends on, the corpus aside."""
    theirs = draft.theirs
    content = "" if theirs is None else theirs.backend_tokenizer.to_str() + json.dumps(theirs.special_tokens_map)
    return {
        "vocab_size": config.vocab_size,
        "reference": hashlib.sha256(content.encode()).hexdigest() if content else None,
        "sample_bytes": config.sample_bytes,
        **config.reading(),
        "on_error": config.on_error.value,
        "seed": config.seed,
    }


def check_out(out: Path, record: dict[str, Any]) -> None:
    """Raise InputError if `out` holds something else than what this record describes, as far as it goes."""
    if is_free(out):
        return
    there = read_record(out)
    for key, value in record.items():
        if there.get(key) != value:
            what = "a tokenizer made from another corpus or with other settings" if there else "something else"
            raise InputError(f"out={out} holds {what}; choose another out, or remove it.")


if __name__ == "__main__":
    run_script("train_tokenizer", main)
