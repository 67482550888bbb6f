"""Prompts, and texts to score, from a file or from standard input: one a line, or JSON lines with named texts."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from hindsight.errors import InputError
from hindsight.files import open_regular
from hindsight.json_lines import MAX_LINE_BYTES, parse
from hindsight.text.formats import BOM

PLAIN, JSON_LINES = (".txt",), (".jsonl", ".ndjson")
STDIN = "standard input"


def read_prompts(given: str, names: Sequence[str]) -> list[dict[str, str]]:
    """Read a file of prompts as a whole.

    Args:
        given: its path: .txt with one a line, of which blank ones are left out; or .jsonl with an object a line.
        names: the texts that each line must have, such as prompt and ending; a line of .txt is the first of them.

    Returns:
        The named texts of each line, in order, without what else a line has.

    Raises:
        InputError: there is no such file, it is no text, or it lacks what is needed.
    """
    path, where = Path(given).expanduser(), f"prompts={given}"
    if path.suffix not in PLAIN + JSON_LINES:
        raise InputError(f"{where} must be .txt with one a line, or .jsonl with {_listed(names)} in each line.")
    if path.suffix in PLAIN and len(names) > 1:
        raise InputError(f"{where} must be .jsonl, with {_listed(names)} in each line.")
    try:
        with open_regular(path) as file:
            if path.suffix in PLAIN:
                found = [{names[0]: line} for line in lines(file, where)]
            else:
                found = [
                    _texts(line, names, f"{where}, line {number}")
                    for number, line in enumerate(_decoded(file, where), start=1)
                    if line.strip()
                ]
    except OSError as error:
        raise InputError(f"{where} cannot be read ({error.strerror}); give a text file.") from None
    if not found:
        raise InputError(f"{where} is empty; write {_listed(names)} into it, one a line.")
    return found


def lines(file: BinaryIO, where: str = STDIN) -> Iterator[str]:
    """Yield the lines of a text as they come, without their ends and without blank ones; InputError for other bytes."""
    yield from (line for line in _decoded(file, where) if line.strip())


def lines_of_input() -> Iterator[str]:
    """Yield the lines of standard input as they come; InputError if there are none, also where it is closed (`<&-`)."""
    is_empty = True
    for line in lines(sys.stdin.buffer) if sys.stdin is not None else ():
        is_empty = False
        yield line
    if is_empty:
        raise InputError(f"{STDIN} is empty; write a text a line into it, or give prompts=FILE.")


def is_typed() -> bool:
    """Whether standard input is a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


def require_characters(text: str, where: str) -> None:
    """Raise InputError for a text that no UTF-8 can hold, such as bytes of an argument or half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{where} is no text in UTF-8; write it in UTF-8.") from None


def _decoded(file: BinaryIO, where: str) -> Iterator[str]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        if len(line) == MAX_LINE_BYTES:
            raise InputError(f"{where}, line {number} is longer than {MAX_LINE_BYTES} bytes; give shorter ones.")
        line = line.removeprefix(BOM) if number == 1 else line
        try:
            text = line.decode()
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raise InputError(f"{where}, line {number} is no text in UTF-8; give a text, one a line.")
        yield text.removesuffix("\n").removesuffix("\r")


def _texts(line: str, names: Sequence[str], where: str) -> dict[str, str]:
    record = parse(line)
    if record is None or not all(isinstance(record.get(name), str) for name in names):
        raise InputError(f"{where} is no JSON object with {_listed(names)} as text; write such as {_example(names)}.")
    found = {name: record[name] for name in names}
    for name, text in found.items():
        require_characters(text, f"{where}, `{name}`,")
    return found


def _listed(names: Sequence[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)


def _example(names: Sequence[str]) -> str:
    return json.dumps(dict.fromkeys(names, "..."))
