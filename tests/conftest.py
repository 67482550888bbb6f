"""Text, tokenizer, shards and configurations that the tests share, all made here by the real scripts."""

import atexit
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

# Two threads on two shared cores are slower than one, and rounding must not depend on the machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
os.environ.setdefault("WANDB_MODE", "offline")

from streaming.base.shared import SharedMemory

import convert_to_h5
import convert_to_mds
import train_tokenizer
from hindsight.command_line import CONF_DIR, register_schemas, to_dataclass
from hindsight.config.conversion import ConvertConfig
from hindsight.config.tokenizer import TokenizerConfig
from hindsight.conversion.text_source import draws_of
from hindsight.text.digest import hash_document

pytest_plugins = ["helpers.s3_server", "helpers.killed_runs", "helpers.conversion_runs"]

ROOT = Path(__file__).resolve().parent.parent
SENTENCE = "in the beginning was word and light shone over dark water while seven rivers ran to the sea é 水"
WORDS = SENTENCE.split()
TINY = [
    "model=gpt_nano",
    "model.n_layers=2",
    "model.d_model=24",
    "model.n_heads=2",
    "model.context_length=64",
    "data.context_length=32",
    "batch_size=8",
    "optim.lr=6e-4",
    "optim.warmup_steps=2",
    "eval_interval=100ba",
    "wandb.mode=disabled",
    "progress_bar=false",
    "samples.interval=null",
]

# What a login node gives to a process; the tests must not need more than their users have.
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


@pytest.fixture(autouse=True)
def _shared_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Streaming 0.13.0 closes its shared memory when the process ends, and hundreds of tests share this one."""
    opened: list[SharedMemory] = []
    open_shared_memory = SharedMemory.__init__

    def remember(self: SharedMemory, *args: Any, **settings: Any) -> None:
        open_shared_memory(self, *args, **settings)
        opened.append(self)

    monkeypatch.setattr(SharedMemory, "__init__", remember)
    yield
    for memory in opened:
        atexit.unregister(memory.cleanup)
        memory.cleanup()


def make_text(n_documents: int, seed: int) -> str:
    """Documents of a few lines in which each word hints at the next, a blank line between them."""
    rng = random.Random(seed)
    documents = []
    for _ in range(n_documents):
        at, lines = rng.randrange(len(WORDS)), []
        for _ in range(rng.randint(2, 6)):
            words = []
            for _ in range(rng.randint(4, 12)):
                words.append(WORDS[at])
                at = (at + 1 if rng.random() < 0.7 else rng.randrange(len(WORDS))) % len(WORDS)
            lines.append(" ".join(words).capitalize() + ".\n")
        documents.append("".join(lines))
    return "\n".join(documents)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text(make_text(n_documents=120, seed=1), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tokenizer_dir(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    train_tokenizer.main(TokenizerConfig(corpus=str(corpus), out=str(out), vocab_size=300))
    return out


def convert_config(corpus: Path | str, tokenizer_dir: Path, out: Path, **changes: Any) -> ConvertConfig:
    """Blocks of 64 tokens, five of them to a shard, and about a fifth of the documents for validation."""
    settings: dict[str, Any] = {"block_length": 64, "val_share": 0.2, "shard_bytes": 5 * 64 * 2, "workers": 1}
    return ConvertConfig(corpus=str(corpus), tokenizer=str(tokenizer_dir), out=str(out), **(settings | changes))


@pytest.fixture(scope="session")
def shards(corpus: Path, tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "shards"
    convert_to_mds.main(convert_config(corpus, tokenizer_dir, out))
    return out


@pytest.fixture(scope="session")
def h5_data(corpus: Path, tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "h5"
    convert_to_h5.main(convert_config(corpus, tokenizer_dir, out))
    return out


def draws(texts: list[str], seed: int) -> np.ndarray:
    """The draw of each document, below the share of validation for those that are held out."""
    hashes = b"".join(hash_document(text.encode()) for text in texts)
    return draws_of(np.frombuffer(hashes, "<u8")[::2], seed)


def wait_until(what: str, is_so: Callable[[], object], timeout_s: float, interval_s: float = 0.2) -> None:
    """Wait for something; AssertionError that names it if it does not come."""
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end, f"{what}: not within {timeout_s} s"
        time.sleep(interval_s)


def skip(reason: str) -> NoReturn:
    """Skip a test that this machine lacks something for; fail where all tests must run, as in .ci/run."""
    if os.environ.get("HINDSIGHT_ALL_TESTS"):
        pytest.fail(f"{reason}, and HINDSIGHT_ALL_TESTS is set")
    pytest.skip(reason)


def compose_config(script: str, *overrides: str) -> Any:
    """The configuration of a script as it would be with these arguments."""
    register_schemas()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return to_dataclass(compose(script, list(overrides)))


def run_command(*command: str, timeout_s: float = 120, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run one of the project's scripts, or composer, as a user does; output is kept."""
    programs = {"python": sys.executable, "composer": str(Path(sys.executable).with_name("composer"))}
    arguments = [programs[command[0]], *command[1:]]
    return subprocess.run(
        arguments, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL
    )
