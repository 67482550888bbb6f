"""Finding the files of a corpus: each is taken, refused when it is read, or counted by kind as not taken."""

import fnmatch
import glob
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from hindsight.errors import InputError
from hindsight.s3 import s3_client, split_url
from hindsight.text.files import ENDINGS, JSON, PARQUET, StoredFile, compression_of, ending_of
from hindsight.text.formats import BEGINNING_BYTES, BOM, begins_with_object

FORMATS = ".txt, .jsonl, .ndjson, .json (also .xz, .gz, .bz2, .zst) or .parquet"
FIRST_LINE_BYTES = 1 << 24
"""How much of the first line of a .json file is looked at for text_key=; a longer line may have it."""
LISTED_KINDS = 12
"""Kinds of files that are listed; the others are counted together."""
HIDDEN, EMPTY, BROKEN = "hidden", "empty", "broken link"
NOT_REGULAR = "pipe, socket or device"
SEEN_BEFORE = "link to a folder that is taken already"
NO_LINES = ".json without a JSON object in its first line that has text_key="


class Found(NamedTuple):
    """The files of a corpus, in order, and how many others there are, by kind.

    Empty files are in both: they have no document, but were taken as files by earlier versions, whose work folders
    know them.
    """

    files: list[StoredFile]
    not_taken: dict[str, int]


def find_files(path: str, text_key: str = "text") -> Found:
    """Find the files of a corpus; InputError if there is none.

    A folder stands for the text files below it, also behind links to folders, sorted by their relative path, without
    hidden ones. A file that the user names, or that matches a glob, belongs to the corpus whatever its name; a pipe or
    a device only if it is named.

    Args:
        path: a file, a folder or a glob; or its address at s3://.
        text_key: the key of the text, by which JSON lines are told from other .json files of a folder.
    """
    if path.startswith("s3://"):
        return _find_objects(path, text_key)
    place = Path(path).expanduser()
    if place.is_file():
        return _found([_local(place)], Counter())
    if (mode := _mode(str(place))) is not None and not stat.S_ISDIR(mode):
        return Found([_stream(place, mode)], {})
    not_taken: Counter[str] = Counter()
    if place.is_dir():
        inside = (file.relative_to(place) for file in _regular(_walk(place, not_taken), not_taken))
        names = sorted(inside, key=lambda name: name.parts)
        found = _taken(((PurePosixPath(name), _local(place / name)) for name in names), text_key, not_taken)
    else:
        found = [_local(file) for file in _matching(place, not_taken)]
    if not found and not place.is_dir() and not +not_taken:
        raise InputError(f"corpus={path} does not exist: give a text file, a folder, or a glob that matches files.")
    if not found:
        raise InputError(f"corpus={path} has no text{_only(not_taken)}; give {FORMATS}.")
    return _found(found, not_taken)


def describe_not_taken(not_taken: Mapping[str, int]) -> str:
    """List the files that were not taken: `2 .pdf, 1 hidden`."""
    kinds = sorted(not_taken.items(), key=lambda item: (-item[1], item[0]))
    listed = [f"{count:,} {kind}" for kind, count in kinds[:LISTED_KINDS]]
    others = sum(count for _, count in kinds[LISTED_KINDS:])
    return ", ".join([*listed, *([f"{others:,} of other kinds"] if others else [])])


def _found(files: list[StoredFile], not_taken: Counter[str]) -> Found:
    not_taken[EMPTY] += sum(map(_is_empty, files))
    return Found(files, dict(sorted((+not_taken).items())))


def _only(not_taken: Counter[str]) -> str:
    return f", only {describe_not_taken(+not_taken)}" if +not_taken else ""


def is_text(name: PurePosixPath) -> bool:
    """Whether a file in a folder belongs to the corpus by its ending."""
    return ending_of(name) in ENDINGS and not (ending_of(name) == PARQUET and compression_of(name))


def _taken(
    files: Iterable[tuple[PurePosixPath, StoredFile]], text_key: str, not_taken: Counter[str]
) -> list[StoredFile]:
    """Give the files in a folder that belong to the corpus, by relative name and content, and count the others."""
    taken = []
    for name, file in files:
        if not is_text(name):
            not_taken[BROKEN if file.version == "" else _kind(name)] += 1
        elif name.suffix.lower() == JSON and file.size and not _has_lines(file, text_key):
            not_taken[NO_LINES] += 1
        else:
            taken.append(file)
    return taken


def _kind(name: PurePosixPath) -> str:
    """Name the kind of a file that is not taken by its ending."""
    ending = ending_of(name) + (compression_of(name) or "")
    return ending if re.fullmatch(r"(\.(?=\w*[a-z])\w{1,8}){1,2}", ending) else "without a known ending"


def _has_lines(file: StoredFile, text_key: str) -> bool:
    try:
        with file.open() as stored:
            beginning = stored.read(BEGINNING_BYTES)
            if b"\n" not in beginning.removeprefix(BOM).lstrip():
                beginning += stored.readline(FIRST_LINE_BYTES)
            return begins_with_object(beginning, text_key)
    except OSError:
        return True  # reported when it is read


def _is_empty(file: StoredFile) -> bool:
    return file.size == 0 and file.version != "" and file.compression is None and file.kind != PARQUET


def _walk(root: Path, not_taken: Counter[str]) -> Iterator[tuple[Path, int | None]]:
    """Yield what is below a folder and neither a folder nor hidden, with its type, also behind links to folders.

    Each folder is entered once, so that links may form a circle; by a link only if there is no other way.
    """
    seen = {_identity(root)}
    folders, links, behind_link = [root], list[Path](), False
    while folders or links:
        if not folders:
            links.sort(key=lambda link: link.parts)
            folders, behind_link = [links.pop(0)], True
            if _identity(folders[0]) in seen:
                not_taken[SEEN_BEFORE] += 1
                folders = []
                continue
            seen.add(_identity(folders[0]))
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                path, mode = Path(entry.path), _mode(entry.path)
                if entry.name.startswith("."):
                    not_taken[HIDDEN] += 1
                elif mode is None or not stat.S_ISDIR(mode):
                    yield path, mode
                elif entry.is_symlink():
                    links.append(path)
                elif behind_link and _identity(path) in seen:
                    not_taken[SEEN_BEFORE] += 1
                else:
                    seen.add(_identity(path))
                    folders.append(path)


def _matching(pattern: Path, not_taken: Counter[str]) -> list[Path]:
    """Give the files that match a glob, sorted."""
    magic = next((number for number, part in enumerate(pattern.parts) if glob.has_magic(part)), len(pattern.parts))
    wanted = pattern.parts[magic:]
    if "**" in wanted and not any(part.startswith(".") for part in wanted):
        base = Path(*pattern.parts[:magic])  # glob.glob would follow a circle of links 40 times
        walked = _walk(base, Counter()) if base.is_dir() else ()
        places = [(path, mode) for path, mode in walked if _fits(path.relative_to(base).parts, wanted)]
    else:
        places = [(Path(name), _mode(name)) for name in glob.glob(str(pattern), recursive=True)]
    return sorted(_regular(places, not_taken))


def _fits(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether the parts of a relative path match those of a glob."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _regular(places: Iterable[tuple[Path, int | None]], not_taken: Counter[str]) -> Iterator[Path]:
    """Yield the regular files, and links to nothing; count folders, pipes, sockets and devices."""
    for path, mode in places:
        if mode is None or stat.S_ISREG(mode):
            yield path
        else:
            not_taken["folder" if stat.S_ISDIR(mode) else NOT_REGULAR] += 1


def _mode(path: str) -> int | None:
    """Give the type of what a path leads to; None for a link that leads nowhere."""
    try:
        return os.stat(path).st_mode
    except OSError:
        return None


def _stream(path: Path, mode: int) -> StoredFile:
    """Describe a pipe or a device that is named; InputError if no text can come from it."""
    file = StoredFile(os.path.abspath(path), 0, "", is_stream=True)
    if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        raise InputError(f"corpus={path} is a socket or a disk; give a text file, a folder, a glob, or a pipe.")
    if file.kind == PARQUET:
        raise InputError(f"corpus={path} is a pipe, from which a {path.suffix} file cannot be read; store it first.")
    return file


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _local(path: Path) -> StoredFile:
    try:
        status = path.stat()
    except OSError:  # reported when the file is read: it may be one of thousands
        return StoredFile(os.path.abspath(path), 0, "")
    return StoredFile(os.path.abspath(path), status.st_size, str(status.st_mtime_ns))


# ------------------------------------------------------------------------------------------------------------------ S3


def _find_objects(url: str, text_key: str) -> Found:
    bucket, key = split_url(url)
    prefix = key[: min((key.find(c) for c in "*?[" if c in key), default=len(key))]
    not_taken: Counter[str] = Counter()
    try:
        found = [file for file in _list_objects(bucket, prefix) if not (file.path.endswith("/") and file.size == 0)]
    except Exception as error:  # errors of botocore, boto3 and urllib3 have no common ancestor
        raise InputError(
            f"corpus={url} cannot be listed ({error}); check the bucket, S3_ENDPOINT_URL and keys."
        ) from error
    if not url.endswith("/") and any(file.path == url for file in found):
        found = [file for file in found if file.path == url]
    elif prefix != key:
        found = [file for file in found if fnmatch.fnmatchcase(split_url(file.path)[1], key)]
    else:
        folder = key.rstrip("/") + "/" if key else ""
        named = [(split_url(file.path)[1], file) for file in found]
        inside = [(PurePosixPath(name[len(folder) :]), file) for name, file in named if name.startswith(folder)]
        shown = [(name, file) for name, file in inside if not any(part.startswith(".") for part in name.parts)]
        not_taken[HIDDEN] += len(inside) - len(shown)
        found = _taken(shown, text_key, not_taken)
    if not found:
        raise InputError(
            f"corpus={url} has no text{_only(not_taken)}: give an object, a folder or a glob of {FORMATS}."
        )
    return _found(sorted(found, key=lambda file: PurePosixPath(file.path).parts), not_taken)


def _list_objects(bucket: str, prefix: str) -> Iterator[StoredFile]:
    for page in s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            yield StoredFile(f"s3://{bucket}/{item['Key']}", item["Size"], item["ETag"])
