import json
from dataclasses import replace

import pytest
import torch
from helpers.processes import run_command
from helpers.training_runs import compose_config
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.throughput.__main__ import main
from benchmarks.throughput.huggingface import HuggingFaceGPT2
from benchmarks.throughput.measure import Result, Worker
from benchmarks.throughput.setup import make_setup, named_model
from benchmarks.throughput.table import rows_of, table
from hindsight.command_line import help_text, run_script
from hindsight.config.model import Block, GPTConfig, RNNConfig
from hindsight.config.throughput import Variant
from hindsight.errors import InputError
from hindsight.planning.parameters import flops_per_token
from language_model import build_model

V = 4096
TINY = ["model=gpt_nano", "vocab_size=300", "context_length=32", "batch_size=4", "rounds=2", "steps=2"]


@pytest.mark.parametrize(
    "changes",
    [
        [],
        ["model.tied_head=true"],
        ["model.block=llama", "model.n_kv_heads=2"],
        ["model.block=modern", "model.activation=relu2", "model.logit_softcap=15"],
    ],
)
def test_the_formula_of_flops_agrees_with_pytorchs_count(changes):
    config = compose_config("throughput", "model=gpt_demo", *changes).model
    module = build_model(config, V, seed=0)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # the other kernels are not counted
        module(torch.zeros(1, 256, dtype=torch.int64)).sum().backward()
    assert flops_per_token(config, V, 256) == pytest.approx(counter.get_total_flops() / 256, rel=0.02)


def test_a_recurrent_model_needs_six_flops_for_each_weight():
    config = compose_config("throughput", "model=lstm_small").model
    assert isinstance(config, RNNConfig)
    n_parameters = sum(weight.numel() for weight in build_model(config, V, seed=0).parameters())
    assert flops_per_token(config, V, 256) == 6 * (n_parameters - V * config.d_model)


@pytest.mark.parametrize("tied_head", [False, True])
def test_hugging_faces_model_has_as_many_parameters_as_ours(tied_head):
    config = GPTConfig(name="tiny", n_layers=2, d_model=16, n_heads=2, context_length=8, tied_head=tied_head)
    models = build_model(config, 31, seed=0), HuggingFaceGPT2(config, 31)
    ours, theirs = (sum(weight.numel() for weight in model.parameters()) for model in models)
    assert ours == theirs


def test_ratios_are_to_the_first_variant_and_taken_turn_by_turn():
    setup = make_setup(compose_config("throughput", *TINY))
    first = Result(Variant.bare, [[1.0, 1.0, 9.0], [2.0, 2.0, 2.0]], 5.0)
    second = Result(Variant.metrics, [[1.5, 1.5, 1.5], [3.5, 4.0, 9.0]], 6.0)
    rows = rows_of([first, second], setup, best_flops=None)
    assert [rows[0][key] for key in ("ratio", "ratio_min", "ratio_max")] == [1, 1, 1]
    assert [rows[1][key] for key in ("ratio", "ratio_min", "ratio_max")] == [1.75, 1.5, 2.0]
    assert rows[0]["tokens_per_second"] == 4 * 32 / 2
    assert "metrics" in table(rows)
    assert "?" in table(rows)  # the MFU on an unknown device


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["model=gpt_nano", "context_length=257"], "context_length=257 exceeds model.context_length=256"),
        (["model=lstm_small"], "model=lstm_small; leave huggingface out"),
        (["model=llama_small"], "model=llama_small; leave huggingface out"),
        (["batch_size=8", "microbatch_size=3"], "microbatch_size=3 does not divide batch_size=8"),
        (["variants=[]"], "variants=.* leaves nothing to measure"),
        (["model.n_layers=2"], "give model= too"),
        (["out=conf/throughput.yaml"], "out=.* cannot be made a folder"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_measured(changes, message):
    with pytest.raises(InputError, match=message):
        main(compose_config("throughput", *changes))


def test_help_and_errors_say_how_the_benchmark_is_called(monkeypatch, capsys):
    assert help_text("throughput").startswith("python -m benchmarks.throughput key=value ...")
    monkeypatch.setattr("sys.argv", ["__main__.py", "rounds=0"])
    with pytest.raises(SystemExit) as ended:
        run_script("throughput", main)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("benchmarks.throughput: rounds=0")


def test_the_model_fits_the_device_if_none_is_named():
    setup = make_setup(compose_config("throughput"))
    gpu = torch.cuda.is_available()
    assert setup.model == named_model("gpt2" if gpu else "gpt_demo")
    assert setup.model.name == ("gpt2" if gpu else "gpt_demo")
    assert (setup.vocab_size, setup.precision) == ((50257, "bf16") if gpu else (4096, "fp32"))


def check_run(*settings: str, out) -> dict:
    done = run_command("python", "-m", "benchmarks.throughput", *settings, f"out={out}", timeout_s=250)
    assert done.returncode == 0, done.stderr
    assert "leaked" not in done.stderr
    written = json.loads((out / "throughput.json").read_text())
    assert [row["variant"] for row in written["variants"]] == ["bare", "metrics", "trainer", "huggingface"]
    for row in written["variants"]:
        assert f"\n{row['variant']}" in done.stdout
        assert [len(turn) for turn in row["turns_seconds"]] == [2, 2]
        assert min(min(turn) for turn in row["turns_seconds"]) > 0
        assert row["peak_memory_mib"] > 0
    return written


@pytest.mark.slow
@pytest.mark.dist
def test_all_variants_are_measured_in_one_run_and_shown_in_one_table(tmp_path):
    written = check_run(*TINY, "microbatch_size=2", out=tmp_path)
    assert written["setup"]["model"]["name"] == "gpt_nano"
    assert written["setup"]["model"]["block"] == Block.gpt2.name


@pytest.mark.slow
@pytest.mark.dist
def test_a_variant_that_fails_ends_the_benchmark(tmp_path):
    setup = make_setup(compose_config("throughput", *TINY, "variants=[bare]"))
    longer = setup.model.context_length + 1
    worker = Worker(Variant.bare, replace(setup, context_length=longer), tmp_path / "files")
    with pytest.raises(RuntimeError, match="variant bare failed"):
        worker.take_turn()
    worker.close()


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_variants_run_in_bf16_and_compiled(tmp_path):
    written = check_run(*TINY, out=tmp_path)
    assert (written["setup"]["device"], written["setup"]["precision"]) == ("cuda", "bf16")
    assert written["setup"]["compile"]
