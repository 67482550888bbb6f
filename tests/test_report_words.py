"""What the page says of a group, without a browser, and which files of an earlier report stay."""

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.comparisons import make_comparison
from helpers.recorded_runs import make_pair
from helpers.small_data import make_text
from helpers.token_files import write_group

from compare_directions import main
from hindsight.analysis import inference, meta
from hindsight.analysis.cuts import cuts_of_groups
from hindsight.analysis.figures import draw_across, draw_group
from hindsight.analysis.html_report import OURS, write_report
from hindsight.analysis.inference_text import inference_text
from hindsight.analysis.report_views import method
from hindsight.analysis.verdict import summary_of
from hindsight.config.comparison import CompareConfig


def curves_of(report: dict[str, Any]) -> tuple[Any, Any]:
    """The axes of losses and of gaps over training."""
    runs = {(run["folder"], run["direction"]): run for run in report["runs"]}
    drawings = {drawing.name: drawing for drawing in draw_group(report["groups"][0], runs)}
    losses, gaps = drawings["curves"].figure.axes
    return losses, gaps


def with_orders_of(group: dict[str, Any], seeds: dict[str, list[int]], is_paired: bool) -> dict[str, Any]:
    """A group that has of either order the runs of some seeds alone."""
    group = copy.deepcopy(group)
    for key in ("runs", "losses_nats"):
        group[key] = {order: {str(seed): of[str(seed)] for seed in seeds[order]} for order, of in group[key].items()}
    first, second = seeds.values()
    return group | {"seeds": [seed for seed in first if seed in second], "is_paired": is_paired}


# ----------------------------------------------------------------------------------------------------------- in words


def test_the_bootstrap_is_told_with_its_coverage_for_each_number_of_seeds_on_page_and_screen():
    group = make_comparison("runs")["groups"][0]
    (said,) = (line for line in method(group) if line.startswith("Bootstrap"))
    assert said.startswith("Bootstrap of seeds and, drawn once for all of them, documents and blocks of text in these:")
    assert said.endswith("with 3 seeds in 81.0%, with 5 seeds in 88.0%, with 10 seeds in 92.0%.")
    text = inference_text(group)
    assert "covers 81% rather than 95% (3: 81%, 5: 88%, 10: 92% by seeds)" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("seeds", [[7], [7, 8]])
def test_where_an_interval_would_stand_the_page_says_that_one_pair_says_nothing(tmp_path, seeds):
    report = make_comparison("runs", seeds=seeds)
    write_report(tmp_path, report)
    page = (tmp_path / "report.html").read_text()
    assert page.count("no interval: one pair says nothing about direction") >= 2
    assert any(
        "no interval, because one pair says nothing about direction." in line for line in method(report["groups"][0])
    )


# ------------------------------------------------------------------------------------------------------------- curves


def test_the_gap_over_training_is_that_of_the_seeds_that_both_orders_have():
    report = make_comparison("runs", seeds=range(4))
    whole = report["groups"][0]
    report["groups"][0] = with_orders_of(whole, {"forward": [0, 1, 2, 3], "backward": [1, 2, 3]}, is_paired=True)
    _, gaps = curves_of(report)
    losses = whole["losses_nats"]
    expected = np.mean([losses["backward"][seed] - losses["forward"][seed] for seed in "123"])
    assert gaps.lines[0].get_ydata()[-1] == pytest.approx(expected)


def test_runs_that_are_not_paired_have_the_gap_of_their_means_over_training():
    report = make_comparison("runs", seeds=range(6))
    whole = report["groups"][0]
    report["groups"][0] = with_orders_of(whole, {"forward": [0, 1, 2], "backward": [3, 4, 5]}, is_paired=False)
    _, gaps = curves_of(report)
    losses = whole["losses_nats"]
    means = [np.mean([losses[o][seed] for seed in of]) for o, of in (("forward", "012"), ("backward", "345"))]
    assert gaps.lines[0].get_ydata()[-1] == pytest.approx(means[1] - means[0])


# -------------------------------------------------------------------------------------------------------------- files


def files_below(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}


def test_what_an_earlier_report_left_is_removed_and_files_of_others_stay(tmp_path):
    models = [{"n_parameters": 4_000_000}, {"model.name": "gpt_large", "n_parameters": 124_000_000}]
    write_report(tmp_path, make_comparison("runs", models=models))
    assert "figures/group1-curves.png" in files_below(tmp_path)
    (tmp_path / "tables" / "tokenizers.csv").write_text("of an earlier comparison")
    others = {"figures/gap-mine.png", "figures/paper.pdf", "tables/runs.xlsx", "notes.txt"}
    for name in others:
        (tmp_path / name).write_text("mine")
    written = write_report(tmp_path, make_comparison("runs"))
    assert files_below(tmp_path) == others | {str(path.relative_to(tmp_path)) for path in written}


def test_every_file_of_a_report_has_a_name_that_a_later_one_knows(tmp_path):
    write_group(tmp_path / "runs", make_text(n_documents=20, seed=1).split("\n\n"))
    report = make_comparison(str(tmp_path / "runs"))
    (tmp_path / "out").mkdir()
    assert len(write_report(tmp_path / "out", report, cuts_of_groups(report))) > 40
    for path in (tmp_path / "out").rglob("*/*"):
        assert OURS[path.parent.name].fullmatch(path.name), path


def test_without_a_report_none_of_an_earlier_comparison_stays(tmp_path):
    runs, out = [str(folder) for folder in make_pair(tmp_path)], tmp_path / "out"
    main(CompareConfig(runs=runs, out=str(out)))
    assert (out / "report.html").exists()
    main(CompareConfig(runs=runs, out=str(out), report=False))
    assert files_below(out) == {"comparison.csv", "comparison.json", "comparison.png"}


def test_sizes_are_compared_among_groups_of_the_same_orders_and_vocabulary():
    report = make_comparison("runs", models=[{"n_parameters": 4_000_000}, {"n_parameters": 9_000_000}])
    runs = {(run["folder"], run["direction"]): run for run in report["runs"]}
    assert [drawing.name for drawing in draw_across(report["groups"], runs)] == ["gap_against_size"]
    for run in report["runs"][len(report["runs"]) // 2 :]:
        run["metadata"]["vocab_size"] = 261
    assert draw_across(report["groups"], runs) == []
    report["groups"][1]["order"] = "even_odd"
    assert draw_across(report["groups"], runs) == []


def test_a_group_of_too_few_seeds_is_not_counted_as_not_told_apart(tmp_path):
    report = make_comparison("runs", models=[{}, {"model.name": "gpt_medium"}, {"model.name": "gpt_large"}])
    report["groups"][1]["gap"] |= {"is_significant": False}
    few = {"is_significant": False, "paired_interval_nats": None, "welch_interval_nats": None}
    report["groups"][2]["gap"] |= few | {"relative_interval_percent": None}
    write_report(tmp_path, report)
    said = "Backward is harder in 1 of 3 groups, easier in 0, not told apart in 1, by their own intervals; after Holm"
    text = (tmp_path / "report.html").read_text()
    assert said in text
    assert "; too few seeds in 1." in text


def test_a_count_of_groups_says_what_is_left_after_holm():
    """Of 12 groups without any effect, one has an interval without 0; corrected for all 12, none has."""
    rng = np.random.default_rng(5)
    tests = [inference.paired_t(rng.normal(size=3)) for _ in range(12)]
    assert sum(test.is_significant for test in tests) == 1
    groups = [
        {"name": str(i), "order": "backward"}
        | {
            "gap": {
                "paired_interval_nats": test.interval,
                "is_significant": test.is_significant,
                "mean_nats": test.mean,
            }
        }
        for i, test in enumerate(tests)
    ]
    adjusted = meta.holm([test.p or 0.0 for test in tests])
    said = summary_of(groups, [{"name": str(i), "p_holm": p} for i, p in enumerate(adjusted)])
    assert re.fullmatch(
        r"Backward is harder in [01] of 12 groups, easier in [01], not told apart in 11, by their own intervals; after "
        r"Holm's correction harder in 0, easier in 0\.",
        said,
    )
