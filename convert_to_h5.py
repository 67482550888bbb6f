"""Tokenize a corpus, or take over tokens, and write one h5 file: out/tokens.h5, out/tokenizer, out/manifest.json.

The file has the published code's layout (arXiv:2401.17505): one dataset `tokens` with one dimension. It holds the
training stream followed by the validation stream; the manifest tells where one ends. It is stored contiguously, so that
its length must be known beforehand: until then, the tokens wait in plain files.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xxhash

from hindsight.command_line import run_script
from hindsight.config.conversion import ConvertConfig
from hindsight.conversion.convert import convert
from hindsight.conversion.outputs import Output
from hindsight.conversion.token_sources import BUFFER_TOKENS, H5_DATASET, H5_NAME
from hindsight.errors import InputError
from hindsight.shards.manifest import SPLITS, Manifest


def main(config: ConvertConfig) -> None:
    """Convert, unless the same result is there."""
    if "://" in config.out:
        raise InputError(f"out={config.out}: one file is not made to be streamed; give a local folder, or use MDS.")
    for key, default in (("compression", None), ("hashes", ["xxh64"])):
        if getattr(config, key) != default:
            raise InputError(f"{key}={getattr(config, key)} is for MDS; leave it out.")
    convert(config, "h5", {}, H5Sink)


class H5Sink:
    """Writes the h5 file.

    Args:
        folder: where tokens.h5 is made.
        plan: the conversion.
        fill_id: not needed: nothing is filled up.
        out: not needed: there is one file.
    """

    def __init__(self, folder: Path, plan: Manifest, fill_id: int, out: Output) -> None:
        self.folder = folder
        self.dtype = plan.dtype
        self.write = None
        """There are no shards: all is stored at the end."""

    def finish(self, shards: dict[str, list[dict[str, Any]]], waiting: dict[str, Path]) -> dict[str, Any]:
        """Join the plain files, and hash each split."""
        hashes = {}
        self.folder.mkdir(exist_ok=True)
        n_tokens = sum(path.stat().st_size for path in waiting.values()) // np.dtype(self.dtype).itemsize
        with h5py.File(self.folder / H5_NAME, "w") as file:
            stored = file.create_dataset(H5_DATASET, shape=(n_tokens,), dtype=self.dtype)
            start = 0
            for split in SPLITS:
                digest = xxhash.xxh64()
                with waiting[split].open("rb") as tokens_file:
                    while len(tokens := np.fromfile(tokens_file, self.dtype, BUFFER_TOKENS)):
                        stored[start : start + len(tokens)] = tokens
                        digest.update(tokens.data)
                        start += len(tokens)
                hashes[split] = digest.hexdigest()
        return {"xxh64": hashes}


if __name__ == "__main__":
    run_script("convert_to_h5", main)
