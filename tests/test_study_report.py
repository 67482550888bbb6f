"""The page of a study: its words, its looks, and that it is the same as Markdown and in each start."""

import copy
import csv
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
from helpers.browser import IN_ATTRIBUTE, PHONE, PLANTED
from helpers.reported_studies import FLOORS, ORDERS, SEEDS, made_up
from helpers.small_study import compare, study_result
from helpers.study_pages import (
    Study,
    assert_shown,
    markdown_tables,
    plain,
    tables_of,
    text_of,
)
from helpers.training_runs import by_step

from hindsight.analysis.page import FOOTER, escaped
from hindsight.errors import InputError
from hindsight.studies import study_file
from hindsight.studies.results import RunResult
from hindsight.studies.study_report import MOST_SAID, SECTIONS, write_study_report


def test_the_first_words_are_the_answer_and_each_group_has_its_verdict(small_study):
    comparison = json.loads((small_study.out / "comparison" / "comparison.json").read_text())
    for group in comparison["groups"]:
        assert group["verdict"].replace(" -", " \u2212") in small_study.text
    assert small_study.text.index("nulls show no gap and backward is harder in") < 200
    assert small_study.html.index("<svg") < small_study.html.index('id="runs"') < small_study.html.index('id="floors"')


def of_groups(root: Path, gaps: Sequence[float]) -> Study:
    """A study of so many corpora with such gaps, in nats, and a loss of 4 nats forward."""
    runs = [
        made_up(
            root / "runs",
            {"corpus": f"text{i}", "order": order, "seed": seed},
            4.0 + (gap + 0.001 * seed) * (order == "backward"),
            data_fingerprint=f"text{i}",
        )
        for i, gap in enumerate(gaps)
        for order in ORDERS
        for seed in SEEDS
    ]
    compare(root, runs)
    return Study(root, study_result(runs, ["gap"]))


def test_the_headline_names_two_gaps_and_counts_more(tmp_path):
    two = of_groups(tmp_path / "two", [0.039, -0.041])
    # Gaps of 0.039, 0.040 and 0.041 nats of 4: 1% in the mean, and 4.303 * 0.001 / sqrt(3) / 4 = 0.062% on either side.
    said = "Backward is harder in 1 of 2 groups and easier in 1, after Holm's correction: "
    assert two.text.index(f"{said}text0 +1.000% ± 0.062, text1 \u22121.000% ± 0.062.") < 200
    three = of_groups(tmp_path / "three", [0.039, 0.039, -0.001])
    assert three.text.index("Backward is harder in 2 of 3 groups, after Holm's correction.") < 200
    said = "Backward is harder in 2 of 3 groups, easier in 0, not told apart in 1, by their own intervals; "
    assert f"{said}after Holm's correction harder in 2, easier in 0." in three.text


def test_groups_have_sentences_while_they_are_few_and_the_table_tells_of_all(tmp_path):
    for n, times in ((MOST_SAID, MOST_SAID), (MOST_SAID + 1, 0)):
        report = of_groups(tmp_path / str(n), [*[0.039] * (n - 1), -0.041])
        assert report.text.count("(3 seeds); the null is") == times
        rows = report.table("null (%)")
        assert [row["the order is"] for row in rows] == [*["harder"] * (n - 1), "easier"]


def test_all_runs_are_listed_with_state_step_and_losses_and_in_csv_with_all_digits(small_study, study_runs):
    rows = {(row["run"], row["part"]): row for row in small_study.table("state")}
    assert len(rows) == len(study_runs)
    with (small_study.out / "runs.csv").open(newline="") as file:
        lines = [*csv.DictReader(file)]
    for run, line in zip(study_runs, lines, strict=True):
        row = rows[run.name, "sweep of rates" if run.is_sweep else "study"]
        loss = [*by_step(Path(run.folder), "eval/loss_nats").values()][-1]
        n = 4 if run.is_sweep else 8
        assert (row["state"], row["step"]) == ("done", f"{n} of {n}")
        assert_shown(row["loss (nats/token)"], loss)
        assert float(line["loss_nats"]) == loss
        assert (line["run"], line["seed"], line["folder"]) == (run.name, str(run.axes["seed"]), run.folder)
        assert line["commands"] == run.commands[0]
        assert line["git_commit"] == run.metadata["git_commit"]


def test_how_it_was_made_can_be_repeated(small_study, study_runs):
    made = small_study.text[small_study.text.index("How it was made") :]
    for run in study_runs:
        assert run.commands[0] in made
    assert study_runs[0].metadata["git_commit"] in made
    assert study_runs[0].metadata["versions.torch"] in made
    shared = {row["setting"]: row["value"] for row in small_study.table("setting")}
    assert shared["model.d_model"] == "16"
    differing = small_study.table("data.path")
    assert {"data.path", "optim.lr", "max_duration"} <= {*differing[0]}
    assert "batch_size" in shared
    assert "batch_size" not in differing[0]


def test_a_report_of_a_part_of_the_runs_says_so_and_names_the_rest(context_runs, tmp_path):
    runs = copy.deepcopy(context_runs)
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


def test_one_pair_has_no_interval_and_the_page_says_so(context_runs, tmp_path):
    runs = [run for run in context_runs if run.axes["seed"] == 0 and run.axes["corpus"] == "french"][:2]
    compare(tmp_path / "out", runs)
    report = Study(tmp_path / "out", study_result(runs, ["gap", "null"]))
    assert report.text.index("one pair says nothing about direction") < 200
    assert "There is no interval for fewer than 3 seeds" in report.text
    assert "the null is not known" in report.text


def test_a_section_that_there_is_none_of_is_refused(context_runs, tmp_path):
    with pytest.raises(InputError, match="report: gaps is no section; choose from gap, curves"):
        write_study_report(tmp_path / "out", study_result(context_runs, ["gaps"]))


def test_a_damaged_comparison_is_refused(context_runs, tmp_path):
    (tmp_path / "comparison").mkdir()
    (tmp_path / "comparison" / "comparison.json").write_text("{")
    with pytest.raises(InputError, match=r"comparison\.json is damaged"):
        write_study_report(tmp_path, study_result(context_runs, ["gap"]))


def test_a_comparison_of_other_runs_or_steps_is_not_reported(small_study, tmp_path):
    comparison = json.loads((small_study.out / "comparison" / "comparison.json").read_text())
    place = tmp_path / "comparison" / "comparison.json"
    place.parent.mkdir()
    verdicts: list[str] = []
    for changed in ({}, {"step": comparison["runs"][0]["step"] + 1}, {"folder": "runs/gone"}):
        place.write_text(json.dumps(comparison | {"runs": [comparison["runs"][0] | changed, *comparison["runs"][1:]]}))
        verdicts.append(text_of(Study(tmp_path, copy.deepcopy(small_study.result)).html))
    assert verdicts[0] == text_of(small_study.html)
    assert verdicts[1] == verdicts[2] != verdicts[0]


def test_markdown_and_page_say_the_same(small_study):
    assert markdown_tables(small_study.markdown) == tables_of(small_study.html)
    text = text_of(small_study.html)
    body = re.sub(r"!\[.*?\]\(.*?\)|\[(.*?)\]\(.*?\)", r"\1", small_study.markdown)
    for line in body.splitlines():
        said = plain(re.sub(r"^(#+|[->])\s|\*\*|^\*|\*$", "", line)).removeprefix("Note: ").strip(":")
        if not line.startswith(("|", "`", FOOTER)) and said:
            assert " ".join(said.split()) in text.replace(" :", ":"), line


def test_the_same_result_gives_the_same_bytes_but_for_the_footer(small_study, tmp_path):
    later = copy.deepcopy(small_study.result)
    later.provenance = {"date": "2027-05-06", "machine": {"cpus": 64}, "wall_time_s": 12.5}
    for run in later.runs:
        run.tokens_per_second = 7.0
    (tmp_path / "comparison").mkdir()
    (tmp_path / "comparison" / "comparison.json").write_bytes(
        (small_study.out / "comparison" / "comparison.json").read_bytes()
    )
    again = Study(tmp_path, later)
    for path in small_study.written:
        name = path.relative_to(small_study.out)
        one, other = path.read_bytes(), (tmp_path / name).read_bytes()
        if name.suffix in (".html", ".md"):
            mark = b"<footer" if name.suffix == ".html" else f"\n{FOOTER}\n".encode()
            assert one != other
            one, other = one.split(mark)[0], other.split(mark)[0]
        assert one == other, name
    assert "2027-05-06" in again.html.split("<footer")[1]
    assert "machine: cpus 64" in again.markdown.split(f"\n{FOOTER}\n")[1]


def test_figures_of_an_earlier_report_are_removed_and_no_other_file(small_study, context_runs, tmp_path):
    (tmp_path / "figures").mkdir()
    for name in ("curves7.png", "gap_against_size.pdf", "mine.png", "curves.svg"):
        (tmp_path / "figures" / name).write_text("x")
    write_study_report(tmp_path, study_result(context_runs, ["curves"]))
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {"curves.png", "curves.pdf", "mine.png", "curves.svg"}


HOSTILE = f"{PLANTED}{IN_ATTRIBUTE} | *b* _i_ `c` [a](javascript:x) $x$ \u202e\n# h"


@pytest.fixture(scope="module")
def hostile(study_runs, small_study, tmp_path_factory) -> Study:
    """The same small_study, in which all that people name holds what HTML or Markdown would obey."""
    out = tmp_path_factory.mktemp("hostile")
    results = [RunResult(**copy.deepcopy(asdict(run))) for run in study_runs]
    for run in results:
        run.axes["corpus"] = HOSTILE + run.axes["corpus"]
        run.settings["data.path"] = run.metadata["git_commit"] = HOSTILE
        run.commands = [f"python x.py ```` {HOSTILE}"]
        run.error = HOSTILE
    results[0].state = "failed"
    floors = {HOSTILE + name: {**of, "derivation": HOSTILE, "kind": HOSTILE} for name, of in FLOORS.items()}
    data = {HOSTILE: {"corpus": HOSTILE, "commands": [HOSTILE], HOSTILE: HOSTILE}}
    published = [{"label": HOSTILE, "percent": 1.0, "if": {"corpus": f"{HOSTILE}map"}}]
    comparison = json.loads((small_study.out / "comparison" / "comparison.json").read_text())
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


@pytest.mark.parametrize("name", ["small_study", "hostile"])
def test_a_phone_shows_the_page_without_scrolling_sideways(visit, name, request):
    page = visit(request.getfixturevalue(name).out / "report.html", viewport=PHONE)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_figures_have_a_text_in_their_place_tables_headers_and_ids_are_unique(small_study):
    figures = re.findall(r"<svg.*?</svg>", small_study.html, re.DOTALL)
    assert len(figures) >= 5
    for figure in figures:
        assert re.match(
            r'<svg [^>]*role="img" aria-label="[^"]{20,}"|<svg [^>]*aria-label="[^"]{20,}" role="img"', figure
        )
    ids = re.findall(r'\bid="([^"]+)"', small_study.html)
    assert len(ids) == len({*ids})
    assert "<th>" not in small_study.html
    assert small_study.html.count('<th scope="col"') == sum(len(table[0]) for table in tables_of(small_study.html))
    assert "<script" not in small_study.html


def test_every_figure_is_inside_its_box(visit, small_study):
    page = visit(small_study.out / "report.html")
    svgs = page.locator("svg.figure").all()
    for svg in svgs:
        box = svg.bounding_box()
        for text in svg.locator("text").all():
            inner = text.bounding_box()
            assert box["x"] - 2 <= inner["x"]
            assert inner["x"] + inner["width"] <= box["x"] + box["width"] + 2
    assert page.said == []


def test_a_study_may_ask_for_every_section_and_for_no_other():
    assert {*SECTIONS} == {*study_file.SECTIONS}
