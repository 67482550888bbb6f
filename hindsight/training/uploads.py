"""Upload checkpoints to S3 in the background of training, each with the run's records."""

import logging
import os
import shutil
from collections import deque
from pathlib import Path
from threading import Condition, Thread

from hindsight import runs
from hindsight.errors import InputError
from hindsight.s3 import S3Folder
from hindsight.training.checkpoint_files import UPLOADING, outdated, remote_name

log = logging.getLogger("hindsight")


class Uploads:
    """A thread that uploads checkpoints, each with the run's records, and deletes old ones on S3.

    A failed upload does not end the run: the file is here, and the next attempt is made with the next checkpoint.

    Args:
        remote: folder on S3.
        run_folder: the run's folder.
    """

    def __init__(self, remote: S3Folder, run_folder: Path) -> None:
        self.remote, self.run_folder = remote, run_folder
        self.waiting: deque[tuple[Path, str, int]] = deque()
        self.news = Condition()
        self.failed: Exception | None = None
        self.is_closing = self.is_abandoned = False
        # Not a thread of a pool: the interpreter would wait for it also when the user wants to leave at once.
        self.thread = Thread(target=self._work, daemon=True, name="uploads")
        self.thread.start()

    def add(self, path: Path, keep: int) -> None:
        """Queue a checkpoint; those that it has made outdated while they waited are dropped, and never backups.

        Args:
            path: the file; it may be deleted at any time.
            keep: number of newest ones that stay beside it; -1 for all.
        """
        link = path.with_name(UPLOADING + path.name)
        link.unlink(missing_ok=True)
        try:
            os.link(path, link)
        except OSError:  # not every file system has links
            shutil.copyfile(path, link)
        with self.news:
            self.waiting.append((link, remote_name(path), keep))
            late = outdated((name for _, name, _ in self.waiting), path.name, keep)  # names of backups have a folder
            for waiting in [each for each in self.waiting if each[1] in late]:
                self.waiting.remove(waiting)
                waiting[0].unlink(missing_ok=True)
                log.warning("%s is not uploaded: %s is too slow.", waiting[1], self.remote.url)
            self.news.notify()

    def close(self) -> None:
        """Wait until the queued checkpoints and the final records are uploaded, unless the uploads were abandoned."""
        if self.is_abandoned:
            return
        with self.news:
            self.is_closing = True
            self.news.notify()
        self.thread.join()

    def check(self) -> None:
        """Raise InputError if the newest checkpoint could not be uploaded."""
        if self.failed is not None:
            raise InputError(
                f"{self.remote.key}={self.remote.url}: the newest checkpoint could not be uploaded ({self.failed}); it "
                f"is in {self.run_folder}, and the same command uploads it."
            )

    def _work(self) -> None:
        is_last = False
        while not is_last:
            with self.news:
                self.news.wait_for(lambda: self.waiting or self.is_closing)
                link, name, keep = self.waiting.popleft() if self.waiting else (None, "", -1)
                is_last = link is None
            try:
                for record in runs.UPLOADED:
                    if (self.run_folder / record).exists():
                        # Read once: training writes on, and boto3 reads a file for its checksum and again to send it.
                        self.remote.store((self.run_folder / record).read_bytes(), record)
                if link is not None:
                    self.remote.upload(link, name)
                    for old in outdated(self.remote.sizes(), name, keep) if keep > 0 else []:
                        self.remote.delete(old)
                    self.failed = None
            except Exception as error:  # botocore's errors have no common base class
                self.failed = error
                log.warning("Upload to %s failed (%s); training goes on.", self.remote.url, error)
            if link is not None:
                link.unlink(missing_ok=True)
