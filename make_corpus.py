"""Write the demo's corpus: the American Standard Version of the Bible, a chapter a document."""

import hindsight.installed  # noqa: F401 - says `make setup` before an import below fails

# isort: split
import logging

from hindsight.command_line import run_script
from hindsight.config.corpus import MakeCorpusConfig
from hindsight.errors import InputError
from hindsight.files import local_path, write_atomically
from hindsight.synthetic.bible import find_database, read_chapters

log = logging.getLogger("hindsight")


def main(config: MakeCorpusConfig) -> None:
    """Write the corpus, unless it is there."""
    out = local_path("out", config.out)
    chapters = read_chapters(find_database())
    content = "\n".join(chapters).encode()
    if out.exists():
        if out.is_file() and out.read_bytes() == content:
            log.info("%s: already there, nothing to do.", out)
            return
        raise InputError(f"out={out} holds something else; choose another out, or remove it.")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, content)
    log.info("%s: %d chapters, %.1f MB.", out, len(chapters), len(content) / 1e6)


if __name__ == "__main__":
    run_script("make_corpus", main)
