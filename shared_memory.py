"""What Streaming 0.13.0 leaves behind a killed process in /dev/shm and in the folder for temporary files.

Its own `clean_stale_shared_memory` unlinks also what other processes are using, and stops at the first unused number
(https://github.com/mosaicml/streaming, streaming/base/util.py). Delete with a Streaming that does neither.
"""

import os
import re
import tempfile
from pathlib import Path

SEGMENTS = Path("/dev/shm")  # noqa: S108 - where Linux keeps shared memory
SEGMENT = re.compile(
    r"(\d{6})_(locals|barrier|next_epoch|cache_usage|shard_states|shard_access_times|resume|barrier_filelock"
    r"|cache_filelock)"
)


def remove_unused() -> None:
    """Unlink segments of this user that no process has mapped or open, and the lock files that belong to none.

    What another process is using, and what belongs to another user, stays. Without /dev/shm there is nothing to do.
    """
    mine = [path for path in _named_by_streaming(SEGMENTS) if path.stat().st_uid == os.getuid()]
    used = _in_use() if mine else set()
    for path in mine:
        if str(path) not in used:
            path.unlink(missing_ok=True)
    for path in _named_by_streaming(Path(tempfile.gettempdir())):
        if not (SEGMENTS / f"{path.name[:6]}_locals").exists() and path.stat().st_uid == os.getuid():
            path.unlink(missing_ok=True)


def _named_by_streaming(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    paths = [Path(entry.path) for entry in os.scandir(folder) if SEGMENT.fullmatch(entry.name)]
    return [path for path in paths if path.exists()]


def _in_use() -> set[str]:
    """Paths below /dev/shm that a process of this user has mapped, or has open and is about to map."""
    used: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            for line in (process / "maps").read_text().splitlines():
                used.add(line[line.find("/") :] if "/dev/shm/" in line else "")  # noqa: S108
            used |= {os.readlink(link) for link in (process / "fd").iterdir()}
        except OSError:  # it has ended, or belongs to another user, whose segments are not touched
            continue
    return used
