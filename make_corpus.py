"""Write a corpus: the demo's (the American Standard Version of the Bible), excerpts of another, or a synthetic one."""

import hindsight.installed  # noqa: F401 - says `make setup` before an import below fails

# isort: split
import logging

from hindsight.command_line import run_script
from hindsight.config.made_corpus import CorpusKind, MakeCorpusConfig
from hindsight.files import local_path
from hindsight.synthetic.bible import find_database, read_chapters
from hindsight.synthetic.excerpts import excerpts
from hindsight.synthetic.known import language_of
from hindsight.synthetic.writing import write_corpus, write_language

log = logging.getLogger("hindsight")


def main(config: MakeCorpusConfig) -> None:
    """Write the corpus, unless it is there; with its floor, if it is synthetic."""
    out = local_path("out", config.out)
    if config.kind is CorpusKind.bible:
        chapters = read_chapters(find_database())[: int(config.settings["documents"])]
        content = "\n".join(chapters).encode()
        if write_corpus(out, iter([content])):
            log.info("%s: %d chapters, %.1f MB.", out, len(chapters), len(content) / 1e6)
    elif config.kind is CorpusKind.excerpts:
        settings = config.settings
        if write_corpus(out, excerpts(str(settings["corpus"]), int(settings["document_bytes"]))):
            log.info("%s: %.1f MB of corpus=%s.", out, out.stat().st_size / 1e6, config.corpus)
    else:
        write_language(out, config.kind, config.settings, language_of(config.kind, config.settings))


if __name__ == "__main__":
    run_script("make_corpus", main)
