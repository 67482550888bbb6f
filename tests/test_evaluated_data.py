"""What evaluate_tokens.py scores: other data, texts, runs and data on S3; and what it refuses."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers.processes import run_command
from helpers.s3_server import fetch as fetch_from_s3
from helpers.s3_server import names as names_on_s3
from helpers.s3_server import put, store
from helpers.small_data import convert_config, make_text
from helpers.token_runs import names, score
from helpers.training_runs import compose_config, train

import convert_to_mds
import evaluate_tokens
import train_tokenizer
from hindsight.analysis.token_losses import COLUMNS, TokenLosses
from hindsight.config.tokenizer import TokenizerConfig
from hindsight.errors import InputError
from hindsight.evaluation.opened_run import opened_run
from hindsight.evaluation.trained_run import read_run
from hindsight.tokenization.tokenizer import Tokenizer

s3 = pytest.mark.filterwarnings(
    "ignore:datetime.datetime.utcnow:DeprecationWarning",
    "ignore:.*boto3.*:DeprecationWarning",
    # Streaming leaves open what it hashes.
    "ignore:Exception ignored in.*shard:pytest.PytestUnraisableExceptionWarning",
)


def assert_same_rows(one: TokenLosses, other: TokenLosses) -> None:
    for name in COLUMNS:
        np.testing.assert_array_equal(one.read([name])[name], other.read([name])[name])


@pytest.fixture(scope="module")
def own(trained, tmp_path_factory):
    """The losses on the run's own validation set."""
    return score(trained["backward"], tmp_path_factory.mktemp("own") / "a.parquet")


def test_h5_of_the_same_tokens_gives_the_same_rows(trained, own, h5_data, tmp_path):
    found = score(trained["backward"], tmp_path / "a.parquet", f"data={h5_data}")
    assert_same_rows(found, own)
    assert found.metadata["data"] == str(h5_data)
    assert found.metadata["data_fingerprint"] == own.metadata["data_fingerprint"]


@pytest.mark.parametrize("order", ["forward", "backward"])
def test_a_text_is_scored_as_a_whole_as_if_it_had_been_converted(trained, tokenizer_dir, tmp_path, order, caplog):
    text, tokenizer = make_text(9, seed=4), Tokenizer.load(tokenizer_dir)
    (tmp_path / "book.txt").write_text(text, encoding="utf-8")
    documents = text.split("\n\n")
    expected = [
        each
        for number, document in enumerate(documents)
        for each in [
            *tokenizer.tokenize(document + "\n" * (number < len(documents) - 1))[0].tolist(),
            tokenizer.eos_id,
        ]
    ]
    found = score(trained[order], tmp_path / "a.parquet", f"corpus={tmp_path / 'book.txt'}")
    rows = found.read([*COLUMNS])
    assert rows["id"].tolist() == expected
    assert rows["bytes"].sum() == len(text.encode()) - (len(documents) - 1)  # blank lines separate
    assert (found.metadata["split"], found.metadata["documents"]) == ("all", 9)
    with caplog.at_level("INFO", "hindsight"):
        score(trained[order], tmp_path / "a.parquet", f"corpus={tmp_path / 'book.txt'}")
    assert "already there, nothing to do." in caplog.text
    (tmp_path / "book.txt").touch()
    score(trained[order], tmp_path / "a.parquet", f"corpus={tmp_path / 'book.txt'}")
    (tmp_path / "book.txt").write_text("another text\n")
    with pytest.raises(InputError, match="holds other losses, with data_fingerprint="):
        score(trained[order], tmp_path / "a.parquet", f"corpus={tmp_path / 'book.txt'}")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_documents_of_json_lines_are_a_text_too_and_those_that_cannot_be_used_may_be_skipped(
    trained, tmp_path, caplog
):
    lines = ['{"body": "light shone"}', '{"body": 7}', '{"body": "over the sea"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    arguments = [f"corpus={tmp_path / 'a.jsonl'}", "text_key=body"]
    with pytest.raises(InputError, match="on_error=skip"):
        score(trained["forward"], tmp_path / "a.parquet", *arguments)
    found = score(trained["forward"], tmp_path / "a.parquet", *arguments, "on_error=skip")
    assert found.metadata["documents"] == 2
    assert "1 things that cannot be used were left out" in caplog.text


def test_the_tokenizer_of_a_run_whose_data_is_gone_can_be_given(trained, tokenizer_dir, tmp_path):
    run = shutil.copytree(trained["forward"], tmp_path / "run")
    config = (run / "config.yaml").read_text()
    path = next(line for line in config.splitlines() if line.startswith("  path:"))
    (run / "config.yaml").write_text(config.replace(path, "  path: /nowhere"))
    (tmp_path / "a.txt").write_text("seven rivers\n")
    arguments = [run, tmp_path / "a.parquet", f"corpus={tmp_path / 'a.txt'}"]
    with pytest.raises(InputError, match=r"data.path=/nowhere has no manifest.json.* by tokenizer=\.$"):
        score(*arguments)
    assert score(*arguments, f"tokenizer={tokenizer_dir}").metadata["documents"] == 1


@s3
@pytest.mark.dist
def test_run_data_text_and_file_may_all_be_on_s3(trained, own, shards, bucket, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    store(shards, f"{bucket}/shards")
    run = f"{bucket}/runs/backward"
    store(trained["backward"] / "checkpoints", run)
    for name in ("metadata.json", "config.yaml"):
        put(f"{run}/{name}", (trained["backward"] / name).read_bytes())
    before = names_on_s3(run)
    arguments = [f"run={run}", f"data={bucket}/shards"]
    evaluate_tokens.main(compose_config("evaluate_tokens", *arguments, f"out={bucket}/losses/a.parquet"))
    found = TokenLosses.open(fetch_from_s3(f"{bucket}/losses", tmp_path / "fetched") / "a.parquet")
    assert_same_rows(found, own)
    assert names_on_s3(run) == before
    evaluate_tokens.main(compose_config("evaluate_tokens", *arguments, f"out={bucket}/losses/a.parquet"))
    put(f"{bucket}/book.txt", b"light shone over dark water\n")
    evaluate_tokens.main(compose_config("evaluate_tokens", f"run={run}", f"corpus={bucket}/book.txt"))
    assert set(names_on_s3(run)) - set(before) == {"token_losses-book.txt.parquet"}
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


@s3
@pytest.mark.dist
def test_a_run_that_keeps_its_newest_checkpoint_on_s3_alone_is_scored_by_that(trained, bucket, tmp_path):
    run = shutil.copytree(trained["forward"], tmp_path / "run")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("  folder: null", f"  folder: {bucket}/ckpt"))
    (newest,) = (run / "checkpoints").glob("*-ba12-rank0.pt")
    put(f"{bucket}/ckpt/{newest.name}", newest.read_bytes())
    newest.unlink()
    before = names(run)
    assert score(run, tmp_path / "a.parquet").metadata["step"] == 12
    assert names(run) == before
    put(f"{bucket}/ckpt/{newest.name}", newest.read_bytes()[:-1] if newest.exists() else b"damaged")
    assert score(run, tmp_path / "b.parquet").metadata["step"] == 10


def refusal(*arguments: str) -> str:
    with pytest.raises(InputError) as caught:
        evaluate_tokens.main(compose_config("evaluate_tokens", *arguments))
    return str(caught.value)


def test_what_cannot_be_scored_is_refused_in_a_line_and_nothing_is_left(trained, tmp_path, shards):
    run, out = trained["forward"], f"out={tmp_path / 'a.parquet'}"
    given = [f"run={run}", out]
    before = names(run)
    assert "run=nowhere does not exist; give the folder of a run" in refusal("run=nowhere", out)
    assert f"run={shards} is no run: it has no config.yaml" in refusal(f"run={shards}", out)
    steps = refusal(*given, "checkpoint=7")
    assert "checkpoint=7" in steps
    assert "has no such step, but 12, 10, 5; choose one of them" in steps
    text = refusal(f"run={trained['gru']}", out, "checkpoint=backup")
    assert "checkpoint=backup" in text
    assert "has no backup, but checkpoints of the steps 12" in text
    assert "context=sliding:33 would leave out tokens between windows of 32" in refusal(*given, "context=sliding:33")
    text = refusal(f"run={trained['even_odd']}", out, "context=sliding:4")
    assert "context=sliding:4 has no meaning for order=even_odd" in text
    assert "data=nowhere has no manifest.json" in refusal(*given, "data=nowhere")
    if not torch.cuda.is_available():
        assert "precision=fp16 needs a GPU" in refusal(*given, "precision=fp16")
    assert f"out={tmp_path} is a folder" in refusal(f"run={run}", f"out={tmp_path}")
    assert "corpus=nowhere does not exist" in refusal(*given, "corpus=nowhere")
    assert names(run) == before
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []


def test_a_run_without_a_checkpoint_or_with_damaged_records_is_refused(trained, tmp_path):
    run = shutil.copytree(trained["forward"], tmp_path / "run")
    out = f"out={tmp_path / 'a.parquet'}"
    newest = max((run / "checkpoints").glob("*.pt"), key=lambda path: path.stat().st_mtime)
    newest.write_bytes(newest.read_bytes()[:-1000])
    before = names(run)
    assert score(run, tmp_path / "b.parquet").metadata["step"] == 10
    assert "checkpoint=12: none of" in refusal(f"run={run}", out, "checkpoint=12")
    assert names(run) == before
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("n_layers: 2", "n_layers: 3"))
    assert "does not hold the weights of the model in config.yaml" in refusal(f"run={run}", out)
    (run / "config.yaml").write_text((run / "config.yaml").read_text() + "evil: ${oc.env:HOME}\n")
    (run / "config.yaml").write_text(
        (run / "config.yaml").read_text().replace("name: gpt_nano", "name: ${oc.env:HOME}")
    )
    assert "has a reference in model.name, which is not followed" in refusal(f"run={run}", out)
    (run / "config.yaml").write_text("a: [")
    assert "config.yaml is damaged" in refusal(f"run={run}", out)
    shutil.copy(trained["forward"] / "config.yaml", run)
    shutil.rmtree(run / "checkpoints")
    assert "has no checkpoint to evaluate; train it first" in refusal(f"run={run}", out)


def test_data_and_tokenizers_of_others_are_refused(trained, corpus, tokenizer_dir, tmp_path):
    run, out = trained["forward"], f"out={tmp_path / 'a.parquet'}"
    other = tmp_path / "tokenizer"
    train_tokenizer.main(TokenizerConfig(corpus=str(corpus), out=str(other), vocab_size=290))
    convert_to_mds.main(convert_config(corpus, other, tmp_path / "shards"))
    text = refusal(f"run={run}", out, f"data={tmp_path / 'shards'}")
    assert "has another tokenizer than run=" in text
    (tmp_path / "a.txt").write_text("seven rivers\n")
    text = refusal(f"run={run}", out, f"corpus={tmp_path / 'a.txt'}", f"tokenizer={other}")
    assert f"tokenizer={other} has another tokenizer than run=" in text
    moved = shutil.copytree(run, tmp_path / "run")
    metadata = json.loads((moved / "metadata.json").read_text())
    (moved / "metadata.json").write_text(json.dumps(metadata | {"data_fingerprint": "0" * 64}))
    assert "is not the data that run=" in refusal(f"run={moved}", out)


def test_the_command_takes_a_run_alone_and_answers_mistakes_before_torch_is_imported(tmp_path):
    done = run_command("python", "-X", "importtime", "evaluate_tokens.py", str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert done.stdout == ""
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert said == [
        f"evaluate_tokens.py: run={tmp_path / 'nowhere'} does not exist; give the folder of a run, such as "
        "runs/<run_name>."
    ]
    assert "torch" not in {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


@s3
def test_a_run_on_s3_data_is_opened_twice_at_once_and_leaves_nothing(bucket, shards, tmp_path, monkeypatch):
    store(shards, f"{bucket}/data")
    changes = ["direction=forward", "max_duration=1ba", f"data.cache_dir={tmp_path / 'cache'}"]
    run = train(f"{bucket}/data", tmp_path, *changes)
    left = names(tmp_path / "cache")
    (tmp_path / "temporary").mkdir()
    # tempfile keeps the folder that it found first; what is left in one of the test's own can be seen.
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    with opened_run(read_run(str(run)), "newest") as first:
        with opened_run(read_run(str(run)), "newest") as second:
            assert second.tokenizer_folder != first.tokenizer_folder
        assert Tokenizer.load(first.tokenizer_folder).fingerprint == second.tokenizer.fingerprint
    assert not [*(tmp_path / "temporary").iterdir()]
    assert names(tmp_path / "cache") == left
