"""Where tokens come from: text, or tokens that were stored before. Each source divides itself into parts.

Text is split by documents, before anything is cut into blocks, and by what they say: equal documents are on the same
side. Tokens of a former conversion keep their split. The h5 files of the published code (arXiv:2401.17505) tell no
documents apart: they are split by pieces of a block's length.
"""

import hashlib
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from config import ConvertConfig, InputError
from conversion.mds import read_index, read_shard_bytes
from conversion.parts import TokenPart
from corpus import Corpus, Part, Reading
from corpus.digest import HASH_BYTES, Digest, hash_document
from corpus.documents import CHECKED_FILES
from encoder import choose_encoder
from manifest import MANIFEST_NAME, SPLITS, Manifest, token_dtype
from tokenizer import Tokenizer

if TYPE_CHECKING:
    import h5py  # below, where it is used: text needs none of it

BUFFER_TOKENS = 1 << 20
"""Tokens that are read at once."""
SAMPLE_BYTES = 1 << 18
"""Text of the corpus on which an encoder is checked."""
SAMPLE_PARTS = 8
H5_NAME = "tokens.h5"
H5_DATASET = "tokens"
STORAGE_SETTINGS = ("compression", "hashes")
"""Settings of a conversion that say how tokens are stored, not which."""


class Source(ABC):
    """Where tokens come from."""

    seed: int
    val_share: float
    origin: dict[str, Any]
    """What else the documents and the split depend on."""
    where: str
    """What the units are, for messages."""
    doing: str
    """What is done to it, for the progress bar."""
    unit: str
    """What `stored_bytes` of its parts counts, for the progress bar."""
    costly: bool
    """Whether making tokens takes long enough to have several processes do it."""
    total: int | None
    """How much of it there is; None where that is not known."""
    fingerprint: str | None = None
    """Fingerprint of the corpus; None where it is that of what is read."""
    stamp: str | None
    """Hash that changes when the corpus does; None where there is none."""
    files: int = 1
    """Number of files."""
    counts_documents: bool = True
    """Whether documents are known."""
    summary: dict[str, Any]
    """Statistics that are known beforehand."""
    val_below: float | None = None
    """Draws below it are val's; None where that depends on all documents, as at least one is held out."""

    def prepare(self) -> None:  # noqa: B027 - stored tokens need nothing
        """Get ready to read, once."""

    def paths(self) -> list[str]:
        """Name files that whoever reads a part must see; a few of many."""
        return []

    @abstractmethod
    def parts(self) -> Iterator[Any]:
        """Divide the source, the same way each time, into parts with a `signature` and `stored_bytes`."""

    @abstractmethod
    def read(self, part: Any) -> TokenPart:
        """Make the tokens of a part."""

    @abstractmethod
    def digest(self, part: Any) -> Digest:
        """Read a part again, without making tokens."""


def open_source(config: ConvertConfig, tokenizer: Tokenizer) -> Source:
    """Recognize what corpus= names: a folder that was converted before, an h5 file of tokens, or text."""
    path = Path(config.corpus).expanduser()
    folder = path if path.is_dir() else path.parent
    if (folder / MANIFEST_NAME).is_file() and (path.is_dir() or path.name == H5_NAME):
        return ConvertedTokens(folder, Manifest.load(folder, key="corpus"), tokenizer)
    if path.suffix in (".h5", ".hdf5") and path.is_file():
        return PublishedTokens(path, config, tokenizer)
    return Text(config, tokenizer)


class Text(Source):
    """Documents. EOS follows each."""

    doing = "tokenizing"
    unit = "B"
    costly = True

    def __init__(self, config: ConvertConfig, tokenizer: Tokenizer) -> None:
        self.config = config
        self.seed = config.seed
        self.val_share = config.val_share
        self.origin = {**config.reading(), "split_by": "text"}
        self.where = f"corpus={config.corpus}, with corpus_format={config.corpus_format.value},"
        self.corpus = Corpus(config)
        self.total = self.corpus.stored_bytes
        self.stamp = self.corpus.stamp
        self.files = len(self.corpus.files)
        self.summary = {}
        self.tokenizer = tokenizer
        self.dtype = token_dtype(tokenizer.vocab_size)
        self.key = f"{tokenizer.fingerprint} {self.seed} {self.origin}"
        """What the tokens of a part depend on, beside its text."""
        self._parts = self.corpus.parts()

    def prepare(self) -> None:
        """Choose the encoder, checked on a sample of the corpus."""
        if self.corpus.random_access:
            parts = list(self.corpus.parts())
            chosen = parts[:: max(1, len(parts) // SAMPLE_PARTS)]
        else:
            chosen = list(itertools.islice(self._parts, 1))
            self._parts = itertools.chain(chosen, self._parts)
        texts = (text for part in chosen for text in self._beginning(part, SAMPLE_BYTES // len(chosen)))
        self.encoder = choose_encoder(self.tokenizer, self.config.encoder, texts)

    def paths(self) -> list[str]:
        """Name some of the files."""
        return (
            []
            if not self.corpus.random_access
            else [file.path for file in self.corpus.files[:CHECKED_FILES] if os.path.isfile(file.path)]
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_parts": iter(())}  # who divides the corpus is the process that hands out its parts

    def _beginning(self, part: Part, n_bytes: int) -> Iterator[str]:
        for document in self.corpus.read(part, Reading()):
            yield document.text[:n_bytes]
            n_bytes -= len(document.raw)
            if n_bytes <= 0:
                return

    def parts(self) -> Iterator[Part]:
        """Divide the corpus."""
        for part in self._parts:
            yield part._replace(signature=hashlib.blake2b(f"{self.key} {part.signature}".encode()).hexdigest()[:32])
        self._parts = self.corpus.parts()

    def read(self, part: Part) -> TokenPart:
        """Encode the documents of a part."""
        reading = Reading()
        ids: list[NDArray] = []
        lengths: list[int] = []
        n_bytes: list[int] = []
        hashes: list[bytes] = []
        end = np.array([self.tokenizer.eos_id], self.dtype)
        for document in self.corpus.read(part, reading):
            encoded = self.encoder.encode(document.text).astype(self.dtype)
            ids += (encoded, end)
            lengths.append(len(encoded) + 1)
            n_bytes.append(len(document.raw))
            hashes.append(hash_document(document.raw))
        numbers = np.frombuffer(b"".join(hashes), "<u8")[:: HASH_BYTES // 8]
        return TokenPart(
            part.signature,
            Digest.of(hashes),
            np.concatenate(ids) if ids else np.empty(0, self.dtype),
            np.array(lengths, np.int64),
            draws_of(numbers, self.seed),
            np.ones(len(lengths), np.int64),
            np.array(n_bytes, np.int64),
            numbers,
            [problem.message for problem in reading.problems],
            reading.empty,
        )

    def digest(self, part: Part) -> Digest:
        """Hash the documents of a part."""
        return Digest.of([hash_document(document.raw) for document in self.corpus.read(part, Reading())])


def draws_of(hashes: NDArray[np.uint64], seed: int) -> NDArray[np.float64]:
    """Draw a number in [0, 1) for each hash and a seed: the finalizer of SplitMix64 (doi:10.1145/2660193.2660195)."""
    salt = hashlib.blake2b(f"split {seed}".encode(), digest_size=8).digest()
    mixed = hashes ^ np.frombuffer(salt, "<u8")
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)) / float(1 << 53)


class TokenRange(NamedTuple):
    """A part of stored tokens: `number` is a shard (MDS), or `start` to `end` a place in the file (h5)."""

    signature: str
    stored_bytes: int
    split: str
    start: int
    end: int
    number: int = 0


class PublishedTokens(Source):
    """An h5 file of the published code: a one-dimensional `tokens`, in which documents cannot be told apart.

    Pieces of `block_length` tokens are what is split. Tokens are taken as they are, without any EOS added; the bytes
    are those that the tokens stand for.
    """

    doing = "converting"
    unit = "tok"
    costly = False
    counts_documents = False

    def __init__(self, path: Path, config: ConvertConfig, tokenizer: Tokenizer) -> None:
        import h5py

        self.seed = config.seed
        self.val_share = config.val_share
        self.origin = {"corpus_format": "tokens", "piece_length": config.block_length}
        self.where = f"corpus={path}, in pieces of block_length={config.block_length} tokens,"
        self.path = path
        self.tokenizer = tokenizer
        self.piece_length = config.block_length
        self.summary = {}
        with open_h5(path) as file:
            tokens = file.get(H5_DATASET)
            if not isinstance(tokens, h5py.Dataset) or tokens.ndim != 1 or tokens.dtype.kind not in "iu":
                raise InputError(
                    f"corpus={path} has no one-dimensional dataset `{H5_DATASET}` of integers; give one that has."
                )
            _tokens_in(file)
            self.n_tokens = len(tokens)
        self.total = self.n_tokens
        status = path.stat()
        self.stamp = hashlib.blake2b(f"{path} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()

    def parts(self) -> Iterator[TokenRange]:
        """Cut the file."""
        at_once = max(1, BUFFER_TOKENS // self.piece_length) * self.piece_length
        for start in range(0, self.n_tokens, at_once):
            end = min(start + at_once, self.n_tokens)
            yield TokenRange(f"{self.stamp}-{start}-{end}", end - start, "", start, end)

    def read(self, part: TokenRange) -> TokenPart:
        """Read pieces, and check that the tokenizer has their ids."""
        tokens = self._tokens(part)
        check_ids(tokens, self.tokenizer.vocab_size)
        first, starts = part.start // self.piece_length, np.arange(0, len(tokens), self.piece_length)
        numbers = np.arange(first, first + len(starts), dtype=np.uint64)
        units = len(starts)
        return TokenPart(
            part.signature,
            self._digest(tokens),
            tokens.astype(token_dtype(self.tokenizer.vocab_size)),
            np.diff(starts, append=len(tokens)),
            draws_of(_mixed(numbers), self.seed),
            np.zeros(units, np.int64),
            np.add.reduceat(self.tokenizer.bytes_per_token[tokens], starts),
        )

    def digest(self, part: TokenRange) -> Digest:
        """Hash the pieces."""
        return self._digest(self._tokens(part))

    def _tokens(self, part: TokenRange) -> NDArray[np.int64]:
        with open_h5(self.path) as file:
            return _tokens_in(file)[part.start : part.end].astype(np.int64)

    def _digest(self, tokens: NDArray[np.int64]) -> Digest:
        pieces = (tokens[start : start + self.piece_length] for start in range(0, len(tokens), self.piece_length))
        return Digest.of([hash_document(piece.astype("<i8").tobytes()) for piece in pieces])


class ConvertedTokens(Source):
    """A folder that a converter made, MDS or h5. Documents and their split stay as they are."""

    doing = "converting"
    unit = "tok"
    costly = False
    val_below = 0.5

    def __init__(self, folder: Path, manifest: Manifest, tokenizer: Tokenizer) -> None:
        if manifest.tokenizer_fingerprint != tokenizer.fingerprint:
            raise InputError(
                f"corpus={folder} was made with another tokenizer than tokenizer= names; give the one in "
                f"{folder / 'tokenizer'}."
            )
        self.seed = manifest.seed
        self.val_share = manifest.val_share
        self.origin = {k: v for k, v in manifest.settings.items() if k not in STORAGE_SETTINGS}
        self.where = f"corpus={folder}"
        self.folder = folder
        self.manifest = manifest
        self.fingerprint = manifest.corpus_fingerprint
        self.stamp = manifest.fingerprint
        self.summary = {key: value for key, value in manifest.summary.items() if key != "xxh64"}
        self.counts_documents = all(counts.documents is not None for counts in manifest.splits.values())
        self.total = sum(counts.tokens for counts in manifest.splits.values())

    def parts(self) -> Iterator[TokenRange]:
        """Give all of train, then all of val: shard by shard, or cut."""
        begin = 0
        for split in SPLITS:
            n_tokens = self.manifest.splits[split].tokens
            shard_tokens = self.manifest.block_length * self.manifest.blocks_per_shard
            step = shard_tokens if self.manifest.format == "mds" else BUFFER_TOKENS
            for number, start in enumerate(range(0, n_tokens, step)):
                end = min(start + step, n_tokens)
                place = (start, end) if self.manifest.format == "mds" else (begin + start, begin + end)
                yield TokenRange(f"{self.stamp}-{split}-{start}", end - start, split, *place, number)
            begin += n_tokens

    def read(self, part: TokenRange) -> TokenPart:
        """Read tokens; InputError if they are not what the manifest says."""
        read = read_shard if self.manifest.format == "mds" else read_h5
        tokens = read(self.folder, self.manifest, part)
        if len(tokens) < part.end - part.start:
            raise InputError(f"corpus={self.folder}: {part.split} lacks tokens; copy or convert it again.")
        check_ids(tokens, self.manifest.vocab_size)
        first, counts = part.number == 0, self.manifest.splits[part.split]
        return TokenPart(
            part.signature,
            Digest(),
            tokens,
            np.array([len(tokens)]),
            np.array([0.0 if part.split == "val" else 1.0]),
            np.array([(counts.documents or 0) if first else 0]),
            np.array([counts.bytes if first else 0]),
        )

    def digest(self, part: TokenRange) -> Digest:
        """Nothing to hash: the fingerprint is known."""
        return Digest()


def read_h5(folder: Path, manifest: Manifest, part: TokenRange) -> NDArray[np.integer]:
    """Read tokens from tokens.h5, where val lies behind train."""
    with open_h5(folder / H5_NAME) as file:
        return _tokens_in(file)[part.start : part.end]


def read_shard(folder: Path, manifest: Manifest, part: TokenRange) -> NDArray[np.integer]:
    """Read the tokens of an MDS shard; InputError if it is not what the index says."""
    try:
        shard = read_index(folder / part.split)[part.number]
        data = read_shard_bytes(folder / part.split, shard)
        # A shard is its number of samples, the offset of each (uint32), its settings, and the blocks.
        offset = int(np.frombuffer(data, "<u4", count=1, offset=4)[0])
        return np.frombuffer(data, manifest.dtype, shard["samples"] * manifest.block_length, offset)[
            : part.end - part.start
        ]
    except Exception as error:  # each decompressor has errors of its own
        raise InputError(f"corpus={folder}: {part.split} is damaged ({error}); copy or convert it again.") from error


def check_ids(tokens: NDArray[np.integer], vocab_size: int) -> None:
    """Raise InputError unless all token ids are the tokenizer's."""
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= vocab_size:
        raise InputError(
            f"corpus= holds the token id {low if low < 0 else high}, but tokenizer= has only ids below {vocab_size}; "
            "give the tokenizer that made these tokens."
        )


def open_h5(path: Path) -> "h5py.File":
    """Open an h5 file; InputError if it is none."""
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"corpus={path} cannot be read as h5 ({error}); copy or convert it again.") from error


def _tokens_in(file: "h5py.File") -> Any:
    tokens: Any = file[H5_DATASET]
    if tokens.external or tokens.is_virtual:  # the file may come from somebody else
        raise InputError(f"corpus={file.filename} has its `{H5_DATASET}` in other files; give one that holds them.")
    return tokens


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread small numbers over all of uint64."""
    return (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
