"""Stored tokens as sources of a conversion: of our converter, or of the published code (arXiv:2401.17505).

Tokens of an earlier conversion keep their split. The h5 files of the published code do not show where documents begin:
they are split by pieces of a block's length.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hindsight.config.conversion import ConvertConfig
from hindsight.conversion.source import Source, draws_of
from hindsight.conversion.token_part import TokenPart
from hindsight.errors import InputError
from hindsight.shards.h5 import H5_NAME, HASH_KEY, check_tokens, find_missing, open_tokens
from hindsight.shards.manifest import H5, MANIFEST_NAME, MDS, SPLITS, TOKENIZER_FOLDER, Manifest, token_dtype
from hindsight.shards.mds import INDEX_NAME, STORAGE_SETTINGS, find_mismatch, read_index, read_shard
from hindsight.text.digest import Digest, hash_document
from hindsight.tokenization.tokenizer import Tokenizer

PART_TOKENS = 1 << 20
"""Tokens in a part of an h5 file."""


class TokenRange(NamedTuple):
    """A part of stored tokens: the shard `number` (MDS), or the tokens from `start` to `end` of the file (h5)."""

    signature: str
    stored_bytes: int
    split: str
    start: int
    end: int
    number: int = 0


class PublishedTokens(Source):
    """An h5 file of the published code: one dataset of tokens, in which documents cannot be told apart.

    The split is by pieces of `block_length` tokens. No EOS is added, and the bytes are those of the tokens.
    """

    action = "converting"
    unit = "tok"
    costly = False
    counts_documents = False

    def __init__(self, path: Path, config: ConvertConfig, tokenizer: Tokenizer) -> None:
        self.seed = config.seed
        self.val_share = config.val_share
        self.origin = {"corpus_format": "tokens", "piece_length": config.block_length}
        self.where = f"corpus={path}, in pieces of block_length={config.block_length} tokens,"
        self.path = path
        self.tokenizer = tokenizer
        self.piece_length = config.block_length
        self.summary = {}
        self.n_tokens = self.total = count_h5(path)
        status = path.stat()
        self.stamp = hashlib.blake2b(f"{path} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()

    def parts(self) -> Iterator[TokenRange]:
        """Divide the file, between pieces."""
        part_tokens = max(1, PART_TOKENS // self.piece_length) * self.piece_length
        for start in range(0, self.n_tokens, part_tokens):
            end = min(start + part_tokens, self.n_tokens)
            yield TokenRange(f"{self.stamp}-{start}-{end}", end - start, "", start, end)

    def read(self, part: TokenRange) -> TokenPart:
        """Read the pieces of a part; InputError if the tokenizer lacks an id."""
        return self._part_of(part, self._tokens(part), first=part.start // self.piece_length)

    def _part_of(self, part: TokenRange, tokens: NDArray[np.int64], first: int) -> TokenPart:
        """Divide tokens into pieces, which are numbered from `first` on."""
        if len(tokens):
            check_ids(tokens, self.tokenizer.vocab_size)
        starts = np.arange(0, len(tokens), self.piece_length)
        numbers = np.arange(first, first + len(starts), dtype=np.uint64)
        units = len(starts)
        return TokenPart(
            part.signature,
            self._digest(tokens),
            tokens.astype(token_dtype(self.tokenizer.vocab_size)),
            np.diff(starts, append=len(tokens)),
            draws_of(_spread(numbers), self.seed),
            np.zeros(units, np.int64),
            np.add.reduceat(self.tokenizer.bytes_per_token[tokens], starts) if units else np.empty(0, np.int64),
        )

    def digest(self, part: TokenRange) -> Digest:
        """Hash the pieces of a part."""
        return self._digest(self._tokens(part))

    def _tokens(self, part: TokenRange) -> NDArray[np.int64]:
        return read_h5(self.path, part.start, part.end).astype(np.int64)

    def _digest(self, tokens: NDArray[np.int64]) -> Digest:
        pieces = (tokens[start : start + self.piece_length] for start in range(0, len(tokens), self.piece_length))
        return Digest.of([hash_document(piece.astype("<i8").tobytes()) for piece in pieces])


class ConvertedTokens(Source):
    """A folder of our converter, MDS or h5; documents and their split stay as they are.

    Args:
        folder: the folder.
        manifest: what it says of itself.
        tokenizer: the tokenizer that made the tokens.
        key: the key that names the folder, for messages.
    """

    action = "converting"
    unit = "tok"
    costly = False
    val_below = 0.5

    def __init__(self, folder: Path, manifest: Manifest, tokenizer: Tokenizer, key: str = "corpus") -> None:
        if manifest.tokenizer_fingerprint != tokenizer.fingerprint:
            raise InputError(
                f"{key}={folder} was made with another tokenizer than tokenizer= names; give the one in "
                f"{folder / TOKENIZER_FOLDER}."
            )
        self.seed = manifest.seed
        self.val_share = manifest.val_share
        self.origin = {k: v for k, v in manifest.settings.items() if k not in STORAGE_SETTINGS}
        self.where = f"{key}={folder}"
        self.key = key
        self.folder = folder
        self.manifest = manifest
        self.vocab_size = tokenizer.vocab_size
        self.fingerprint = manifest.corpus_fingerprint
        self.stamp = manifest.fingerprint
        self.summary = {key: value for key, value in manifest.summary.items() if key != HASH_KEY}
        self.counts_documents = all(counts.documents is not None for counts in manifest.splits.values())
        self.total = sum(counts.tokens for counts in manifest.splits.values())

    def prepare(self) -> None:
        """Check the h5 file by its hashes; each shard is checked when it is read."""
        if self.manifest.format == H5:
            check_tokens(self.folder, self.manifest, self.key)
        if (fault := self.find_mismatch()) is not None:
            raise InputError(f"{self.where}: {fault}; copy or convert it again.")

    def find_mismatch(self) -> str | None:
        """Say where the files hold other numbers of tokens than the manifest says; None if they do not."""
        manifest = self.manifest
        if manifest.vocab_size != self.vocab_size:
            return f"{MANIFEST_NAME} says vocab_size={manifest.vocab_size}, its tokenizer has {self.vocab_size} ids"
        if manifest.format == H5:
            n_tokens = count_h5(self.folder / H5_NAME, self.key)
            expected = sum(each.tokens for each in manifest.splits.values())
            return None if n_tokens >= expected else f"{H5_NAME} holds {n_tokens} tokens, not {expected}"
        for split, counts in manifest.splits.items():
            try:
                shape = counts.tokens, manifest.block_length, manifest.blocks_per_shard
                fault = find_mismatch(self.folder / split, *shape)
            except (OSError, ValueError) as error:
                return f"{split}/{INDEX_NAME} is missing or damaged ({error})"
            if fault is not None:
                return f"{split}/{INDEX_NAME} {fault}"
        return None

    def parts(self) -> Iterator[TokenRange]:
        """Give the shards of train and then of val; an h5 file is divided in the same order."""
        begin = 0
        for split in SPLITS:
            n_tokens = self.manifest.splits[split].tokens
            shard_tokens = self.manifest.block_length * self.manifest.blocks_per_shard
            step = shard_tokens if self.manifest.format == MDS else PART_TOKENS
            for number, start in enumerate(range(0, n_tokens, step)):
                end = min(start + step, n_tokens)
                place = (start, end) if self.manifest.format == MDS else (begin + start, begin + end)
                yield TokenRange(f"{self.stamp}-{split}-{start}", end - start, split, *place, number)
            begin += n_tokens

    def read(self, part: TokenRange) -> TokenPart:
        """Read the tokens of a part; InputError if they are not what the manifest says."""
        if self.manifest.format == MDS:
            tokens = self._read_shard(part)
        else:
            tokens = read_h5(self.folder / H5_NAME, part.start, part.end, self.key)
        if len(tokens) < part.end - part.start:
            raise InputError(f"{self.where}: {part.split} lacks tokens; copy or convert it again.")
        check_ids(tokens, self.manifest.vocab_size, self.key)
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
        """Give the empty digest: the manifest knows the fingerprint."""
        return Digest()

    def window(self, split: str, start: int, length: int) -> list[int]:
        """Give the tokens of a window, (length,) or fewer at the end of the split."""
        tokens: list[int] = []
        begin = 0
        for part in (part for part in self.parts() if part.split == split):
            size = part.end - part.start
            if begin + size > start and begin < start + length:
                inside = slice(max(start - begin, 0), start + length - begin)
                tokens += self.read(part).tokens[inside].tolist()
            begin += size
        return tokens

    def _read_shard(self, part: TokenRange) -> NDArray[np.integer]:
        """Read the tokens of an MDS shard, without padding; InputError if it is not what the index says."""
        folder, manifest = self.folder / part.split, self.manifest
        try:
            tokens = read_shard(folder, read_index(folder)[part.number], manifest.dtype, manifest.block_length)
        except Exception as error:  # every decompressor raises errors of its own
            raise InputError(f"{self.where}: {part.split} is damaged ({error}); copy or convert it again.") from error
        return tokens[: part.end - part.start]


def count_h5(path: Path, key: str = "corpus") -> int:
    """Count the tokens of an h5 file; InputError if it has none that can be read."""
    tokens = _open_h5(path, key)
    with tokens.file:
        fault = find_missing(tokens) if len(tokens) else "it has no tokens"
        if fault is not None:
            raise InputError(f"{key}={path}: {fault}; copy or convert it again.")
        return len(tokens)


def read_h5(path: Path, start: int, end: int, key: str = "corpus") -> NDArray[np.integer]:
    """Read tokens of an h5 file; InputError if it has none that can be read."""
    tokens = _open_h5(path, key)
    with tokens.file:
        try:
            return tokens[start:end]
        except OSError as error:
            raise InputError(f"{key}={path} is damaged ({error}); copy or convert it again.") from error


def _open_h5(path: Path, key: str) -> Any:
    try:
        return open_tokens(path)
    except OSError as error:
        raise InputError(f"{key}={path} cannot be read as h5 ({error}); copy or convert it again.") from error
    except ValueError as error:
        raise InputError(f"{key}={path}: {error}; give an h5 file that holds its tokens.") from error


def check_ids(tokens: NDArray[np.integer], vocab_size: int, key: str = "corpus") -> None:
    """Raise InputError unless the tokenizer has all of these ids."""
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= vocab_size:
        raise InputError(
            f"{key}= holds the token id {low if low < 0 else high}, but tokenizer= has only ids below {vocab_size}; "
            "give the tokenizer that made these tokens."
        )


def _spread(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread small numbers over the range of uint64."""
    return (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
