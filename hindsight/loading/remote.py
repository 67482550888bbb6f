"""Converted corpora on object storage: what a run downloads before it begins, and its cache."""

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hindsight import temporary
from hindsight.config.data import DataConfig
from hindsight.errors import InputError
from hindsight.files import write_atomically
from hindsight.shards.manifest import MANIFEST_NAME, SPLITS, TOKENIZER_FOLDER
from hindsight.shards.mds import INDEX_NAME
from hindsight.tokenization.folder import CONFIG_FILE, TOKENIZER_FILE

DESCRIPTION = (
    MANIFEST_NAME,
    f"{TOKENIZER_FOLDER}/{TOKENIZER_FILE}",
    f"{TOKENIZER_FOLDER}/{CONFIG_FILE}",
    *(f"{split}/{INDEX_NAME}" for split in SPLITS),
)
"""Small files that describe the shards."""


@dataclass(frozen=True)
class Remote:
    """A folder on object storage that Streaming downloads from.

    Args:
        url: address of the folder.
        retry: number of attempts for a file.
        timeout_s: seconds without an answer after which an attempt fails.
    """

    url: str
    retry: int
    timeout_s: float

    @classmethod
    def of(cls, path: str, config: DataConfig) -> "Remote | None":
        """Return how to download from a path, if it is an address; None for a local path."""
        if "://" not in path:
            return None
        return cls(path.rstrip("/"), config.download_retry, config.download_timeout_s)


def cache_folder(remote: Remote, config: DataConfig, run_folder: Path) -> Path:
    """Name the cache folder of a run for what it downloads; two runs on one machine never share one."""
    place = Path(config.cache_dir) if config.cache_dir is not None else temporary.users_folder()
    short = hashlib.blake2b(f"{remote.url} {run_folder}".encode(), digest_size=6).hexdigest()
    return (place / f"{run_folder.name}-{short}").absolute()


def fetch_description(remote: Remote, folder: Path, key: str) -> None:
    """Download manifest, tokenizer and indices into a cache, once a node; shards of another conversion are removed.

    Raises:
        InputError: on all ranks, if a file is missing or the place cannot be reached.
    """
    from hindsight.ranks import on_each_node  # here: local data is checked before the seconds that Composer takes

    def fetch() -> None:
        with tempfile.TemporaryDirectory() as fresh:
            for name in DESCRIPTION:
                _download(remote, name, Path(fresh, name), key)
            temporary.private_folder(folder, "data.cache_dir")
            if (folder / MANIFEST_NAME).is_file() and _differs(Path(fresh), folder):
                shutil.rmtree(folder)
                temporary.private_folder(folder, "data.cache_dir")
            for name in DESCRIPTION:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                write_atomically(folder / name, Path(fresh, name).read_bytes())

    on_each_node(fetch)


def _differs(fresh: Path, folder: Path) -> bool:
    return any(
        not (folder / name).is_file() or (folder / name).read_bytes() != (fresh / name).read_bytes()
        for name in DESCRIPTION
    )


def _download(remote: Remote, name: str, path: Path, key: str) -> None:
    from streaming.base.storage import CloudDownloader
    from streaming.base.util import retry

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        downloader = CloudDownloader.get(remote.url)
        attempt = retry(clean_up_fn=downloader.clean_up, num_attempts=remote.retry)
        attempt(lambda: downloader.download(f"{remote.url}/{name}", str(path), remote.timeout_s))()
    except Exception as error:  # each provider raises its own kinds
        raise InputError(
            f"{key}={remote.url}: {name} cannot be fetched ({error}); check the address, S3_ENDPOINT_URL and the keys."
        ) from error
