"""Tokenize a corpus, or take over tokens, and write one h5 file: out/tokens.h5, out/tokenizer, out/manifest.json.

The file has the published code's layout (arXiv:2401.17505): one dataset `tokens` with one dimension. It holds the
training stream followed by the validation stream; the manifest says where one ends. It is stored contiguously, so that
its length must be known beforehand: until then, the tokens wait in plain files.

    python convert_to_h5.py corpus=demo/corpus.txt tokenizer=demo/tokenizer out=demo/h5

What is shared with the other formats is hindsight/conversion; the format itself is hindsight/shards/h5.py.
"""

import hindsight.installed  # noqa: F401 - says `make setup` before an import below fails

# isort: split
from hindsight.command_line import run_script
from hindsight.config.conversion import ConvertConfig
from hindsight.conversion.convert import convert
from hindsight.conversion.sinks import H5Sink


def main(config: ConvertConfig) -> None:
    """Convert, unless the same result is there."""
    convert(config, H5Sink)


if __name__ == "__main__":
    run_script("convert_to_h5", main)
