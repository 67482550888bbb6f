import csv
import json
import logging
import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.processes import run_command
from helpers.recorded_runs import make_pair, make_run

from compare_directions import main
from hindsight.analysis.given_runs import find_runs
from hindsight.analysis.pairs import differences, pair_runs
from hindsight.analysis.recorded import read_run
from hindsight.command_line import run_script
from hindsight.config.comparison import CompareConfig
from hindsight.errors import InputError
from hindsight.json_lines import read_records


def compare(folders: list[Path], out: Path) -> dict[str, Any]:
    main(CompareConfig(runs=[str(folder) for folder in folders], out=str(out), report=False))
    return json.loads((out / "comparison.json").read_text())


def refusal(*folders: Path) -> str:
    """Why the first of some runs is left out of a comparison, or all are refused."""
    try:
        return pair_runs([read_run(folder) for folder in folders])[1][0]
    except InputError as error:
        return str(error)


def test_the_gap_is_that_of_both_definitions(tmp_path):
    [pair] = compare(make_pair(tmp_path, losses=(4.0, 4.1)), tmp_path / "out")["pairs"]
    assert pair["gap_nats"] == pytest.approx(0.1)
    assert pair["gap_bits_per_byte"] == pytest.approx(0.05)
    assert pair["gap_over_forward_percent"] == pytest.approx(2.5)
    assert pair["gap_over_mean_percent"] == pytest.approx(10 / 4.05)


def test_the_gap_is_negative_where_backward_is_easier(tmp_path):
    [pair] = compare(make_pair(tmp_path, losses=(5.0, 4.0)), tmp_path / "out")["pairs"]
    assert pair["gap_over_forward_percent"] == pytest.approx(-20)
    assert pair["gap_over_mean_percent"] == pytest.approx(-100 / 4.5)


def test_seeds_are_paired_whatever_their_order_and_averaged(tmp_path):
    first = make_pair(tmp_path, "seed=0", losses=(4.0, 4.1), suffix="0")
    second = make_pair(tmp_path, "seed=1", losses=(4.0, 4.3), suffix="1")
    result = compare([second[1], first[0], second[0], first[1]], tmp_path / "out")
    assert [(Path(p["forward"]).name, Path(p["backward"]).name) for p in result["pairs"]] == [
        ("fw1", "bw1"),
        ("fw0", "bw0"),
    ]
    [summary] = result["over_seeds"]
    assert summary["seeds"] == [1, 0]
    assert summary["mean"]["gap_over_forward_percent"] == pytest.approx(5)
    assert summary["std"]["gap_over_forward_percent"] == pytest.approx(statistics.stdev([2.5, 7.5]))


def test_different_models_are_paired_but_not_averaged(tmp_path):
    folders = make_pair(tmp_path, suffix="0") + make_pair(tmp_path, "model=gru_small", suffix="1")
    result = compare(folders, tmp_path / "out")
    assert [pair["pair"] for pair in result["pairs"]] == ["here gpt_demo seed 0", "here gru_small seed 0"]
    assert result["over_seeds"] == []


def test_pairs_of_the_same_data_model_and_seed_are_told_apart_by_what_they_differ_in(tmp_path):
    rates = ("0.003", "0.001")
    folders = [
        folder
        for rate in rates
        for seed in (0, 1)
        for folder in make_pair(tmp_path / rate / str(seed), f"optim.lr={rate}", f"seed={seed}")
    ]
    result = compare(folders, tmp_path / "out")
    assert [pair["pair"] for pair in result["pairs"]] == [
        f"here gpt_demo optim.lr={rate} seed {seed}" for rate in rates for seed in (0, 1)
    ]
    assert [group["model"] for group in result["over_seeds"]] == [f"gpt_demo optim.lr={rate}" for rate in rates]


def corpus_pair(root: Path, path: str, fingerprint: str, *overrides: str) -> list[Path]:
    """A pair that was trained on the data of a fingerprint, in a folder of its own."""
    return [
        make_run(root / direction, direction, [4.0], f"data.path={path}", *overrides, data_fingerprint=fingerprint)
        for direction in ("forward", "backward")
    ]


def test_pairs_of_several_corpora_are_named_by_their_data_in_table_csv_json_and_plot(tmp_path, caplog, monkeypatch):
    drawn = []
    monkeypatch.setattr("compare_directions.draw_comparison", lambda report: drawn.append(report) or b"")
    caplog.set_level(logging.INFO, logger="hindsight")
    paths = ["data/eng", "data/fra", "mine/eng", "s3://bucket/rus"]
    folders = [run for i, path in enumerate(paths) for run in corpus_pair(tmp_path / str(i), path, f"d{i}")]
    compare(folders, tmp_path / "out")
    names = ["data/eng", "fra", "mine/eng", "rus"]
    labels = [f"{name} gpt_demo seed 0" for name in names]
    assert [pair["pair"] for pair in drawn[0]["pairs"]] == labels
    assert [pair["data"] for pair in drawn[0]["pairs"]] == names
    rows = list(csv.DictReader((tmp_path / "out" / "comparison.csv").read_text().splitlines()))
    assert [row["data"] for row in rows][::2] == names
    assert [row["direction"] for row in rows] == ["forward", "backward"] * 4
    for label in labels:
        assert f"{label}: unigram entropy 6.2500 nats/token" in caplog.text
        assert f"{label} " in caplog.text.split("gap: backward minus forward")[1]


def test_the_same_data_has_one_name_wherever_it_lies_and_data_made_anew_another(tmp_path):
    runs = [
        make_run(tmp_path / "a", "forward", [4.0], "data.path=/scratch/x/eng"),
        make_run(tmp_path / "b", "backward", [4.1], "data.path=data/eng"),
        *corpus_pair(tmp_path / "c", "data/eng", "d1", "seed=1"),
        *corpus_pair(tmp_path / "d", "/scratch/x/eng", "0123456789abcdef", "seed=1"),
    ]
    names = [pair["data"] for pair in compare(runs, tmp_path / "out")["pairs"]]
    assert names == ["eng (d1)", "eng (d1)", "eng (01234567)"]


def test_other_validation_data_is_part_of_the_name(tmp_path):
    pairs = corpus_pair(tmp_path / "a", "data/eng", "d1+v1", "data.val_path=data/fra")
    pairs += corpus_pair(tmp_path / "b", "data/eng", "d1")
    names = [pair["data"] for pair in compare(pairs, tmp_path / "out")["pairs"]]
    assert names == ["eng + fra", "eng"]


@pytest.mark.parametrize("model", ["gpt_demo", "gru_small"])
def test_a_run_that_is_older_than_some_keys_is_paired_and_named_as_if_it_had_them(tmp_path, model):
    for seed, both in ((0, True), (1, False)):
        make_pair(tmp_path, f"model={model}", f"seed={seed}", suffix=str(seed))
        path = tmp_path / f"fw{seed}" / "config.yaml"
        tree = yaml.safe_load(path.read_text())
        for group, key in (("model", "tied_head"), ("model", "init"), ("model", "final_norm"), ("optim", "clip")):
            tree[group].pop(key, None)
        path.write_text(yaml.safe_dump(tree))
        if both:
            (tmp_path / f"bw{seed}" / "config.yaml").write_text(yaml.safe_dump(tree | {"direction": "backward"}))
    result = compare([tmp_path / name for name in ("fw0", "bw0", "fw1", "bw1")], tmp_path / "out")
    assert [pair["pair"] for pair in result["pairs"]] == [f"here {model} seed 0", f"here {model} seed 1"]
    assert [len(pair["warnings"]) for pair in result["pairs"]] == [0, 0]
    assert [group["seeds"] for group in result["over_seeds"]] == [[0, 1]]
    kept = {key for key in read_run(tmp_path / "fw0").config if key.startswith("model.")}
    assert ("model.cell" in kept) is (model == "gru_small")
    assert ("model.init" in kept) is (model != "gru_small")


def test_a_run_that_is_older_than_loss_computed_it_plain(tmp_path):
    folders = make_pair(tmp_path)
    warnings = []
    for folder in folders:
        tree = yaml.safe_load((folder / "config.yaml").read_text())
        assert tree.pop("loss") == "auto"
        (folder / "config.yaml").write_text(yaml.safe_dump(tree))
        assert read_run(folder).config["loss"] == "plain"
        warnings.append(compare(folders, tmp_path / f"out-{folder.name}")["pairs"][0]["warnings"])
    (line,), none = warnings
    assert "loss=plain against auto" in line
    assert none == []


def test_a_value_that_is_not_the_default_of_a_younger_key_still_counts(tmp_path):
    forward = make_run(tmp_path / "fw", "forward", [4.0])
    tree = yaml.safe_load((forward / "config.yaml").read_text())
    del tree["model"]["activation"]
    (forward / "config.yaml").write_text(yaml.safe_dump(tree))
    backward = make_run(tmp_path / "bw", "backward", [4.1], "model.activation=gelu")
    assert "with model.activation=gelu_tanh against gelu;" in refusal(forward, backward)


def plan(*stretches: tuple[int, int, str, float]) -> list[dict[str, Any]]:
    return [dict(zip(("after", "until", "how", "lr"), each, strict=True)) for each in stretches]


WHOLE = (0, 20, "continue", 0.0)
FREE = ("optim.schedule=constant", "optim.cooldown_share=0", "optim.lr=0.001")


@pytest.mark.parametrize(
    ("lr_plan", "overrides", "difference"),
    [
        ([(0, 8, "continue", 0.0), (8, 20, "rewarm", 0.0)], (), "longer at step 8 (rewarm, 8 to 20 steps)"),
        ([(0, 40, "continue", 0.0), (8, 20, "continue", 1e-4)], (), "shorter at step 8 (continue, 40 to 20 steps)"),
        ([(0, 8, "continue", 0.0), (8, 20, "constant", 5e-4)], FREE, "longer at step 8 (constant, 8 to 20 steps)"),
        ([WHOLE], (), ""),
        ([WHOLE, (20, 40, "continue", 0.0)], (), ""),  # after the last evaluation
        ([(0, 8, "continue", 0.0), (8, 20, "continue", 1e-3)], FREE, ""),
        ([(0, 8, "continue", 0.0), (8, 20, "constant", 1e-3)], FREE, ""),
        ([(0, 8, "continue", 0.0), (8, 20, "continue", 1e-4)], ("optim.schedule=inverse_sqrt",), ""),
    ],
)
def test_runs_with_other_learning_rates_after_a_change_of_length_are_no_pair(tmp_path, lr_plan, overrides, difference):
    changed = make_run(tmp_path / "fw", "forward", [4.0, 4.0], *overrides, lr_plan=plan(*lr_plan))
    whole = make_run(tmp_path / "bw", "backward", [4.0, 4.1], *overrides, lr_plan=plan(WHOLE))
    twin = make_run(tmp_path / "twin", "backward", [4.0, 4.1], *overrides, lr_plan=plan(*lr_plan))
    earlier = make_run(tmp_path / "earlier", "backward", [4.0, 4.1], *overrides)  # of a version without plans
    assert len(pair_runs([read_run(changed), read_run(twin)])[0]) == 1
    for other in (whole, earlier):
        pairs, left_out = pair_runs([read_run(changed), read_run(other)])
        assert len(pairs) == (difference == "")
        if difference:
            assert f"with lr_plan=made {difference} against never; a pair differs" in left_out[0]
        else:
            assert pairs[0].warnings() == []


def test_a_run_that_is_in_no_group_is_told_and_left_out(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="hindsight")
    pair = make_pair(tmp_path)
    lonely = make_run(tmp_path / "lonely", "forward", [4.0, 4.0], "seed=2", "optim.lr=0.0007")
    counts = make_run(tmp_path / "counts", "forward", [4.0, 4.0], "seed=2")
    young = make_run(tmp_path / "young", "forward", [], "seed=3")
    short = [make_run(tmp_path / d, d, [4.0] * n, "seed=4") for d, n in (("forward", 1), ("backward", 2))]
    result = compare([*pair, lonely, counts, young, *short], tmp_path / "out")
    assert [each["forward"] for each in result["pairs"]] == [str(pair[0])]
    assert len(result["left_out"]) == 3
    assert result["groups"][0]["runs"]["forward"] == {"0": str(pair[0]), "2": str(counts)}
    said = " ".join(caplog.text.split())
    assert f"Left out: {lonely} (direction=forward) has no twin" in said
    assert f"Left out: {young} has no evaluation yet" in said
    assert f"Left out: {short[0]} was last evaluated at step 10, {short[1]} at step 20" in said


def test_a_folder_of_runs_and_a_pattern_mean_their_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pairs = [*make_pair(tmp_path / "runs" / "a"), *make_pair(tmp_path / "runs" / "b", "seed=1")]
    (tmp_path / "runs" / ".sweep").mkdir()
    (tmp_path / "runs" / "comparison").mkdir()
    (tmp_path / "runs" / "note").write_text("mine")
    found = sorted(pairs)
    assert [folder.resolve() for folder in find_runs(["runs"])] == found
    assert [folder.resolve() for folder in find_runs(["runs/*"])] == found
    assert [folder.resolve() for folder in find_runs(["runs/a/*", "runs/a/fw", "runs/b"])] == found
    for text, words in (("nowhere", "does not exist"), ("runs/comparison", "is no run and holds none")):
        with pytest.raises(InputError, match=words):
            find_runs([text])


@pytest.mark.parametrize(
    "given",
    [
        ["runs/fw", "runs/bw"],
        ["runs/fw", "runs/bw", "out=out"],
        ["runs=runs/*"],
        ["runs=runs/fw", "runs=runs/bw"],
        ["runs=runs/fw", "runs/bw"],
        ["runs=[runs/fw,runs/bw]"],
        ["runs=runs"],
        ["runs/lr=0.1,2/fw", "runs/bw"],
    ],
    ids=str,
)
def test_runs_can_be_given_as_a_shell_leaves_them(given, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pair = make_pair(tmp_path / "runs")
    if "lr=" in given[0]:
        (tmp_path / "runs" / "lr=0.1,2").mkdir()
        pair[0].rename(tmp_path / "runs" / "lr=0.1,2" / "fw")
    monkeypatch.setattr("sys.argv", ["compare_directions.py", *given])
    found = []
    run_script("compare_directions", lambda config: found.append(find_runs(config.runs)), alone="runs")
    assert sorted(folder.name for folder in found[0]) == ["bw", "fw"]


def test_folders_and_a_list_of_runs_are_not_both_taken(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["compare_directions.py", "runs/a", "runs=[runs/b]"])
    with pytest.raises(SystemExit):
        run_script("compare_directions", lambda _: None, alone="runs")
    assert "give one of the two" in capsys.readouterr().err


def test_the_screen_fits_80_columns_whatever_names_are_long(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="hindsight")
    long = "a_corpus_whose_name_is_as_long_as_names_of_corpora_get"
    folders = [
        folder
        for seed in (0, 1)
        for folder in make_pair(tmp_path / str(seed), f"seed={seed}", f"data.path=data/{long}", "model=llama_small")
    ]
    for folder in folders:
        text = {"step": 20, "prompt": "The", "text": "word " * 60}
        (folder / "samples.jsonl").write_text(json.dumps(text) + "\n")
    compare(folders, tmp_path / "out")
    shown = caplog.records[0].getMessage()
    assert long in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_cell_of_the_csv_is_no_formula_and_a_name_is_no_mathematics(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    compare(corpus_pair(Path("=1+1"), "'data/$x_{'", "d1"), tmp_path / "out")
    [row, _] = csv.DictReader((tmp_path / "out" / "comparison.csv").read_text().splitlines())
    assert row["folder"] == "'=1+1/forward"
    assert row["data"] == "$x_{"


def test_more_pairs_than_colors_are_drawn_in_different_ones(tmp_path):
    pairs = [run for seed in range(12) for run in make_pair(tmp_path / str(seed), f"seed={seed}")]
    compare(pairs, tmp_path / "out")
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("seed=1", "seed=0 against 1"),
        ("optim.lr=0.001", "optim.lr=0.002 against 0.001"),
        ("batch_size=64", "batch_size=8 against 64"),
        ("model.dropout=0.1", "model.dropout=0.0 against 0.1"),
        ("eval_batches=3", "eval_batches=None against 3"),
    ],
)
def test_runs_that_differ_in_more_than_direction_are_refused_with_the_key(tmp_path, override, difference):
    forward = make_run(tmp_path / "fw", "forward", [4.0])
    message = refusal(forward, make_run(tmp_path / "bw", "backward", [4.1], override))
    assert str(forward) in message
    assert f"{tmp_path / 'bw'}, with {difference};" in message


@pytest.mark.parametrize(
    ("metadata", "difference"),
    [
        ({"data_fingerprint": "d2"}, "other tokens in data.path=here, which was made anew between them"),
        ({"tokenizer_fingerprint": "t2"}, "another tokenizer, data.tokenizer=here/tokenizer"),
        ({"val_unigram_entropy_nats": 6.5}, "val_unigram_entropy_nats=6.25 against 6.5"),
    ],
)
def test_runs_on_different_data_are_refused(tmp_path, metadata, difference):
    forward = make_run(tmp_path / "fw", "forward", [4.0])
    assert f"with {difference};" in refusal(forward, make_run(tmp_path / "bw", "backward", [4.1], **metadata))


def test_other_data_is_told_by_its_paths_and_no_hash(tmp_path):
    forward = make_run(tmp_path / "fw", "forward", [4.0], "data.path=data/eng")
    backward = make_run(
        tmp_path / "bw", "backward", [4.1], "data.path=data/fra", data_fingerprint="d2", val_unigram_entropy_nats=6.5
    )
    assert "with data.path=data/eng against data/fra; a pair" in refusal(forward, backward)
    assert "d2" not in refusal(forward, backward)


def test_many_differences_are_counted(tmp_path):
    forward = make_run(tmp_path / "fw", "forward", [4.0])
    said = refusal(forward, make_run(tmp_path / "bw", "backward", [4.1], "model=llama_small", "optim.lr=0.1", "seed=5"))
    assert "more; a pair differs in direction only." in said


def test_the_closest_run_is_named(tmp_path):
    pair = make_pair(tmp_path, suffix="0")
    lonely = make_run(tmp_path / "lonely", "forward", [4.0, 4.0], "seed=2")
    assert f"{lonely} (direction=forward) has no twin" in refusal(*pair, lonely)
    assert f"{pair[1]}, with seed=2 against 0;" in refusal(*pair, lonely)


def test_two_runs_of_one_direction_are_refused(tmp_path):
    first = make_run(tmp_path / "a", "forward", [4.0])
    assert "direction=forward too, seed=0 against 1" in refusal(
        first, make_run(tmp_path / "b", "forward", [4.0], "seed=1")
    )


def test_of_the_same_run_twice_the_first_is_compared_and_the_other_left_out(tmp_path):
    pair, other = make_pair(tmp_path), make_pair(tmp_path, "seed=1", suffix="1")
    again = make_run(tmp_path / "again", "backward", [5.0, 4.2])
    result = compare([*pair, again, *other], tmp_path / "out")
    assert [each["backward"] for each in result["pairs"]] == [str(pair[1]), str(other[1])]
    [line] = result["left_out"]
    assert f"{pair[1]} and {again} are the same run twice: direction=backward" in line


def test_the_same_run_twice_and_no_twin_are_refused(tmp_path):
    forward = make_run(tmp_path / "fw", "forward", [4.0])
    pairs, left_out = pair_runs([read_run(forward), read_run(forward)])
    assert not pairs
    assert f"{forward} and {forward} are the same run twice" in left_out[0]
    assert "has no twin of the other direction among runs=; train one" in left_out[1]
    with pytest.raises(InputError, match="the same run twice"):
        compare([forward, make_run(tmp_path / "again", "forward", [4.0])], tmp_path / "out")


def test_last_evaluations_at_different_steps_are_refused(tmp_path):
    forward = make_run(tmp_path / "fw", "forward", [4.0])
    message = refusal(forward, make_run(tmp_path / "bw", "backward", [5.0, 4.1]))
    assert f"{forward} was last evaluated at step 10, {tmp_path / 'bw'} at step 20" in message


def test_a_run_without_an_evaluation_is_refused(tmp_path):
    folder = make_run(tmp_path / "fw", "forward", [])
    assert f"{folder} has no evaluation yet" in refusal(folder)


def test_a_run_that_diverged_is_refused(tmp_path):
    folder = make_run(tmp_path / "fw", "forward", [4.0, float("nan")])
    assert f"{folder} has eval/loss_nats=nan at step 20" in refusal(folder)


@pytest.mark.parametrize("name", ["config.yaml", "metadata.json", "metrics.jsonl"])
def test_a_missing_file_is_named(tmp_path, name):
    folder = make_run(tmp_path / "fw", "forward", [4.0])
    (folder / name).unlink()
    assert f"{folder / name} cannot be read" in refusal(folder)


def test_a_missing_folder_is_named(tmp_path):
    assert f"{tmp_path / 'absent'} does not exist" in refusal(tmp_path / "absent")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.yaml", "direction: [", "is damaged"),
        ("config.yaml", "seed: 0", "has no direction"),
        ("config.yaml", "{direction: sideways, seed: 0, model: {name: a}}", "direction=sideways"),
        ("metadata.json", '{"data_fingerprint": ', "is damaged"),
        ("metadata.json", "[]", "is damaged: it holds no keys"),
        ("metadata.json", "{}", "has no data_fingerprint"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content, words):
    folder = make_run(tmp_path / "fw", "forward", [4.0])
    (folder / name).write_text(content)
    assert str(folder / name) in refusal(folder)
    assert words in refusal(folder)


def test_a_last_line_cut_by_a_kill_is_ignored(tmp_path):
    folder = make_run(tmp_path / "fw", "forward", [4.0])
    before = read_run(folder)
    for name in ("metrics.jsonl", "samples.jsonl"):
        with (folder / name).open("ab") as file:
            file.write('{"step": 11, "text": "é'.encode()[:-1])
    assert read_run(folder) == before


def test_a_corrupt_line_in_the_middle_is_refused_with_its_number(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "tok\n{"step": 3}\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl, line 2 is no JSON object"):
        list(read_records(path))


def test_a_step_logged_twice_is_refused(tmp_path):
    folder = make_run(tmp_path / "fw", "forward", [4.0])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 10, "tokens": 640, "seconds": 1.0}\n')
    assert "must have a step in every line, each once" in refusal(folder)


def test_what_cannot_change_a_loss_may_differ(tmp_path):
    free = ["runs_dir=there", "wandb.mode=disabled", "tensorboard=true", "progress_bar=false", "log_interval=10"]
    free += ["samples.interval=null", "checkpoint.interval=5ba", "metrics=false", "data.num_workers=2"]
    free += ["data.path=there", "data.val_path=there", "data.tokenizer=there", "data.cache_dir=there"]
    free += ["data.cache_limit=20gb", "data.download_retry=9", "data.download_timeout_s=9", "train.more=500ba"]
    forward, backward = make_run(tmp_path / "fw", "forward", [4.0]), make_run(tmp_path / "bw", "backward", [4.1], *free)
    different = {text.split("=")[0] for text in differences(read_run(forward).config, read_run(backward).config)}
    assert different == {override.split("=")[0] for override in free} | {"run_name", "direction"}
    assert len(pair_runs([read_run(forward), read_run(backward)])[0]) == 1


def test_what_may_change_the_rounding_and_an_unfinished_run_are_warned_of(tmp_path):
    forward = make_run(tmp_path / "fw", "forward", [5.0, 4.0])
    changes = {"git_commit": "b2", "world_size": 2, "versions": {"torch": "2.8.0"}, "total_steps": 40}
    backward = make_run(tmp_path / "bw", "backward", [5.0, 4.1], "microbatch_size=8", "compile=true", **changes)
    [pair] = compare([forward, backward], tmp_path / "out")["pairs"]
    both = f"{forward} and {backward} have "
    assert pair["warnings"] == [
        f"{both}microbatch_size=None against 8",
        f"{both}compile=False against True",
        f"{both}git_commit=a1 against b2",
        f"{both}world_size=1 against 2",
        f"{both}versions.torch=2.7.0 against 2.8.0",
        f"{backward} was last evaluated at step 20 of 40",
    ]


def test_runs_that_left_out_other_numbers_of_steps_are_warned_of(tmp_path):
    forward, backward = make_pair(tmp_path, "optim.skip_spikes=6")

    def warnings(left_out: dict[Path, dict[int, int]]) -> list[str]:
        for folder, by_step in left_out.items():
            path = folder / "metrics.jsonl"
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            lines = [line | {"train/skipped_steps": by_step.get(line["step"], 0)} for line in lines]
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        [pair], _ = pair_runs([read_run(forward), read_run(backward)])
        return pair.warnings()

    assert warnings({}) == warnings({forward: {20: 3}, backward: {20: 3}}) == []
    (warning,) = warnings({forward: {20: 3}, backward: {20: 12}})
    assert warning == f"{forward} and {backward} have train/skipped_steps=3 against 12"
    with (backward / "metrics.jsonl").open("a") as file:  # behind the evaluation that is compared
        file.write('{"step": 21, "tokens": 1344, "seconds": 2.7, "train/skipped_steps": 99}\n')
    assert warnings({}) == [warning]


def test_the_csv_has_a_row_a_run_with_all_digits(tmp_path):
    loss = 4.123456789012345
    compare(make_pair(tmp_path, losses=(loss, 4.2)), tmp_path / "out")
    with (tmp_path / "out" / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["direction"] for row in rows] == ["forward", "backward"]
    assert float(rows[0]["loss_nats"]) == loss
    assert [rows[0][key] for key in ("step", "tokens", "tokens_per_second")] == ["20", "1280", "1050.0"]


def test_only_whole_outputs_are_left(tmp_path):
    out = tmp_path / "out"
    pair = make_pair(tmp_path)
    for _ in range(2):
        main(CompareConfig(runs=[*map(str, pair)], out=str(out)))
    files = ["comparison.csv", "comparison.json", "comparison.png", "figures", "report.html", "tables"]
    assert sorted(path.name for path in out.iterdir()) == files
    png = (out / "comparison.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert b"IEND" in png[-12:]


def test_the_screen_shows_table_gap_samples_and_paths(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="hindsight")
    pair = make_pair(tmp_path)
    (pair[0] / "samples.jsonl").unlink()
    compare(pair, tmp_path / "out")
    lines = [" ".join(line.split()) for line in caplog.text.splitlines()]
    assert "here gpt_demo seed 0: unigram entropy 6.2500 nats/token" in lines
    assert "forward 20 4.0000 2.0000 50.00 25.00 % 1,050" in lines
    assert "here gpt_demo seed 0 +0.1000 +0.0500 +2.500 % +2.469 %" in lines
    said = " ".join(caplog.text.split())
    assert "Sample of here gpt_demo seed 0, forward: none was written." in said
    assert "Sample of here gpt_demo seed 0, backward, written here in reading order (step 20, prompt 'The')" in said
    assert "bw wrote this at 20" in caplog.text
    assert "wrote this at 10" not in caplog.text
    for path in (*pair, *(tmp_path / "out" / f"comparison.{ending}" for ending in ("png", "csv", "json"))):
        assert str(path) in caplog.text


def test_an_output_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match=r"out=.*cannot be made a folder"):
        compare(make_pair(tmp_path), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_refusal_is_one_line_and_status_2_and_writes_nothing(tmp_path):
    runs = make_run(tmp_path / "fw", "forward", [4.0]), make_run(tmp_path / "bw", "backward", [4.1], "seed=1")
    out = tmp_path / "out"
    done = run_command("python", "compare_directions.py", f"runs=[{runs[0]},{runs[1]}]", f"out={out}")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "seed=0 against 1" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not out.exists()


def test_the_command_of_a_user_ends_with_status_0(tmp_path):
    runs, out = make_pair(tmp_path), tmp_path / "out"
    done = run_command("python", "compare_directions.py", f"runs=[{runs[0]},{runs[1]}]", f"out={out}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "+2.500 %" in done.stdout
    assert (out / "comparison.png").exists()
