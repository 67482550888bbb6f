"""The data of a study: corpora, tokenizers and shards, each made by a command, at a place that its settings name.

The place has a hash of all settings that the content depends on, so that studies share what is the same, and never mix
what is not:

    data_dir/corpora/CORPUS-HASH.txt    data_dir/tokenizers/CORPUS-TOKENIZER-HASH/    data_dir/CORPUS-TOKENIZER-HASH/

What shards were made of is needed no more: texts may be gone, of which data_dir/corpora/CORPUS-HASH.seen.json says what
they were, and so may tokenizers and corpora that were made.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hindsight.config.study import StudyConfig
from hindsight.errors import InputError
from hindsight.files import open_regular, read_json, write_atomically
from hindsight.shards.manifest import MANIFEST_NAME, Manifest
from hindsight.studies.commands import Command, arguments_of
from hindsight.studies.study_checks import BYTES, keys_of
from hindsight.studies.study_file import Study
from hindsight.text.finding import find_files

log = logging.getLogger("hindsight")

FLOOR = ".floor.json"
"""What is behind the name of a synthetic corpus in that of the file that says its floor."""
SEEN = ".seen.json"
"""What is behind the name of a corpus in that of the file that says what its text was when data was last made of it."""
OF_TEXT = ("bible", "excerpts")
"""Kinds of make_corpus.py that are text which is there, and no synthetic language."""
ELSEWHERE = "://", "hf:", "-"
"""Beginnings of the name of a corpus that is no file here."""
END_BYTES = 1 << 20
"""Bytes at either end of a corpus by which a change is seen that leaves its size."""
OF_THE_MACHINE = ("workers", "engine", "dask_scheduler", "work_dir", "trainer", "encoder")
"""Keys on which no content depends."""


@dataclass(frozen=True)
class Step:
    """A command that makes something, unless it is there.

    Args:
        makes: what is there when it is done.
        command: the command.
        after: the steps whose products it reads.
    """

    makes: tuple[Path, ...]
    command: Command
    after: tuple["Step", ...] = ()

    @property
    def is_done(self) -> bool:
        """Whether what it makes is there; commands put it there as a whole."""
        return all(path.exists() for path in self.makes)

    @property
    def missing(self) -> tuple["Step", ...]:
        """Itself and those before it that are still to be done; what is there needs nothing of what it was made of."""
        return () if self.is_done else (*(step for before in self.after for step in before.missing), self)


@dataclass(frozen=True)
class Dataset:
    """Shards that runs are trained on.

    Args:
        corpus: name of the corpus in the study.
        tokenizer: name of the tokenizer.
        folder: where the shards are.
        steps: what makes it, in order.
        floor: file that says its floor; None for text.
    """

    corpus: str
    tokenizer: str
    folder: str
    steps: tuple[Step, ...]
    floor: Path | None

    @property
    def is_there(self) -> bool:
        """Whether its shards are complete."""
        return Path(self.folder, MANIFEST_NAME).exists()

    @property
    def missing(self) -> tuple[Step, ...]:
        """The steps that are still to be done: for shards, and for the floor."""
        needs_floor = self.floor is not None and not self.floor.exists()
        of_floor = [step for step in self.steps if needs_floor and self.floor in step.makes]
        return tuple(dict.fromkeys((*of_floor, *self.steps[-1].missing)))

    @property
    def val_documents(self) -> int | None:
        """Documents that are validated on; None where they are not told apart, or nothing is there yet."""
        return Manifest.load(self.folder).splits["val"].documents if self.is_there else None


@dataclass(frozen=True)
class _Made:
    path: str
    mark: str
    steps: tuple[Step, ...] = ()
    floor: Path | None = None
    gone: InputError | None = None
    """Why it cannot be made, where its text is not here; None where that does not matter, because it was made."""


class Data:
    """Names the data of a study, and says how each is made; nothing is made here.

    Args:
        study: the study.
        config: where its data lies.
    """

    def __init__(self, study: Study, config: StudyConfig) -> None:
        self.study, self.data_dir, self.corpus_dir = study, config.data_dir, config.corpus_dir
        self._datasets: dict[tuple[str, str, int | None], Dataset] = {}
        self._corpora: dict[str, _Made] = {}
        self._seen: dict[Path, dict[str, Any]] = {}

    def tokenizer_of(self, corpus: str, given: str) -> str:
        """Name the tokenizer of a corpus: its own, or the given one."""
        entry = self.study.corpora[corpus]
        if "turned" in entry:
            return self.tokenizer_of(entry["turned"], given)
        is_synthetic = "make" in entry and entry["make"].get("kind", OF_TEXT[0]) not in OF_TEXT
        return entry.get("tokenizer", BYTES if is_synthetic else given)

    def dataset(self, corpus: str, tokenizer: str, context_length: int) -> Dataset:
        """Give the dataset of a corpus and a tokenizer.

        Args:
            corpus: name of the corpus.
            tokenizer: name of the tokenizer.
            context_length: tokens of a window, by which windows are turned where the corpus asks for that.

        Raises:
            InputError: the corpus is not there.
        """
        key = corpus, tokenizer, context_length if "turned" in self.study.corpora[corpus] else None
        if key not in self._datasets:
            make = self._converted if key[2] is None else self._turned
            self._datasets[key] = make(corpus, tokenizer, context_length)
        return self._datasets[key]

    @property
    def datasets(self) -> list[Dataset]:
        """All that were asked for."""
        return [*self._datasets.values()]

    def remember(self) -> None:
        """Write down what the texts are of which data is made, for when they are gone."""
        for path, content in self._seen.items():
            if _remembered(path) != content:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, json.dumps(content) + "\n")

    def _converted(self, corpus: str, tokenizer: str, context_length: int) -> Dataset:
        text, of_tokenizer = self._corpus(corpus), self._tokenizer(corpus, tokenizer)
        entry, reading = self.study.corpora[corpus], self._reading(corpus, tokenizer)
        own = self.study.tokenizers[tokenizer].get("convert") or {}
        settings = reading | self.study.convert | own | (entry.get("convert") or {})
        mark = _hash({"corpus": text.mark, "tokenizer": of_tokenizer.mark, **settings})
        folder = os.path.join(self.data_dir, f"{corpus}-{tokenizer}-{mark}")
        given = {"corpus": text.path, "tokenizer": of_tokenizer.path, "out": folder, **settings}
        step = _step("convert_to_mds", given, (text, of_tokenizer), Path(folder, MANIFEST_NAME))
        if (gone := text.gone or of_tokenizer.gone) is not None and not step.is_done:
            raise gone
        steps = dict.fromkeys((*text.steps, *of_tokenizer.steps, step))  # both may begin with the corpus
        return Dataset(corpus, tokenizer, folder, tuple(steps), text.floor)

    def _turned(self, corpus: str, tokenizer: str, context_length: int) -> Dataset:
        of = self.dataset(self.study.corpora[corpus]["turned"], tokenizer, context_length)
        mark = _hash({"turned": of.folder.rpartition("-")[2], "context_length": context_length})
        folder = os.path.join(self.data_dir, f"{corpus}-{tokenizer}-{mark}")
        command = Command("hindsight.shards.turned", (of.folder, folder, str(context_length)))
        steps = (*of.steps, Step((Path(folder, MANIFEST_NAME),), command, of.steps[-1:]))
        return Dataset(corpus, tokenizer, folder, steps, of.floor)

    def _corpus(self, name: str) -> _Made:
        if name not in self._corpora:
            entry = self.study.corpora[name]
            if "make" in entry:
                self._corpora[name] = self._made_corpus(name, entry["make"])
            else:
                path, content, gone = self._text(name, str(entry["corpus"]))
                self._corpora[name] = _Made(path, _hash({"corpus": entry["corpus"], **content}), gone=gone)
        return self._corpora[name]

    def _made_corpus(self, name: str, settings: dict[str, Any]) -> _Made:
        content, gone = {}, None
        if settings.get("corpus") is not None:
            path, content, gone = self._text(name, str(settings["corpus"]))
            settings = settings | {"corpus": path}
        mark = _hash(self.study.corpora[name]["make"] | content)
        out = os.path.join(self.data_dir, "corpora", f"{name}-{mark}.txt")
        is_synthetic = settings.get("kind", OF_TEXT[0]) not in OF_TEXT
        floor = Path(out + FLOOR) if is_synthetic else None
        step = _step("make_corpus", settings | {"out": out}, (), Path(out), *([floor] if floor else []))
        return _Made(out, mark, (step,), floor, None if step.is_done else gone)

    def _tokenizer(self, corpus: str, name: str) -> _Made:
        entry = self.study.tokenizers[name]
        settings = {key: value for key, value in entry.items() if key not in ("corpora", "convert")}
        if settings.get("vocab_size") == BYTES:
            return self._trained(name, settings, "", ())
        given = entry.get("corpora")
        if not given:
            text = self._corpus(corpus)
            return self._trained(f"{corpus}-{name}", self._reading(corpus, name) | settings, text.path, (text,))
        texts = [self._corpus(each) for each in given]
        readings = [self._reading(each, name) for each in given]
        if any(reading != readings[0] for reading in readings):
            raise InputError(
                f"tokenizers.{name}: {' and '.join(given)} are not read alike (corpus_format and so on), and one "
                "tokenizer is trained on all; write them in one format."
            )
        folder = os.path.join(self.data_dir, "corpora", f"{'+'.join(given)}-{_hash({'of': [t.mark for t in texts]})}")
        links = [Path(folder, f"{number}-{os.path.basename(text.path)}") for number, text in enumerate(texts)]
        for each, text in zip(given, texts, strict=True):
            if not text.steps and text.gone is None and not Path(text.path).is_file():
                raise InputError(
                    f"tokenizers.{name}: corpora.{each} is no file here, and several are read together "
                    "only where each is one."
                )
        words = (folder, *(text.path for text in texts))
        steps = tuple(step for text in texts for step in text.steps)
        step = Step(tuple(links), Command("hindsight.studies.links", words), _last_of(texts))
        linked = _Made(folder, "", (*steps, step))
        return self._trained(name, readings[0] | settings, folder, (*texts, linked))

    def _trained(self, name: str, settings: dict[str, Any], corpus: str, texts: tuple[_Made, ...]) -> _Made:
        mark = _hash(settings | {"corpora": [text.mark for text in texts]})
        out = os.path.join(self.data_dir, "tokenizers", f"{name}-{mark}")
        given = {**({"corpus": corpus} if corpus else {}), "out": out, **settings}
        steps = tuple(dict.fromkeys(step for text in texts for step in text.steps))
        step = _step("train_tokenizer", given, texts, Path(out))
        gone = next((text.gone for text in texts if text.gone is not None), None)
        return _Made(out, mark, (*steps, step), gone=None if step.is_done else gone)

    def _reading(self, corpus: str, tokenizer: str) -> dict[str, Any]:
        """Keys by which the text of a corpus is read, for training a tokenizer and for conversion."""
        known = [key for key in keys_of("convert_to_mds") if key in keys_of("train_tokenizer")]
        reading = [key for key in known if key not in ("corpus", "out", "seed")]
        entry, by = self.study.corpora[corpus], self.study.tokenizers[tokenizer]
        return {key: each[key] for each in (entry, by) for key in reading if key in each}

    def _text(self, name: str, path: str) -> tuple[str, dict[str, Any], InputError | None]:
        """Find the text of a corpus, below corpus_dir= if its path is relative.

        Returns:
            Its path, what tells its content, and None; or why it is not here, where it was when data was made of it.

        Raises:
            InputError: it is not here, and never was.
        """
        if ELSEWHERE[0] in path or path.startswith(ELSEWHERE[1]) or path == ELSEWHERE[2]:
            return path, {"bytes": None}, None
        given = os.path.expanduser(path)
        place = given if os.path.isabs(given) else os.path.normpath(os.path.join(self.corpus_dir, given))
        seen = Path(self.data_dir, "corpora", f"{name}-{_hash({'corpus': path})}{SEEN}")
        try:
            self._seen[seen] = content = _content_of(place)
        except InputError as error:
            source = self.study.corpora[name].get("source")
            where_from = f" It comes from {source}" if source else ""
            gone = InputError(
                f"study={self.study.name}: corpora.{name} is not at {os.path.abspath(place)} "
                f"({str(error).partition(': ')[0]}); give corpus_dir=, the folder that has {path}.{where_from}"
            )
            if (remembered := _remembered(seen)) is None:
                raise gone from None
            log.warning("corpora.%s is not at %s; what was made of %s earlier is used.", name, place, path)
            return place, remembered, gone
        return place, content, None


def _step(script: str, given: Mapping[str, Any], of: Sequence[_Made], *makes: Path) -> Step:
    return Step(makes, Command(script, tuple(arguments_of(given))), _last_of(of))


def _last_of(made: Sequence[_Made]) -> tuple[Step, ...]:
    return tuple(step for each in made for step in each.steps[-1:])


def _content_of(path: str) -> dict[str, Any]:
    """Tell the files of a corpus by their size and their ends; InputError if there are none."""
    files, ends = find_files(path).files, hashlib.sha256()
    for found in files:
        with suppress(OSError), open_regular(Path(found.path)) as file:  # one that cannot be read is said later
            ends.update(file.read(END_BYTES))
            file.seek(-min(END_BYTES, file.seek(0, os.SEEK_END)), os.SEEK_END)
            ends.update(file.read(END_BYTES))
    return {"bytes": sum(file.size or 0 for file in files), "ends": ends.hexdigest()}


def _remembered(path: Path) -> dict[str, Any] | None:
    try:
        return read_json(path, END_BYTES)
    except (OSError, ValueError):  # none, or damaged: it is written anew
        return None


def _hash(values: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in values.items() if key not in OF_THE_MACHINE}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:6]
