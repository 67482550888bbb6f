"""Text, tokenizer and shards that the tests share, all made here by the real scripts, and the order of the tests."""

import os
import resource
from collections.abc import Generator
from pathlib import Path
from typing import Any

# Two threads on two shared cores are slower than one, and rounding must not depend on the machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
os.environ.setdefault("WANDB_MODE", "offline")

import pytest
from helpers import machines
from helpers.small_data import convert_config, make_text
from xdist.scheduler import LoadScopeScheduling

import convert_to_h5
import convert_to_mds
import train_tokenizer
from hindsight.config.tokenizer import TokenizerConfig
from hindsight.machine import let_threads_run_before_forks
from hindsight.quick_imports import quick_imports

pytest_plugins = [
    "helpers.s3_server",
    "helpers.killed_runs",
    "helpers.conversion_runs",
    "helpers.token_runs",
    "helpers.browser",
    "helpers.reported_studies",
    "helpers.whole_study",
]

# What a login node gives to a process; the tests must not need more than their users have.
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
let_threads_run_before_forks()


def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`."""
    return machines.number_of_workers()


def pytest_xdist_setupnodes(specs: list[Any]) -> None:
    """Give each worker a machine of its own."""
    for spec in specs:
        spec.python = machines.python()


TOGETHER = ("tests/test_seams.py", "tests/test_report.py", "tests/test_study_report")
"""What files begin with whose fixtures take longer than their tests."""


class Scheduling(LoadScopeScheduling):
    """Hands tests out one by one, in their order; but all of a scheduler's to one worker, which starts it once.

    So it is with the tests of TOGETHER.

    Marks of pytest-xdist 3.8 for such a group have no effect with pytest 9.2, which keeps a test's id elsewhere.
    """

    def _split_scope(self, nodeid: str) -> str:
        for begins in TOGETHER:
            if nodeid.startswith(begins):
                return begins
        return nodeid[nodeid.index("[") :] if nodeid.startswith("tests/cluster/") and "[" in nodeid else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """Hand out tests, with any --dist."""
    config.option.loadscopereorder = False
    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Import all test modules, and what they test, in two thirds of the time."""
    with quick_imports():
        return (yield)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no worker is left alone with it at the end."""

    def place(item: pytest.Item) -> list[bool]:
        return [item.get_closest_marker(name) is None for name in ("cluster", "slow")] + [
            not item.nodeid.startswith(TOGETHER)
        ]

    items.sort(key=place)


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let xdist send what a test logs of names that are not in UTF-8."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report
