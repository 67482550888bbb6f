"""Keys of the commands that read a corpus."""

from dataclasses import dataclass
from enum import Enum

from omegaconf import MISSING

from hindsight.config.checks import require, require_no_credentials, require_positive, require_text


class CorpusFormat(Enum):
    """What separates documents in a text file: a blank line (as in CC-100), the end of the file, or of the line.

    jsonl: a JSON object a line. Names in .jsonl, .ndjson, .json and .parquet say for themselves what they are.
    """

    cc100 = "cc100"
    file = "file"
    line = "line"
    jsonl = "jsonl"


class LineSeparators(Enum):
    """What becomes of U+2028 and U+2029: they stay, or each becomes a line feed."""

    keep = "keep"
    newline = "newline"


class TextOrder(Enum):
    """The order of a document's text when it is tokenized: as it is read, or reversed by grapheme clusters."""

    reading = "reading"
    reversed = "reversed"


class OnError(Enum):
    """What to do about text that cannot be used: stop, or leave it out and say so in the manifest."""

    stop = "stop"
    skip = "skip"


@dataclass
class CorpusConfig:
    """Where documents come from."""

    corpus: str = MISSING
    """Text: a file, a folder (its files in sorted order) or a glob, of .txt, JSON lines (.jsonl, .ndjson, .json; all
    also .xz, .gz, .bz2, .zst) and .parquet; the same at s3://BUCKET/...; hf:NAME, a dataset of Hugging Face's Hub or in
    a folder; - for standard input; a pipe such as <(zcat a.gz)."""
    corpus_format: CorpusFormat = CorpusFormat.cc100
    """What separates documents in a text file: cc100 (a blank line), file, line, or jsonl (a JSON object a line)."""
    separator: str | None = None
    """Line that separates documents in text files, e.g. <|endoftext|>, instead of a blank line; null for none. It is no
    part of them, and neither are blank lines behind it."""
    text_key: str = "text"
    """Key of the text in the objects of JSON lines."""
    text_column: str = "text"
    """Column of the text in .parquet files and in datasets of Hugging Face."""
    hf_config: str | None = None
    """Configuration of the dataset (corpus=hf:NAME), e.g. a language; null for its only one."""
    hf_split: str = "train"
    """Split of the dataset (corpus=hf:NAME) that is the corpus."""
    line_separators: LineSeparators = LineSeparators.keep
    """keep: text stays as it is; newline: U+2028 and U+2029 each become a line feed."""
    text_order: TextOrder = TextOrder.reading
    """reversed: the text of each document is reversed before it is tokenized, so that its last character (grapheme
    cluster) comes first. Documents are in the same order, and the same ones are held out."""
    on_error: OnError = OnError.stop
    """stop at a file or document that cannot be used, or skip it."""
    max_document_bytes: int = 1 << 24
    """Longest document, in bytes; a longer one cannot be used. Workers need some ten times as much memory each."""

    def __post_init__(self) -> None:
        require_no_credentials("", self)
        require_text("", self, "corpus", "separator", "text_key", "text_column", "hf_config", "hf_split")
        require(
            self.separator is None or self.corpus_format is CorpusFormat.cc100,
            f"separator={self.separator} takes the place of the blank line, and corpus_format="
            f"{self.corpus_format.value} has none; leave one of them out.",
        )
        require(
            self.separator is None or (self.separator.strip() != "" and not set(self.separator) & {"\n", "\r"}),
            "separator= is to be the text of one line; for blank lines, leave it out.",
        )
        require_positive("", self, "max_document_bytes")

    def reading(self) -> dict[str, str | int | None]:
        """All settings on which the documents of a given corpus depend; on_error aside, which only leaves some out."""
        return {
            "corpus_format": self.corpus_format.value,
            "text_key": self.text_key,
            "text_column": self.text_column,
            "hf_config": self.hf_config,
            "hf_split": self.hf_split,
            "line_separators": self.line_separators.value,
            "max_document_bytes": self.max_document_bytes,
            # Absent at their defaults: what was made before the keys existed stays the same.
            **({} if self.separator is None else {"separator": self.separator}),
            **({} if self.text_order is TextOrder.reading else {"text_order": self.text_order.value}),
        }
