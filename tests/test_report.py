"""report.html in a real browser, and the figures and tables beside it."""

import csv
import json
import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers.browser import IN_ATTRIBUTE, PHONE, PLANTED
from helpers.comparisons import make_comparison
from helpers.small_data import make_text
from helpers.token_files import write_group

from hindsight.analysis.cuts import cuts_of_groups
from hindsight.analysis.figure_style import GAP, MUTED, ORDER, REFERENCE
from hindsight.analysis.figures import draw_group
from hindsight.analysis.html_report import write_report
from hindsight.analysis.tables import shown, tex_of


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A report with everything, in which all that people or corpora name holds a script."""
    root = tmp_path_factory.mktemp("report")
    documents = [f"{PLANTED} {IN_ATTRIBUTE} {text}" for text in make_text(n_documents=40, seed=1).split("\n\n")]
    write_group(root / "runs", documents)
    report = make_comparison(str(root / "runs"), names=[f"eltec {PLANTED} {IN_ATTRIBUTE} </title></svg>"])
    report["left_out"] = [f"runs/{PLANTED} has no evaluation yet"]
    report["groups"][0]["warnings"] = [f"few documents in {PLANTED}"]
    for run in report["runs"]:
        run["model"] = run["config"]["run_name"] = run["config"]["data.path"] = f"{PLANTED}{IN_ATTRIBUTE}"
        run["sample"] = {"step": 20, "prompt": PLANTED, "text": f"written\u202e by {PLANTED}"}
    write_report(root, report, cuts_of_groups(report))
    return root / "report.html"


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Three groups, of other sizes and contexts; one of a single pair; none with losses by token."""
    root = tmp_path_factory.mktemp("several")
    sizes: list[dict[str, Any]] = [
        {"n_parameters": 4_000_000},
        {"model.name": "gpt_medium", "n_parameters": 30_000_000},
        {"model.name": "gpt_large", "n_parameters": 124_000_000, "data.context_length": 512},
    ]
    write_report(root, make_comparison("runs", models=sizes))
    return root / "report.html"


def test_the_page_says_nothing_asks_for_nothing_and_draws_its_plots(visit, whole):
    page = visit(whole)
    boxes = [svg.bounding_box() for svg in page.locator("svg.figure").all()]
    assert len(boxes) == 9
    assert all(box["width"] > 250 and box["height"] > 120 for box in boxes)
    # Every axis has the names of its ticks, and inside its box.
    for svg, box in zip(page.locator("svg.figure").all(), boxes, strict=True):
        texts = [text.bounding_box() for text in svg.locator("text").all()]
        assert len(texts) > 5
        assert all(
            box["x"] - 2 <= text["x"] <= text["x"] + text["width"] <= box["x"] + box["width"] + 2 for text in texts
        )
    assert page.said == []
    assert page.asked == [whole.as_uri()]


def test_a_planted_script_does_nothing_and_is_shown_as_the_text_that_it_is(visit, whole):
    page = visit(whole)
    for token in page.locator(".passage [data-tip]").all()[:3]:
        token.hover()
    page.wait_for_timeout(100)
    assert page.title() == "How much harder is it to predict text backward than forward?"
    assert page.locator("script").count() == 1
    assert page.locator("img").count() == 0
    assert page.locator("[onerror], [onmouseover]").count() == 0
    text = page.locator("main").text_content()
    assert PLANTED in text
    assert "written\\u202e by" in text
    assert page.said == []


def test_the_policy_of_the_page_lets_no_other_script_run(visit, whole, tmp_path):
    html = whole.read_text()
    broken = tmp_path / "broken.html"
    broken.write_text(html.replace("<main>", f"<main>{PLANTED}", 1))
    page = visit(broken)
    page.wait_for_timeout(100)
    assert page.title() != "planted"
    assert any("Content Security Policy" in said for said in page.said)


def test_the_tooltip_shows_its_token_by_mouse_keyboard_and_touch(visit, whole):
    page = visit(whole)
    tokens, tip = page.locator(".passage").first.locator("[data-tip]"), page.locator("#tip")
    assert not tip.is_visible()
    tokens.nth(8).hover()
    assert tip.is_visible()
    lines = tip.inner_text().split("\n")
    assert lines[0].strip("“”").replace("␣", " ").replace("↵", "\n") == tokens.nth(8).text_content()
    assert re.fullmatch(r"forward: \d\.\d+ nats; ranks [\d, ]+; context \d+", lines[1])
    assert lines[2].startswith("backward: ")
    assert lines[3].startswith("backward \u2212 forward: ")
    page.locator("h1").hover()
    assert not tip.is_visible()

    tokens.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(100)
    assert tip.inner_text() == tokens.nth(2).get_attribute("data-tip")
    box, token = tip.bounding_box(), tokens.nth(2).bounding_box()
    assert box["y"] >= token["y"] + token["height"] or box["y"] + box["height"] <= token["y"]
    page.keyboard.press("Escape")
    assert not tip.is_visible()

    phone = visit(whole, viewport=PHONE, has_touch=True, is_mobile=True)
    phone.locator(".passage").first.locator("[data-tip]").nth(5).tap()
    assert phone.locator("#tip").inner_text() == tokens.nth(5).get_attribute("data-tip")
    assert phone.locator("#tip").bounding_box()["x"] >= 0
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("name", ["whole", "several"])
def test_a_phone_shows_the_page_without_scrolling_sideways_its_tables_opened(visit, name, request):
    page = visit(request.getfixturevalue(name), viewport=PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    sizes = page.evaluate(
        "[...document.querySelectorAll('svg text')].map((text) => parseFloat(getComputedStyle(text).fontSize)"
        " * text.ownerSVGElement.getBoundingClientRect().width / text.ownerSVGElement.viewBox.baseVal.width)"
    )
    assert min(sizes) >= 9


def luminance(color: tuple[int, ...]) -> float:
    parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_series_stand_out_from_the_page_light_and_dark(visit, whole, scheme):
    page = visit(whole, color_scheme=scheme)

    def color(selector: str, what: str) -> tuple[int, ...]:
        script = f"getComputedStyle(document.querySelector({json.dumps(selector)})).{what}"
        return tuple(map(int, re.findall(r"\d+", page.evaluate(script))[:3]))

    paper = color("body", "backgroundColor")
    assert (luminance(paper) > 0.5) == (scheme == "light")
    for selector, what in (("body", "color"), ("figcaption", "color"), ("svg.figure text", "fill")):
        assert contrast(color(selector, what), paper) >= 4.5, selector
    for series in (REFERENCE, ORDER, GAP, MUTED):
        assert contrast(tuple(bytes.fromhex(series[1:])), paper) >= 3, series


def test_ids_are_unique_and_every_reference_of_a_figure_leads_to_one_of_its_own(several, whole):
    for page in (several, whole):
        html = page.read_text()
        ids = re.findall(r'\bid="([^"]+)"', html)
        assert len(ids) == len({*ids})
        figures = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
        for figure in figures:
            ElementTree.fromstring(figure)  # noqa: S314 - made by the fixtures
            own = {*re.findall(r'\bid="([^"]+)"', figure)}
            assert {*re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', figure)} <= {
                pair for each in own for pair in ((each, ""), ("", each))
            }
        assert len(figures) == (9 if page is whole else 8)
        assert "<style" not in "".join(figures)


def test_of_several_groups_the_verdicts_come_first_and_each_has_a_section(visit, several):
    page = visit(several)
    text = page.locator("main").inner_text()
    assert page.locator("section").count() == 3
    assert page.locator("table").first.locator("tbody tr").count() == 3
    assert text.index("Backward is harder in") < text.index("p (Holm)") < text.index("How it was measured")
    assert "Mean over 3 groups, gpt_small, backward against forward: +0.7100%, 95% interval by t over groups" in text
    assert "python evaluate_tokens.py run=runs/0/forward-0" in text
    assert page.said == []


def test_one_pair_has_no_interval_and_the_page_says_so(visit, tmp_path):
    write_report(tmp_path, make_comparison("runs", seeds=[7]))
    text = visit(tmp_path / "report.html").locator("main").inner_text()
    assert text.index("one pair says nothing about direction") < 200
    assert "with fewer than 3 seeds there is no interval" in text


def test_curves_have_every_step_though_seeds_differ_in_their_tokens_by_a_few():
    report = make_comparison("runs")
    runs = {(run["folder"], run["direction"]): run for run in report["runs"]}
    assert len({line["tokens"] for run in report["runs"] for line in run["evaluations"]}) > 20
    _, curves = draw_group(report["groups"][0], runs)
    shown_points = [np.size(line.get_xdata()) for axes in curves.figure.axes for line in axes.lines]
    assert shown_points.count(20) == 3  # both orders and their gap


def test_the_same_report_is_written_byte_for_byte(tmp_path):
    report = make_comparison("runs")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        written = write_report(tmp_path / name, report)
    names = [path.relative_to(tmp_path / "two") for path in written]
    assert {"report.html", "figures/gap-seeds.png", "figures/gap-curves.pdf", "tables/runs.tex"} <= {*map(str, names)}
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_a_page_of_many_groups_stays_below_its_limit(tmp_path, monkeypatch, whole):
    assert whole.stat().st_size < 5_000_000
    write_group(tmp_path / "runs", make_text(n_documents=20, seed=1).split("\n\n"), seeds=[0])
    report = make_comparison(str(tmp_path / "runs"), seeds=[0])
    monkeypatch.setattr("hindsight.analysis.html_report.MAX_BYTES", 100_000)
    write_report(tmp_path, report, cuts_of_groups(report))
    assert (tmp_path / "report.html").stat().st_size < 100_000
    assert "This page is full" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "figures" / "gap-context.pdf").exists()


def test_tables_hold_the_same_rows_in_every_format_and_compute_nothing(tmp_path):
    write_group(tmp_path / "runs", make_text(n_documents=20, seed=1).split("\n\n"))
    report = make_comparison(str(tmp_path / "runs"), names=["=1+1 & 50% of $x_1$"])
    write_report(tmp_path, report, cuts_of_groups(report))
    tables = tmp_path / "tables"
    names = {path.stem for path in tables.iterdir()}
    cuts = {"context", "window_place", "document_place", "frequency", "class", "document"}
    assert names == {"groups", "runs", *(f"cut_{name}" for name in cuts | {"left_out", "tokens", "passages"})}
    for name in names:
        with (tables / f"{name}.csv").open(newline="") as file:
            rows = [*csv.DictReader(file)]
        of_json = json.loads((tables / f"{name}.json").read_text())
        assert len(rows) == len(of_json) > 0
        assert (tables / f"{name}.tex").read_text().count(r"\\") == len(rows) + 1
    with (tables / "groups.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert row["name"] == "'=1+1 & 50% of $x_1$"
    assert float(row["gap_nats"]) == report["groups"][0]["gap"]["mean_nats"]
    assert r"=1+1 \& 50\% of \$x\_1\$" in (tables / "groups.tex").read_text()
    contributions = [row["contribution_nats"] for row in json.loads((tables / "cut_class.json").read_text())]
    assert min(contributions) < 0 or max(contributions) > 0
    assert not re.search(r"(^|,)[=+@]", (tables / "cut_tokens.csv").read_text(), re.MULTILINE)


def test_latex_escapes_what_it_would_obey():
    text = tex_of([{"a": r"\input{x}", "b": -0.5}, {"a": "#~^<|>", "b": None}], {"a": "A & B", "b": "c"})
    assert r"\textbackslash{}input\{x\} & $-$0.5000 \\" in text
    assert r"\#\textasciitilde{}\textasciicircum{}\textless{}\textbar{}\textgreater{}" in text
    assert r"\begin{tabular}{lr}" in text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.034912, "0.03491"),
        (-1.23456, "\u22121.235"),
        (9.99996, "10.00"),
        (123456.7, "123,500"),
        (1e-9, "1.000e\u221209"),
        (53203, "53,203"),
        (None, "\u2013"),
        (float("nan"), "\u2013"),
        (True, "yes"),
        ("a\x1b[2J", "a\\x1b[2J"),
    ],
)
def test_numbers_are_shown_with_four_significant_digits(value, expected):
    assert shown(value) == expected
