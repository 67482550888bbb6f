"""Files of token losses in a comparison: what is made of them, and what is refused."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.processes import run_command
from helpers.recorded_runs import make_seeds, write_token_losses

from compare_directions import main
from hindsight.analysis.groups import groups_of
from hindsight.analysis.recorded import read_runs
from hindsight.analysis.report_views import method
from hindsight.analysis.text_blocks import BLOCK_TOKENS, read_texts
from hindsight.analysis.verdict import text_note
from hindsight.config.comparison import CompareConfig
from hindsight.errors import InputError

LENGTHS = [700, 40, 256, 513, *[100] * 20]
LOSSES = {"forward": [4.0, 4.01, 4.02], "backward": [4.05, 4.07, 4.06]}


def nats_of(loss: float, seed: int) -> list[list[float]]:
    """Losses of the tokens of each document, whose mean over all is that of the run."""
    rng = np.random.default_rng(seed)
    nats = rng.normal(0, 0.3, sum(LENGTHS))
    return [[*document] for document in np.split(loss + nats - nats.mean(), np.cumsum(LENGTHS)[:-1])]


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, list[Path]]:
    """Three seeds in each direction, with their files."""
    made = make_seeds(tmp_path / "runs", LOSSES)
    for order, folders in made.items():
        for seed, folder in enumerate(folders):
            write_token_losses(folder, nats_of(LOSSES[order][seed], seed))
    return made


def compare(runs: dict[str, list[Path]], out: Path) -> dict[str, Any]:
    main(
        CompareConfig(runs=[str(folder) for folders in runs.values() for folder in folders], out=str(out), report=False)
    )
    (group,) = json.loads((out / "comparison.json").read_text())["groups"]
    return group


def read(runs: dict[str, list[Path]]):
    given, _ = read_runs([folder for folders in runs.values() for folder in folders])
    (group,) = groups_of(given)
    return read_texts(group)


def test_losses_are_summed_by_document_and_block(runs):
    texts, note = read(runs)
    assert texts is not None
    assert note is None
    assert texts.n_documents == len(LENGTHS)
    assert texts.tokens.tolist()[:8] == [256, 256, 188, 40, 256, 256, 256, 1]
    assert texts.tokens.sum() == sum(LENGTHS)
    nats = [np.array(each, np.float32) for each in nats_of(4.01, 1)]
    assert texts.nats["forward"][1][1] == pytest.approx(nats[0][BLOCK_TOKENS : 2 * BLOCK_TOKENS].sum(dtype=float))
    assert texts.document_means("forward", 1) == pytest.approx([each.mean(dtype=float) for each in nats])
    blocks = texts.blocks("forward", "backward")
    assert blocks is not None
    assert blocks.gaps.shape == (3, len(texts.tokens))
    assert blocks.gaps.sum(axis=1) / texts.tokens.sum() == pytest.approx([0.05, 0.06, 0.04], abs=1e-6)


def test_a_comparison_with_files_has_bootstrap_components_and_the_test_that_is_not_used(runs, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="hindsight")
    group = compare(runs, tmp_path / "out")
    low, high = group["bootstrap"]["interval_nats"]
    assert low < group["gap"]["mean_nats"] < high
    assert group["components"]["seed_nats"] == pytest.approx(0.01, rel=0.01)
    assert group["components"]["document_nats"] == pytest.approx(0, abs=1e-5)
    assert [*group["bootstrap"]["coverage_by_seeds"]] == ["3", "5", "10"]
    assert group["bootstrap"]["coverage"] == group["bootstrap"]["coverage_by_seeds"]["3"] < 0.8
    test = group["documents_test"]
    assert (test["order"], test["seeds"], test["n_documents"]) == ("forward", [0, 1], len(LENGTHS))
    said = " ".join(caplog.text.split())
    assert (
        f"with 3 seeds it is too narrow: it covers {100 * group['bootstrap']['coverage']:.0f}% rather than 95%" in said
    )
    assert "over documents not used: t = " in said
    assert "not done" not in said
    assert group["notes"] == []
    assert max(map(len, caplog.records[0].getMessage().splitlines())) <= 80


def test_what_is_of_another_gap_than_the_first_line_says_of_which(runs, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="hindsight")
    group = compare(runs, tmp_path / "same")
    assert group["text"] == {"context": "windows", "seeds": [0, 1, 2], "whole_nats": pytest.approx(0.05, abs=1e-6)}
    assert text_note(group) is None
    assert "by token" not in caplog.text
    for order, folders in runs.items():
        for seed, folder in enumerate(folders):
            write_token_losses(folder, nats_of(3.9 + 0.01 * (order == "backward"), seed), context="sliding:8")
    group = compare(runs, tmp_path / "other")
    assert group["text"]["whole_nats"] == pytest.approx(0.01, abs=1e-6)
    assert "by token of context=sliding:8, all tokens: whole gap +0.0100" in " ".join(caplog.text.split())
    assert "cuts are of context=sliding:8, all tokens: whole gap +0.0100 nats/token." in " ".join(method(group))


def test_without_files_a_line_says_which_command_makes_them(tmp_path):
    made = make_seeds(tmp_path / "runs", LOSSES)
    group = compare(made, tmp_path / "out")
    assert group["bootstrap"] is None
    assert "python evaluate_tokens.py run=FOLDER" in group["notes"][0]
    for folder in made["forward"]:
        write_token_losses(folder, nats_of(4.0, 0))
    (note,) = compare(made, tmp_path / "out")["notes"]
    assert f"{made['backward'][0]} has no token_losses.parquet" in note
    assert "for this and 2 more" in note


def test_a_file_of_an_earlier_step_or_another_context_is_not_used(runs, tmp_path):
    write_token_losses(runs["backward"][1], nats_of(4.0, 0), step=10)
    group = compare(runs, tmp_path / "out")
    assert group["bootstrap"] is None
    assert (
        f"{runs['backward'][1]} was last evaluated at step 20, and its token_losses.parquet is of step 10"
        in group["notes"][0]
    )
    write_token_losses(runs["backward"][1], nats_of(4.0, 0), context="sliding:8")
    assert "context=windows" in compare(runs, tmp_path / "out")["notes"][0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data_fingerprint": "other"}, "it has data_fingerprint=other, the run d1"),
        ({"tokenizer_fingerprint": "t9"}, "it has tokenizer_fingerprint=t9, the run t1"),
        ({"split": "train"}, "it has split=train, the run val"),
        ({"seed": 7}, "it has seed=7, the run 1"),
        ({"order": "forward"}, "it has order=forward, the run backward"),
        ({"context_length": 7}, "it has context_length=7, the run "),
        ({"document_mask": True}, "it has document_mask=True, the run False"),
    ],
)
def test_a_file_of_anything_else_is_refused(runs, changes, words):
    path = write_token_losses(runs["backward"][1], nats_of(4.07, 1), **changes)
    with pytest.raises(InputError, match=f"{path} is not of the run beside it: {words}"):
        read(runs)


@pytest.mark.parametrize(
    ("precision", "off", "is_refused"),
    [("fp32", 0.001, True), ("fp32", 0.0001, False), ("bf16", 0.001, False), ("bf16", 0.01, True)],
)
def test_a_file_of_another_model_is_refused_by_its_mean_loss(runs, precision, off, is_refused):
    folder = runs["backward"][1]
    path = write_token_losses(folder, nats_of(4.07 + off, 1), precision=precision)
    if not is_refused:
        assert read(runs)[1] is None
        return
    said = f"{path} is not of the run beside it: it has a mean loss of {4.07 + off:.4f}.* nats/token, the run 4.070000"
    with pytest.raises(InputError, match=f"{said} at step 20; .*python evaluate_tokens.py run={folder}"):
        read(runs)


def test_the_loss_of_a_part_of_the_tokens_is_not_compared_with_that_of_all(tmp_path):
    made = make_seeds(tmp_path / "runs", LOSSES, "eval_batches=1")
    for folders in made.values():
        for folder in folders:
            write_token_losses(folder, nats_of(5.0, 0))
    assert read(made)[1] is None


def test_a_file_of_other_documents_or_with_rows_out_of_order_is_refused(runs):
    path = write_token_losses(runs["backward"][2], [[4.06] * length for length in LENGTHS[1:]])
    with pytest.raises(InputError, match=f"{path} is damaged: it has other tokens"):
        read(runs)
    write_token_losses(runs["backward"][2], [[float("nan")], *nats_of(4.0, 0)[1:]])
    with pytest.raises(InputError, match=f"{path} is damaged: its rows are not in order, or a loss is no number"):
        read(runs)


@pytest.mark.parametrize("fault", ["cut", "other data"])
def test_a_damaged_file_and_one_of_other_data_are_one_line_and_status_2(runs, tmp_path, fault):
    path = runs["forward"][0] / "token_losses.parquet"
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        write_token_losses(runs["forward"][0], nats_of(4.0, 0), data_fingerprint="d2")
    done = run_command("python", "compare_directions.py", str(tmp_path / "runs"), f"out={tmp_path / 'out'}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert str(path) in done.stderr
    assert "evaluate_tokens.py" in done.stderr
    assert not (tmp_path / "out").exists()
