import pytest
from helpers.processes import run_command

from benchmarks import scale, steps_to_loss, targets
from benchmarks.arguments import (
    COMPARISONS,
    SCALE_PARTS,
    TARGET_PARTS,
    StepsToLoss,
    parse_gpu_table,
    parse_loss,
    parse_scale,
    parse_steps_to_loss,
    parse_targets,
)


def test_the_arguments_name_what_can_be_measured():
    assert tuple(scale.PARTS) == SCALE_PARTS
    assert tuple(targets.PARTS) == TARGET_PARTS
    assert tuple(steps_to_loss.COMPARISONS) == COMPARISONS
    assert parse_scale([]) == [*SCALE_PARTS]
    assert (parse_loss([]), parse_loss(["300", "4096"])) == ([], [300, 4096])
    assert parse_targets(["lstm"]).parts == ["lstm"]


@pytest.mark.parametrize(
    ("parse", "arguments", "said"),
    [
        (parse_scale, ["none"], "none: choose of index, order"),
        (parse_targets, ["none", "lstm"], "none: choose of gpt_4096, gpt_50257"),
        (parse_targets, ["--json", "none/a.json"], "none/a.json is no file, and none can be made there"),
        (parse_targets, ["--recorded"], "unrecognized arguments: --recorded"),
        (parse_steps_to_loss, [], "required: comparison, DATA, OUT.jsonl"),
        (parse_steps_to_loss, ["none", "a", "b"], "invalid choice: 'none'"),
        (parse_steps_to_loss, ["models", "none", "b"], "none is no folder of convert_to_mds.py"),
        (parse_loss, ["300", "1"], "1 is no vocabulary size"),
        (parse_gpu_table, [], "required: FOLDER"),
        (parse_gpu_table, ["none"], "none is no folder of benchmarks/gpu.sh: it has no stages.tsv"),
    ],
)
def test_bad_arguments_are_refused_in_a_line(parse, arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # where neither "none" nor what it would hold can be
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_results_of_steps_to_loss_need_a_folder_that_is_there(shards, tmp_path, capsys):
    given = parse_steps_to_loss(["models", str(shards), str(tmp_path / "a.jsonl")])
    assert given == StepsToLoss("models", shards, tmp_path / "a.jsonl")
    with pytest.raises(SystemExit):
        parse_steps_to_loss(["models", str(shards), str(tmp_path / "none" / "a.jsonl")])
    assert "none can be made there" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["scale", "targets", "steps_to_loss", "gpu_table", "loss"])
def test_bad_arguments_are_refused_before_torch_is_imported(name):
    refused = run_command("python", "-X", "importtime", "-m", f"benchmarks.{name}", "none")
    times = [line for line in refused.stderr.splitlines() if line.startswith("import time:")]
    assert refused.returncode == 2
    assert times
    assert not [line for line in times if line.split("|")[-1].strip() in ("torch", "numpy")]
    assert "Traceback" not in refused.stderr
