"""Look at a converted corpus: index, statistics, decoded windows in either direction, and whether it is whole.

    python inspect_mds.py data/novels
    python inspect_mds.py data/novels direction=backward windows=5

Exit status 0 if every file is what it was when it was written, 1 if not.
"""

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray
from tqdm import tqdm

from hindsight.command_line import run_script
from hindsight.config.conversion import InspectConfig
from hindsight.config.direction import Direction
from hindsight.conversion.convert import TOKENIZER_FOLDER
from hindsight.conversion.corpus_statistics import add_counts
from hindsight.conversion.token_sources import ConvertedTokens, TokenRange
from hindsight.errors import InputError
from hindsight.shards.manifest import MANIFEST_NAME, SPLITS, Manifest, check_names, entropy_nats
from hindsight.shards.mds import read_shard_bytes
from hindsight.tokenization.tokenizer import Tokenizer

log = logging.getLogger("hindsight")

INDEX_NAME = "index.json"


def main(config: InspectConfig) -> None:
    """Show and check; SystemExit with status 1 if something is damaged."""
    folder = Path(config.path).expanduser()
    if (folder / INDEX_NAME).is_file() and not (folder / MANIFEST_NAME).is_file():
        faults = check_index(folder) if config.verify else []
    else:
        manifest = Manifest.load(folder, key="path")
        tokenizer = Tokenizer.load(folder / TOKENIZER_FOLDER, key="path")
        show(folder, manifest)
        source = ConvertedTokens(folder, manifest, tokenizer)
        faults = list(check(source, tokenizer)) if config.verify else []
        if not faults:
            show_windows(config, source, tokenizer)
    for fault in faults:
        log.error("path=%s: %s", config.path, fault)
    if faults:
        raise SystemExit(1)
    if config.verify:
        log.info("path=%s: whole, by its hashes and counts.", config.path)


def show(folder: Path, manifest: Manifest) -> None:
    """Show how it is stored, and the statistics."""
    log.info("%s: %s, blocks of %d tokens, %s", folder, manifest.format, manifest.block_length, manifest.dtype)
    log.info("settings: %s", json.dumps(manifest.settings | {"seed": manifest.seed, "val_share": manifest.val_share}))
    log.info("corpus: %s", json.dumps(manifest.corpus))
    log.info("fingerprint: %s", manifest.fingerprint)
    if manifest.format == "mds":
        for split in SPLITS:
            shards = read_index(folder / split)["shards"]
            stored = sum((shard["zip_data"] or shard["raw_data"])["bytes"] for shard in shards)
            log.info("%s/index.json: %d shards, %s bytes", split, len(shards), f"{stored:,}")
    for line in manifest.describe():
        log.info("%s", line)


def show_windows(config: InspectConfig, source: ConvertedTokens, tokenizer: Tokenizer) -> None:
    """Show windows of a split as text, in the order in which a model of that direction sees their tokens."""
    n_windows = max(1, source.manifest.splits[config.split].tokens // config.context_length)
    drawn = np.random.default_rng(config.seed).choice(n_windows, min(config.windows, n_windows), replace=False)
    for number in sorted(drawn.tolist()):
        tokens = window(source, config.split, number * config.context_length, config.context_length)
        order = tokens if config.direction is Direction.forward else tokens[::-1]
        text = "".join(tokenizer.detokenize([token]) if token != tokenizer.eos_id else "⏎EOS⏎" for token in order)
        if config.direction is Direction.forward and tokenizer.eos_id not in tokens:
            text = tokenizer.detokenize(tokens)  # characters of several tokens are whole
        log.info("%s window %d, %s: %r", config.split, number, config.direction.value, text)


def window(source: ConvertedTokens, split: str, start: int, length: int) -> list[int]:
    """Give the tokens of a window, (length,) or fewer at the end of the split."""
    tokens: list[int] = []
    begin = 0
    for part in (part for part in source.parts() if part.split == split):
        size = part.end - part.start
        if begin + size > start and begin < start + length:
            inside = slice(max(start - begin, 0), start + length - begin)
            tokens += source.read(part).tokens[inside].tolist()
        begin += size
    return tokens


def check(source: ConvertedTokens, tokenizer: Tokenizer) -> Iterator[str]:
    """Read everything, and yield what is not as the index and the manifest say."""
    manifest = source.manifest
    token_counts: dict[str, NDArray[np.int64]] = {split: np.zeros(manifest.vocab_size, np.int64) for split in SPLITS}
    whole: dict[str, bool] = dict.fromkeys(SPLITS, True)
    digests = {split: xxhash.xxh64() for split in SPLITS}
    with tqdm(total=source.total, desc="checking", unit="tok", unit_scale=True, disable=None) as bar:
        for part in source.parts():
            try:
                tokens = source.read(part).tokens
                add_counts(token_counts[part.split], tokens)
                digests[part.split].update(tokens.tobytes())
            except (InputError, OSError) as error:
                whole[part.split] = False
                yield _where(part, error)
            bar.update(part.stored_bytes)
    for split in SPLITS:
        if whole[split]:
            yield from check_counts(split, manifest, token_counts[split], tokenizer)
            if "xxh64" in manifest.summary and manifest.summary["xxh64"][split] != digests[split].hexdigest():
                yield f"{split} has other tokens than when it was written, by their hash"
        if manifest.format == "mds":
            listed = {(shard["zip_data"] or shard["raw_data"])["basename"] for shard in _shards(source.folder / split)}
            for path in sorted((source.folder / split).iterdir()):
                if path.name not in listed | {INDEX_NAME}:
                    yield f"{split}/{path.name} is not in the index"


def check_counts(
    split: str, manifest: Manifest, token_counts: NDArray[np.int64], tokenizer: Tokenizer
) -> Iterator[str]:
    """Yield what the manifest counts otherwise than the tokens do."""
    counts = manifest.splits[split]
    if counts.documents is not None and counts.documents != token_counts[tokenizer.eos_id]:
        yield f"{split} has {token_counts[tokenizer.eos_id]} documents, {MANIFEST_NAME} says {counts.documents}"
    n_bytes = int((token_counts * tokenizer.bytes_per_token).sum())
    if not tokenizer.spec.get("normalizer") and n_bytes != counts.bytes:
        yield f"{split} stands for {n_bytes} bytes of text, {MANIFEST_NAME} says {counts.bytes}"
    if not np.isclose(entropy_nats(token_counts), counts.unigram_entropy_nats, rtol=1e-12):
        yield f"{split} has other tokens than {MANIFEST_NAME} says, by their entropy"


def check_index(folder: Path) -> list[str]:
    """Show the index of an MDS folder that no converter of ours made, and say which shards are not what it says."""
    shards = _shards(folder)
    samples = sum(shard["samples"] for shard in shards)
    log.info("%s: %d shards, %d samples, columns %s", folder, len(shards), samples, shards[0]["column_encodings"])
    faults = []
    for shard in shards:
        try:
            read_shard_bytes(folder, shard)
        except (OSError, ValueError) as error:
            faults.append(str(error))
    return faults


def read_index(folder: Path) -> dict[str, Any]:
    """Read index.json; InputError if it is damaged."""
    try:
        index = json.loads((folder / INDEX_NAME).read_text(encoding="utf-8"))
        for shard in index["shards"]:
            info = shard["zip_data"] or shard["raw_data"]
            _ = info["basename"] + str(info["bytes"] + shard["samples"]), info["hashes"].items()
            check_names(each["basename"] for each in (shard["raw_data"], shard["zip_data"]) if each)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"path={folder}: {INDEX_NAME} is missing or damaged ({error}); convert the corpus again."
        ) from error
    return index


def _shards(folder: Path) -> list[dict[str, Any]]:
    return read_index(folder)["shards"]


def _where(part: TokenRange, error: Exception) -> str:
    return f"{part.split}, tokens {part.start} to {part.end}: {error}"


if __name__ == "__main__":
    sys.argv[1:] = [
        argument if "=" in argument or argument.startswith("-") else f"path={argument}" for argument in sys.argv[1:]
    ]
    run_script("inspect_mds", main)
