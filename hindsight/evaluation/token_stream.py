"""The tokens that are scored, as one stream: a split of converted data, or a text that is tokenized here."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from hindsight.config.conversion import ConvertConfig
from hindsight.config.evaluation import EvaluateConfig
from hindsight.conversion.text_source import TextSource
from hindsight.errors import InputError
from hindsight.evaluation.evaluated_data import EvaluatedData
from hindsight.files import read_json, write_atomically, written_atomically
from hindsight.loading.shard_files import OpenFiles
from hindsight.loading.windows import SplitWindows
from hindsight.text.digest import Digest
from hindsight.text.finding import describe_not_taken
from hindsight.tokenization.tokenizer import Tokenizer

log = logging.getLogger("hindsight")

TOKENS, DESCRIPTION = "tokens.bin", "tokens.json"
"""Files of a text's tokens, in the work folder."""
MOST_DESCRIPTION_BYTES = 1 << 16
CONVERSION = {"lossy_tokenizer", "text_order"}
"""Settings of the conversion of the run's data by which a text is tokenized too."""


class TokenStream(Protocol):
    """Token ids, from the first to the last."""

    n_tokens: int

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Read tokens, (stop - start,); InputError if that fails."""
        ...


class SplitStream:
    """A split of converted data, read window by window by the loader of training.

    Args:
        windows: its windows, which do not overlap.
        window: number -> its tokens.
    """

    def __init__(self, windows: SplitWindows, window: Callable[[int], NDArray[Any]]) -> None:
        self.n_tokens, self.length, self.window = windows.n_tokens, windows.context_length, window

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Read tokens, (stop - start,)."""
        first, last = start // self.length, (stop - 1) // self.length
        tokens = [self.window(number) for number in range(first, last + 1)]
        whole = tokens[0] if len(tokens) == 1 else np.concatenate(tokens)
        return whole[start - first * self.length : stop - first * self.length]


@dataclass(frozen=True)
class TextTokens:
    """The tokens of a text, in a file.

    Args:
        path: the file.
        dtype: number format of a token.
        n_tokens: how many there are.
        fingerprint: hash of the documents, in order.
        stamp: hash of the text's files by name, size and time; None if they have none.
    """

    path: Path
    dtype: str
    n_tokens: int
    fingerprint: str
    stamp: str | None


class FileStream:
    """The tokens in the file of a text."""

    def __init__(self, tokens: TextTokens) -> None:
        self.n_tokens, self.path, self.dtype = tokens.n_tokens, tokens.path, np.dtype(tokens.dtype)
        self.files = OpenFiles()

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Read tokens, (stop - start,)."""
        size = self.dtype.itemsize
        return np.frombuffer(self.files.read(str(self.path), start * size, (stop - start) * size), self.dtype)


def open_text(config: EvaluateConfig, data: EvaluatedData) -> TextSource:
    """Find the files of corpus=; InputError if there are none."""
    fields = ConvertConfig.__dataclass_fields__
    shared = fields.keys() & EvaluateConfig.__dataclass_fields__.keys() - {"out", "work_dir"}
    values = {key: getattr(config, key) for key in shared}
    for key in CONVERSION & fields.keys() & data.settings.keys():
        default = fields[key].default
        values[key] = type(default)(data.settings[key]) if isinstance(default, Enum) else data.settings[key]
    values["tokenizer"] = data.tokenizer_folder
    source = TextSource(ConvertConfig(**values, out="none"), data.tokenizer)
    if source.not_taken:
        log.warning("corpus=%s: files that are not taken: %s.", config.corpus, describe_not_taken(source.not_taken))
    return source


def tokenize(source: TextSource, folder: Path) -> TextTokens:
    """Tokenize a text into a file in a folder, unless it is there from an earlier start.

    Raises:
        InputError: the text cannot be used, or has no documents.
    """
    description = folder / DESCRIPTION
    known = _known(description)
    if known is not None and source.stamp is not None and known["key"] == f"{source.key} {source.stamp}":
        tokens = TextTokens(folder / TOKENS, *(known[name] for name in ("dtype", "n_tokens", "fingerprint", "stamp")))
        size = tokens.n_tokens * np.dtype(tokens.dtype).itemsize
        if tokens.path.is_file() and tokens.path.stat().st_size == size:
            return tokens
    description.unlink(missing_ok=True)
    source.prepare()
    digest, n_tokens, n_problems, problems = Digest(), 0, 0, []
    with (
        written_atomically(folder / TOKENS) as file,
        tqdm(total=source.total, desc="tokenizing", unit="B", unit_scale=True, disable=None) as bar,
    ):
        for part in source.parts():
            made = source.read(part)
            file.write(made.tokens.astype(source.dtype).data)
            digest, n_tokens = digest.then(made.digest), n_tokens + len(made.tokens)
            problems, n_problems = [*problems, *made.problems][:1], n_problems + made.n_problems
            bar.update(part.stored_bytes)
    if n_problems:
        log.warning("%d things that cannot be used were left out, the first: %s", n_problems, problems[0])
    if not n_tokens:
        raise InputError(f"{source.where} has no documents; see corpus_format= and text_key=.")
    tokens = TextTokens(folder / TOKENS, source.dtype, n_tokens, digest.fingerprint, source.stamp)
    values = {name: getattr(tokens, name) for name in ("dtype", "n_tokens", "fingerprint", "stamp")}
    write_atomically(description, json.dumps({"key": f"{source.key} {source.stamp}", **values}))
    return tokens


def _known(description: Path) -> dict[str, Any] | None:
    try:
        return read_json(description, MOST_DESCRIPTION_BYTES)
    except (OSError, ValueError):
        return None


def token_table(tokenizer: Tokenizer) -> tuple[list[bytes], dict[int, str]]:
    """Give the bytes of each id, and the names of those that stand for none."""
    contents = [tokenizer.bytes_of(number) for number in range(tokenizer.vocab_size)]
    names = {number: tokenizer.name_of(number) for number, content in enumerate(contents) if not content}
    return contents, names
