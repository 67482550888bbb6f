"""Sections of a study's report on gaps, computed again here from what the runs have logged."""

import itertools
import json
import math
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from helpers.reported_studies import ORDERS, SEEDS, made_up
from helpers.small_study import compare, study_result
from helpers.study_pages import (
    Study,
    assert_shown,
    figures_of,
    half_of,
    last_losses,
    numbers,
)
from helpers.training_runs import by_step
from scipy.stats import ttest_1samp

from hindsight.analysis.figure_style import lay_out, styled
from hindsight.analysis.gap_figures import GapRow, draw_rows
from hindsight.analysis.page import Figures, Text
from hindsight.studies.report_figures import draw_null, looks_of
from hindsight.studies.report_gaps import NO_CURVE, curves_section
from hindsight.studies.report_groups import group_study
from hindsight.studies.report_tokenizers import tokenizers_section
from hindsight.studies.results import RunResult


def test_gaps_and_their_intervals_and_nulls_are_those_of_the_logged_losses(small_study, study_runs):
    rows = {row["group"]: row for row in small_study.table("gap (%), 95% interval") if "null (%)" in row}
    assert [*rows] == ["coins", "map"]
    for corpus, row in rows.items():
        forward, backward = (last_losses(study_runs, corpus=corpus, order=order) for order in ORDERS)
        gap, ratio = backward - forward, backward.mean() / forward.mean()
        assert_shown(row["forward (nats/token)"], forward.mean())
        assert_shown(row["backward (nats/token)"], backward.mean())
        half = half_of(gap)
        assert_shown(row["gap (nats/token), 95% interval"], gap.mean(), gap.mean() - half, gap.mean() + half)
        half = half_of((backward - ratio * forward) / forward.mean())
        assert_shown(
            row["gap (%), 95% interval"], 100 * (ratio - 1), 100 * (ratio - 1 - half), 100 * (ratio - 1 + half)
        )
        apart = [abs(a - b) for of in (forward, backward) for a, b in itertools.combinations(of, 2)]
        assert_shown(row["null (%)"], 100 * np.mean(apart) / forward.mean())


def test_the_sweep_is_shown_with_the_loss_at_each_rate(small_study, study_runs):
    rows = [row for row in small_study.table("learning rate") if row["order"] in ORDERS]
    sweep = [run for run in study_runs if run.is_sweep]
    assert len(rows) == len(sweep) == 4
    for row in rows:
        [run] = [
            run
            for run in sweep
            if (run.axes["order"], f"{run.axes['optim.lr']:g}") == (row["order"], row["learning rate"])
        ]
        loss = [*by_step(Path(run.folder), "eval/loss_nats").values()][-1]
        others = [r.loss_nats for r in sweep if r.axes["order"] == row["order"]]
        assert_shown(row["loss (nats/token)"], loss)
        assert row["best"] == ("yes" if loss == min(others) else "no")
    assert small_study.table("same for all") == [
        {"group": "map", "best of forward": "0.01", "best of backward": "0.001", "same for all": "0.01"}
    ]


def test_gaps_at_the_same_rate_and_best_against_best_are_paired_over_seeds(tmp_path):
    best = {"forward": 2e-3, "backward": 4e-3}
    rng = np.random.default_rng(0)
    runs = [
        made_up(
            tmp_path / "runs",
            {"optim.lr": rate, "order": order, "seed": seed},
            4 + 0.1 * abs(math.log2(rate / best[order])) + 0.03 * (order == "backward") + 0.001 * rng.normal(),
            f"optim.lr={rate}",
        )
        for rate in (1e-3, 2e-3, 4e-3, 8e-3)
        for order in ORDERS
        for seed in SEEDS
    ]
    report = Study(tmp_path / "out", study_result(runs, ["learning_rate"]))
    rows = {(row["gap"], row["rate of the order"]): row for row in report.table("rate of the reference")}
    assert len(rows) == 5
    for (which, rate), row in rows.items():
        of_reference = best["forward"] if "best" in which else float(rate)
        forward = last_losses(runs, order="forward", **{"optim.lr": of_reference})
        gap = last_losses(runs, order="backward", **{"optim.lr": float(rate)}) - forward
        half = half_of(gap)
        assert_shown(row["gap (nats/token), 95% interval"], gap.mean(), gap.mean() - half, gap.mean() + half)
    row = rows["backward against forward, best against best", "0.004"]
    assert row["rate of the reference"] == "0.002"
    assert re.search(
        r"Each at its best learning rate, backward is harder than forward by 0\.7\d+% ± 0\.\d+ \(3 seeds\)", report.text
    )


def test_rates_at_the_end_of_those_tried_are_warned_of(small_study):
    assert "at the end of those that were tried; a better one may lie beyond." in small_study.text


def of_words(folder: Path, losses: dict[tuple[str, str], float]) -> list[RunResult]:
    """Runs at the same rate (0.002) and at the best of each order, which for backward is 0.004."""
    rates = {"same": {"forward": 2e-3, "backward": 2e-3}, "best": {"forward": 2e-3, "backward": 4e-3}}
    noise = {0: 0.0, 1: 0.004, 2: 0.001}
    return [
        made_up(
            folder,
            {"optim.lr": word, "order": order, "seed": seed},
            losses.get((word, order), 4.0) + noise[seed] * (1 + 2 * (order == "backward")),
            f"optim.lr={rate}",
        )
        for word, of in rates.items()
        for order, rate in of.items()
        for seed in SEEDS
    ]


def test_the_words_same_and_best_of_the_axis_of_rates_are_compared_as_such(tmp_path):
    runs = of_words(tmp_path / "runs", {("same", "backward"): 4.1, ("best", "backward"): 4.05})
    report = Study(tmp_path / "out", study_result(runs, ["learning_rate"]))
    rows = report.table("rate of the reference")
    assert [(row["gap"], row["rate of the order"]) for row in rows] == [
        ("backward against forward, same rate", "0.002"),
        ("backward against forward, best against best", "0.004"),
    ]
    assert [numbers(row["gap (nats/token), 95% interval"])[0] for row in rows] == [0.1033, 0.0533]
    assert_shown(rows[0]["p (Holm)"], max(p_of(runs, "same"), 2 * min(p_of(runs, "same"), p_of(runs, "best"))))
    assert "at full length" not in report.text


def p_of(runs: list[RunResult], word: str) -> float:
    """p of the relative gap by a t test of its linear approximation, as the report has it."""
    forward, backward = (last_losses(runs, order=order, **{"optim.lr": word}) for order in ORDERS)
    linear = backward - backward.mean() / forward.mean() * forward
    return float(np.array(ttest_1samp(linear, -(backward - forward).mean()))[1])


def test_a_rate_that_is_better_at_full_length_than_the_one_of_the_sweep_is_the_best(tmp_path):
    runs = of_words(tmp_path / "runs", {("same", "backward"): 3.988, ("best", "backward"): 4.02})
    report = Study(tmp_path / "out", study_result(runs, ["learning_rate"]))
    rows = report.table("rate of the reference")
    assert [(row["gap"], row["rate of the order"]) for row in rows] == [
        ("backward against forward, same rate", "0.002"),
        ("backward against forward, as the sweep chose", "0.004"),
        ("backward against forward, best against best", "0.002"),
    ]
    assert rows[2] | {"gap": ""} == rows[0] | {"gap": ""}
    assert "backward ends lower at 0.002 (3.9930) than at 0.004 (4.0250), which the sweep chose" in report.text
    assert (
        "Each at its best learning rate, no difference was found: backward against forward is \u22120.22" in report.text
    )


def test_what_is_not_left_after_holms_correction_is_said_of_rates(tmp_path):
    runs = of_words(tmp_path / "runs", {("same", "backward"): 3.9847, ("best", "backward"): 3.996})
    report = Study(tmp_path / "out", study_result(runs, ["learning_rate"]))
    assert "though not after Holm's correction for 2 tests" in report.text


@pytest.mark.parametrize(
    ("loss", "floor", "is_told"), [(6.2, None, True), (6.1, None, False), (7.0, None, True), (6.2, 6.2, False)]
)
def test_an_order_that_ends_near_the_unigram_entropy_is_told_to_have_learned_nothing_else(
    tmp_path, loss, floor, is_told
):
    runs = [  # their unigram entropy is 6.25 nats a token
        made_up(tmp_path / "runs", {"order": order, "seed": seed}, (5.0 if order == "forward" else loss) + 0.001 * seed)
        for order in ORDERS
        for seed in SEEDS
    ]
    result = study_result(runs, ["gap"])
    result.floors = {"None": {"nats_per_token": floor}} if floor else {}
    compare(tmp_path / "out", runs)
    report = Study(tmp_path / "out", result)
    assert ("Hardly more was learned than how frequent tokens are." in report.text) == is_told
    assert ("tokens (6.2500 nats/token) or above it" in report.text) == is_told


def test_runs_that_were_evaluated_once_have_no_curve(small_study):
    runs = [RunResult(**{**asdict(run), "evaluations": run.evaluations[-1:]}) for run in small_study.result.runs]
    part = curves_section(group_study(study_result(runs, ["curves"]), None))
    assert not any(isinstance(block, Figures) for block in part.blocks)
    assert part.blocks == [Text(NO_CURVE)]


def test_the_null_is_the_mean_difference_of_seeds_of_one_order(small_study, study_runs):
    rows = {(row["group"], row["order"]): row for row in small_study.table("largest (%)")}
    assert [*rows] == [*itertools.product(("coins", "map"), ORDERS), ("turned", "forward")]
    for (corpus, order), row in rows.items():
        losses = last_losses(study_runs, corpus=corpus, order=order)
        apart = [abs(a - b) for a, b in itertools.combinations(losses, 2)]
        assert_shown(row["null (nats/token)"], float(np.mean(apart)))
        assert_shown(row["largest (%)"], 100 * max(apart) / losses.mean())


def test_curves_are_means_over_seeds_of_every_evaluation(small_study, study_runs):
    [panels] = figures_of(curves_section(group_study(small_study.result, None)))
    axes = panels.drawings[0].figure.axes[0]
    assert axes.get_title() == "coins"
    for line, order in zip(axes.lines, ORDERS, strict=False):
        curves = [
            by_step(Path(run.folder), "eval/loss_nats")
            for run in study_runs
            if (run.axes["corpus"], run.axes["order"]) == ("coins", order)
        ]
        assert line.get_label() == order
        assert np.array_equal(line.get_ydata(), np.mean([[*curve.values()] for curve in curves], axis=0))


def test_a_legend_of_many_orders_is_inside_its_figure(tmp_path):
    orders = ["forward", "quarter_middle_out_interleave", "quarter_end_in_concat", "uniform_random:1", "even_odd"]
    runs = [made_up(tmp_path / "runs", {"order": order, "seed": 0}, 4.0) for order in orders]
    [panels] = figures_of(curves_section(group_study(study_result(runs, ["curves"]), None)))
    figure = panels.drawings[0].figure
    box, legend = figure.bbox, figure.legends[0].get_window_extent()
    assert len(figure.legends[0].get_texts()) == 5
    assert box.x0 <= legend.x0 < legend.x1 <= box.x1
    assert legend.y1 <= box.y1


def test_gaps_stand_against_an_axis_of_numbers_beside_what_was_published(context_runs, tmp_path):
    compare(tmp_path / "out", context_runs)
    published = [
        {"label": f"arXiv:2401.17505, French, context {context}", "percent": percent}
        | {"if": {"corpus": "french", "data.context_length": context}}
        for context, percent in ((16, 0.4), (512, 2.92))
    ]
    report = Study(tmp_path / "out", study_result(context_runs, ["gap"], study={"published": published}))
    assert (tmp_path / "out" / "figures" / "gap_against_data_context_length.pdf").exists()
    svg = re.search(r'<svg[^>]*aria-label="The gap against context.*?</svg>', report.html, re.DOTALL)
    assert svg is not None
    for text in ("english", "french", "arXiv:2401.17505, French", "context (tokens)", "16", "64", "512"):
        assert f">{text}<" in svg[0]
    rows = report.table("published")
    assert [(row["published gap (%)"], row["held beside"]) for row in rows] == [
        ("+0.4", "french, context 16"),
        ("+2.92", "\u2013"),
    ]
    [ours] = [row for row in report.table("null (%)") if row["group"] == "french, context 16"]
    assert rows[0]["our gap (%), 95% interval"] == ours["gap (%), 95% interval"]


def test_languages_of_one_kind_stand_against_the_setting_in_which_they_differ(tmp_path):
    runs = [
        made_up(
            tmp_path / "runs", {"corpus": f"f{k}", "order": order, "seed": seed}, 1 + 0.1 * k, data_fingerprint=f"f{k}"
        )
        for k in (1, 2)
        for order in ORDERS
        for seed in SEEDS
    ]
    floors = {f"f{k}": {"kind": "map", "role": "positive", "settings": {"nonzeros": k, "bits": 7}} for k in (1, 2)}
    compare(tmp_path / "out", runs)
    report = Study(tmp_path / "out", study_result(runs, ["gap"], floors=floors))
    assert "The gap against nonzeros of map." in report.text
    assert (tmp_path / "out" / "figures" / "gap_against_map_nonzeros.png").exists()
    assert not (tmp_path / "out" / "figures" / "gap_against_map_bits.png").exists()
    floors["f2"]["settings"]["bits"] = 9  # which of both would it be?
    Study(tmp_path / "out", study_result(runs, ["gap"], floors=floors))
    assert not [*(tmp_path / "out" / "figures").glob("gap_against_*")]


KINDS = {"own": (4.0, 300, 1000, 1), "bytes": (1.3, 261, 3000, 1), "reversed": (4.1, 300, 1100, -1)}
"""Loss, ids, tokens, and the sign of the gap of backward: on reversed text it reads characters forward."""


@pytest.fixture(scope="module")
def of_tokens(tmp_path_factory) -> Study:
    """The same text in tokens of three kinds; it is harder backward in each."""
    out = tmp_path_factory.mktemp("tokens")
    runs = [
        made_up(
            out / "runs",
            {"tokenizer": name, "order": order, "seed": seed},
            loss + sign * (0.02 + 0.001 * seed) * (order == "backward"),
            tokenizer_fingerprint=name,
            data_fingerprint=name,
            corpus_fingerprint="c",
            text_order="reversed" if name == "reversed" else "reading",
            vocab_size=size,
            val_tokens=n,
            val_documents=20,
            val_bytes=3000,
        )
        for name, (loss, size, n, sign) in KINDS.items()
        for order in ORDERS
        for seed in SEEDS
    ]
    compare(out, runs)
    return Study(out, study_result(runs, ["tokenizers", "gap"]))


def test_tokens_of_several_kinds_stand_in_bits_a_byte(of_tokens):
    rows = of_tokens.table("nats/document, 95% interval")
    assert [row["gap"] for row in rows] == [
        "own: backward against forward",
        "bytes: backward against forward",
        "reversed: backward against forward, characters forward against backward",
        "reversed: forward, which reads characters backward, against forward of own",
        "reversed: backward, which reads characters forward, against forward of own",
    ]
    for row, (_, _, n, sign) in zip(rows, KINDS.values(), strict=False):
        gaps = sign * np.array([0.02, 0.021, 0.022]) * n / 20
        assert_shown(
            row["nats/document, 95% interval"], gaps.mean(), gaps.mean() - half_of(gaps), gaps.mean() + half_of(gaps)
        )


def test_gaps_of_reversed_text_are_counted_by_how_characters_are_read(of_tokens):
    said = "backward (in characters) is harder in 3 of 3 {}, easier in 0, by their own intervals; after Holm's "
    said += "correction harder in 3, easier in 0."
    assert "In bits a byte, " + said.format("kinds of tokens") in of_tokens.text
    assert said.format("groups").capitalize().replace("holm", "Holm") in of_tokens.text
    assert "order=backward reads the characters forward" in of_tokens.text
    rows = {row["group"]: row for row in of_tokens.table("null (%)")}
    assert numbers(rows["reversed, characters forward against backward"]["gap (%), 95% interval"])[0] < 0


def test_the_figure_of_tokens_has_a_row_for_each_gap_of_orders_by_the_names_of_the_study(of_tokens):
    groups = group_study(of_tokens.result, json.loads((of_tokens.out / "comparison/comparison.json").read_text()))
    [panels] = figures_of(tokenizers_section(groups))
    labels = [" ".join(text.get_text().split()) for text in panels.drawings[0].figure.axes[0].get_yticklabels()]
    assert labels == [row["gap"] for row in of_tokens.table("nats/document, 95% interval")[:3]]


def test_names_of_many_lines_do_not_lie_over_each_other():
    rows = [
        GapRow(name, 1.0) for name in ("a", "a name of many words, " * 6, "b", "another name of so many words " * 4)
    ]
    with styled():
        drawing = draw_rows(rows, "rows", "gap (%)", "Gaps.")
        lay_out([drawing])
        drawing.figure.canvas.draw()
        boxes = [label.get_window_extent() for label in drawing.figure.axes[0].get_yticklabels()]
    assert all(upper.y0 >= lower.y1 for upper, lower in itertools.pairwise(boxes))


def test_one_gap_that_is_far_larger_leaves_room_for_the_others():
    values = [0.1, -0.2, 0.3, 80.0]
    with styled():
        drawing = draw_rows([GapRow(f"{value}", value) for value in values], "rows", "gap (%)", "Gaps.")
        places = [drawing.figure.axes[0].transData.transform((value, 0))[0] for value in values]
    apart = np.diff(sorted(places))
    assert min(apart) > 0.02 * sum(apart)
    assert "linear to 1 on either side of 0, and logarithmic beyond" in drawing.caption


def test_a_run_that_is_both_same_and_best_has_its_gap_though_its_folder_has_another_name(tmp_path):
    plain_runs = [
        made_up(tmp_path / "runs", {"order": order, "seed": seed}, 4.0 + 0.01 * seed)
        for order in ORDERS
        for seed in SEEDS
    ]
    runs = [
        RunResult(**{**asdict(run), "name": f"lr{word}-{run.name}", "axes": {"optim.lr": word, **run.axes}})
        for word in ("same", "best")
        for run in plain_runs
    ]
    compare(tmp_path / "out", plain_runs)
    report = Study(tmp_path / "out", study_result(runs, ["gap", "learning_rate"]))
    assert [row["group"] for row in report.table("null (%)")] == ["learning rate same"]
    assert "each at its best learning rate, no difference was found" in report.text.lower()


def test_models_of_several_kinds_have_a_line_each_against_their_size(tmp_path):
    sizes = {"gpt_nano": 1_000, "gpt_demo": 9_000, "modern_demo": 8_000, "gru_small": 2_000, "lstm_small": 3_000}
    runs = [
        made_up(
            tmp_path / "runs",
            {"model": model, "order": order, "seed": seed},
            4.0 + (0.02 + 0.001 * seed) * (order == "backward"),
            f"model={model}",
            n_parameters=n,
        )
        for model, n in sizes.items()
        for order in ORDERS
        for seed in SEEDS
    ]
    compare(tmp_path, runs)
    report = Study(tmp_path, study_result(runs, ["gap"]))
    svg = re.search(r'<svg[^>]*aria-label="The gap against the size.*?</svg>', report.html, re.DOTALL)
    assert svg is not None
    assert all(f">{kind}<" in svg[0] for kind in ("GPT", "modern", "GRU", "LSTM"))
    assert (tmp_path / "figures" / "gap.png").exists()


def test_a_published_value_without_an_order_is_of_backward_alone_and_null_and_verdicts_tell_orders_apart(tmp_path):
    runs = [
        made_up(tmp_path / "runs", {"order": order, "seed": seed}, 4.0 + gap + 0.001 * seed)
        for order, gap in (("forward", 0.0), ("backward", -0.02), ("even_odd", -0.04))
        for seed in SEEDS
    ]
    comparison = compare(tmp_path, runs)
    published = {"published": [{"label": "arXiv:2401.17505", "percent": 0.5}]}
    report = Study(tmp_path, study_result(runs, ["gap", "null"], study=published))
    assert [row["held beside"] for row in report.table("published")] == ["backward against forward"]
    groups = group_study(report.result, comparison)
    axes = draw_null(groups.families, groups.gaps, looks_of(groups.orders)).figure.axes[0]
    points = {line.get_label(): line for line in axes.lines if line.get_marker() == "o"}
    assert {*points} == {"gap of backward", "gap of even_odd"}
    assert len({float(np.asarray(line.get_ydata())[0]) for line in points.values()}) == 2
    assert len({line.get_color() for line in points.values()}) == 2
    assert not re.search(r"(?<![\w-])-\d", report.text[: report.text.index("How it was made")])
