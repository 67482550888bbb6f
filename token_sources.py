"""A corpus -> stretches of tokens for train and val, from text or from tokens that were stored before.

Text is split by documents, before anything is cut into blocks. Tokens of a former conversion keep their split. The h5
files of the published code (arXiv:2401.17505) tell no documents apart: they are split by pieces of a block's length.

Memory: a document, about two million characters that are encoded at once, and a stored shard.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from config import ConvertConfig, InputError
from corpus import Corpus, Scan, document_hash
from manifest import MANIFEST_NAME, SPLITS, Manifest
from tokenizer import Tokenizer

BATCH_CHARS = 1 << 21
"""Text that is encoded at once."""
BUFFER_TOKENS = 1 << 20
"""Tokens that are read, or collected before they are stored, at once."""
H5_NAME = "tokens.h5"
H5_DATASET = "tokens"
STORAGE_SETTINGS = ("compression", "hashes")
"""Settings of a conversion that say how tokens are stored, not which."""


class Stretch(NamedTuple):
    """Tokens that follow one another in a split."""

    split: str
    tokens: NDArray[np.integer]
    documents: int | None
    """Documents that end in it; None where they are not known."""
    bytes: int
    """UTF-8 bytes of the documents that end in it."""


class Source(Protocol):
    """Where tokens come from."""

    seed: int
    val_share: float
    origin: dict[str, str | int]
    """What else the documents and the split depend on."""

    def scan(self) -> str:
        """Read what must be known beforehand, and give the corpus fingerprint."""
        ...

    def stretches(self) -> Iterator[Stretch]:
        """Yield all tokens."""
        ...


def choose_splits(n_units: int, seed: int, val_share: float, where: str) -> Callable[[int], str]:
    """Give the rule that sends units (documents) to train or val by the hash of their number.

    If the share would leave val empty, the unit with the smallest hash goes there. InputError if it would leave train
    empty, or if there is only one unit.
    """
    if n_units < 2:
        raise InputError(f"{where} is a single document, of which none is left to validate on; give two or more.")
    hashes = (document_hash(seed, number) for number in range(n_units))
    seen: set[bool] = set()
    smallest = (1.0, 0)
    for number, value in enumerate(hashes):
        smallest = min(smallest, (value, number))
        seen.add(value < val_share)
        if len(seen) == 2:
            return lambda number: "val" if document_hash(seed, number) < val_share else "train"
    if seen == {True}:
        raise InputError(
            f"val_share={val_share} leaves nothing to train on: all {n_units} documents fall to val; choose less."
        )
    return lambda number: "val" if number == smallest[1] else "train"


def open_source(config: ConvertConfig, tokenizer: Tokenizer) -> Source:
    """Recognize what corpus= names: a folder that was converted before, an h5 file of tokens, or text."""
    path = Path(config.corpus).expanduser()
    folder = path if path.is_dir() else path.parent
    if (folder / MANIFEST_NAME).is_file() and (path.is_dir() or path.name == H5_NAME):
        return ConvertedTokens(folder, Manifest.load(folder, key="corpus"), tokenizer)
    if path.suffix in (".h5", ".hdf5") and path.is_file():
        return PublishedTokens(path, config, tokenizer)
    return Text(config, tokenizer)


class Text:
    """Text files. EOS follows every document."""

    def __init__(self, config: ConvertConfig, tokenizer: Tokenizer) -> None:
        self.seed = config.seed
        self.val_share = config.val_share
        self.origin: dict[str, str | int] = {"corpus_format": config.corpus_format.value}
        self.corpus = Corpus(config.corpus, config.corpus_format)
        self.tokenizer = tokenizer
        self.scanned = Scan(0, 0, "")
        self.split_of: Callable[[int], str] = lambda number: "train"

    def scan(self) -> str:
        """Count the documents, and settle the split."""
        self.scanned = self.corpus.scan()
        where = f"corpus={self.corpus.path}, with corpus_format={self.corpus.corpus_format.value},"
        self.split_of = choose_splits(self.scanned.documents, self.seed, self.val_share, where)
        return self.scanned.fingerprint

    def stretches(self) -> Iterator[Stretch]:
        """Encode the documents, long ones in pieces."""
        batch: list[Piece] = []
        n_chars = n_documents = n_bytes = 0
        with tqdm(total=self.scanned.bytes, desc="tokenizing", unit="B", unit_scale=True, disable=None) as bar:
            for piece in self._pieces():
                batch.append(piece)
                n_chars += len(piece.text)
                if n_chars >= BATCH_CHARS:
                    yield from self._encode(batch)
                    batch, n_chars = [], 0
                n_documents += piece.documents
                n_bytes += piece.bytes
                bar.update(piece.bytes)
            yield from self._encode(batch)
        if (n_documents, n_bytes) != (self.scanned.documents, self.scanned.bytes):
            raise InputError(f"corpus={self.corpus.path} changed while it was read; start again when it is complete.")

    def _pieces(self) -> Iterator["Piece"]:
        for number, document in enumerate(self.corpus.documents()):
            split = self.split_of(number)
            *pieces, end = self.tokenizer.cut(document.decode())
            for piece in pieces:
                yield Piece(piece, split, 0, 0)
            yield Piece(end, split, 1, len(document))

    def _encode(self, batch: list["Piece"]) -> Iterator[Stretch]:
        batch_ids = self.tokenizer.encode_batch([piece.text for piece in batch])
        for piece, ids in zip(batch, batch_ids, strict=True):
            if piece.documents:
                ids.append(self.tokenizer.eos_id)
            yield Stretch(piece.split, np.array(ids, np.int64), piece.documents, piece.bytes)


class Piece(NamedTuple):
    """A piece of a document; its last one counts the document."""

    text: str
    split: str
    documents: int
    bytes: int


class PublishedTokens:
    """An h5 file of the published code: a one-dimensional `tokens`, in which documents cannot be told apart.

    Pieces of `block_length` tokens are what is split. Tokens are taken as they are, without any EOS added; the bytes
    are those that the tokens stand for.
    """

    def __init__(self, path: Path, config: ConvertConfig, tokenizer: Tokenizer) -> None:
        self.seed = config.seed
        self.val_share = config.val_share
        self.origin: dict[str, str | int] = {"corpus_format": "tokens", "piece_length": config.block_length}
        self.path = path
        self.tokenizer = tokenizer
        self.piece_length = config.block_length
        self.split_of: Callable[[int], str] = lambda number: "train"
        with _open_h5(path) as file:
            tokens = file.get(H5_DATASET)
            if not isinstance(tokens, h5py.Dataset) or tokens.ndim != 1 or tokens.dtype.kind not in "iu":
                raise InputError(
                    f"corpus={path} has no one-dimensional dataset `{H5_DATASET}` of integers; give one that has."
                )
            self.n_tokens = len(tokens)

    def scan(self) -> str:
        """Hash the tokens, check that the tokenizer has them, and settle the split."""
        n_pieces = -(-self.n_tokens // self.piece_length)
        where = f"corpus={self.path}, in pieces of block_length={self.piece_length} tokens,"
        self.split_of = choose_splits(n_pieces, self.seed, self.val_share, where)
        digest = hashlib.sha256()
        for tokens in self._read("reading"):
            check_ids(tokens, self.tokenizer.vocab_size)
            digest.update(tokens.astype("<i8").tobytes())
        return digest.hexdigest()

    def stretches(self) -> Iterator[Stretch]:
        """Yield the pieces."""
        number = 0
        for tokens in self._read("converting"):
            for start in range(0, len(tokens), self.piece_length):
                piece = tokens[start : start + self.piece_length]
                n_bytes = int(self.tokenizer.bytes_per_token[piece].sum())
                yield Stretch(self.split_of(number), piece, None, n_bytes)
                number += 1

    def _read(self, doing: str) -> Iterator[NDArray[np.integer]]:
        at_once = max(1, BUFFER_TOKENS // self.piece_length) * self.piece_length
        with (
            _open_h5(self.path) as file,
            tqdm(total=self.n_tokens, desc=doing, unit="tok", unit_scale=True, disable=None) as bar,
        ):
            for start in range(0, self.n_tokens, at_once):
                yield (tokens := _tokens_in(file)[start : start + at_once].astype(np.int64))
                bar.update(len(tokens))


class ConvertedTokens:
    """A folder that a converter made, MDS or h5. Documents and their split stay as they are."""

    def __init__(self, folder: Path, manifest: Manifest, tokenizer: Tokenizer) -> None:
        if manifest.tokenizer_fingerprint != tokenizer.fingerprint:
            raise InputError(
                f"corpus={folder} was made with another tokenizer than tokenizer= names; give the one in "
                f"{folder / 'tokenizer'}."
            )
        self.seed = manifest.seed
        self.val_share = manifest.val_share
        self.origin: dict[str, str | int] = {k: v for k, v in manifest.settings.items() if k not in STORAGE_SETTINGS}
        self.folder = folder
        self.manifest = manifest

    def scan(self) -> str:
        """Give the fingerprint that the manifest records."""
        return self.manifest.corpus_fingerprint

    def stretches(self) -> Iterator[Stretch]:
        """Yield all of train, then all of val."""
        n_tokens = sum(counts.tokens for counts in self.manifest.splits.values())
        with tqdm(total=n_tokens, desc="converting", unit="tok", unit_scale=True, disable=None) as bar:
            for split in SPLITS:
                counts = self.manifest.splits[split]
                yield Stretch(split, np.empty(0, np.int64), counts.documents, counts.bytes)
                read = read_mds if self.manifest.format == "mds" else read_h5
                left = counts.tokens
                for tokens in read(self.folder, split, self.manifest):
                    tokens = tokens[:left]  # what lies behind fills up the last block
                    left -= len(tokens)
                    yield Stretch(split, tokens, 0, 0)
                    bar.update(len(tokens))
                if left:
                    raise InputError(f"corpus={self.folder}: {split} lacks {left} tokens; copy or convert it again.")


def read_h5(folder: Path, split: str, manifest: Manifest) -> Iterator[NDArray[np.integer]]:
    """Yield the tokens of a split from tokens.h5, where val lies behind train."""
    n_train = manifest.splits["train"].tokens
    begin, end = (0, n_train) if split == "train" else (n_train, n_train + manifest.splits["val"].tokens)
    with _open_h5(folder / H5_NAME) as file:
        for start in range(begin, end, BUFFER_TOKENS):
            yield _tokens_in(file)[start : min(start + BUFFER_TOKENS, end)]


def read_mds(folder: Path, split: str, manifest: Manifest) -> Iterator[NDArray[np.integer]]:
    """Yield the tokens of a split shard by shard; InputError if one is not what the index says."""
    # Here, because importing streaming takes seconds that only this needs.
    from streaming.base.compression import decompress
    from streaming.base.hashing import get_hash

    try:
        shards: list[dict[str, Any]] = json.loads((folder / split / "index.json").read_text(encoding="utf-8"))["shards"]
        for shard in shards:
            info = shard["zip_data"] or shard["raw_data"]
            data = (folder / split / info["basename"]).read_bytes()
            if len(data) != info["bytes"] or any(get_hash(name, data) != want for name, want in info["hashes"].items()):
                raise ValueError(f"{info['basename']} is not what the index says")
            data = decompress(shard["compression"], data) if shard["zip_data"] else data
            # A shard is its number of samples, the offset of each (uint32), its settings, and the blocks.
            offset = int(np.frombuffer(data, "<u4", count=1, offset=4)[0])
            yield np.frombuffer(data, manifest.dtype, shard["samples"] * manifest.block_length, offset)
    except Exception as error:  # each decompressor has errors of its own
        raise InputError(f"corpus={folder}: {split} is damaged ({error}); copy or convert it again.") from error


def check_ids(tokens: NDArray[np.integer], vocab_size: int) -> None:
    """Raise InputError unless all token ids are the tokenizer's."""
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= vocab_size:
        raise InputError(
            f"corpus= holds the token id {low if low < 0 else high}, but tokenizer= has only ids below {vocab_size}; "
            "give the tokenizer that made these tokens."
        )


def _tokens_in(file: h5py.File) -> Any:
    return file[H5_DATASET]


def _open_h5(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"corpus={path} cannot be read as h5 ({error}); copy or convert it again.") from error
