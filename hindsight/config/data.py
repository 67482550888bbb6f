"""Keys of the data that a run is trained on, data.path and so on."""

import re
from dataclasses import dataclass

from omegaconf import MISSING

from hindsight.config.checks import (
    require,
    require_local,
    require_no_credentials,
    require_positive,
    require_text,
    require_utf8,
)


@dataclass
class DataConfig:
    """What to train and evaluate on."""

    path: str = MISSING
    """Folder made by convert_to_mds.py or convert_to_h5.py; its train split is trained on. Shards may lie on object
    storage: s3://BUCKET/FOLDER (S3_ENDPOINT_URL names another server), gs://, oci://, azure:// or hf://."""
    val_path: str | None = None
    """Another such folder whose val split is evaluated; null for that of data.path."""
    cache_dir: str | None = None
    """Folder in which each run keeps, in one of its own, the shards that it fetched from object storage; null for one
    in the folder for temporary files ($TMPDIR). Other users must not be able to replace what is there."""
    cache_limit: str | None = None
    """Most bytes of fetched shards that stay for each split, such as 20gb; at least four shards; null for no limit."""
    download_retry: int = 6
    """Times that a shard is asked for, with waits that double from one second on."""
    download_timeout_s: float = 60.0
    """Seconds without an answer after which the server is asked again."""
    tokenizer: str | None = None
    """Folder of the tokenizer; null for the copy inside data.path. It must be the one that made the tokens."""
    context_length: int | None = None
    """Tokens in a window; divides the block length of the data; null for model.context_length."""
    stride: int | None = None
    """Tokens from the start of a training window to that of the next; null for data.context_length, so that an epoch
    has each token once. With less, windows overlap within blocks; those of validation never do."""
    num_workers: int = 0
    """Data workers of each device, which prefetch batches; 0 reads in the training process."""
    shuffle: bool = True
    """Whether windows are seen in an order drawn by the seed, anew in every epoch."""

    def __post_init__(self) -> None:
        require_no_credentials("data.", self)
        require_utf8("data.", self, "cache_dir")
        require_text("data.", self, "path", "val_path", "tokenizer", "cache_dir", "cache_limit")
        require_local("data.", self, "tokenizer", "cache_dir")
        require_positive("data.", self, "context_length", "stride", "download_retry", "download_timeout_s")
        require(
            self.cache_limit is None or re.fullmatch(r"[0-9.]+(b|kb|mb|gb|tb)", self.cache_limit.lower()) is not None,
            f"data.cache_limit={self.cache_limit} is no size; write it as 500mb or 20gb.",
        )
        require(self.num_workers >= 0, f"data.num_workers={self.num_workers} must be at least 0.")
