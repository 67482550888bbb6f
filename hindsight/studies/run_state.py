"""The state of a run, by its folder alone: no run is disturbed, nothing is loaded, and no server is asked.

Damage is what a look at the ends of files shows, quickly; that every byte is right is checked when a run goes on.
"""

import json
import os
import socket
import stat
import struct
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hindsight import runs
from hindsight.config.listing import State
from hindsight.errors import InputError
from hindsight.files import is_locked, open_regular
from hindsight.json_lines import parse, step_of

HEARTBEAT_S = 300.0
"""A run is trained now, where its lock does not tell, if it has written so lately, in seconds."""
TAIL_BYTES = 1 << 16
"""The end of metrics.jsonl in which its last line is looked for."""
END_OF_ZIP, END_OF_ZIP_BYTES = b"PK\x05\x06", 22
"""How the last bytes of a checkpoint, which is a zip archive without a comment, begin."""
MAX_HEADER_BYTES = 1 << 26
"""Largest header of model.safetensors that is read."""
BEFORE = (*runs.RECORDS, runs.STOP, runs.MORE)
"""What may be in a folder whose run has not begun, beside hidden files: what a start leaves that was killed at once."""


@dataclass
class Content:
    """What is in a run's folder: its size and its newest file.

    Args:
        names: entries of the folder itself.
        checkpoints: complete checkpoints, by their step.
        size_bytes: of all files in it, and in the folder of checkpoints, where that is another one here.
        last_write_s: when the newest of them was written, in seconds since 1970.
    """

    names: set[str] = field(default_factory=set[str])
    checkpoints: dict[int, Path] = field(default_factory=dict[int, Path])
    size_bytes: int = 0
    last_write_s: float = 0.0


def content_of(folder: Path) -> Content:
    """Look through a run's folder; OSError if it cannot be read. What vanishes meanwhile is left out."""
    content = Content()
    with os.scandir(folder) as entries:
        content.names = {entry.name for entry in entries}
    add_files(content, folder)
    return content


def is_empty(names: set[str]) -> bool:
    """Tell whether a folder has nothing that a run has done; only then may one of its records be missing."""
    return not {name for name in names if not name.startswith((".", runs.EARLIER))} - {*BEFORE}


def add_files(content: Content, folder: Path | str) -> None:
    """Add the files below a folder, links not followed, to what is known of a run's."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.is_dir(follow_symlinks=False):
                        add_files(content, entry.path)
                        continue
                    of_file = entry.stat(follow_symlinks=False)
                    content.size_bytes += of_file.st_size
                    content.last_write_s = max(content.last_write_s, of_file.st_mtime)
                    if (match := runs.CHECKPOINT_NAME.fullmatch(entry.name)) is not None:
                        content.checkpoints[int(match[1])] = Path(entry.path)
    except OSError:  # it is gone, or is another user's
        return


@dataclass(frozen=True)
class Judged:
    """What is said of a run.

    Args:
        state: its state.
        problem: what is damaged; None if nothing is.
        holder: the process that trains it, or by what it counts as training; None if none does.
    """

    state: State
    problem: str | None = None
    holder: str | None = None


def judge(folder: Path, content: Content, records: dict[str, Any], problem: str | None, step: int | None) -> Judged:
    """Say in which state a run is.

    Args:
        folder: its folder.
        content: what is in it.
        records: `total_steps` of its metadata and `checkpoint.folder` of its config, where they are known.
        problem: what is damaged of its records and metrics.
        step: the last of which something is logged.
    """
    if (holder := _holder(folder)) is not None:
        return Judged(State.training, None, holder)
    is_remote = "://" in str(records.get("checkpoint.folder") or "")
    try:
        finished = finished_at(folder, content, step)
        is_done = finished is not None and finished >= (records.get("total_steps") or 0)
        problem = problem or (_weights_problem(folder, content) if is_done else None)
    except InputError as error:
        is_done, problem = False, problem or relative(error, folder)
    if problem is None and is_done:
        return Judged(State.done)
    if (holder := _heartbeat(folder, content)) is not None:
        return Judged(State.training, None, holder)
    has_saved = bool(content.checkpoints) or bool({runs.NEWEST_CHECKPOINT, runs.WEIGHTS} & content.names)
    problem = problem or (_checkpoint_problem(folder, content, records) if has_saved and not is_remote else None)
    if problem is not None:
        return Judged(State.damaged, problem)
    return Judged(State.interrupted if has_saved else State.begun)


def finished_at(folder: Path, content: Content, step: int | None) -> int | None:
    """Step at which a run has ended; None if it has not. InputError if the file that says so is damaged.

    Runs of older versions have no such file; they have written their weights after the last evaluation.
    """
    if runs.FINISHED in content.names:
        finished = step_of(runs.read_object(folder / runs.FINISHED))
        if finished is None:
            raise InputError(f"{folder / runs.FINISHED} is damaged: it has no step")
        return finished
    is_whole = runs.WEIGHTS in content.names and step is not None and runs.is_evaluated(folder, step)
    return step if is_whole else None


def relative(error: InputError, folder: Path) -> str:
    """Give the message of an error without the folder that everybody knows it is about."""
    return str(error).replace(f"{folder}{os.sep}", "").rstrip(".")


def tail_of_metrics(folder: Path) -> bytes:
    """Read the end of metrics.jsonl, which may begin within a line; nothing of a run that has none.

    Raises:
        InputError: it cannot be read.
    """
    path = folder / runs.METRICS
    try:
        with open_regular(path) as file:
            file.seek(max(file.seek(0, os.SEEK_END) - TAIL_BYTES, 0))
            return file.read(TAIL_BYTES)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise InputError(f"{path.name} cannot be read ({error.strerror})") from None


def is_damaged(tail: bytes) -> bool:
    """Tell whether the last line of metrics is no object with a step; one that a kill has cut is not the last."""
    end = tail.rfind(b"\n")
    begin = tail.rfind(b"\n", 0, max(end, 0))
    line = tail[begin + 1 : max(end, 0)]
    is_whole = begin >= 0 or len(tail) < TAIL_BYTES
    return is_whole and line.strip() != b"" and step_of(parse(line)) is None


def last_number(tail: bytes, path: Path, key: str) -> float | None:
    """Find the last number that was logged under a key: at the end of metrics, where it mostly is, or before."""
    place = tail.rfind(f'"{key}"'.encode())
    if place >= 0:
        begin, end = tail.rfind(b"\n", 0, place), tail.find(b"\n", place)
        value = (parse(tail[begin + 1 : end if end >= 0 else None]) or {}).get(key)
        if runs.is_number(value):
            return value
    return runs.last_value(path, key)


def _holder(folder: Path) -> str | None:
    """Name the process that holds the lock of a run; None if none does, or locks do not tell."""
    return (_text_of_lock(folder) or "an unknown process") if is_locked(folder / runs.LOCK) else None


def _heartbeat(folder: Path, content: Content) -> str | None:
    """Say that a run counts as training because it writes, where its lock does not tell.

    That is so on a file system without locks, or whose locks end at the machine on which they were taken.
    """
    told = is_locked(folder / runs.LOCK)
    text = _text_of_lock(folder)
    if runs.LOCK not in content.names or (told is not None and text.endswith(f" on {socket.gethostname()}")):
        return None
    since_s = time.time() - content.last_write_s
    return f"{text or 'an unknown process'}, by what it writes" if since_s < HEARTBEAT_S else None


def _text_of_lock(folder: Path) -> str:
    with suppress(OSError), open_regular(folder / runs.LOCK) as file:
        return file.read(1000).decode(errors="replace").strip()
    return ""


def _checkpoint_problem(folder: Path, content: Content, records: dict[str, Any]) -> str | None:
    """Say what is wrong with the newest checkpoint; nothing where checkpoints are kept elsewhere."""
    if not content.checkpoints:
        is_elsewhere = records.get("checkpoint.folder") is not None or not records
        return None if is_elsewhere else "it has saved checkpoints, and all are gone"
    step = max(content.checkpoints)
    path = content.checkpoints[step]
    shown = path.relative_to(folder) if path.is_relative_to(folder) else path
    try:
        with open_regular(path) as file:
            file.seek(-END_OF_ZIP_BYTES, os.SEEK_END)
            is_whole = file.read().startswith(END_OF_ZIP)
    except FileNotFoundError:  # training has deleted it meanwhile, unless it is a link that leads nowhere
        is_whole = not path.is_symlink()
    except OSError as error:
        is_whole = False
        if error.strerror is not None and stat.S_ISREG(path.lstat().st_mode) and path.lstat().st_size:
            return f"{shown} cannot be read ({error.strerror})"
    earlier = max((other for other in content.checkpoints if other < step), default=None)
    goes_on = f"; the run goes on from step {earlier}" if earlier is not None else ""
    return None if is_whole else f"{shown} is cut or damaged{goes_on}"


def _weights_problem(folder: Path, content: Content) -> str | None:
    """Say what is wrong with the weights of a run that has ended."""
    path = folder / runs.WEIGHTS
    if runs.WEIGHTS not in content.names:
        return None if content.checkpoints else f"{path.name} is gone"
    try:
        with open_regular(path) as file:
            (n_header,) = struct.unpack("<Q", file.read(8))
            if n_header > MAX_HEADER_BYTES:
                raise ValueError("no header")
            header: dict[str, Any] = json.loads(file.read(n_header))
            ends = [each["data_offsets"][1] for name, each in header.items() if name != "__metadata__"]
            is_whole = 8 + n_header + max(ends, default=0) == os.fstat(file.fileno()).st_size
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"
    except (ValueError, struct.error, RecursionError, LookupError, TypeError, AttributeError):
        is_whole = False
    return None if is_whole else f"{path.name} is cut or damaged"
