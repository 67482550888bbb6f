"""Where the result of a conversion goes: a local folder, or object storage such as S3, to which Streaming uploads."""

import hashlib
import logging
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from hindsight.config.conversion import ConvertConfig
from hindsight.conversion.work_folder import STATE_NAME
from hindsight.errors import InputError
from hindsight.files import is_free, local_path, locked, partial_of
from hindsight.shards.manifest import MANIFEST_NAME, Manifest
from hindsight.shards.mds import INDEX_NAME


class Output(Protocol):
    """The place of the result."""

    name: str
    """Its name in messages."""
    work: Path
    """The work folder."""

    def is_done(self) -> bool:
        """Whether a complete conversion is there; InputError if anything else is."""
        ...

    def check_free(self) -> None:
        """Raise InputError if something appeared there meanwhile."""
        ...

    def clean(self) -> None:
        """Remove a work folder that a process left which was killed after the result was complete."""
        ...

    def manifest(self) -> Manifest:
        """Read the manifest of the conversion that is there."""
        ...

    def stored(self, result: Path, name: str) -> None:
        """Accept a complete file of the result."""
        ...

    def missing(self, result: Path, sizes: dict[str, int]) -> list[str]:
        """Name the files of the result that were stored, but are missing or have another size."""
        ...

    def complete(self, result: Path) -> None:
        """Accept all remaining files, the manifest last, and remove the work folder."""
        ...


def open_output(config: ConvertConfig) -> Output:
    """Recognize the kind of place that out= names."""
    if "://" not in config.out:
        if config.work_dir is not None:
            raise InputError("work_dir= is for an out= on S3 and such; elsewhere it lies beside out; leave it out.")
        return LocalOutput(local_path("out", config.out))
    return RemoteOutput(config.out.rstrip("/"), config.work_dir)


class LocalOutput:
    """A local folder, which appears atomically."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = str(folder)
        self.work = partial_of(folder)

    def is_done(self) -> bool:
        """Whether the folder holds a manifest; InputError if it holds something else."""
        if os.path.ismount(self.folder):
            raise InputError(f"out={self.name} is where a disk is mounted; name a folder on it.")
        if is_free(self.folder):
            return False
        if not (self.folder / MANIFEST_NAME).is_file():
            raise InputError(f"out={self.name} holds something else; choose another out, or remove it.")
        return True

    def check_free(self) -> None:
        """Raise InputError if another process made the folder meanwhile."""
        if not is_free(self.folder):
            raise InputError(f"out={self.name} was made by another process meanwhile; see what it holds.")

    def clean(self) -> None:
        """Remove the work folder, unless another process holds it."""
        _remove_unless_held(self.work)

    def manifest(self) -> Manifest:
        """Read the manifest."""
        return Manifest.load(self.folder, key="out")

    def stored(self, result: Path, name: str) -> None:
        """Leave the file in the result."""

    def missing(self, result: Path, sizes: dict[str, int]) -> list[str]:
        """Compare with the files in the result."""
        paths = {name: result / name for name in sizes}
        return [str(p) for name, p in paths.items() if not p.is_file() or p.stat().st_size != sizes[name]]

    def complete(self, result: Path) -> None:
        """Rename the result to its final name, and remove the work folder."""
        if self.folder.exists():
            self.folder.rmdir()  # only if it is empty
        result.rename(self.folder)
        shutil.rmtree(self.work)


class RemoteOutput:
    """Object storage, to which each file is uploaded as soon as it is complete; the work folder is on this disk.

    Args:
        url: s3://BUCKET/FOLDER, or another address that Streaming uploads to.
        work_dir: folder in which the hidden work folder is made; None for the current folder.
    """

    def __init__(self, url: str, work_dir: str | None) -> None:
        self.name = url
        place = urlsplit(url)
        if not place.netloc or not place.path.strip("/"):
            raise InputError(f"out={url} names no folder; give {place.scheme}://BUCKET/FOLDER.")
        self.key = place.path.strip("/")
        short = f".{self.key.split('/')[-1]}-{hashlib.blake2b(url.encode(), digest_size=4).hexdigest()}.partial"
        self.work = local_path("work_dir", work_dir or ".") / short
        self._uploader: Any = None

    def is_done(self) -> bool:
        """Whether the place holds a manifest; InputError for anything else that was not begun with this work folder."""
        there = self._list()
        if f"{self.key}/{MANIFEST_NAME}" in there:
            return True
        if there and not (self.work / STATE_NAME).is_file():
            raise InputError(
                f"out={self.name} holds something else, or a conversion that was begun elsewhere ({self.work} knows "
                "nothing of it); choose another out, remove it, or give the work_dir= it was begun with."
            )
        return False

    def check_free(self) -> None:
        """Do nothing: `is_done` has checked that what is there belongs to this conversion."""

    def clean(self) -> None:
        """Remove the work folder, unless another process holds it."""
        _remove_unless_held(self.work)

    def manifest(self) -> Manifest:
        """Download the manifest and read it."""
        from streaming.base.storage import CloudDownloader

        with tempfile.TemporaryDirectory() as folder:
            CloudDownloader.get(self.name).download(f"{self.name}/{MANIFEST_NAME}", f"{folder}/{MANIFEST_NAME}", 60)
            return Manifest.load(folder, key="out")

    def stored(self, result: Path, name: str) -> None:
        """Upload a file; the uploader removes the local one."""
        self._upload(result, name)

    def missing(self, result: Path, sizes: dict[str, int]) -> list[str]:
        """List the names at the place; sizes are not listed, and not compared."""
        there = set(self._list())
        return [f"{self.name}/{name}" for name in sizes if f"{self.key}/{name}" not in there]

    def complete(self, result: Path) -> None:
        """Upload what is left: at the end the indices, and then the manifest."""
        names = sorted(str(path.relative_to(result)) for path in result.rglob("*") if path.is_file())
        last = [name for name in names if name.endswith(INDEX_NAME)] + [MANIFEST_NAME]
        for name in [*(name for name in names if name not in last), *last]:
            self._upload(result, name)
        shutil.rmtree(self.work)

    def _upload(self, result: Path, name: str) -> None:
        try:
            self._uploader = self._uploader or _open_uploader(result, self.name)
            self._uploader.upload_file(name)
        except Exception as error:  # every provider raises errors of its own
            raise InputError(
                f"out={self.name}: {name} cannot be uploaded ({error}); the same command goes on where it was."
            ) from error

    def _list(self) -> list[str]:
        with tempfile.TemporaryDirectory() as folder:
            try:
                return _open_uploader(Path(folder), self.name).list_objects("") or []
            except Exception as error:  # every provider raises errors of its own
                raise InputError(
                    f"out={self.name} cannot be reached ({error}); check the address, S3_ENDPOINT_URL and the keys."
                ) from error


def _open_uploader(folder: Path, url: str) -> Any:
    """Open Streaming's uploader, which removes each file from the folder after its upload."""
    from streaming.base.storage import CloudUploader  # imported late: it takes seconds

    # It warns of a place that is not empty, as ours is on purpose.
    logging.getLogger("streaming.base.storage.upload").setLevel(logging.ERROR)
    return CloudUploader.get((str(folder), url), exist_ok=True)


def _remove_unless_held(folder: Path) -> None:
    if folder.is_dir():
        with suppress(InputError), locked(folder, "held"):
            shutil.rmtree(folder)
