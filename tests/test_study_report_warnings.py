"""A study's report says what its comparison warns of about pairs of runs: each once, with how many it concerns."""

from pathlib import Path
from typing import Any

from helpers.reported_studies import ORDERS, SEEDS, made_up
from helpers.small_study import compare, study_result
from helpers.study_pages import Study

NOTE = "eval_batches=1 covers 8 of the 90 windows of the validation set, the same first ones each time"
COMMITS = {order: (number + "0123456789") * 3 + "0123456" for order, number in zip(ORDERS, "ab", strict=True)}


def report(root: Path, metadata: Any) -> Study:
    """The report of two corpora, three seeds each; `metadata` gives that of a run by its axes."""
    made = [
        made_up(
            root / "runs",
            {"corpus": corpus, "order": order, "seed": seed},
            4.0 + 0.01 * (order == "backward") + 0.001 * seed,
            data_fingerprint=corpus,
            **metadata(corpus, order, seed),
        )
        for corpus in ("english", "french")
        for order in ORDERS
        for seed in SEEDS
    ]
    compare(root / "out", made)
    return Study(root / "out", study_result(made, ["gap"]))


def test_warnings_of_all_pairs_are_one_line_without_folders(tmp_path: Path):
    found = report(tmp_path, lambda _, order, __: {"git_commit": COMMITS[order], "notes": [NOTE]})
    commits = [COMMITS[order][:12] for order in ORDERS]
    line = f"All groups: forward and backward have git_commit={commits[0]} against {commits[1]} (6 of 6 pairs)"
    for text in (found.text, found.markdown.replace("\\", "")):
        assert text.count("git_commit=") == 1
        assert line in text
        assert text.count(NOTE) == 1
        assert f"All groups: {NOTE} (6 of 6 pairs)" in text


def test_warnings_of_some_pairs_name_the_group_and_count_them(tmp_path: Path):
    def metadata(corpus: str, order: str, seed: int) -> dict[str, Any]:
        if (corpus, order) != ("english", "backward") or seed == 0:
            return {}
        return {"versions": {"torch": f"2.8.{seed}"}, "world_size": 2, "notes": [NOTE]}

    text = report(tmp_path, metadata).text
    differing = "forward and backward have world_size=1 against 2, versions.torch=2.7.0 against 2.8.1"
    assert f"english: {differing}; others have other values (2 in all) (2 of 3 pairs)" in text
    assert f"english: backward: {NOTE} (2 of 3 pairs)" in text
    assert "french: " not in text


def test_many_differences_are_counted(tmp_path: Path):
    versions = {f"library{number}": "1" for number in range(9)}
    text = report(tmp_path, lambda _, order, __: {"versions": versions} if order == "backward" else {}).text
    assert "have versions.torch=2.7.0 against absent, versions.library0=absent against 1" in text
    assert "library2=absent against 1, 6 more (6 of 6 pairs)" in text


def test_runs_that_differ_in_nothing_are_warned_of_by_nothing(tmp_path: Path):
    assert " pairs)" not in report(tmp_path, lambda *_: {}).text
