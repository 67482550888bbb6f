"""plan.py: what it says of a run is what a run takes and writes; test_planned_memory.py is about model and memory."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.processes import ROOT, run_command
from helpers.training_runs import by_step, compose_config, last_of_each, records, settings, train

from hindsight import runs
from hindsight.errors import InputError
from hindsight.planning.plan import evaluated_tokens, plan_of
from hindsight.planning.table import duration, table
from hindsight.shown_numbers import short, size
from hindsight.studies.sweep import median_speed
from hindsight.training.course import Course
from hindsight.training.disk import added
from hindsight.training.setup import check_setup, locate_data


def plan(*arguments: str) -> dict[str, Any]:
    return plan_of(compose_config("plan", *arguments))


@pytest.mark.parametrize("model", ["gpt_nano", "lstm_small"])
def test_a_checkpoint_of_a_run_by_muon_has_the_size_that_is_planned(shards: Path, tmp_path: Path, model: str):
    given = [f"model={model}", "optim.name=muon", "max_duration=2ba"]
    folder = train(shards, tmp_path, *given, "run_name=a")
    (file,) = (folder / "checkpoints").glob("*.pt")
    found, adamw = (plan(*settings(shards, tmp_path, *keys)) for keys in (given, [given[0], given[2]]))
    assert found["disk"]["checkpoint_bytes"] == pytest.approx(file.stat().st_size, abs=6_000)
    assert found["disk"]["checkpoint_bytes"] < adamw["disk"]["checkpoint_bytes"]
    optimizers = [each["memory"]["bytes_by_part"]["optimizer"] for each in (found, adamw)]
    assert optimizers[0] < optimizers[1]


def test_a_checkpoint_of_a_run_with_frozen_parts_has_the_size_that_is_planned(shards: Path, tmp_path: Path):
    given = ["model.freeze=[embedding,blocks.0]", "max_duration=2ba"]
    folder = train(shards, tmp_path, *given, "run_name=a")
    (file,) = (folder / "checkpoints").glob("*.pt")
    found, whole = (plan(*settings(shards, tmp_path, *keys)) for keys in (given, given[1:]))
    assert found["disk"]["checkpoint_bytes"] == pytest.approx(file.stat().st_size, abs=6_000)
    assert found["disk"]["checkpoint_bytes"] < whole["disk"]["checkpoint_bytes"] - 100_000
    assert found["model"]["trained_parameters"] == runs.read_metadata(folder)["n_trainable_parameters"]
    assert f"{found['model']['trained_parameters']:,} are trained" in table(found)
    assert " are trained" not in table(whole)


def test_steps_and_tokens_are_those_that_training_records(trained: dict[str, Path], shards: Path):
    config = runs.read_config(trained["forward"])
    recorded = runs.read_metadata(trained["forward"])
    found = plan(*settings(shards, trained["forward"].parent, "max_duration=12ba"))
    assert found["model"]["parameters"] == recorded["n_parameters"]
    assert found["model"]["vocab_size"] == recorded["vocab_size"] == 300
    assert found["tokens"]["steps"] == recorded["total_steps"] == 12
    assert found["tokens"]["batch"] == config["batch_size"] * config["data.context_length"]
    epochs = plan(*settings(shards, trained["forward"].parent, "max_duration=3ep"))["tokens"]
    assert epochs["training"] == 3 * json.loads((shards / "manifest.json").read_text())["splits"]["train"]["tokens"]
    both = plan(*settings(shards, trained["forward"].parent, "order=both", "max_duration=3ep"))["tokens"]
    assert both["training"] == 2 * epochs["training"]


def test_the_checkpoints_of_a_run_have_the_size_and_the_number_that_are_planned(trained: dict[str, Path], shards: Path):
    for name, keys in {"forward": [], "gru": ["model=gru_small"]}.items():
        folder = trained[name]
        files = [*(folder / "checkpoints").rglob("*.pt")]
        given = settings(shards, folder.parent, "max_duration=12ba", *keys)
        found = plan(*[each for each in given if name == "forward" or each != "model.n_heads=2"])["disk"]
        for file in files:
            assert found["checkpoint_bytes"] == pytest.approx(file.stat().st_size, abs=6_000)
    given = ["max_duration=12ba", "checkpoint.interval=5ba", "checkpoint.backup_interval=5ba"]
    found = plan(*settings(shards, folder.parent, *given))["disk"]
    kept = [*(trained["forward"] / "checkpoints").glob("*.pt")]
    backups = [*(trained["forward"] / "checkpoints" / "backups").glob("*.pt")]
    assert (found["checkpoints"], found["backups"]) == (len(kept) + 1, len(backups)) == (3, 2)


@pytest.mark.parametrize(
    ("max_duration", "eval_interval", "interval", "backup_interval"),
    [
        ("2ep", "1ep", "1ep", "2ep"),
        ("7ba", "3ba", "1ep", "2ba"),
        ("9ba", "2000tok", "4ba", "5000tok"),
        ("16000tok", "2ep", "3ba", "1ep"),
        ("3ep", "4ba", "100tok", "3ba"),
    ],
)
def test_evaluations_and_checkpoints_are_those_of_a_real_run(
    shards: Path, tmp_path: Path, max_duration: str, eval_interval: str, interval: str, backup_interval: str
):
    given = ["batch_size=64", f"max_duration={max_duration}", f"eval_interval={eval_interval}", "checkpoint.keep=-1"]
    given += [f"checkpoint.interval={interval}", f"checkpoint.backup_interval={backup_interval}", "eval_batches=1"]
    folder = train(shards, tmp_path, *given, "run_name=a")
    config = compose_config("plan", *settings(shards, tmp_path, *given))
    windows = check_setup(config, locate_data(config)).windows
    course = Course.of(max_duration, windows["train"])
    assert 2 < course.epoch_steps < course.steps == len(records(folder))

    def saved_in(place: Path) -> set[int]:
        return {int(file.name.split("-")[1].removeprefix("ba")) for file in place.glob("*.pt")}

    assert course.steps_at(eval_interval, with_last=True) == by_step(folder, "eval/loss_nats").keys()
    assert course.steps_at(interval, eval_interval, with_last=True) == saved_in(folder / "checkpoints")
    assert course.steps_at(backup_interval) == saved_in(folder / "checkpoints" / "backups")
    n_evaluations = len(by_step(folder, "eval/loss_nats"))
    assert evaluated_tokens(config, course, windows["val"], 1) == n_evaluations * windows["val"].batch_tokens
    planned = added(config, course)
    assert planned.most == planned.at_end == len(saved_in(folder / "checkpoints"))
    assert planned.backups == len(saved_in(folder / "checkpoints" / "backups"))


def test_what_happens_at_intervals_happens_as_often_as_in_a_run():
    course = Course(steps=25, epoch_steps=10, epoch_tokens=950, batch_tokens=100)
    assert course.tokens == 950 * 2 + 500
    assert [len(course.steps_at(each)) for each in ("10ba", "1ep", "2ep", "3ep", "950tok", "1tok")] == [
        2,
        2,
        1,
        0,
        2,
        25,
    ]
    assert course.steps_at("1ep", "8ba", with_last=True, after=8) == {10, 16, 20, 24, 25}
    assert course.steps_at("130tok", after=8) == {10, 11, 13, 14, 15, 17, 18, 19, 21, 22, 24, 25}


def test_without_data_a_plan_takes_its_tokens():
    given = ["model=gpt_nano", "data_tokens=1_000_000", "model.vocab_size=512", "max_duration=2ep"]
    found = plan(*given)
    assert found["tokens"]["training"] == 2_000_000
    assert found["flops"]["training"] == 2_000_000 * found["flops"]["per_token"]
    assert found["flops"]["evaluation"] is None
    assert found["time"] is None
    assert found["tokens"]["compute_optimal"] == 20 * found["model"]["parameters"]
    assert plan(*given, "order=both")["tokens"]["training"] == 4_000_000


def test_hours_are_those_of_a_share_of_a_device_and_of_measured_speeds(trained: dict[str, Path]):
    given = ["model=gpt2", "data_tokens=1_000_000_000", "model.vocab_size=50257", "max_duration=1ep"]
    found = plan(*given, "gpu=NVIDIA H100 80GB HBM3", "mfu=0.4", "devices=8")
    assert found["time"]["hours"] == pytest.approx(found["flops"]["training"] / (0.4 * 8 * 989e12) / 3600)
    assert found["time"]["device_hours"] == pytest.approx(8 * found["time"]["hours"])
    assert plan(*given, "peak_tflops=989", "devices=8", "mfu=0.4")["time"]["hours"] == found["time"]["hours"]
    measured = plan(*given, "tokens_per_second=1e6", "gpu=A100")["time"]
    assert measured["training_hours"] == pytest.approx(1e9 / 1e6 / 3600)
    assert measured["mfu"] == pytest.approx(1e6 * found["flops"]["per_token"] / 312e12)


def test_the_speed_of_a_run_counts_as_it_is_or_in_flops(trained: dict[str, Path], shards: Path):
    folder = trained["forward"]
    same = plan(*settings(shards, folder.parent, f"run={folder}"))["time"]
    assert same["tokens_per_second"] == median_speed(folder)
    assert same["by"] == "measured of forward, 1 device"
    given = settings(shards, folder.parent, f"run={folder}", "model.n_layers=4")
    larger = plan(*given)
    ratio = plan(*settings(shards, folder.parent))["flops"]["per_token"] / larger["flops"]["per_token"]
    assert larger["time"]["tokens_per_second"] == pytest.approx(same["tokens_per_second"] * ratio)
    assert larger["time"]["by"] == "the FLOP/s of forward, 1 device, which has other settings"


def edited(run: Path, folder: Path, recorded: str, instead: str) -> Path:
    """Copy a run into a folder, with a key of its recorded configuration as it is given."""
    shutil.copytree(run, folder)
    config = (folder / runs.CONFIG).read_text()
    assert config.count(f"\n{recorded}\n") == 1
    (folder / runs.CONFIG).write_text(config.replace(f"\n{recorded}\n", f"\n{instead}\n"))
    return folder


def test_a_run_that_has_what_the_plan_leaves_null_has_other_settings(
    trained: dict[str, Path], tmp_path: Path, shards: Path
):
    folder = edited(trained["forward"], tmp_path / "parts", "microbatch_size: null", "microbatch_size: 1")
    given = settings(shards, tmp_path, f"run={folder}")
    assert plan(*given)["time"]["by"] == "the FLOP/s of parts, 1 device, which has other settings"
    assert plan(*given, "microbatch_size=1")["time"]["by"] == "measured of parts, 1 device"


def test_a_run_that_is_older_than_loss_has_the_speed_of_plain(trained: dict[str, Path], tmp_path: Path, shards: Path):
    folder = edited(trained["forward"], tmp_path / "older", "loss: auto", "")
    given = settings(shards, tmp_path, f"run={folder}")
    assert plan(*given)["time"]["by"] == "the FLOP/s of older, 1 device, which has other settings"
    assert plan(*given, "loss=plain")["time"]["by"] == "measured of older, 1 device"


def test_the_largest_microbatch_that_fits_is_the_largest():
    given = ["experiment=gpt2", "data_tokens=1_000_000_000", "model.vocab_size=50257", "gpu=A100"]
    largest = plan(*given)["memory"]["largest_microbatch_size"]
    assert plan(*given, f"microbatch_size={largest}")["memory"]["fits"]
    larger = next(size for size in range(largest + 1, 481) if 480 % size == 0)
    assert not plan(*given, f"microbatch_size={larger}")["memory"]["fits"]
    none = plan(*given, "model.n_layers=1000")["memory"]
    assert (none["fits"], none["largest_microbatch_size"]) == (False, None)


def test_one_process_has_nothing_to_divide_and_a_cpu_takes_its_own_chunks_in_bf16_too():
    given = ["experiment=gpt2", "data_tokens=1_000_000_000", "model.vocab_size=50257"]
    assert plan(*given, "parallelism=fsdp")["memory"] == plan(*given)["memory"]
    assert "gathered" in plan(*given, "parallelism=fsdp", "devices=2")["memory"]["bytes_by_part"]
    logits = [
        plan(*given, *format)["memory"]["bytes_by_part"]["logits"]
        for format in (["precision=bf16"], ["precision=fp16"], ["precision=bf16", "gpu=H100"])
    ]
    assert logits[0] < logits[1] == logits[2]


def test_a_run_that_the_disk_has_no_room_for_does_not_fit(shards: Path, tmp_path: Path):
    small = plan(*settings(shards, tmp_path))
    assert small["disk"]["fits"]
    assert "does not fit" not in table(small)
    wide = ["model.n_layers=10_000", "model.d_model=7680"]
    large = plan("model=gpt2", "data_tokens=1000", "model.vocab_size=9", "max_duration=9ep", *wide)
    assert large["disk"]["total_bytes"] > large["disk"]["free_bytes"]
    assert not large["disk"]["fits"]
    assert f"\ndisk      does not fit: {size(large['disk']['total_bytes'])} in " in table(large)


def test_seeds_come_from_a_comparison_or_from_a_spread_that_is_given():
    given = ["data_tokens=1_000_000", "model.vocab_size=512", "tokens_per_second=1000", "margin_nats=0.01"]
    found = plan(*given, "std_nats=0.02")
    assert found["seeds"]["seeds"] == 34  # Cohen (1988): an effect of 0.5
    assert found["seeds"]["hours"] == pytest.approx(2 * 34 * found["time"]["hours"])
    stds = [
        group["gap"]["std_nats"]
        for group in json.loads((ROOT / "results/novels/comparison.json").read_text())["groups"]
    ]
    compared = f"comparison={ROOT / 'results' / 'novels'}"
    assert plan(*given, compared)["seeds"]["std_nats"] == max(stds)
    for spread in ("std_nats=0.02", compared):
        alone, with_margin = plan(*given[:-1], spread), plan(*given, spread)
        assert alone["seeds"]["seeds"] is alone["seeds"]["runs"] is None
        assert alone["seeds"]["margin_for_seeds_nats"] == with_margin["seeds"]["margin_for_seeds_nats"]
        assert table(alone).splitlines()[-1].startswith("seeds     of seeds, 3 find ")
    assert "seeds" not in plan(*given[:-1])


def test_weights_to_begin_with_that_are_here_are_looked_at(trained: dict[str, Path], shards: Path, tmp_path: Path):
    found = plan(*settings(shards, tmp_path, f"model.init_from={trained['forward']}"))
    changing = {name: found["disk"][name] for name in ("folder", "free_bytes")}
    assert found["disk"] == plan(*settings(shards, tmp_path))["disk"] | changing
    with pytest.raises(InputError, match=r"model.init_from=/nonexistent does not exist"):
        plan(*settings(shards, tmp_path, "model.init_from=/nonexistent"))
    with pytest.raises(InputError, match=r"is of other sizes than model=gpt_nano; give model.n_layers=2"):
        plan(*settings(shards, tmp_path, f"model.init_from={trained['forward']}", "model.n_layers=3"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data_tokens=1000"], "give model.vocab_size="),
        (["mfu=0.4", "tokens_per_second=10"], "mfu= and tokens_per_second= both say a speed"),
        (["mfu=1.4"], "mfu=1.4 is a share"),
        (["mfu=0.4", "data_tokens=1000", "model.vocab_size=9"], "give gpu= or peak_tflops= too"),
        (["gpu=TPU", "data_tokens=1000", "model.vocab_size=9"], "gpu=TPU is not known; choose one of H100"),
        (["devices=3"], "batch_size=.* does not divide among devices=3"),
        (["margin_nats=0.01"], "margin_nats=0.01 needs std_nats="),
        (["std_nats=0.01", "comparison=a"], "std_nats= and comparison= both say a spread"),
        (["comparison=nowhere", "margin_nats=1", "data_tokens=1000", "model.vocab_size=9"], "nowhere cannot be read"),
        (["run=nowhere", "data_tokens=1000", "model.vocab_size=9"], "run=nowhere does not exist"),
        (["data.path=s3://bucket/data"], "s3://bucket/data is not looked at"),
        (["data.path=nowhere"], "data.path=nowhere has no manifest.json"),
        (["data_tokens=0", "model.vocab_size=9"], "data_tokens=0 must be greater than 0"),
    ],
)
def test_what_a_plan_cannot_be_made_of_is_said_in_a_line(arguments: list[str], message: str):
    with pytest.raises(InputError, match=message):
        plan(*arguments)


def test_the_command_of_the_page_on_scale_gives_its_figures():
    page = " ".join((ROOT / "docs" / "scale.md").read_text(encoding="utf-8").split())
    match = re.search(r"```bash python plan\.py (.*?)```", page)
    assert match is not None
    command = match[1].replace("\\", "").split()

    def of(*changes: str) -> dict[str, Any]:
        return plan(*last_of_each([*command, *changes]))

    found = of()
    speed = found["time"]["tokens_per_second"]
    seconds = found["tokens"]["batch"] / speed
    steps, hours = found["tokens"]["steps"], found["time"]["hours"]
    evaluation_s = 5e9 / (3 * speed)  # a third of the FLOPs of training
    evaluations = len(Course(steps, steps, 5 * 10**11, found["tokens"]["batch"]).steps_at("100ba", with_last=True))
    for words in (
        f"`plan.py` says {steps:,} steps",
        f"{speed / 1e6:.2f} million tokens/s, {hours:.1f} hours, and {seconds:.2f} s a step",
        f"{evaluation_s / 60:.0f} minutes each time;",
        f"the default `eval_interval=100ba` asks for it {evaluations:,} times",
        f"{evaluations * evaluation_s / 86400:.0f} days, for {hours:.0f} hours",
        f"`val_share=0.0001` ({evaluation_s / 100:.0f} s each time)",
        f"{size(found['disk']['checkpoint_bytes'])} each {100 * seconds:.0f} s",
        f"{1e12 / (3600 * hours) / 1e6:.1f} MB/s a node",
        f"a rank needs {round(speed / 64, -3):,.0f} tokens/s",
        f"activations, {size(found['memory']['bytes_by_part']['activations'])} for 16 windows",
    ):
        assert words in page
    for keys in ("microbatch_size=16", "microbatch_size=4", "microbatch_size=16 activation_checkpointing=true"):
        memory = [of(*keys.split(), f"parallelism={each}")["memory"] for each in ("fsdp", "ddp")]
        sizes = [size(each["peak_bytes"]) + ("" if each["fits"] else ", more than 90% of an H100") for each in memory]
        assert f"| `{keys}` | {' | '.join(sizes)} |" in page


def test_numbers_are_short():
    assert [short(each) for each in (0, 7, 9.96, 99.6, 999, 1000, 124_439_808, 2.14e18)] == [
        "0",
        "7",
        "9.96",
        "99.6",
        "999",
        "1.00k",
        "124M",
        "2.14E",
    ]
    assert [size(each) for each in (12, 1.49e9)] == ["12 B", "1.49 GB"]
    assert [duration(each) for each in (0.001, 0.5, 1.5, 100)] == ["4 s", "30 min", "1.5 h", "100.0 h (4.2 days)"]


def test_the_command_prints_a_table_or_json(shards: Path, tmp_path: Path):
    given = [each for each in settings(shards, tmp_path) if not each.startswith("direction=")]
    asked = [*given, "tokens_per_second=100", "margin_nats=0.01", "std_nats=0.01", "gpu=H100"]
    done = run_command("python", "plan.py", *asked, "json=true")
    assert done.returncode == 0, done.stderr
    printed, expected = json.loads(done.stdout), json.loads(json.dumps(plan(*asked)))
    for each in (printed, expected):
        assert each["disk"].pop("free_bytes") > 0
    assert printed == expected
    text = table(plan(*asked))
    for word in ("model ", "tokens ", "compute ", "memory ", "time ", "disk ", "seeds "):
        assert f"\n{word}" in f"\n{text}"
    assert not [*tmp_path.iterdir()]
