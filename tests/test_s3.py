"""Corpora on S3, and conversions that go to S3, on a server that runs here."""

import gzip
import json
import lzma

import pytest
from helpers.conversion_runs import contents, stop_after
from helpers.processes import run_command
from helpers.s3_server import fetch, put
from helpers.small_data import convert_config

import convert_to_mds
from hindsight.config.corpus import CorpusConfig, CorpusFormat, OnError
from hindsight.conversion.outputs import RemoteOutput
from hindsight.errors import InputError
from hindsight.shards.manifest import Manifest
from hindsight.text.documents import Corpus
from hindsight.text.finding import find_files
from hindsight.text.problems import ReadingReport

pytestmark = [
    pytest.mark.dist,
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*boto3.*:DeprecationWarning"),
]


def texts(url, **settings):
    return [document.text for document in Corpus(CorpusConfig(corpus=url, **settings)).documents()]


def test_objects_are_found_like_files(bucket):
    for name in ("b.txt", "a/z.txt", "a.jsonl.gz", ".hidden.txt", "readme.md", "c.parquet", "a.txt.note"):
        put(f"{bucket}/corpus/{name}", b"x")
    put(f"{bucket}/corpus2/x.txt", b"x")

    def names(url):
        return [file.path.removeprefix(f"{bucket}/") for file in find_files(url).files]

    folder = ["corpus/a/z.txt", "corpus/a.jsonl.gz", "corpus/b.txt", "corpus/c.parquet"]
    assert names(f"{bucket}/corpus") == names(f"{bucket}/corpus/") == folder
    assert names(f"{bucket}/corpus/*.txt") == ["corpus/.hidden.txt", "corpus/a/z.txt", "corpus/b.txt"]
    assert names(f"{bucket}/corpus/readme.md") == ["corpus/readme.md"]
    put(f"{bucket}/marked/", b"")
    put(f"{bucket}/marked/a[1].txt", b"x")
    assert names(f"{bucket}/marked/") == names(f"{bucket}/marked/a[1].txt") == ["marked/a[1].txt"]
    assert len(names(bucket)) == 6
    for missing in (f"{bucket}/nosuch", f"{bucket}/corpus/*.nosuch"):
        with pytest.raises(InputError, match=r"corpus=s3://.* has no text: give an object"):
            find_files(missing)
    with pytest.raises(InputError, match="cannot be listed"):
        find_files("s3://no-such-bucket/x")


def test_objects_are_taken_by_their_kind_or_counted(bucket):
    lines = b'{"text": "one"}\n'
    for name in ("a.JSONL", "b.ndjson", "c.json", "d.TXT", "e/f.json"):
        put(f"{bucket}/kinds/{name}", lines if "json" in name.lower() else b"one")
    for name in ("info.json", "x.pdf", ".hidden.txt", "e/.cache/x.txt", "empty.txt", "marker/"):
        put(f"{bucket}/kinds/{name}", b"" if name in ("empty.txt", "marker/") else b'{"a": 1}')
    assert texts(f"{bucket}/kinds") == ["one"] * 5
    assert find_files(f"{bucket}/kinds").not_taken == {
        ".json without a JSON object in its first line that has text_key=": 1,
        ".pdf": 1,
        "empty": 1,
        "hidden": 2,
    }


def test_objects_of_every_format_are_read_where_they_are(bucket, monkeypatch):
    monkeypatch.setattr("hindsight.text.documents.PART_BYTES", 50)
    expected = [f"document {number}\n" for number in range(30)]
    text = "\n".join(expected).encode()
    lines = "\n".join(json.dumps({"text": document}) for document in expected).encode()
    for name, data in {"a.txt": text, "a.txt.xz": lzma.compress(text), "a.jsonl.gz": gzip.compress(lines)}.items():
        put(f"{bucket}/{name}", data)
        for small_bytes in (0, 1 << 20):
            monkeypatch.setattr("hindsight.text.parts.SMALL_FILE_BYTES", small_bytes)
            assert texts(f"{bucket}/{name}") == expected
    assert texts(bucket) == [*expected] * 3


def test_a_connection_that_breaks_is_made_anew_where_it_was(bucket, monkeypatch):
    from hindsight.text.files import _S3Reader

    data = bytes(range(65, 91)) * 100_000
    put(f"{bucket}/a.txt", data)
    get, opened = _S3Reader._get, []

    class Broken:
        def __init__(self, body):
            self.body = body
            self.left = 3

        def read(self, n):
            self.left -= 1
            if self.left < 0:
                raise OSError("reset")
            return self.body.read(min(n, 100_000))

    monkeypatch.setattr(_S3Reader, "_get", lambda self: (opened.append(self._position), Broken(get(self)))[1])
    assert texts(f"{bucket}/a.txt", corpus_format=CorpusFormat.file) == [data.decode()]
    assert len(opened) > 5
    put(f"{bucket}/b.txt", data)
    stored = find_files(f"{bucket}/b.txt").files[0]
    put(f"{bucket}/b.txt", data[::-1])
    with stored.open() as changed, pytest.raises(OSError, match="Precondition"):
        changed.read()


def test_an_object_that_cannot_be_read_is_skipped_when_asked(bucket):
    put(f"{bucket}/a.txt", b"one\n\ntwo\n")
    put(f"{bucket}/b.txt.xz", lzma.compress(b"three\n")[:-8])
    with pytest.raises(InputError, match=r"b\.txt\.xz is cut off"):
        texts(bucket)
    reading = ReadingReport()
    config = CorpusConfig(corpus=bucket, on_error=OnError.skip)
    assert [document.text for document in Corpus(config).documents(reading)] == ["one\n", "two\n"]
    assert len(reading.problems) == 1


@pytest.fixture
def remote(bucket, corpus, tokenizer_dir, tmp_path):
    """The configuration of a conversion from S3 to S3."""
    put(f"{bucket}/corpus/1.txt.gz", gzip.compress(corpus.read_bytes()))
    config = convert_config(f"{bucket}/corpus", tokenizer_dir, tmp_path, workers=2)
    config.out, config.work_dir = f"{bucket}/data/novels", str(tmp_path / "work")
    return config


def interrupt(config, monkeypatch, n_parts):
    """Have a conversion by one process end after some of its parts, which are small."""
    monkeypatch.setattr("hindsight.text.documents.PART_BYTES", 2000)
    monkeypatch.setattr("hindsight.text.parts.SMALL_FILE_BYTES", 0)
    monkeypatch.setattr("hindsight.conversion.workers.SAVE_INTERVAL_S", 0)
    config.workers = 1
    with monkeypatch.context() as limited:
        stop_after(limited, n_parts)
        with pytest.raises(SystemExit, match="130"):
            convert_to_mds.main(config)


def test_a_conversion_from_s3_to_s3_gives_the_same_bytes_and_holds_little_here(
    remote, shards, tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO", "hindsight")
    held, stored = [], RemoteOutput.stored

    def watched(self, result, name):
        held.append(len(list(result.rglob("*.mds"))))
        stored(self, result, name)

    monkeypatch.setattr(RemoteOutput, "stored", watched)
    convert_to_mds.main(remote)
    there = fetch(remote.out, tmp_path / "there")
    ours, theirs = contents(there), contents(shards)
    assert ours.keys() == theirs.keys()
    assert {name for name in ours if ours[name] != theirs[name]} == {"manifest.json"}
    assert Manifest.load(there).fingerprint == Manifest.load(shards).fingerprint
    assert len(held) > 10
    assert max(held) == 1
    assert not list((tmp_path / "work").iterdir())
    convert_to_mds.main(remote)
    assert "already there, nothing to do" in caplog.text
    remote.seed = 1
    with pytest.raises(InputError, match=r"holds a conversion with seed=0 \(now 1\)"):
        convert_to_mds.main(remote)


def test_an_interrupted_conversion_to_s3_goes_on(remote, shards, tmp_path, monkeypatch):
    interrupt(remote, monkeypatch, n_parts=6)
    half = contents(fetch(remote.out, tmp_path / "half"))
    assert half
    assert not any("index" in name or "manifest" in name for name in half)
    elsewhere, remote.work_dir = remote.work_dir, str(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"holds something else, or a conversion that was begun elsewhere"):
        convert_to_mds.main(remote)
    remote.work_dir = elsewhere
    convert_to_mds.main(remote)
    ours, theirs = contents(fetch(remote.out, tmp_path / "there")), contents(shards)
    assert {name for name in theirs if ours.get(name) != theirs[name]} == {"manifest.json"}
    assert ours.keys() == theirs.keys()


def test_an_upload_that_fails_is_told_and_goes_on(remote, shards, tmp_path, monkeypatch):
    from streaming.base.storage import S3Uploader

    uploads, upload = [], S3Uploader.upload_file

    def failing(self, name):
        uploads.append(name)
        if len(uploads) > 4:
            raise OSError("no route to host")
        upload(self, name)

    with monkeypatch.context() as limited:
        limited.setattr(S3Uploader, "upload_file", failing)
        with pytest.raises(InputError, match=r"shard\..* cannot be uploaded \(no route to host\).* goes on"):
            convert_to_mds.main(remote)
    convert_to_mds.main(remote)
    assert Manifest.load(fetch(remote.out, tmp_path / "there")).fingerprint == Manifest.load(shards).fingerprint


def test_a_folder_of_the_users_and_another_place_are_left_alone(remote, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.tex").write_text("mine")
    interrupt(remote, monkeypatch, n_parts=1)
    begun, remote.out = remote.out, remote.out.replace("novels", "other")
    convert_to_mds.main(remote)
    assert "manifest.json" in contents(fetch(remote.out, tmp_path / "there"))
    remote.out = begun
    convert_to_mds.main(remote)
    assert contents(fetch(begun, tmp_path / "first")) == contents(tmp_path / "there")
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["thesis.tex"]
    for nowhere in ("s3://", "s3://bucket", "s3://bucket/"):
        remote.out = nowhere
        with pytest.raises(InputError, match="names no folder; give s3://BUCKET/FOLDER"):
            convert_to_mds.main(remote)


def test_a_place__that_cannot_be_reached_is_refused_with_one_line(bucket, corpus, tokenizer_dir, tmp_path):
    arguments = [f"corpus={corpus}", f"tokenizer={tokenizer_dir}", f"work_dir={tmp_path}/work"]
    done = run_command("python", "convert_to_mds.py", *arguments, "out=s3://no-such-bucket/x")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "out=s3://no-such-bucket/x cannot be reached" in done.stderr
    done = run_command("python", "convert_to_mds.py", *arguments, f"out={tmp_path / 'out'}")
    assert "work_dir= is for an out= on S3" in done.stderr
