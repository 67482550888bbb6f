"""Look at a converted corpus: index, statistics, decoded windows in any order, and whether it is intact.

    python inspect_mds.py data/novels
    python inspect_mds.py data/novels direction=backward windows=5
    python inspect_mds.py run=runs/NAME step=1000

The last shows the windows of the batch of an optimizer step, exactly as that run saw them.

Exit status 0 if every file is what it was when it was written, 1 if not.
"""

import hindsight.installed  # noqa: F401 - says `make setup` before an import below fails

# isort: split
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from hindsight.command_line import run_script
from hindsight.config.conversion import InspectConfig
from hindsight.config.order import order_of
from hindsight.conversion.token_sources import ConvertedTokens
from hindsight.conversion.verify import open_index, verify_shards, verify_tokens
from hindsight.orders.known import open_order
from hindsight.shards.h5 import HASH_KEY
from hindsight.shards.manifest import MANIFEST_NAME, MDS, SPLITS, TOKENIZER_FOLDER, Manifest
from hindsight.shards.mds import INDEX_NAME, stored_file
from hindsight.tokenization.tokenizer import Tokenizer
from hindsight.tokenization.window_text import window_text

log = logging.getLogger("hindsight")

N_SHOWN = 3
"""Windows that are shown if their number is not given."""


def main(config: InspectConfig) -> None:
    """Show and verify; SystemExit with status 1 if anything is damaged."""
    if config.step is not None:
        show_step(config)
        return
    assert config.path is not None
    folder = Path(config.path).expanduser()
    places = [place for name in ("", *SPLITS) if ((place := folder / name) / INDEX_NAME).is_file()]
    if places and not (folder / MANIFEST_NAME).exists():
        for place in places:
            show_index(place)
        checked = ["sizes", *hashes_in([shard for place in places for shard in open_index(place)])]
        faults = [fault for place in places for fault in verify_shards(place)] if config.verify else []
    else:
        manifest = Manifest.load(folder, key="path")
        tokenizer = Tokenizer.load(folder / TOKENIZER_FOLDER, key="path")
        shards = [shard for split in SPLITS for shard in open_index(folder / split)] if manifest.format == MDS else []
        has_hashes = HASH_KEY in manifest.summary or hashes_in(shards)
        checked = [*(["hashes"] if has_hashes else ["sizes"]), "counts"]
        show(folder, manifest)
        source = ConvertedTokens(folder, manifest, tokenizer, "path")
        faults = list(verify_tokens(source, tokenizer)) if config.verify else []
        if not faults:
            show_windows(config, source, tokenizer)
    for fault in faults:
        log.error("path=%s: %s", config.path, fault)
    if faults:
        raise SystemExit(1)
    if config.verify:
        log.info("path=%s: intact, by its %s.", config.path, " and ".join(checked))


def hashes_in(shards: list[dict[str, Any]]) -> list[str]:
    """Name hashes among what was checked, if every shard has one."""
    return ["hashes"] if all(stored_file(shard)["hashes"] for shard in shards) and shards else []


def show(folder: Path, manifest: Manifest) -> None:
    """Show the settings, the sizes and the statistics of a converted corpus."""
    log.info("%s: %s, blocks of %d tokens, %s", folder, manifest.format, manifest.block_length, manifest.dtype)
    log.info("settings: %s", json.dumps(manifest.settings | {"seed": manifest.seed, "val_share": manifest.val_share}))
    log.info("corpus: %s", json.dumps(manifest.corpus))
    log.info("fingerprint: %s", manifest.fingerprint)
    if manifest.format == MDS:
        for split in SPLITS:
            shards = open_index(folder / split)
            stored = sum(stored_file(shard)["bytes"] for shard in shards)
            log.info("%s/%s: %d shards, %s bytes", split, INDEX_NAME, len(shards), f"{stored:,}")
    for line in manifest.describe():
        log.info("%s", line)


def show_index(folder: Path) -> None:
    """Show the index of an MDS folder without a manifest."""
    shards = open_index(folder)
    samples = sum(shard["samples"] for shard in shards)
    columns = shards[0]["column_encodings"] if shards else []
    log.info("%s: %d shards, %d samples, columns %s", folder, len(shards), samples, columns)


def show_windows(config: InspectConfig, source: ConvertedTokens, tokenizer: Tokenizer) -> None:
    """Show windows of a split as text, in the order in which a model sees their tokens.

    Text that was reversed before it was tokenized is reversed again: of each document for
    order=forward, else of each token.
    """
    order = open_order(order_of(config), config.context_length, tokenizer)
    is_reversed = source.manifest.is_reversed
    shown = f"{order.name}{', text_order=reversed, shown in reading order' if is_reversed else ''}"
    n_shown = N_SHOWN if config.windows is None else config.windows
    n_windows = max(1, source.manifest.splits[config.split].tokens // config.context_length)
    drawn = np.random.default_rng(config.seed).choice(n_windows, min(n_shown, n_windows), replace=False)
    for number in sorted(drawn.tolist()):
        tokens = source.window(config.split, number * config.context_length, config.context_length)
        read = [tokens[position] for position in order.permutation(np.array(tokens))]
        text = window_text(read, order.name, tokenizer, is_reversed)
        log.info("%s window %d, %s: %r", config.split, number, shown, text)


def show_step(config: InspectConfig) -> None:
    """Show the windows of an optimizer step of a run, as the run saw them."""
    from hindsight.evaluation.seen_step import open_step, step_lines  # here: PyTorch takes seconds

    for line in step_lines(open_step(config), config.rank, config.windows):
        log.info("%s", line)


if __name__ == "__main__":
    run_script("inspect_mds", main, alone="path")
