"""Tokenize a corpus, or take over tokens, and write MDS shards: out/train, out/val, out/tokenizer, out/manifest.json.

A sample is a block of `block_length` tokens. The last block of a split is padded; the manifest says how many tokens the
split has. Every shard of a split but the last holds `blocks_per_shard` blocks.

    python convert_to_mds.py corpus=demo/corpus.txt tokenizer=demo/tokenizer out=demo/bible val_share=0.05

What is shared with the other formats is hindsight/conversion; the format itself is hindsight/shards/mds.py.
"""

import hindsight.installed  # noqa: F401 - says `make setup` before an import below fails

# isort: split
from hindsight.command_line import run_script
from hindsight.config.conversion import ConvertConfig
from hindsight.conversion.convert import convert
from hindsight.conversion.sinks import MdsSink


def main(config: ConvertConfig) -> None:
    """Convert, unless the same result is there."""
    convert(config, MdsSink)


if __name__ == "__main__":
    run_script("convert_to_mds", main)
