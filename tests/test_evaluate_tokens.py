"""What evaluate_tokens.py computes: against the run's own evaluation, and against definitions written out."""

import json
import math
import re

import numpy as np
import pytest
import torch
from helpers.processes import ROOT
from helpers.token_runs import T, model_of, names, score
from helpers.training_runs import compose_config, records
from transformers import AutoTokenizer

import evaluate_tokens
from hindsight.analysis.token_losses import COLUMNS, TokenLosses
from hindsight.conversion.token_sources import ConvertedTokens
from hindsight.evaluation.scoring import Pass, Plan, score_batches
from hindsight.loading.collate import Collate
from hindsight.orders.known import open_order
from hindsight.shards.manifest import Manifest
from hindsight.tokenization.tokenizer import Tokenizer
from loss_utils import target_nats, target_ranks

KINDS = ["forward", "backward", "even_odd", "gru"]
MASKED = "masked"


@pytest.fixture(scope="module")
def tokenizer(tokenizer_dir):
    return Tokenizer.load(tokenizer_dir)


@pytest.fixture(scope="module")
def stream(shards, tokenizer):
    """The tokens of the validation split, by other code than the loader's."""
    manifest = Manifest.load(shards)
    source = ConvertedTokens(shards, manifest, tokenizer)
    return np.array(source.window("val", 0, manifest.splits["val"].tokens))


@pytest.fixture(scope="module")
def scored(trained, tmp_path_factory):
    """The losses of each run's validation set."""
    out = tmp_path_factory.mktemp("scored")
    return {kind: score(trained[kind], out / f"{kind}.parquet") for kind in [*KINDS, MASKED]}


@pytest.mark.parametrize("kind", [*KINDS, MASKED])
def test_the_sums_are_those_of_the_runs_own_last_evaluation(trained, scored, stream, kind):
    sums, rows = scored[kind].metadata["sums"], scored[kind].rows
    last = records(trained[kind])[-1]
    assert rows == len(stream)
    assert rows % T, "no window is short"
    assert sums["nats"] / rows == pytest.approx(last["eval/loss_nats"], rel=1e-6)
    assert sums["likeliest"] / rows == pytest.approx(last["eval/accuracy"], rel=1e-6)
    assert sums["nats"] / math.log(2) / sums["bytes"] == pytest.approx(last["eval/bits_per_byte"], rel=1e-6)
    columns = scored[kind].read(["nats", "likeliest", "bytes"])
    assert columns["nats"].sum(dtype=np.float64) == pytest.approx(sums["nats"], rel=1e-12)
    assert (columns["likeliest"].sum(), columns["bytes"].sum()) == (sums["likeliest"], sums["bytes"])


@pytest.mark.parametrize("kind", KINDS)
def test_each_row_is_of_its_token_in_the_order_of_the_stream(scored, stream, shards, tokenizer, kind):
    rows, metadata = scored[kind].read([*COLUMNS]), scored[kind].metadata
    np.testing.assert_array_equal(rows["id"], stream)
    np.testing.assert_array_equal(rows["place"], np.arange(len(stream)))
    np.testing.assert_array_equal(rows["window_place"], np.arange(len(stream)) % T)
    np.testing.assert_array_equal(rows["bytes"], tokenizer.bytes_per_token[stream])
    np.testing.assert_array_equal(rows["likeliest"], rows["rank"] == 0)
    documents, places, document, place = [], [], 0, 0
    for token in stream:
        documents.append(document)
        places.append(place)
        document, place = (document + 1, 0) if token == tokenizer.eos_id else (document, place + 1)
    np.testing.assert_array_equal(rows["document"], documents)
    np.testing.assert_array_equal(rows["document_place"], places)
    assert metadata["documents"] == Manifest.load(shards).splits["val"].documents
    order = open_order(metadata["order"], T)
    for start in range(0, len(stream), T):
        window = stream[start : start + T]
        read = rows["context"][start : start + T][order.permutation(window)]
        np.testing.assert_array_equal(read, np.arange(len(window)))


def test_with_a_mask_the_context_of_a_token_is_of_its_document_alone(scored, stream, tokenizer):
    found = scored[MASKED]
    rows, order = found.read(["context", "document"]), open_order("words", T, tokenizer)
    assert (found.metadata["order"], found.metadata["document_mask"]) == ("words", True)
    for start in range(0, len(stream), T):
        read = order.permutation(stream[start : start + T]) + start
        documents = rows["document"][read]
        had = [int((documents[:step] == documents[step]).sum()) for step in range(len(read))]
        assert rows["context"][read].tolist() == had


def test_the_file_explains_itself(trained, scored, tokenizer, shards):
    metadata = scored["backward"].metadata
    recorded = json.loads((trained["backward"] / "metadata.json").read_text())
    assert metadata["data_fingerprint"] == recorded["data_fingerprint"]
    assert metadata["tokenizer_fingerprint"] == recorded["tokenizer_fingerprint"] == tokenizer.fingerprint
    expected = {"run": "backward", "order": "backward", "seed": 0, "step": 12, "split": "val", "data": str(shards)}
    expected |= {"context": "windows", "context_length": T, "document_mask": False}
    assert expected.items() <= metadata.items()
    ids = scored["backward"].read(["id"])["id"]
    text = b"".join(scored["backward"].token_bytes[number] for number in ids)
    assert text.decode() == tokenizer.detokenize(ids)
    assert scored["backward"].special[tokenizer.eos_id] == AutoTokenizer.from_pretrained(shards / "tokenizer").eos_token


def test_the_lines_of_the_docs_read_the_file(scored, tmp_path, monkeypatch, capsys):
    (tmp_path / "token_losses.parquet").write_bytes(scored["backward"].path.read_bytes())
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    programs = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    rows = scored["backward"].read(["context", "nats"])
    expected = f"{rows['nats'][rows['context'] == 0].astype(np.float64).mean():.3f}"
    assert [program.split()[1] for program in programs] == ["pandas", "polars", "duckdb"]
    for program in programs:
        exec(program, {})  # noqa: S102 - it is ours
        said = capsys.readouterr().out
        assert expected in said, program
    for name, kind, what in re.findall(r"^\| `(\w+)` \| (\w+) \| (.+) \|$", page, flags=re.MULTILINE):
        assert COLUMNS[name].name == kind
        assert what
    assert all(f"| `{name}` |" in page for name in COLUMNS)


def brute_force(model, stream, place, order, stride, bos_id):
    """Loss, rank and context of one token, by the definition of sliding windows, alone and unpadded."""
    tokens, at = (stream, place) if order == "forward" else (stream[::-1], len(stream) - 1 - place)
    start = 0
    while at >= start + T:
        start += stride
    inputs = torch.tensor([[bos_id, *tokens[start:at]]])
    with torch.no_grad():
        logits = model(inputs)[0, -1].double()
    target = int(tokens[at])
    nats = float(torch.logsumexp(logits, 0) - logits[target])
    return nats, int((logits > logits[target]).sum()), at - start


@pytest.mark.parametrize(("kind", "stride"), [("forward", 1), ("forward", 12), ("backward", 12), ("gru", 31)])
def test_sliding_windows_score_each_token_once_with_the_context_of_their_definition(
    trained, stream, tokenizer, tmp_path, kind, stride
):
    found = score(trained[kind], tmp_path / "a.parquet", f"context=sliding:{stride}", "batch_size=64")
    rows = found.read([*COLUMNS])
    np.testing.assert_array_equal(rows["id"], stream)
    order = found.metadata["order"]
    first_reads = np.arange(len(stream)) if order == "forward" else np.arange(len(stream))[::-1]
    assert (rows["context"] >= np.minimum(first_reads, T - stride)).all()
    assert rows["context"].max() == T - 1
    model = model_of(trained[kind])
    rng = np.random.default_rng(0)
    for place in {0, 1, T - 1, T, len(stream) - 1, *rng.integers(len(stream), size=40).tolist()}:
        nats, rank, context = brute_force(model, stream, place, order, stride, tokenizer.bos_id)
        assert rows["nats"][place] == pytest.approx(nats, abs=2e-5)
        assert abs(rows["rank"][place] - rank) <= 1, "more than a tie"
        assert rows["context"][place] == context


def test_sliding_by_a_whole_window_is_windows(trained, scored, tmp_path):
    found = score(trained["forward"], tmp_path / "a.parquet", f"context=sliding:{T}")
    for name, values in found.read([*COLUMNS]).items():
        np.testing.assert_array_equal(values, scored["forward"].read([name])[name])


class Array:
    """A stream that is in memory."""

    def __init__(self, tokens):
        self.tokens, self.n_tokens = tokens, len(tokens)

    def read(self, start, stop):
        return self.tokens[start:stop]


@pytest.mark.parametrize("n_tokens", [1, T - 1, T, T + 1, 5 * T + 7])
@pytest.mark.parametrize("stride", [1, 7, T])
def test_backward_sliding_is_forward_sliding_on_the_reversed_stream_bit_for_bit(
    trained, stream, tokenizer, n_tokens, stride
):
    model = model_of(trained["forward"])

    def by_model(batch):
        targets_BT = batch["targets"]
        with torch.no_grad():
            logits_NV = model(batch["input_ids"]).flatten(0, 1)
        found = target_nats(logits_NV, targets_BT.flatten()), target_ranks(logits_NV, targets_BT.flatten())
        return found[0].view(targets_BT.shape), found[1].view(targets_BT.shape)

    def rows(name, tokens):
        order = open_order(name, T)
        plan = Plan.of(len(tokens), T, stride, name, batch_size=3)
        reading = Pass("", order, Collate(order, tokenizer.bos_id, T))
        batches = [*score_batches(plan, range(plan.n_batches), reading, Array(tokens), by_model)]
        batches = batches[::-1] if plan.is_backward else batches
        return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}

    tokens = stream[:n_tokens]
    backward, forward = rows("backward", tokens), rows("forward", tokens[::-1].copy())
    np.testing.assert_array_equal(backward["id"], tokens)
    for name in ("id", "nats", "rank", "context"):
        np.testing.assert_array_equal(backward[name], forward[name][::-1])


def test_the_file_is_named_by_what_is_scored_and_nothing_else_in_the_runs_folder_changes(trained):
    folder = trained["forward"]
    before = names(folder)
    for arguments in (["checkpoint=10"], ["checkpoint=backup"], ["split=train", "context=sliding:16"], []):
        evaluate_tokens.main(compose_config("evaluate_tokens", f"run={folder}", *arguments))
    written = {path.name: TokenLosses.open(path).metadata for path in folder.glob("*.parquet")}
    assert {name: (metadata["step"], metadata["split"]) for name, metadata in written.items()} == {
        "token_losses.parquet": (12, "val"),
        "token_losses-step10.parquet": (10, "val"),
        "token_losses-train-sliding16.parquet": (12, "train"),
    }
    for name in written:
        (folder / name).unlink()
    assert names(folder) == before
