"""Parts that are tested by themselves elsewhere, together: runs of many kinds, losses by token, comparisons."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.small_data import convert_config
from helpers.token_runs import score
from helpers.training_runs import compose_config, records, settings, train

import compare_directions
import convert_to_mds
import evaluate_tokens
import train_composer
import train_tokenizer
from hindsight.analysis.cuts import cuts_of_groups
from hindsight.analysis.groups import groups_of, name_together
from hindsight.analysis.pairs import pair_runs
from hindsight.analysis.recorded import read_runs
from hindsight.analysis.report import make_report
from hindsight.analysis.token_losses import TokenLosses
from hindsight.config.comparison import CompareConfig
from hindsight.config.corpus import TextOrder
from hindsight.config.tokenizer import TokenizerConfig
from hindsight.shards.manifest import Manifest

REVERSED = TextOrder.reversed
Rows = list[dict[str, Any]]


def compare(out: Path, *folders: Path) -> dict[str, Any]:
    """Compare runs with compare_directions.py in this process; its comparison.json."""
    compare_directions.main(CompareConfig(runs=[*map(str, folders)], out=str(out)))
    assert "<html" in (out / "report.html").read_text("utf-8")
    return json.loads((out / "comparison.json").read_text())


def table(out: Path, name: str) -> Rows:
    """A table of a report."""
    return json.loads((out / "tables" / f"{name}.json").read_text())


# ------------------------------------------------------------------------------------------------- is it the tokenizer?


@pytest.fixture(scope="module")
def datasets(corpus, shards, tmp_path_factory) -> dict[str, Path]:
    """The same documents by four kinds of tokens."""
    root = tmp_path_factory.mktemp("datasets")
    tokenizers = {"reversed": {"text_order": REVERSED, "vocab_size": 300}, "bytes": {"vocab_size": "bytes"}}
    for name, changes in tokenizers.items():
        train_tokenizer.main(TokenizerConfig(corpus=str(corpus), out=str(root / f"by_{name}"), **changes))
    kinds = {"reversed": REVERSED, "bytes": TextOrder.reading, "bytes_reversed": REVERSED}
    for name, text_order in kinds.items():
        tokenizer = root / f"by_{name.partition('_')[0]}"
        convert_to_mds.main(convert_config(corpus, tokenizer, root / name, text_order=text_order))
    return {"bpe": shards} | {name: root / name for name in kinds}


@pytest.fixture(scope="module")
def across(datasets, tmp_path_factory) -> dict[str, dict[str, Path]]:
    """Runs in both directions on each, and forward alone on bytes of reversed text: by dataset and direction.

    Those on reversed text have the losses of their tokens beside them.
    """
    root = tmp_path_factory.mktemp("across")
    folders = {
        name: {
            direction: train(path, root, f"direction={direction}", f"run_name={name}-{direction}")
            for direction in ("forward", "backward")[: 1 if name == "bytes_reversed" else 2]
        }
        for name, path in datasets.items()
    }
    for folder in folders["reversed"].values():
        score(folder, folder / "token_losses.parquet")
    return folders


@pytest.fixture(scope="module")
def compared(across, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """The comparison of all of them: its folder, and its comparison.json."""
    out = tmp_path_factory.mktemp("compared")
    return out, compare(out, *(folder for of in across.values() for folder in of.values()))


def test_the_three_answers_to_is_it_the_tokenizer_stand_in_one_table(datasets, across, compared):
    out, report = compared
    manifests = {name: Manifest.load(path) for name, path in datasets.items()}
    (documents,) = {manifest.splits["val"].documents for manifest in manifests.values()}
    (n_bytes,) = {manifest.splits["val"].bytes for manifest in manifests.values()}
    (text,) = report["across_tokenizers"]
    assert (text["documents"], text["bytes"]) == (documents, n_bytes)
    rows = {(row["vocab_size"], row["text_order"], row["order"]): row for row in text["rows"]}
    for name, of in across.items():
        vocab_size, text_order = manifests[name].vocab_size, "reversed" if "reversed" in name else "reading"
        for direction, folder in of.items():
            row, last = rows.pop((vocab_size, text_order, direction)), records(folder)[-1]
            nats = last["eval/loss_nats"] * manifests[name].splits["val"].tokens
            assert row["nats_per_document"] == pytest.approx(nats / documents, rel=1e-6)
            assert row["bits_per_byte"] == pytest.approx(nats / math.log(2) / n_bytes, rel=1e-6)
            assert row["bits_per_byte"] == last["eval/bits_per_byte"]
            assert row["seeds"] == [0]
            assert row["runs"] == {"0": str(folder)}
    assert not rows
    assert len(report["groups"]) == len(report["pairs"]) == 3
    assert report["left_out"] == [], "a run without a twin stands in the table"
    assert {run["folder"] for run in report["runs"]} == {
        str(folder) for of in across.values() for folder in of.values()
    }
    assert len(table(out, "tokenizers")) == 7
    assert len(table(out, "tokenizer_gaps")) == len(text["gaps"]) == 3 + 3


@pytest.mark.parametrize("others", [("bpe", "reversed", "bytes"), ("bytes", "bytes_reversed")])
def test_runs_that_differ_in_nothing_but_the_tokens_are_compared_without_a_pair(others, across, tmp_path, caplog):
    caplog.set_level("INFO", logger="hindsight")
    report = compare(tmp_path / "out", *(across[name]["forward"] for name in others))
    assert (report["groups"], report["pairs"], report["left_out"]) == ([], [], [])
    (text,) = report["across_tokenizers"]
    assert len(text["rows"]) == len(report["runs"]) == len(others)
    assert "Across tokenizers: the same" in caplog.text
    assert "Is it the tokenizer?" in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert len((tmp_path / "out" / "comparison.csv").read_text().splitlines()) == 1 + len(others)


def test_losses_by_token_of_reversed_text_say_so_and_are_reported_in_reading_order(across, corpus, compared):
    for folder in across["reversed"].values():
        file = TokenLosses.open(folder / "token_losses.parquet")
        assert file.metadata["text_order"] == "reversed"
        assert file.metadata["sums"]["nats"] / file.rows == pytest.approx(records(folder)[-1]["eval/loss_nats"], 1e-6)
    out, _ = compared
    text = corpus.read_text("utf-8")
    passages = table(out, "cut_passages")
    assert passages
    for row in passages:
        whole = row["before"] + row["text"] + row["after"]
        assert all(part in text for part in whole.split("<|eos|>")), whole
    documents = table(out, "cut_document")
    starts = [row["label"].partition(": ")[2].partition("\n")[0] for row in documents]
    assert min(map(len, starts)) > 8
    assert all(f"\n\n{start}" in f"\n\n{text}" for start in starts), "by its beginning a document is known"
    assert "text of each document was reversed" in (out / "report.html").read_text("utf-8")


def test_a_text_is_reversed_as_the_runs_data_was_which_may_be_gone(datasets, across, tmp_path):
    text, gone = tmp_path / "text.txt", tmp_path / "gone"
    text.write_text("In the beginning.\n")
    shutil.copytree(across["reversed"]["forward"], gone)
    config = (gone / "config.yaml").read_text()
    (gone / "config.yaml").write_text(config.replace(str(datasets["reversed"]), str(tmp_path / "nowhere")))
    tokenizer = f"tokenizer={datasets['reversed'] / 'tokenizer'}"
    for run, given in ((across["reversed"]["forward"], []), (gone, [tokenizer])):
        file = score(run, tmp_path / f"{run.name}.parquet", f"corpus={text}", *given)
        assert file.metadata["text_order"] == "reversed"
        found = b"".join(file.token_bytes[i] for i in file.read(["id"])["id"])
        assert found.decode() == "\n.gninnigeb eht nI"


# -------------------------------------------------------------------------------------------- orders, masks, and models

KINDS = {
    "gpt-forward": ["order=forward", "document_mask=true"],
    "gpt-words": ["order=words", "document_mask=true"],
    "gru-forward": ["order=forward", "model=gru_small", "document_mask=true"],
    "gru-words": ["order=words", "model=gru_small", "document_mask=true"],
    "gpt-both": ["order=both"],
    "gru-both": ["order=both", "model=gru_small", "document_mask=true"],
}


@pytest.fixture(scope="module")
def kinds(shards, tmp_path_factory) -> dict[str, Path]:
    """Runs of every kind, and the losses of their tokens beside them."""
    root = tmp_path_factory.mktemp("kinds")
    for name, changes in KINDS.items():
        given = settings(shards, root, "optim.lr=0.01", *changes, f"run_name={name}")
        given = [each for each in given if "gru" not in name or not each.startswith("model.n_heads")]
        train_composer.main(compose_config("train_composer", *given))
        evaluate_tokens.main(compose_config("evaluate_tokens", f"run={root / name}"))
    return {name: root / name for name in KINDS}


def measured(name: str) -> dict[str, str]:
    """The files of a run's losses by token, and the metric that each belongs to."""
    if name.endswith("both"):
        return {f"token_losses-{way}.parquet": f"eval/{way}/loss_nats" for way in ("forward", "backward")}
    return {"token_losses.parquet": "eval/loss_nats"}


@pytest.mark.parametrize("name", KINDS)
def test_the_losses_of_all_tokens_sum_to_the_runs_own_evaluation_in_each_direction(kinds, name):
    last = records(kinds[name])[-1]
    for file_name, metric in measured(name).items():
        file = TokenLosses.open(kinds[name] / file_name)
        assert file.metadata["sums"]["nats"] / file.rows == pytest.approx(last[metric], rel=1e-6)
        rows = file.read(["nats", "bytes"])
        bits = rows["nats"].sum(dtype=np.float64) / rows["bytes"].sum() / math.log(2)
        assert bits == pytest.approx(last[metric.replace("loss_nats", "bits_per_byte")], rel=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_context_is_counted_within_the_document_where_there_is_a_mask_and_else_within_the_window(kinds, name):
    is_masked = "document_mask=true" in KINDS[name]
    for file_name in measured(name):
        file = TokenLosses.open(kinds[name] / file_name)
        rows = file.read(["context", "document", "window_place"])
        window = np.cumsum(rows["window_place"] == 0)
        part = window * 10_000 + (rows["document"] if is_masked else 0)
        for number in np.unique(part):
            had = rows["context"][part == number]
            assert sorted(had) == [*range(len(had))]
            if file.metadata["order"] == "forward":
                assert had.tolist() == [*range(len(had))]
            if file.metadata["order"] == "backward":
                assert had.tolist() == [*range(len(had))][::-1]


def expected_of(kinds: dict[str, Path], model: str, order: str) -> tuple[dict[str, Path], dict[str, float]]:
    """The runs of a group, and their losses, from their metrics alone."""
    if order == "words":
        folders = {way: kinds[f"{model}-{way}"] for way in ("forward", "words")}
        return folders, {way: records(folder)[-1]["eval/loss_nats"] for way, folder in folders.items()}
    both, ways = kinds[f"{model}-both"], ("forward", "backward")
    return dict.fromkeys(ways, both), {way: records(both)[-1][f"eval/{way}/loss_nats"] for way in ways}


def test_each_kind_is_compared_with_its_own_and_a_run_of_both_is_a_group_by_itself(kinds):
    given, unread = read_runs([*kinds.values()])
    pairs, unpaired = pair_runs(given)
    groups = groups_of(given)
    name_together(pairs, groups)
    report = make_report(given, pairs, groups)
    cuts = cuts_of_groups(report)
    assert (unread, unpaired, len(pairs), [*cuts]) == ([], [], 4, [*range(4)])
    for number, group in enumerate(report["groups"]):
        folders, losses = expected_of(kinds, group["model"][:3], group["order"])
        assert group["is_both"] == (group["order"] == "backward")
        assert group["runs"] == {way: {"0": str(folder)} for way, folder in folders.items()}
        assert group["losses_nats"] == {way: {"0": loss} for way, loss in losses.items()}
        gap = losses[group["order"]] - losses["forward"]
        assert group["gap"]["mean_nats"] == pytest.approx(gap)
        for name, rows in cuts[number]["cuts"].items():
            assert sum(row["contribution_nats"] for row in rows) == pytest.approx(gap, abs=1e-6), name


def test_masks_words_and_both_are_reported(kinds, tmp_path):
    names = ["gru-forward", "gru-words", "gru-both"]
    report = compare(tmp_path / "out", *(kinds[name] for name in names))
    assert [(group["order"], group["is_both"]) for group in report["groups"]] == [("words", False), ("backward", True)]
    assert not any(group["notes"] for group in report["groups"])
    assert {row["group"] for row in table(tmp_path / "out", "cut_context")} == {g["name"] for g in report["groups"]}
