"""Tokenize a corpus, or take over tokens, and write one h5 file: out/tokens.h5, out/tokenizer, out/manifest.json.

The file has the published code's layout (arXiv:2401.17505): one dataset `tokens` with one dimension. It holds the
training stream followed by the validation stream; the manifest tells where one ends. It is stored contiguously.
"""

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from config import ConvertConfig, run_script
from conversion import convert
from manifest import SPLITS, Manifest
from token_sources import BUFFER_TOKENS, H5_DATASET, H5_NAME


def main(config: ConvertConfig) -> None:
    """Convert, unless the same result is there."""
    convert(config, "h5", {}, H5Sink)


class H5Sink:
    """Writes the h5 file.

    A contiguous dataset needs its length beforehand, and val comes mixed with train: both wait in plain files.

    Args:
        folder: where tokens.h5 is made.
        plan: the conversion.
        fill_id: not needed: nothing is filled up.
    """

    def __init__(self, folder: Path, plan: Manifest, fill_id: int) -> None:
        self.folder = folder
        self.dtype = plan.dtype
        self.paths = {split: folder / f".{split}.tokens" for split in SPLITS}
        self.files = {split: path.open("wb") for split, path in self.paths.items()}

    def write(self, split: str, tokens: NDArray) -> None:
        """Write tokens to the plain file of a split."""
        self.files[split].write(tokens.tobytes())

    def finish(self) -> None:
        """Join the plain files, and remove them."""
        self.abandon()
        n_tokens = sum(path.stat().st_size for path in self.paths.values()) // np.dtype(self.dtype).itemsize
        with h5py.File(self.folder / H5_NAME, "w") as file:
            stored = file.create_dataset(H5_DATASET, shape=(n_tokens,), dtype=self.dtype)
            start = 0
            for path in self.paths.values():
                with path.open("rb") as waiting:
                    while len(tokens := np.fromfile(waiting, self.dtype, BUFFER_TOKENS)):
                        stored[start : start + len(tokens)] = tokens
                        start += len(tokens)
                path.unlink()

    def abandon(self) -> None:
        """Close the plain files."""
        for file in self.files.values():
            file.close()


if __name__ == "__main__":
    run_script("convert_to_h5", main)
