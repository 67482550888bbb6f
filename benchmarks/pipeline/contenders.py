"""Functions that run in processes of their own; each imports only what it needs, because the time of imports counts."""

import json
import shutil
import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hindsight.config.conversion import EncoderName
from hindsight.config.corpus import CorpusConfig
from hindsight.config.tokenizer import TrainerName
from hindsight.text.documents import Corpus

if TYPE_CHECKING:
    import tokenizers  # below, where it is used

VOCAB_SIZE = 50257
BLOCK_LENGTH = 2048
ENCODED_BYTES = 20_000_000
"""Size of the text for the comparison of encoders."""
ROUNDS = 3


def plain(text: str, folder: Path) -> None:
    """Go the whole way, from text to MDS and h5, with `tokenizers` and Streaming's MDSWriter."""
    import h5py
    import numpy as np
    from streaming import MDSWriter

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    documents = [document.text for document in Corpus(CorpusConfig(corpus=text)).documents()]
    tokenizer = trained_by_tokenizers(documents, ["<|eos|>"])
    columns = {"tokens": f"ndarray:uint16:{BLOCK_LENGTH}"}
    ids = (np.array([*tokenizer.encode_batch_fast([text])[0].ids, 0], np.uint16) for text in documents)
    tokens = np.concatenate(list(ids))
    with MDSWriter(columns=columns, out=str(folder / "mds"), hashes=["xxh64"]) as writer:
        for start in range(0, len(tokens) - BLOCK_LENGTH, BLOCK_LENGTH):
            writer.write({"tokens": tokens[start : start + BLOCK_LENGTH]})
    with h5py.File(folder / "tokens.h5", "w") as file:
        file.create_dataset("tokens", data=tokens)


def trained_by_tokenizers(documents: Iterable[str], special_tokens: list[str]) -> "tokenizers.Tokenizer":
    """Train a vocabulary with BpeTrainer as its documentation does, from an iterator of documents."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=special_tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def published(text: str, folder: Path) -> None:
    """Go the whole way as the published code does (arXiv:2401.17505), by way of .pt files."""
    import h5py
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    whole = "\n".join(document.text for document in Corpus(CorpusConfig(corpus=text)).documents())
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    lines = (whole[start : start + 100_000] for start in range(0, len(whole), 100_000))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend).train_new_from_iterator(
        lines, VOCAB_SIZE, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    for number, start in enumerate(range(0, len(whole), 5_000_000)):
        tokens = tokenizer(whole[start : start + 5_000_000], return_tensors="pt")["input_ids"]
        torch.save(tokens, folder / f"{number:05}.pt")
    with h5py.File(folder / "tokens.h5", "w") as file:
        stored = file.create_dataset("tokens", (0,), "i4", maxshape=(None,), chunks=True)
        for path in sorted(folder.glob("*.pt")):
            tokens = torch.load(path, weights_only=True).flatten().int().numpy()
            stored.resize(len(stored) + len(tokens), axis=0)
            stored[-len(tokens) :] = tokens


def train_vocabulary(text: str, trainer: str, out: Path) -> None:
    """Train a vocabulary on documents, and nothing else.

    Args:
        text: the corpus.
        trainer: BpeTrainer for `trained_by_tokenizers`; others for our own training with that trainer.
        out: file for the seconds of the training, without imports, and the merges.
    """
    from hindsight.tokenization import bpe_training

    began = time.perf_counter()
    documents = (document.text for document in Corpus(CorpusConfig(corpus=text)).documents())
    if trainer == "BpeTrainer":
        trained = trained_by_tokenizers(documents, bpe_training.SPECIAL_TOKENS)
        seconds = time.perf_counter() - began
        spec = json.loads(trained.to_str())
    else:
        spec = bpe_training.train(bpe_training.new_draft(), documents, VOCAB_SIZE, TrainerName(trainer))[0].spec
        seconds = time.perf_counter() - began
    out.write_text(json.dumps({"seconds": seconds, "merges": spec["model"]["merges"]}), encoding="utf-8")


def bare_loop(text: str, tokenizer_folder: str, out: str) -> None:
    """Encode documents with our encoder, and write the ids as uint16 into one file."""
    import numpy as np

    from hindsight.tokenization.fast_encoding import TiktokenEncoder
    from hindsight.tokenization.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(tokenizer_folder)
    encoder = TiktokenEncoder(tokenizer)
    with Path(out).open("wb") as file:
        for document in Corpus(CorpusConfig(corpus=text)).documents():
            encoder.encode(document.text).astype(np.uint16).tofile(file)
            np.array([tokenizer.eos_id], np.uint16).tofile(file)


def compare_encoders(text: str, tokenizer_folder: str) -> None:
    """Print the speed of our encoder over that of `tokenizers`, one thread each, and whether all ids are equal."""
    import numpy as np

    from hindsight.tokenization.fast_encoding import choose_encoder
    from hindsight.tokenization.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(tokenizer_folder)
    encoder = choose_encoder(tokenizer, EncoderName.auto, [])
    texts, left = [], ENCODED_BYTES
    for document in Corpus(CorpusConfig(corpus=text)).documents():
        texts.append(document.text)
        left -= len(document.raw)
        if left <= 0:
            break
    ratios, equal = [], True
    for _ in range(ROUNDS):
        began = time.perf_counter()
        fast = [encoder.encode(one) for one in texts]
        switched = time.perf_counter()
        slow = [tokenizer.encode_batch([one])[0] for one in texts]
        ratios.append((time.perf_counter() - switched) / (switched - began))
        equal &= all(np.array_equal(a, b) for a, b in zip(fast, slow, strict=True))
    sys.stdout.write(f"{statistics.median(ratios)} {encoder.name} {equal}\n")
