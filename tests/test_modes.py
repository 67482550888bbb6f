import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.small_data import convert_config
from helpers.training_runs import train

import compare_directions
import convert_to_h5
import convert_to_mds
import train_tokenizer
from hindsight.config.comparison import CompareConfig
from hindsight.config.tokenizer import TokenizerConfig


@pytest.fixture
def _group_may_read() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_group_may_read")
def test_what_the_commands_write_has_the_modes_of_the_umask(shards, tmp_path):
    corpus, tokenizer = tmp_path / "corpus.txt", tmp_path / "tokenizer"
    corpus.write_text("hello world, this is\n\n\nsome text of words\n" * 100)
    train_tokenizer.main(TokenizerConfig(corpus=str(corpus), out=str(tokenizer), vocab_size=270))
    convert_to_mds.main(convert_config(corpus, tokenizer, tmp_path / "mds"))
    convert_to_h5.main(convert_config(corpus, tokenizer, tmp_path / "h5"))
    common = ["tensorboard=true", "samples.interval=3ba", "samples.length=2", "max_duration=3ba"]
    pair = [train(shards, tmp_path / "runs", f"direction={name}", *common) for name in ("forward", "backward")]
    compare_directions.main(CompareConfig(runs=[str(folder) for folder in pair], out=str(tmp_path / "comparison")))
    assert (pair[0] / "model.safetensors").exists()
    assert modes(tmp_path) == {0o750: "folder", 0o640: "file"}


def modes(folder: Path) -> dict[int, str]:
    """The modes that there are, and of what."""
    found = {stat.S_IMODE(path.stat().st_mode): path for path in folder.rglob("*")}
    return {mode: "folder" if path.is_dir() else "file" for mode, path in found.items()}
