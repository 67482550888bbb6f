"""MDS folders of other programs as sources of a conversion: one folder of shards, or its subfolders train and val."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hindsight.config.conversion import ConvertConfig
from hindsight.conversion.token_part import TokenPart
from hindsight.conversion.token_sources import PublishedTokens, TokenRange
from hindsight.errors import InputError
from hindsight.files import read_json
from hindsight.shards.manifest import MANIFEST_NAME, SPLITS
from hindsight.shards.mds import INDEX_NAME, MAX_INDEX_BYTES, read_index, stored_file
from hindsight.shards.other_mds import check_columns, read_tokens
from hindsight.tokenization.tokenizer import Tokenizer

VAL_DRAW, TRAIN_DRAW = 0.0, 1.0


def holds_mds(folder: Path) -> bool:
    """Whether a folder holds MDS shards, itself or as train and val."""
    return any(_has_index(folder / name) for name in ("", *SPLITS))


def _has_index(folder: Path) -> bool:
    """Whether a folder has an index.json of shards, maybe a damaged one: other files have that name too."""
    if not (folder / INDEX_NAME).is_file():
        return False
    try:
        is_index = isinstance(read_json(folder / INDEX_NAME, MAX_INDEX_BYTES).get("shards"), list)
    except (OSError, ValueError):
        is_index = False
    return is_index or any(folder.glob("shard.*"))


class OtherMds(PublishedTokens):
    """Shards with a column `tokens`, in which documents cannot be told apart.

    A folder with train/ and val/ keeps that split; otherwise pieces of `block_length` tokens of each shard are drawn.
    """

    unit = "B"

    def __init__(self, folder: Path, config: ConvertConfig, tokenizer: Tokenizer) -> None:
        if (folder.parent / MANIFEST_NAME).is_file():
            raise InputError(
                f"corpus={folder} is one split of a converted corpus; give the folder above it, {folder.parent}."
            )
        self.seed, self.val_share = config.seed, config.val_share
        self.path = folder
        names = ("",) if _has_index(folder) else SPLITS
        places = [folder / name for name in names if (folder / name / INDEX_NAME).is_file()]
        indices = {place: self._index(place) for place in places}
        # llm-foundry writes an index without shards for a split that has no samples.
        self.shards = {place: index for place, index in indices.items() if any(entry["samples"] for entry in index)}
        if not self.shards:
            raise InputError(f"corpus={folder} has no samples: its {INDEX_NAME} lists none; give MDS that has some.")
        self.is_split = len(self.shards) > 1
        self.origin = {"corpus_format": "mds", "piece_length": config.block_length, "split_by": self._rule()}
        self.where = f"corpus={folder}, in pieces of block_length={config.block_length} tokens,"
        self.tokenizer, self.piece_length, self.summary = tokenizer, config.block_length, {}
        self.val_below = 0.5 if self.is_split else None
        state = []
        self.total = self.files = 0
        for place, index in self.shards.items():
            for entry in index:
                path = place / stored_file(entry)["basename"]
                if not path.is_file():
                    raise InputError(f"corpus={folder}: {path.name} is missing; copy or make it again.")
                status = path.stat()
                state.append(f"{path} {status.st_size} {status.st_mtime_ns}")
                self.total += status.st_size
                self.files += 1
        self.stamp = hashlib.blake2b("\n".join(state).encode(errors="surrogateescape")).hexdigest()

    def parts(self) -> Iterator[TokenRange]:
        """Give the shards, those of train first."""
        at = 0
        for place, index in self.shards.items():
            for number, entry in enumerate(index):
                n_bytes = stored_file(entry)["bytes"]
                yield TokenRange(f"{self.stamp}-{place.name}-{number}", n_bytes, place.name, at, at + 1, number)
                at += 1

    def read(self, part: TokenRange) -> TokenPart:
        """Read the pieces of a shard; InputError if it is damaged, or if the tokenizer lacks an id."""
        made = self._part_of(part, self._tokens(part), first=part.start << 32)
        if self.is_split:
            made.draws = np.full(len(made.draws), VAL_DRAW if part.split == "val" else TRAIN_DRAW)
        return made

    def _rule(self) -> str:
        return "folder" if self.is_split else "piece"

    def _index(self, place: Path) -> list[dict]:
        try:
            entries = read_index(place)
            for entry in entries:
                check_columns(entry)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"corpus={self.path}: {place.name}/{INDEX_NAME} cannot be used ({error}); give MDS with a column "
                "`tokens`, or text."
            ) from error
        return entries

    def _tokens(self, part: TokenRange) -> NDArray[np.int64]:
        place = next(place for place in self.shards if place.name == part.split)
        try:
            return read_tokens(place, self.shards[place][part.number])
        except MemoryError:
            raise
        except OSError as error:
            raise InputError(f"corpus={self.path} cannot be read ({error}).") from error
        except Exception as error:  # every decompressor raises errors of its own
            raise InputError(f"corpus={self.path} is damaged ({error}); copy or make it again.") from error
