from pathlib import Path

import pytest
import torch

from benchmarks.loading.shards import BLOCK_LENGTH, write_corpus, write_sparse_corpus
from benchmarks.loading.speed import BATCH_SIZE, Speeds, compare_loaders, open_dataset, our_batches
from hindsight.orders.examples import IGNORED


@pytest.mark.slow
def test_every_contender_is_timed_and_every_target_has_its_row(tmp_path):
    speeds, rows = compare_loaders(tmp_path / "corpus", n_tokens=4_000_000, rounds=2)
    assert all(len(times) == 2 and min(times) > 0 for times in speeds.mtok_s.values())
    targets = [str(row) for row in rows if row.target]
    assert [sum(target in row for row in targets) for target in ("≥ 5.0", "≥ 0.8", "≥ 10")] == [2, 2, 2]


def test_the_benchmark_reads_the_tokens_that_it_gives_to_nanogpt(tmp_path):
    tokens = write_corpus(tmp_path / "corpus", 10 * BLOCK_LENGTH)
    batches = list(our_batches(tmp_path / "corpus", 256, "forward")())
    read = torch.cat([batch["targets"].flatten() for batch in batches])
    assert read[read != IGNORED].sort().values.tolist() == sorted(tokens.tolist())


def test_a_sparse_corpus_is_read_as_zeros_and_takes_no_disk(tmp_path: Path):
    write_sparse_corpus(tmp_path / "sparse", 40_000)
    dataset = open_dataset(tmp_path / "sparse", BLOCK_LENGTH)
    assert dataset.windows.n_windows == 40_000
    assert len(dataset.shards) == 3
    batch = next(our_batches(tmp_path / "sparse", BLOCK_LENGTH, "backward")())
    assert batch["targets"].shape == (BATCH_SIZE, BLOCK_LENGTH)
    assert not batch["targets"].any()
    assert sum(path.stat().st_blocks * 512 for path in tmp_path.rglob("*") if path.is_file()) < 4_000_000


def test_a_ratio_is_taken_within_a_round():
    speeds = Speeds({"a": [10.0, 40.0, 90.0], "b": [10.0, 20.0, 30.0]})
    assert speeds.ratio("a", "b") == (2.0, 1.0, 3.0)
