"""The report of a study: its numbers, computed again here from what the runs have logged, its words, and its looks."""

import copy
import csv
import html
import itertools
import json
import math
import re
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.browser import IN_ATTRIBUTE, PHONE, PLANTED
from helpers.recorded_runs import make_run
from helpers.small_study import (
    COINS_NATS,
    MAP_NATS,
    T,
    coins,
    compare,
    linear_map,
    make_bytes_data,
    run_result,
    study_result,
    train_run,
    turn,
)
from helpers.training_runs import by_step
from scipy import stats

from hindsight.analysis.page import FOOTER, escaped
from hindsight.analysis.tables import shown
from hindsight.errors import InputError
from hindsight.studies import study_file
from hindsight.studies.report_gaps import curves_section
from hindsight.studies.report_groups import group_study
from hindsight.studies.results import RunResult, StudyResult
from hindsight.studies.study_report import SECTIONS, write_study_report

SEEDS, ORDERS, RATES = (0, 1, 2), ("forward", "backward"), (1e-3, 1e-2)
SIZE = ["model.n_layers=1", "model.d_model=16", "max_duration=8ba", "eval_interval=2ba", "batch_size=16"]
SIZE += ["data.context_length=16", "checkpoint.interval=1000ba", "metrics=false"]
FLOORS = {
    "coins": {"kind": "coins", "settings": {"letters": 4}, "nats_per_token": COINS_NATS, "is_null": True}
    | {"is_calibration": True, "role": "null", "derivation": "14 ln 4 over 16 tokens"},
    "map": {"kind": "linear_map", "settings": {"bits": 7, "nonzeros": 2}, "nats_per_token": MAP_NATS}
    | {"role": "positive", "derivation": "7 ln 2 over 16 tokens"},
}


class Study:
    """A study in its folder, and its report."""

    def __init__(self, out: Path, result: StudyResult) -> None:
        self.out, self.result = out, result
        self.written = write_study_report(out, result)
        self.html = (out / "report.html").read_text()
        self.markdown = (out / "report.md").read_text()

    @property
    def text(self) -> str:
        return text_of(self.html)

    def table(self, heading: str) -> list[dict[str, str]]:
        """The rows of the only table that has a heading, by headings."""
        [found] = [table for table in tables_of(self.html) if heading in table[0]]
        return [dict(zip(found[0], row, strict=True)) for row in found[1:]]


class Tables(HTMLParser):
    """Reads the cells of all tables."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.cell: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.cell = []

    def handle_data(self, data: str) -> None:
        if self.cell is not None:
            self.cell.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.tables[-1][-1].append("".join(self.cell or []))
            self.cell = None


def tables_of(page: str) -> list[list[list[str]]]:
    reader = Tables()
    reader.feed(page)
    return reader.tables


def text_of(page: str) -> str:
    """The text of a page that is read, figures left out."""
    body = re.sub(r"<svg.*?</svg>", "", page.split("</head>")[1], flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def markdown_tables(text: str) -> list[list[list[str]]]:
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    rows = [[re.split(r" \| ", line[2:-2]) for line in block.splitlines()] for block in blocks]
    return [[[plain(cell) for cell in row] for row in (of[0], *of[2:])] for of in rows]


def plain(text: str) -> str:
    """What Markdown shows of a text."""
    return html.unescape(re.sub(r"\\(.)", r"\1", text))


def last_losses(results: list[RunResult], **axes: Any) -> np.ndarray:
    """Last validation losses, by seed, as metrics.jsonl has them."""
    found = [run for run in results if axes.items() <= run.axes.items() and not run.is_sweep]
    found.sort(key=lambda run: run.axes["seed"])
    return np.array([[*by_step(Path(run.folder), "eval/loss_nats").values()][-1] for run in found])


def half_of(values: np.ndarray) -> float:
    """Half of the 95% interval of a mean."""
    return float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))


def numbers(cell: str) -> list[float]:
    return [float(text.replace("\u2212", "-").replace(",", "")) for text in re.findall(r"[+\u2212-]?[\d.,]*\d", cell)]


def assert_shown(cell: str, *expected: float) -> None:
    """Whether a cell has these numbers, each to the digits that are shown."""
    found = numbers(cell)
    assert len(found) == len(expected), cell
    digits = [len(text.partition(".")[2]) for text in re.findall(r"[\d,]*\.?\d+", cell)]
    for one, other, n in zip(found, expected, digits, strict=True):
        assert one == pytest.approx(other, abs=0.51 * 10**-n), cell


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> list[RunResult]:
    """Runs of two synthetic languages in both directions, of one of them turned, and of a sweep of rates."""
    root = tmp_path_factory.mktemp("study")
    data = {"coins": make_bytes_data(root, "coins", coins(400)), "map": make_bytes_data(root, "map", linear_map(100))}
    data["turned"] = turn(data["map"], root / "data" / "turned")
    results = [
        train_run(root / "runs", data[corpus], {"corpus": corpus, "order": order, "seed": seed}, *SIZE)
        for corpus in ("coins", "map")
        for order in ORDERS
        for seed in SEEDS
    ]
    results += [
        train_run(root / "runs", data["turned"], {"corpus": "turned", "order": "forward", "seed": seed}, *SIZE)
        for seed in SEEDS[:2]
    ]
    return results + [
        train_run(
            root / "sweep",
            data["map"],
            {"corpus": "map", "optim.lr": rate, "order": order, "seed": 100},
            *SIZE,
            "max_duration=4ba",
            is_sweep=True,
        )
        for rate in RATES
        for order in ORDERS
    ]


@pytest.fixture(scope="module")
def study(trained, tmp_path_factory) -> Study:
    out = tmp_path_factory.mktemp("results")
    compare(out, trained)
    rates = [{"axes": {"corpus": "map"}, "best": {"forward": 1e-2, "backward": 1e-3}, "same": 1e-2}]
    report = ["floors", "gap", "curves", "learning_rate", "null", "exact"]
    corpora = {"corpora": {"turned": {"turned": "map"}}}
    return Study(out, study_result(trained, report, floors=FLOORS, rates=rates, study=corpora))


def made_up(root: Path, axes: dict[str, Any], loss: float, *overrides: str, **metadata: Any) -> RunResult:
    """A run whose folder is made up, with an evaluation every 10 steps."""
    name = "-".join(map(str, axes.values())).replace(":", "")
    folder = make_run(root / name, axes["order"], [5.0, loss], f"seed={axes['seed']}", *overrides, **metadata)
    return run_result(folder, axes, [f"python train_composer.py run_name={name}"])


@pytest.fixture
def contexts(tmp_path) -> list[RunResult]:
    """Two languages at two contexts; the gap grows with the context."""
    losses = itertools.product(("english", "french"), (16, 64), ORDERS, SEEDS)
    return [
        made_up(
            tmp_path / "runs",
            {"corpus": corpus, "data.context_length": context, "order": order, "seed": seed},
            4.0 + 0.01 * seed + (0.001 * context + 0.002 * seed) * (order == "backward"),
            f"data.context_length={context}",
            data_fingerprint=corpus,
        )
        for corpus, context, order, seed in losses
    ]


def test_gaps_and_their_intervals_and_nulls_are_those_of_the_logged_losses(study, trained):
    rows = {row["group"]: row for row in study.table("gap (%), 95% interval") if "null (%)" in row}
    assert [*rows] == ["coins", "map"]
    for corpus, row in rows.items():
        forward, backward = (last_losses(trained, corpus=corpus, order=order) for order in ORDERS)
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


def test_the_first_words_are_the_answer_and_each_group_has_its_verdict(study):
    comparison = json.loads((study.out / "comparison" / "comparison.json").read_text())
    for group in comparison["groups"]:
        assert group["verdict"] in study.text
    assert study.text.index("Nulls whose 95% interval of the gap contains 0") < 200
    assert study.html.index("<svg") < study.html.index('id="runs"') < study.html.index('id="floors"')


def test_floors_are_held_beside_the_losses_of_each_order(study, trained):
    rows = {(row["group"], row["order"]): row for row in study.table("floor (nats/token)")}
    assert [*rows] == [*itertools.product(("coins", "map"), ORDERS)]
    for (corpus, order), row in rows.items():
        losses, floor = last_losses(trained, corpus=corpus, order=order), FLOORS[corpus]["nats_per_token"]
        above = 100 * (losses / floor - 1)
        half = half_of(above)
        assert_shown(row["above the floor (%), 95% interval"], above.mean(), above.mean() - half, above.mean() + half)
        assert row["within 2%"] == ("yes" if abs(above.mean()) <= 2 else "no")


def test_the_tokens_after_which_a_floor_was_near_are_those_of_the_first_evaluation(trained, tmp_path):
    runs = [run for run in trained if run.axes["corpus"] == "coins"]
    # A floor that all runs come near, half of the way: 5% above it is what some evaluation is the first to reach.
    curves = {run.name: by_step(Path(run.folder), "eval/loss_nats") for run in runs}
    floor = max([*curve.values()][1] for curve in curves.values()) / 1.05
    floors = {"coins": FLOORS["coins"] | {"nats_per_token": floor, "role": "positive"}}
    report = Study(tmp_path, study_result(runs, ["floors"], floors=floors))
    for row in report.table("floor (nats/token)"):
        tokens = []
        for run in runs:
            if run.axes["order"] == row["order"]:
                of_step = by_step(Path(run.folder), "tokens")
                step = next(step for step, loss in curves[run.name].items() if loss <= 1.05 * floor)
                tokens.append(of_step[step])
        assert row["tokens to within 5%"] == f"{round(np.mean(tokens)):,}"
        assert row["seeds within 5%"] == "3 of 3"
        assert f"{row['order']} after {row['tokens to within 5%']} tokens" in report.text


def test_whether_the_interval_of_a_null_contains_0_is_said(study, trained):
    forward, backward = (last_losses(trained, corpus="coins", order=order) for order in ORDERS)
    gap = backward - forward
    contains = abs(gap.mean()) <= half_of(gap)
    said = "contains 0" if contains else "does not contain 0"
    assert f"The 95% interval of the gap (backward against forward) {said}" in study.text
    assert f"Nulls whose 95% interval of the gap contains 0: {int(contains)} of 1." in study.text


def test_runs_of_turned_windows_equal_those_of_the_other_direction_bit_for_bit(study, trained):
    rows = study.table("must equal")
    assert [(row["run"], row["must equal"]) for row in rows] == [
        (f"turned-forward-{seed}", f"map-backward-{seed}") for seed in SEEDS[:2]
    ]
    n_losses = 8 + 4
    assert all((row["losses compared"], row["equal"]) == (str(n_losses), "yes") for row in rows)
    assert "All losses of 2 pairs of runs that must be equal bit for bit are the same numbers." in study.text


def test_the_first_loss_that_differs_by_the_last_bit_is_named(trained, tmp_path):
    results = copy.deepcopy([run for run in trained if run.axes["corpus"] in ("map", "turned") and not run.is_sweep])
    run = next(run for run in results if run.name == "turned-forward-1")
    lines = [json.loads(line) for line in (Path(run.folder) / "metrics.jsonl").read_text().splitlines()]
    lines[4]["train/loss_nats"] = np.nextafter(lines[4]["train/loss_nats"], 9)
    run.folder = str(tmp_path / run.name)
    Path(run.folder).mkdir()
    (Path(run.folder) / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = Study(tmp_path / "out", study_result(results, ["exact"], study={"corpora": {"turned": {"turned": "map"}}}))
    rows = report.table("must equal")
    assert [(row["equal"], row["first step that differs"]) for row in rows] == [("yes", "\u2013"), ("no", "5")]
    assert "1 of 2 pairs of runs that must be equal bit for bit are so." in report.text


def test_the_sweep_is_shown_with_the_loss_at_each_rate(study, trained):
    rows = [row for row in study.table("learning rate") if row["order"] in ORDERS]
    sweep = [run for run in trained if run.is_sweep]
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
    assert study.table("same for all") == [
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


def test_rates_at_the_end_of_those_tried_are_warned_of(study):
    assert "at the end of those that were tried; a better one may lie beyond." in study.text


def test_the_words_same_and_best_of_the_axis_of_rates_are_compared_as_such(tmp_path):
    rates = {"same": {"forward": 2e-3, "backward": 2e-3}, "best": {"forward": 2e-3, "backward": 4e-3}}
    losses = {("same", "backward"): 4.1, ("best", "backward"): 4.05}
    runs = [
        made_up(
            tmp_path / "runs",
            {"optim.lr": word, "order": order, "seed": seed},
            losses.get((word, order), 4.0) + 0.001 * seed,
            f"optim.lr={rate}",
        )
        for word, of in rates.items()
        for order, rate in of.items()
        for seed in SEEDS
    ]
    rows = Study(tmp_path / "out", study_result(runs, ["learning_rate"])).table("rate of the reference")
    assert [(row["gap"], row["rate of the order"]) for row in rows] == [
        ("backward against forward, same rate", "0.002"),
        ("backward against forward, best against best", "0.004"),
    ]
    assert [numbers(row["gap (nats/token), 95% interval"])[0] for row in rows] == [0.1, 0.05]


def test_the_null_is_the_mean_difference_of_seeds_of_one_order(study, trained):
    rows = {(row["group"], row["order"]): row for row in study.table("largest (%)")}
    assert [*rows] == [*itertools.product(("coins", "map"), ORDERS), ("turned", "forward")]
    for (corpus, order), row in rows.items():
        losses = last_losses(trained, corpus=corpus, order=order)
        apart = [abs(a - b) for a, b in itertools.combinations(losses, 2)]
        assert_shown(row["null (nats/token)"], np.mean(apart))
        assert_shown(row["largest (%)"], 100 * max(apart) / losses.mean())


def test_curves_are_means_over_seeds_of_every_evaluation(study, trained):
    [panels] = curves_section(group_study(study.result, None)).blocks
    axes = panels.drawings[0].figure.axes[0]
    assert axes.get_title() == "coins"
    for line, order in zip(axes.lines, ORDERS, strict=False):
        curves = [
            by_step(Path(run.folder), "eval/loss_nats")
            for run in trained
            if (run.axes["corpus"], run.axes["order"]) == ("coins", order)
        ]
        assert line.get_label() == order
        assert np.array_equal(line.get_ydata(), np.mean([[*curve.values()] for curve in curves], axis=0))


def test_a_legend_of_many_orders_is_inside_its_figure(tmp_path):
    orders = ["forward", "quarter_middle_out_interleave", "quarter_end_in_concat", "uniform_random:1", "even_odd"]
    runs = [made_up(tmp_path / "runs", {"order": order, "seed": 0}, 4.0) for order in orders]
    [panels] = curves_section(group_study(study_result(runs, ["curves"]), None)).blocks
    figure = panels.drawings[0].figure
    box, legend = figure.bbox, figure.legends[0].get_window_extent()
    assert len(figure.legends[0].get_texts()) == 5
    assert box.x0 <= legend.x0 < legend.x1 <= box.x1
    assert legend.y1 <= box.y1


def test_gaps_stand_against_an_axis_of_numbers_beside_what_was_published(contexts, tmp_path):
    compare(tmp_path / "out", contexts)
    published = [
        {"label": f"arXiv:2401.17505, French, context {context}", "percent": percent}
        | {"if": {"corpus": "french", "data.context_length": context}}
        for context, percent in ((16, 0.4), (512, 2.92))
    ]
    report = Study(tmp_path / "out", study_result(contexts, ["gap"], study={"published": published}))
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


def test_tokens_of_several_kinds_stand_in_bits_a_byte(tmp_path):
    kinds = {"own": (4.0, 300, 1000), "bytes": (1.3, 261, 3000)}
    runs = [
        made_up(
            tmp_path / "runs",
            {"tokenizer": name, "order": order, "seed": seed},
            loss + (0.02 + 0.001 * seed) * (order == "backward"),
            tokenizer_fingerprint=name,
            data_fingerprint=name,
            corpus_fingerprint="c",
            vocab_size=size,
            val_tokens=n,
            val_documents=20,
            val_bytes=3000,
        )
        for name, (loss, size, n) in kinds.items()
        for order in ORDERS
        for seed in SEEDS
    ]
    compare(tmp_path / "out", runs)
    report = Study(tmp_path / "out", study_result(runs, ["tokenizers"]))
    rows = report.table("nats/document, 95% interval")
    assert [row["gap"] for row in rows] == ["own: backward against forward", "bytes: backward against forward"]
    for row, (_, _, n) in zip(rows, kinds.values(), strict=True):
        gaps = np.array([0.02, 0.021, 0.022]) * n / 20
        assert_shown(
            row["nats/document, 95% interval"], gaps.mean(), gaps.mean() - half_of(gaps), gaps.mean() + half_of(gaps)
        )
    assert "In bits a byte, backward is harder in 2 of 2 kinds of tokens, easier in 0." in report.text


def test_all_runs_are_listed_with_state_step_and_losses_and_in_csv_with_all_digits(study, trained):
    rows = {(row["run"], row["part"]): row for row in study.table("state")}
    assert len(rows) == len(trained)
    with (study.out / "runs.csv").open(newline="") as file:
        lines = [*csv.DictReader(file)]
    for run, line in zip(trained, lines, strict=True):
        row = rows[run.name, "sweep of rates" if run.is_sweep else "study"]
        loss = [*by_step(Path(run.folder), "eval/loss_nats").values()][-1]
        n = 4 if run.is_sweep else 8
        assert (row["state"], row["step"]) == ("done", f"{n} of {n}")
        assert_shown(row["loss (nats/token)"], loss)
        assert float(line["loss_nats"]) == loss
        assert (line["run"], line["seed"], line["folder"]) == (run.name, str(run.axes["seed"]), run.folder)
        assert line["commands"] == run.commands[0]
        assert line["git_commit"] == run.metadata["git_commit"]


def test_how_it_was_made_can_be_repeated(study, trained):
    made = study.text[study.text.index("How it was made") :]
    for run in trained:
        assert run.commands[0] in made
    assert trained[0].metadata["git_commit"] in made
    assert trained[0].metadata["versions.torch"] in made
    shared = {row["setting"]: row["value"] for row in study.table("setting")}
    assert shared["model.d_model"] == "16"
    differing = study.table("data.path")
    assert {"data.path", "optim.lr", "max_duration"} <= {*differing[0]}
    assert "batch_size" in shared
    assert "batch_size" not in differing[0]


def test_a_report_of_a_part_of_the_runs_says_so_and_names_the_rest(contexts, tmp_path):
    runs = copy.deepcopy(contexts)
    for run, state, error in ((runs[-1], "failed", "no space left"), (runs[-2], "missing", None)):
        run.state, run.error, run.evaluations = state, error, []
        run.metadata, run.settings = {}, {}
    compare(tmp_path / "out", runs)
    report = Study(tmp_path / "out", study_result(runs, [*SECTIONS]))
    assert "This is a report of a part of the study: 22 of 24 runs are done (1 missing, 1 failed)." in report.text
    assert f"failed : {runs[-1].name}" in report.text
    assert f"missing : {runs[-2].name}" in report.text
    assert f"{runs[-1].name} failed: no space left" in report.text
    assert "train at least 3 seeds of each" in report.text


def test_a_study_of_which_nothing_is_done_has_a_report(tmp_path):
    run = RunResult("a", {"corpus": "english", "order": "forward", "seed": 0}, "runs/a", ["python x.py"], "missing")
    report = Study(tmp_path, study_result([run], [*SECTIONS]))
    assert "There is no answer yet" in report.text
    assert "0 of 1 runs are done" in report.text
    for title, _ in SECTIONS.values():
        assert title in report.text


def test_one_pair_has_no_interval_and_the_page_says_so(contexts, tmp_path):
    runs = [run for run in contexts if run.axes["seed"] == 0 and run.axes["corpus"] == "french"][:2]
    compare(tmp_path / "out", runs)
    report = Study(tmp_path / "out", study_result(runs, ["gap", "null"]))
    assert report.text.index("one pair says nothing about direction") < 200
    assert "There is no interval for fewer than 3 seeds" in report.text
    assert "the null is not known" in report.text


def test_a_section_that_there_is_none_of_is_refused(contexts, tmp_path):
    with pytest.raises(InputError, match="report: gaps is no section; choose from gap, curves"):
        write_study_report(tmp_path / "out", study_result(contexts, ["gaps"]))


def test_a_damaged_comparison_is_refused(contexts, tmp_path):
    (tmp_path / "comparison").mkdir()
    (tmp_path / "comparison" / "comparison.json").write_text("{")
    with pytest.raises(InputError, match=r"comparison\.json is damaged"):
        write_study_report(tmp_path, study_result(contexts, ["gap"]))


def test_a_comparison_of_other_runs_or_steps_is_not_reported(study, tmp_path):
    comparison = json.loads((study.out / "comparison" / "comparison.json").read_text())
    place = tmp_path / "comparison" / "comparison.json"
    place.parent.mkdir()
    verdicts: list[str] = []
    for changed in ({}, {"step": comparison["runs"][0]["step"] + 1}, {"folder": "runs/gone"}):
        place.write_text(json.dumps(comparison | {"runs": [comparison["runs"][0] | changed, *comparison["runs"][1:]]}))
        verdicts.append(text_of(Study(tmp_path, copy.deepcopy(study.result)).html))
    assert verdicts[0] == text_of(study.html)
    assert verdicts[1] == verdicts[2] != verdicts[0]


def test_markdown_and_page_say_the_same(study):
    assert markdown_tables(study.markdown) == tables_of(study.html)
    text = text_of(study.html)
    body = re.sub(r"!\[.*?\]\(.*?\)|\[(.*?)\]\(.*?\)", r"\1", study.markdown)
    for line in body.splitlines():
        said = plain(re.sub(r"^(#+|[->])\s|\*\*|^\*|\*$", "", line)).removeprefix("Note: ").strip(":")
        if not line.startswith(("|", "`", FOOTER)) and said:
            assert " ".join(said.split()) in text.replace(" :", ":"), line


def test_the_same_result_gives_the_same_bytes_but_for_the_footer(study, tmp_path):
    later = copy.deepcopy(study.result)
    later.provenance = {"date": "2027-05-06", "machine": {"cpus": 64}, "wall_time_s": 12.5}
    for run in later.runs:
        run.tokens_per_second = 7.0
    (tmp_path / "comparison").mkdir()
    (tmp_path / "comparison" / "comparison.json").write_bytes(
        (study.out / "comparison" / "comparison.json").read_bytes()
    )
    again = Study(tmp_path, later)
    for path in study.written:
        name = path.relative_to(study.out)
        one, other = path.read_bytes(), (tmp_path / name).read_bytes()
        if name.suffix in (".html", ".md"):
            mark = b"<footer" if name.suffix == ".html" else f"\n{FOOTER}\n".encode()
            assert one != other
            one, other = one.split(mark)[0], other.split(mark)[0]
        assert one == other, name
    assert "2027-05-06" in again.html.split("<footer")[1]
    assert "machine: cpus 64" in again.markdown.split(f"\n{FOOTER}\n")[1]


def test_figures_of_an_earlier_report_are_removed_and_no_other_file(study, contexts, tmp_path):
    (tmp_path / "figures").mkdir()
    for name in ("curves7.png", "gap_against_size.pdf", "mine.png", "curves.svg"):
        (tmp_path / "figures" / name).write_text("x")
    write_study_report(tmp_path, study_result(contexts, ["curves"]))
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {"curves.png", "curves.pdf", "mine.png", "curves.svg"}


HOSTILE = f"{PLANTED}{IN_ATTRIBUTE} | *b* _i_ `c` [a](javascript:x) $x$ \u202e\n# h"


@pytest.fixture(scope="module")
def hostile(trained, study, tmp_path_factory) -> Study:
    """The same study, in which all that people name holds what HTML or Markdown would obey."""
    out = tmp_path_factory.mktemp("hostile")
    results = [RunResult(**copy.deepcopy(asdict(run))) for run in trained]
    for run in results:
        run.axes["corpus"] = HOSTILE + run.axes["corpus"]
        run.settings["data.path"] = run.metadata["git_commit"] = HOSTILE
        run.commands = [f"python x.py ```` {HOSTILE}"]
        run.error = HOSTILE
    results[0].state = "failed"
    floors = {HOSTILE + name: {**of, "derivation": HOSTILE, "kind": HOSTILE} for name, of in FLOORS.items()}
    data = {HOSTILE: {"corpus": HOSTILE, "commands": [HOSTILE], HOSTILE: HOSTILE}}
    published = [{"label": HOSTILE, "percent": 1.0, "if": {"corpus": f"{HOSTILE}map"}}]
    comparison = json.loads((study.out / "comparison" / "comparison.json").read_text())
    for group in comparison["groups"]:
        group["verdict"], group["warnings"] = HOSTILE, [HOSTILE]
    (out / "comparison").mkdir()
    (out / "comparison" / "comparison.json").write_text(json.dumps(comparison))
    result = study_result(results, [*SECTIONS], floors=floors, data=data, question=HOSTILE)
    result.study |= {"published": published}
    result.provenance = {HOSTILE: HOSTILE}
    return Study(out, result)


def test_hostile_names_are_shown_as_the_text_that_they_are(visit, hostile):
    page = visit(hostile.out / "report.html")
    page.wait_for_timeout(100)
    assert "planted" not in page.title().replace(PLANTED, "").replace(IN_ATTRIBUTE, "")
    assert page.locator("script, img, [onerror], [onmouseover]").count() == 0
    assert PLANTED in page.locator("main").text_content()
    assert page.said == []
    assert page.asked == [(hostile.out / "report.html").as_uri()]
    assert "\u202e" not in hostile.html + hostile.markdown


def test_markdown_obeys_nothing_of_hostile_names(hostile):
    outside = re.sub(r"^(`{3,})\n.*?\n\1$", "", hostile.markdown, flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"<(?!!)", outside)
    assert "[a](javascript" not in outside
    assert not re.search(r"(?<!\\)`", outside)
    assert not re.search(r"^# h", outside, re.MULTILINE)
    assert markdown_tables(hostile.markdown) == tables_of(hostile.html)


@pytest.mark.parametrize("text", ["# a", "- a", "1. a", "a|b", "*a*", "_a_", "[a](b)", "<b>", "&lt;", "~~a~~", "\\"])
def test_escaped_text_is_shown_as_it_is(text):
    assert plain(escaped(text)) == text
    assert escaped(text) != text


@pytest.mark.parametrize("text", ["a_b", "3.25", "-0.5%", "data.context_length", "a-b"])
def test_usual_text_needs_no_escape(text):
    assert escaped(text) == text


@pytest.mark.parametrize("name", ["study", "hostile"])
def test_a_phone_shows_the_page_without_scrolling_sideways(visit, name, request):
    page = visit(request.getfixturevalue(name).out / "report.html", viewport=PHONE)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_figures_have_a_text_in_their_place_tables_headers_and_ids_are_unique(study):
    figures = re.findall(r"<svg.*?</svg>", study.html, re.DOTALL)
    assert len(figures) >= 5
    for figure in figures:
        assert re.match(
            r'<svg [^>]*role="img" aria-label="[^"]{20,}"|<svg [^>]*aria-label="[^"]{20,}" role="img"', figure
        )
    ids = re.findall(r'\bid="([^"]+)"', study.html)
    assert len(ids) == len({*ids})
    assert "<th>" not in study.html
    assert study.html.count('<th scope="col"') == sum(len(table[0]) for table in tables_of(study.html))
    assert "<script" not in study.html


def test_every_figure_is_inside_its_box(visit, study):
    page = visit(study.out / "report.html")
    svgs = page.locator("svg.figure").all()
    for svg in svgs:
        box = svg.bounding_box()
        for text in svg.locator("text").all():
            inner = text.bounding_box()
            assert box["x"] - 2 <= inner["x"]
            assert inner["x"] + inner["width"] <= box["x"] + box["width"] + 2
    assert page.said == []


def test_numbers_of_documents_are_those_of_the_windows(trained):
    """The synthetic languages of these tests have a window a document, as their floors ask for."""
    for run in trained:
        assert run.metadata["val_tokens"] == T * run.metadata["val_documents"]
        assert shown(run.metadata["vocab_size"]) == "261"


def test_a_study_may_ask_for_every_section_and_for_no_other():
    assert {*SECTIONS} == {*study_file.SECTIONS}


def test_too_few_seeds_are_no_interval_that_contains_0_and_a_turned_language_is_no_language_of_its_own(
    trained, tmp_path
):
    runs = [run for run in trained if run.axes["seed"] == 0]
    compare(tmp_path, runs)
    floors = FLOORS | {"turned": FLOORS["map"]}
    corpora = {"corpora": {"turned": {"turned": "map"}}}
    report = Study(tmp_path, study_result(runs, ["floors", "gap"], floors=floors, study=corpora))
    assert "Nulls whose 95% interval of the gap contains 0: 0 of 1 (too few seeds in 1)." in report.text
    assert {row["group"] for row in report.table("floor (nats/token)")} == {"coins", "map"}
    assert "Whether the gap is 0 cannot be told" in report.text


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
