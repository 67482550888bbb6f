"""Runs that differ in order and seed alone: what is compared, what is found, and how the screen says it."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers.processes import run_command
from helpers.recorded_runs import make_run, make_seeds
from scipy import stats

from compare_directions import main
from hindsight.analysis.report_tables import group_row
from hindsight.analysis.report_views import facts
from hindsight.config.comparison import CompareConfig
from hindsight.errors import InputError

NAN = math.nan
FORWARD, BACKWARD = [4.000, 4.010, 4.004, 4.007, 3.995], [4.030, 4.041, 4.036, 4.036, 4.024]


def compare(root: Path, out: Path | None = None, **keys: Any) -> dict[str, Any]:
    out = out or root.parent / "out"
    main(CompareConfig(runs=[str(root)], out=str(out), report=False, **keys))
    return json.loads((out / "comparison.json").read_text(), parse_constant=lambda text: pytest.fail(f"{text} in JSON"))


def one_group(root: Path, **keys: Any) -> dict[str, Any]:
    (group,) = compare(root, **keys)["groups"]
    return group


def two_of_both(folder: Path, seed: int, forward: float, backward: float) -> Path:
    """A run of order=both, with its losses in each direction."""
    make_run(folder, "forward", [5.0, (forward + backward) / 2], f"seed={seed}")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"order": "both", "direction": None}))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        for order, loss in (("forward", forward), ("backward", backward)):
            values = {
                name: line[f"eval/{name}"]
                for name in ("perplexity", "accuracy", "bits_per_byte")
                if f"eval/{name}" in line
            }
            line |= {f"eval/{order}/{name}": value for name, value in values.items()}
            line |= {f"eval/{order}/loss_nats": loss} if values else {}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


# ------------------------------------------------------------------------------------------------------- the verdict


def test_the_verdict_is_the_first_line_on_the_screen_and_stands_beside_its_null(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="hindsight")
    make_seeds(tmp_path / "runs", {"forward": FORWARD, "backward": BACKWARD})
    group = one_group(tmp_path / "runs")
    shown = caplog.records[0].getMessage()
    assert group["verdict"] == "Backward is harder by 0.754% ± 0.040 (5 seeds); the null is 0.192%."
    assert shown.splitlines()[0] == group["verdict"]
    assert max(map(len, shown.splitlines())) <= 80
    words = " ".join(shown.split())
    for part in (
        "mean, paired t +0.0302 ± 0.0016 (t = 51.79, 4 degrees of freedom, p < 0.0001)",
        "mean, Welch's t +0.0302 ± ",
        "sign flips exact: p = 0.0625; with 5 seeds it is 0.0625 at least",
        "Cohen's d ",
        "null, other seeds 0.0077 nats, 0.19% (forward 0.0074 ± ",
        "20 pairs of seeds); the gap is 3.9 times that",
        "gap for seeds 3: ",
    ):
        assert part in words, part


@pytest.mark.parametrize(
    ("backward", "margin", "verdict"),
    [
        ([3.970, 3.981, 3.976, 3.976, 3.964], None, "Backward is easier by 0.744% ± 0.041 (5 seeds); the null is"),
        ([4.010, 4.000, 4.007, 4.004, 3.996], None, "No difference was found: backward against forward is +0.00% ± "),
        (
            [4.001, 4.010, 4.004, 4.008, 3.995],
            0.01,
            "No difference beyond 0.01 nats: backward against forward is +0.01",
        ),
        ([4.002, 4.013, 4.006, 4.010, 3.997], 0.01, "(5 seeds), which is within the margin of 0.01 nats; the null"),
    ],
)
def test_verdicts_in_words(tmp_path, backward, margin, verdict):
    make_seeds(tmp_path / "runs", {"forward": FORWARD, "backward": backward})
    group = one_group(tmp_path / "runs", margin_nats=margin)
    assert verdict in group["verdict"]
    assert (group["gap"]["equivalence"] is None) is (margin is None)


@pytest.mark.parametrize("n_seeds", [1, 2])
def test_fewer_than_three_seeds_get_no_interval_but_a_sentence(tmp_path, caplog, n_seeds):
    caplog.set_level(logging.INFO, logger="hindsight")
    make_seeds(tmp_path / "runs", {"forward": FORWARD[:n_seeds], "backward": BACKWARD[:n_seeds]})
    group = one_group(tmp_path / "runs", margin_nats=0.01)
    gap = group["gap"]
    assert "one pair says nothing about direction" in group["verdict"]
    assert "no interval: one pair says nothing about direction" in " ".join(caplog.text.split())
    for key in ("paired_interval_nats", "welch_interval_nats", "relative_interval_percent", "equivalence"):
        assert gap[key] is None
    assert (group["power"], group["bootstrap"]) == (None, None)
    assert (group["null"] is None) is (n_seeds == 1)


def test_runs_without_any_spread_have_no_number_that_is_none(tmp_path):
    make_seeds(tmp_path / "runs", {"forward": [4.0] * 3, "backward": [4.1] * 3})
    group = one_group(tmp_path / "runs", margin_nats=0.01)
    assert group["verdict"] == "Backward is harder by 2.50% ± 0.00 (3 seeds); the null is 0.00%."
    assert (group["gap"]["t"], group["gap"]["cohens_d"], group["null"]["ratio"]) == (None, None, None)


# --------------------------------------------------------------------------------------------- which runs are compared


def test_every_order_is_compared_with_forward(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="hindsight")
    losses = {"blocks:8": [4.2, 4.21, 4.22], "backward": BACKWARD[:3], "forward": FORWARD[:3]}
    make_seeds(tmp_path / "runs", losses)
    report = compare(tmp_path / "runs")
    assert {(g["reference"], g["order"]) for g in report["groups"]} == {
        ("forward", "backward"),
        ("forward", "blocks:8"),
    }
    assert {g["name"] for g in report["groups"]} == {"here gpt_demo", "here gpt_demo, blocks:8 against forward"}
    (group,) = (g for g in report["groups"] if g["order"] == "blocks:8")
    assert group["verdict"].startswith("Order blocks:8 is harder than forward by 5.13% ± ")
    assert len(report["pairs"]) == 6
    assert len(report["runs"]) == 9, "each run once, that of the reference too"
    assert len(report["table"]["holm"]) == 2
    assert {pair["order"] for pair in report["pairs"]} == {"backward", "blocks:8"}
    assert "here gpt_demo seed 0, blocks:8 against forward" in caplog.text
    assert max(map(len, caplog.records[0].getMessage().splitlines())) <= 80


def test_without_forward_the_first_by_name_is_the_reference_or_the_one_that_is_wanted(tmp_path):
    make_seeds(tmp_path / "runs", {"middle_out": [4.3, 4.31, 4.32], "end_in": [4.2, 4.21, 4.22]})
    assert one_group(tmp_path / "runs")["reference"] == "end_in"
    assert one_group(tmp_path / "runs", reference="middle_out")["order"] == "end_in"
    with pytest.raises(InputError, match="reference=forward: none of runs= has that order"):
        compare(tmp_path / "runs", reference="forward")


def test_seeds_that_both_orders_have_are_pairs_and_the_others_count_for_welch_and_the_null(tmp_path):
    make_seeds(tmp_path / "runs", {"forward": FORWARD, "backward": BACKWARD[:3]})
    report = compare(tmp_path / "runs")
    (group,) = report["groups"]
    assert group["seeds"] == [0, 1, 2]
    assert group["is_paired"]
    assert [*group["losses_nats"]["forward"]] == ["0", "1", "2", "3", "4"]
    assert group["null"]["forward"]["n_pairs"] == 10
    assert group["gap"]["mean_nats"] == pytest.approx(np.mean(np.array(BACKWARD[:3]) - FORWARD[:3]))
    low, high = group["gap"]["welch_interval_nats"]
    assert (low + high) / 2 == pytest.approx(np.mean(BACKWARD[:3]) - np.mean(FORWARD))
    assert report["left_out"] == []
    assert len(report["runs"]) == 8


def test_where_all_seeds_differ_there_is_only_welch(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="hindsight")
    make_seeds(tmp_path / "runs", {"forward": FORWARD[:3], "backward": [NAN, NAN, NAN, *BACKWARD[:3]]})
    report = compare(tmp_path / "runs")
    (group,) = report["groups"]
    assert (report["pairs"], group["seeds"], group["is_paired"]) == ([], [], False)
    assert group["gap"]["paired_interval_nats"] is None
    assert group["gap"]["sign_flip_p"] is None
    assert group["gap"]["mean_nats"] == pytest.approx(np.mean(BACKWARD[:3]) - np.mean(FORWARD[:3]))
    assert "(3 and 3 runs, not paired)" in group["verdict"]
    assert "mean, paired t" not in caplog.text
    assert report["left_out"] == [], "they carry the verdict"
    row = group_row(group, None)
    (counted,) = (fact for fact in facts(group, row) if "runs" in fact["name"])
    assert counted == {"name": "runs, not paired", "value": "3 and 3", "detail": "backward and forward"}
    assert (tmp_path / "out" / "comparison.png").exists()
    assert len((tmp_path / "out" / "comparison.csv").read_text().splitlines()) == 7


def test_a_run_of_both_orders_is_a_pair_of_its_own(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="hindsight")
    make_seeds(tmp_path / "runs", {"forward": FORWARD[:3], "backward": BACKWARD[:3]})
    for seed, (forward, backward) in enumerate(zip(FORWARD, BACKWARD, strict=True)):
        two_of_both(tmp_path / "runs" / f"both{seed}", seed, forward + 0.2, backward + 0.3)
    report = compare(tmp_path / "runs")
    assert {(group["is_both"], len(group["seeds"])) for group in report["groups"]} == {(False, 3), (True, 5)}
    (both,) = (group for group in report["groups"] if group["is_both"])
    assert both["runs"]["forward"] == both["runs"]["backward"]
    assert both["gap"]["mean_nats"] == pytest.approx(0.1 + np.mean(np.array(BACKWARD) - FORWARD))
    assert both["verdict"].startswith("In one model of both, backward is harder by ")
    assert both["name"] == "here gpt_demo order=both"
    assert len(report["pairs"]) == 8
    assert len(report["runs"]) == 16
    assert all("was last evaluated" not in line for pair in report["pairs"] for line in pair["warnings"])


def test_runs_that_were_last_evaluated_earlier_do_not_count_among_the_seeds(tmp_path):
    make_seeds(tmp_path / "runs", {"forward": FORWARD[:3], "backward": BACKWARD[:3]})
    for order in ("forward", "backward"):
        make_run(tmp_path / "runs" / f"{order}9", order, [5.0], "seed=9")
    report = compare(tmp_path / "runs")
    assert report["groups"][0]["seeds"] == [0, 1, 2]
    assert "was last evaluated at step 10, others at step 20" in report["groups"][0]["warnings"][0]
    assert len(report["pairs"]) == 4


@pytest.mark.parametrize(("documents", "is_warned"), [(7, True), (20, False), (None, False)])
def test_few_validation_documents_are_warned_of_with_the_key(tmp_path, caplog, documents, is_warned):
    caplog.set_level(logging.INFO, logger="hindsight")
    make_seeds(tmp_path / "runs", {"forward": FORWARD[:1], "backward": BACKWARD[:1]}, val_documents=documents)
    compare(tmp_path / "runs")
    said = " ".join(caplog.text.split())
    assert ("Warning: the validation set has 7 documents" in said) is is_warned
    assert ("by a larger val_share= of convert_to_mds.py" in said) is is_warned


def test_groups_of_several_languages_are_corrected_for_each_other_and_averaged(tmp_path):
    shifts = {"eng": 0.0, "fra": 0.004, "fin": 0.02}
    for name, shift in shifts.items():
        losses = {"forward": FORWARD[:3], "backward": [loss + shift for loss in BACKWARD[:3]]}
        make_seeds(tmp_path / "runs" / name, losses, f"data.path=data/{name}", data_fingerprint=name)
    report = compare(tmp_path / "runs")
    holm, (mean,) = report["table"]["holm"], report["table"]["random_effects"]
    assert [row["name"] for row in holm] == [f"{name} gpt_demo" for name in sorted(shifts)]
    smallest = min(row["p"] for row in holm)
    assert min(row["p_holm"] for row in holm) == pytest.approx(3 * smallest)
    assert mean["groups"] == [row["name"] for row in holm]
    gaps = [group["gap"]["relative_percent"] for group in report["groups"]]
    assert min(gaps) < mean["mean_percent"] < max(gaps)
    assert mean["mean_percent"] == pytest.approx(np.mean(gaps))
    assert mean["interval_percent"][0] < mean["mean_percent"] < mean["interval_percent"][1]


def test_each_model_and_each_pair_of_orders_has_a_mean_over_data_of_its_own(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="hindsight")
    losses = {"even_odd": [loss + 0.1 for loss in BACKWARD[:3]], "forward": FORWARD[:3], "backward": BACKWARD[:3]}
    for name, shift in {"eng": 0.0, "fra": 0.004}.items():
        shifted = {order: [loss + shift * (order != "forward") for loss in of] for order, of in losses.items()}
        make_seeds(tmp_path / "runs" / name, shifted, f"data.path=data/{name}", data_fingerprint=name)
    larger = {order: losses[order] for order in ("forward", "backward")}
    given = ("data.path=data/eng", "model=gpt_micro")
    make_seeds(tmp_path / "runs" / "large", larger, *given, data_fingerprint="eng")
    means = compare(tmp_path / "runs")["table"]["random_effects"]
    assert {(mean["model"], mean["order"]) for mean in means} == {("gpt_demo", "backward"), ("gpt_demo", "even_odd")}
    assert [len(mean["groups"]) for mean in means] == [2, 2], "a larger model is no further language"
    said = " ".join(caplog.text.split())
    assert "Mean of 2 groups, gpt_demo, even_odd against forward: +" in said


# -------------------------------------------------------------------------------------------------- across tokenizers

TEXT = {"corpus_fingerprint": "c1", "val_documents": 25, "val_bytes": 50_000}


def test_runs_of_the_same_documents_and_other_tokenizers_are_shown_in_units_that_do_not_depend_on_them(
    tmp_path, caplog
):
    caplog.set_level(logging.INFO, logger="hindsight")
    losses = {"forward": FORWARD[:2], "backward": BACKWARD[:2]}
    make_seeds(tmp_path / "runs" / "bpe", losses, **TEXT, val_tokens=10_000, vocab_size=300)
    halved = {order: [loss / 4 for loss in of] for order, of in losses.items()}
    other = {"data_fingerprint": "d2", "tokenizer_fingerprint": "t2", "val_tokens": 50_000, "vocab_size": 259}
    make_seeds(tmp_path / "runs" / "bytes", halved, "data.path=by_bytes", **TEXT | other)
    make_seeds(tmp_path / "runs" / "old", {"forward": [4.0]}, "data.path=old", data_fingerprint="d3")
    report = compare(tmp_path / "runs")
    (text,) = report["across_tokenizers"]
    assert (text["documents"], text["bytes"]) == (25, 50_000)
    rows = {(row["vocab_size"], row["order"]): row for row in text["rows"]}
    assert len(rows) == 4
    assert rows[300, "forward"]["nats_per_document"] == pytest.approx(np.mean(FORWARD[:2]) * 10_000 / 25)
    assert rows[259, "forward"]["nats_per_document"] == pytest.approx(np.mean(FORWARD[:2]) * 50_000 / 4 / 25)
    assert len(report["groups"]) == 2
    shown = caplog.records[0].getMessage()
    assert "Across tokenizers: the same 25 documents, 50,000 bytes" in " ".join(shown.split())
    section = next(part for part in shown.split("\n\n") if part.startswith("Across"))
    assert max(map(len, section.splitlines())) <= 80
    assert "one pair says nothing about direction" in " ".join(section.split())
    (bpe,) = (group for group in report["groups"] if group["data"] == "here")
    assert bpe["gap"]["nats_per_document"] == pytest.approx(bpe["gap"]["mean_nats"] * 400)
    assert bpe["gap"]["nats_per_document_interval"] is None


def test_the_gap_of_each_tokenizer_and_of_characters_has_an_interval_in_units_of_the_text(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="hindsight")
    losses = {"forward": FORWARD, "backward": BACKWARD}
    make_seeds(tmp_path / "runs" / "reading", losses, **TEXT, val_tokens=10_000, vocab_size=300)
    reversed_text = {"data_fingerprint": "d2", "text_order": "reversed", "val_tokens": 10_100, "vocab_size": 300}
    turned = {"forward": [loss + 0.01 for loss in BACKWARD], "backward": [loss + 0.02 for loss in FORWARD]}
    make_seeds(tmp_path / "runs" / "turned", turned, "data.path=turned", **TEXT | reversed_text)
    report = compare(tmp_path / "runs")
    (text,) = report["across_tokenizers"]
    gaps = {(gap["text_order"], gap["order"], gap["reads"]): gap for gap in text["gaps"]}
    assert {*gaps} == {
        ("reading", "backward", None),
        ("reversed", "backward", None),
        ("reversed", "forward", "characters backward"),
        ("reversed", "backward", "characters forward"),
    }
    values = (np.array(BACKWARD) + 0.01) * 10_100 / 25 - np.array(FORWARD) * 10_000 / 25
    half = stats.t.ppf(0.975, 4) * values.std(ddof=1) / 5**0.5
    gap = gaps["reversed", "forward", "characters backward"]
    assert gap["nats_per_document"] == pytest.approx(values.mean())
    assert gap["nats_per_document_interval"] == pytest.approx([values.mean() - half, values.mean() + half])
    of_group = next(group["gap"] for group in report["groups"] if group["data"] == "here")
    for unit in ("nats_per_document", "bits_per_byte"):
        assert gaps["reading", "backward", None][unit] == pytest.approx(of_group[unit])
        assert gaps["reading", "backward", None][f"{unit}_interval"] == pytest.approx(of_group[f"{unit}_interval"])
    shown = caplog.records[0].getMessage()
    assert max(map(len, shown.splitlines())) <= 80
    said = " ".join(shown.split())
    assert "text reversed: forward, which reads characters backward, against forward in here, 300 ids" in said
    assert f"{values.mean():+.2f} ± {half:.2f}" in said
    assert "one pair" not in said


def test_an_evaluation_of_a_part_of_the_tokens_has_no_loss_of_a_document(tmp_path):
    losses = {"forward": FORWARD[:2], "backward": BACKWARD[:2]}
    make_seeds(tmp_path / "runs", losses, "eval_batches=1", **TEXT, val_tokens=10_000)
    (group,) = compare(tmp_path / "runs")["groups"]
    assert group["gap"]["nats_per_document"] is None


def test_one_tokenizer_has_no_such_section(tmp_path):
    make_seeds(tmp_path / "runs", {"forward": FORWARD[:1], "backward": BACKWARD[:1]}, **TEXT, val_tokens=10_000)
    assert compare(tmp_path / "runs")["across_tokenizers"] == []


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("overrides", "metadata", "words"),
    [
        (["data.path=data/fra"], {"data_fingerprint": "d2"}, "data.path=data/fra against here"),
        ([], {"tokenizer_fingerprint": "t2"}, "another tokenizer"),
        (["data.context_length=32"], {}, "data.context_length="),
    ],
)
def test_runs_that_cannot_be_compared_are_one_line_and_status_2(tmp_path, overrides, metadata, words):
    make_seeds(tmp_path / "runs", {"forward": FORWARD[:1]})
    make_seeds(tmp_path / "runs", {"backward": BACKWARD[:1]}, *overrides, **metadata)
    done = run_command("python", "compare_directions.py", str(tmp_path / "runs"), f"out={tmp_path / 'out'}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert words in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_margin_that_is_none_is_refused():
    with pytest.raises(InputError, match="margin_nats=0 must be greater than 0"):
        CompareConfig(runs=["runs"], margin_nats=0)
