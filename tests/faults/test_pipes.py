"""Pipes, sockets and devices: read where a user names one, never waited for where a file is expected."""

import contextlib
import gzip
import os
import shutil
import socket
import subprocess
import sys
import threading

import pytest
from helpers.processes import ROOT
from helpers.small_data import convert_config
from helpers.training_runs import train

import convert_to_h5
import convert_to_mds
import inspect_mds
import train_tokenizer
from hindsight.config.conversion import InspectConfig
from hindsight.config.corpus import CorpusConfig
from hindsight.config.tokenizer import TokenizerConfig
from hindsight.errors import InputError
from hindsight.shards.manifest import Manifest
from hindsight.text.documents import Corpus
from hindsight.tokenization.hf_folder import load_reference

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def pipe(tmp_path, corpus):
    """A function that makes a pipe into which another thread writes."""

    def make(name="pipe", data=None):
        path = tmp_path / name
        os.mkfifo(path)
        content = corpus.read_bytes() if data is None else data
        threading.Thread(target=lambda: _write(path, content), daemon=True).start()
        return path

    return make


def _write(path, content):
    with contextlib.suppress(BrokenPipeError):
        path.write_bytes(content)


def test_a_pipe_that_is_named_is_read_like_standard_input_by_every_command(tmp_path, pipe, shards, tokenizer_dir):
    convert_to_mds.main(convert_config(pipe("a"), tokenizer_dir, tmp_path / "mds"))
    convert_to_h5.main(convert_config(pipe("b"), tokenizer_dir, tmp_path / "h5"))
    train_tokenizer.main(TokenizerConfig(corpus=str(pipe("c")), out=str(tmp_path / "tokenizer"), vocab_size=300))
    fingerprints = {Manifest.load(path).fingerprint for path in (tmp_path / "mds", tmp_path / "h5", shards)}
    assert len(fingerprints) == 1
    assert (tmp_path / "tokenizer" / "tokenizer.json").read_bytes() == (tokenizer_dir / "tokenizer.json").read_bytes()
    convert_to_mds.main(convert_config(pipe("d"), tokenizer_dir, tmp_path / "mds"))  # there already, by its text


def test_the_process_substitution_of_a_shell_is_read(tmp_path, corpus):
    code = (
        "import sys; from hindsight.text.documents import Corpus; from hindsight.config.corpus import CorpusConfig\n"
        "print(sum(1 for _ in Corpus(CorpusConfig(corpus=sys.argv[1])).documents()))"
    )
    command = f'{sys.executable} -c "{code}" <(cat {corpus})'
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.stdout == "120\n", done.stderr


def test_a_pipe_has_the_format_of_its_name_and_of_its_content(pipe):
    def read(path):
        return [document.text for document in Corpus(CorpusConfig(corpus=str(path))).documents()]

    assert read(pipe("a.jsonl", b'{"text": "one"}\n')) == ["one"]
    assert read(pipe("a.txt.gz", gzip.compress(b"one\n"))) == ["one\n"]
    with pytest.raises(InputError, match=r"is compressed, as \.gz files are; decompress it on the way, as zcat does"):
        read(pipe("b", gzip.compress(b"one\n")))
    with pytest.raises(InputError, match=r"b\.gz is no \.gz file"):
        read(pipe("b.gz", b"one\n"))
    with pytest.raises(InputError, match="holds JSON lines"):
        read(pipe("c", b'{"text": "one"}\n'))
    with pytest.raises(InputError, match="is a pipe, from which"):
        read(pipe("a.parquet"))


def test_a_sample_of_a_pipe_is_refused(tmp_path, pipe):
    config = TokenizerConfig(corpus=str(pipe()), out=str(tmp_path / "out"), vocab_size=300, sample_bytes=1000)
    with pytest.raises(InputError, match=r"sample_bytes= needs to read corpus=.*pipe twice"):
        train_tokenizer.main(config)


def test_a_socket_that_is_named_and_a_device_without_text_are_refused(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket"))
        with pytest.raises(InputError, match="is a socket or a disk"):
            Corpus(CorpusConfig(corpus=str(tmp_path / "socket")))
    assert list(Corpus(CorpusConfig(corpus="/dev/null")).documents()) == []
    with pytest.raises(InputError, match="max_document_bytes"):
        list(Corpus(CorpusConfig(corpus="/dev/zero")).documents())


def test_a_folder_with_a_pipe_is_converted_without_it(tmp_path, corpus, tokenizer_dir):
    shutil.copytree(corpus.parent, tmp_path / "corpus")
    os.mkfifo(tmp_path / "corpus" / "b.txt")
    convert_to_mds.main(convert_config(tmp_path / "corpus", tokenizer_dir, tmp_path / "out"))
    assert Manifest.load(tmp_path / "out").corpus["not_taken"] == {"pipe, socket or device": 1}


@pytest.mark.parametrize("name", ["manifest.json", "train/index.json", "train/shard.*.mds", "tokenizer/tokenizer.json"])
def test_converted_data_with_a_pipe_in_place_of_a_file_is_refused_at_once(tmp_path, shards, tokenizer_dir, name):
    data = shutil.copytree(shards, tmp_path / "data")
    for path in data.glob(name):
        path.unlink()
        os.mkfifo(path)
    with pytest.raises((InputError, SystemExit)):
        inspect_mds.main(InspectConfig(path=str(data)))
    if not name.startswith("tokenizer"):
        with pytest.raises(InputError):
            convert_to_h5.main(convert_config(data, tokenizer_dir, tmp_path / "h5"))
    with pytest.raises(InputError):
        train(data, tmp_path / "runs", "run_name=a", "max_duration=2ba")


def test_h5_from_a_pipe_is_refused(pipe, tokenizer_dir, tmp_path):
    with pytest.raises(InputError, match="is no regular file, from which h5 could be read"):
        convert_to_mds.main(convert_config(pipe("a.h5"), tokenizer_dir, tmp_path / "out"))


def test_h5_with_a_pipe_in_place_of_its_tokens_is_refused_at_once(tmp_path, h5_data, tokenizer_dir):
    data = shutil.copytree(h5_data, tmp_path / "data")
    (data / "tokens.h5").unlink()
    os.mkfifo(data / "tokens.h5")
    for attempt in (
        lambda: train(data, tmp_path / "runs", "run_name=a", "max_duration=2ba"),
        lambda: convert_to_mds.main(convert_config(data, tokenizer_dir, tmp_path / "mds")),
        lambda: convert_to_mds.main(convert_config(data / "tokens.h5", tokenizer_dir, tmp_path / "mds")),
        lambda: inspect_mds.main(InspectConfig(path=str(data))),
    ):
        with pytest.raises((InputError, SystemExit)):
            attempt()


def test_a_tokenizer_with_a_pipe_in_it_is_copied_without_or_refused(tmp_path, corpus, tokenizer_dir):
    folder = shutil.copytree(tokenizer_dir, tmp_path / "tokenizer")
    (folder / "hindsight.json").unlink()
    for name in ("hindsight.json", "merges.txt"):
        os.mkfifo(folder / name)
    convert_to_mds.main(convert_config(corpus, folder, tmp_path / "out"))
    with pytest.raises(InputError, match=r"reference=.* hindsight\.json is no regular file"):
        load_reference(str(folder))
