"""A folder of links to corpora, on all of which one tokenizer is trained: `python -m hindsight.studies.links`."""

import os
import sys
from pathlib import Path


def link(folder: Path, paths: list[str]) -> None:
    """Make a folder with a link to each file, in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        place = folder / f"{number}-{os.path.basename(path)}"
        target = os.path.relpath(os.path.realpath(path), folder.resolve())  # a project that is moved keeps its links
        if place.is_symlink() and os.readlink(place) != target:
            place.unlink()
        if not os.path.lexists(place):
            place.symlink_to(target)


if __name__ == "__main__":
    link(Path(sys.argv[1]), sys.argv[2:])
