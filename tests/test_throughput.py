import gzip
import json
from dataclasses import replace

import pytest
import torch
from helpers.processes import run_command
from helpers.training_runs import compose_config
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import train_tokenizer
from benchmarks.throughput.__main__ import main
from benchmarks.throughput.huggingface import HuggingFaceGPT2
from benchmarks.throughput.measure import Result, worker_of
from benchmarks.throughput.plain import PlainModel
from benchmarks.throughput.setup import BYTE_VOCAB_SIZE, Contender, make_contenders, named_model
from benchmarks.throughput.table import describe, recorded_ratios, rows_of, table
from benchmarks.throughput.turns import Step
from hindsight.command_line import help_text, run_script
from hindsight.config.model import Block, Cell, GPTConfig, RNNConfig
from hindsight.config.throughput import Variant
from hindsight.config.tokenizer import TokenizerConfig
from hindsight.config.training import Precision
from hindsight.errors import InputError
from hindsight.planning.parameters import flops_per_token
from hindsight.tokenization.tokenizer import Tokenizer
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
@pytest.mark.parametrize("peer", [HuggingFaceGPT2, PlainModel])
def test_peers_have_as_many_parameters_as_our_gpt(peer, tied_head):
    config = GPTConfig(name="tiny", n_layers=2, d_model=16, n_heads=2, context_length=8, tied_head=tied_head)
    models = build_model(config, 31, seed=0), peer(config, 31)
    ours, theirs = (sum(weight.numel() for weight in model.parameters()) for model in models)
    assert ours == theirs


def test_the_plain_gpt2_is_ours_with_other_names():
    config = GPTConfig(name="tiny", n_layers=2, d_model=16, n_heads=2, context_length=8)
    ours, plain = build_model(config, 31, seed=0), PlainModel(config, 31)
    theirs = dict(plain.named_parameters())
    names = {
        "attention_norm": "norms.0",
        "mlp_norm": "norms.1",
        "attention.qkv": "qkv",
        "attention.out": "out",
        "mlp.up": "up",
        "mlp.down": "down",
    }
    with torch.no_grad():
        for name, weight in ours.named_parameters():
            other = f"body.{name}" if not name.startswith("head") else name
            for long, short in names.items():
                other = other.replace(long, short)
            theirs.pop(other).copy_(weight)
    assert theirs == {}
    tokens_BT = torch.randint(31, (3, 9))
    batch = {"input_ids": tokens_BT[:, :-1], "targets": tokens_BT[:, 1:]}
    logits_BTV = ours(batch["input_ids"])
    nats = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), batch["targets"].flatten())
    torch.testing.assert_close(plain(batch)["loss"], nats)


@pytest.mark.parametrize("cell", Cell)
@pytest.mark.parametrize("final_norm", [False, True])
def test_the_plain_rnn_is_ours_in_one_module(cell, final_norm):
    config = RNNConfig(name="tiny", n_layers=2, d_model=16, cell=cell, final_norm=final_norm)
    ours, plain = build_model(config, 31, seed=0), PlainModel(config, 31)
    theirs = dict(plain.named_parameters())
    with torch.no_grad():
        for name, weight in ours.named_parameters():
            parts = name.split(".")
            other = f"layers.{parts[2].removesuffix('_l0')}_l{parts[1]}" if parts[0] == "layers" else name
            theirs.pop(other if parts[0] == "head" else f"body.{other}").copy_(weight)
    assert theirs == {}
    tokens_BT = torch.randint(31, (3, 9))
    batch = {"input_ids": tokens_BT[:, :-1], "targets": tokens_BT[:, 1:]}
    logits_BTV = ours(batch["input_ids"])
    nats = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), batch["targets"].flatten())
    torch.testing.assert_close(plain(batch)["loss"], nats)


def result_of(variant: Variant, *turns: list[float], **changes) -> Result:
    """A result whose steps took so many seconds, twice as many of CPU time, and waited for a tenth."""
    setup = make_contenders(compose_config("throughput", *TINY))[0].setup
    contender = Contender(variant.name, variant, replace(setup, **changes))
    steps = [[Step(seconds, 2 * seconds, seconds / 10) for seconds in turn] for turn in turns]
    return Result(contender, steps, peak_mib=5.0, first_step_seconds=3.0)


def test_ratios_are_to_the_first_variant_and_taken_turn_by_turn():
    first = result_of(Variant.bare, [1.0, 1.0, 9.0], [2.0, 2.0, 2.0])
    second = result_of(Variant.metrics, [1.5, 1.5, 1.5], [3.5, 4.0, 9.0])
    rows = rows_of([first, second])
    for kind in ("ratio", "cpu_ratio"):
        assert [rows[0][key] for key in (kind, f"{kind}_min", f"{kind}_max")] == [1, 1, 1]
        assert [rows[1][key] for key in (kind, f"{kind}_min", f"{kind}_max")] == [1.75, 1.5, 2.0]
    assert rows[0]["tokens_per_second"] == 4 * 32 / 2
    assert (rows[0]["step_seconds"], rows[0]["cpu_seconds"]) == (2, 4)
    assert rows[0]["wait_seconds"] == pytest.approx(1.7)
    assert rows[0]["first_step_seconds"] == 3
    assert "metrics" in table(rows)
    assert "?" in table(rows)  # the MFU on an unknown device


def test_ours_over_the_peers_and_over_the_bare_loop_are_compared_with_earlier_runs():
    results = [
        result_of(Variant.bare, [1.0]),
        result_of(Variant.trainer, [1.2], compile=True),
        result_of(Variant.huggingface, [1.5], precision=Precision.bf16),
    ]
    named = {ratio.name.split(" tokens: ")[1]: ratio.value for ratio in recorded_ratios(results)}
    time = "time" if torch.cuda.is_available() else "CPU time"
    assert named == {
        f"bare (fp32, loss=auto) over huggingface (bf16), {time}": pytest.approx(1 / 1.5),
        f"trainer (fp32, compiled, loss=auto) over bare (fp32, loss=auto), {time}": pytest.approx(1.2),
        f"trainer (fp32, compiled, loss=auto) over huggingface (bf16), {time}": pytest.approx(0.8),
    }
    assert {ratio.name.split(" tokens: ")[0] for ratio in recorded_ratios(results)} == {"gpt_nano, V 300, 4 x 32"}
    said = describe(results)
    assert "bare: fp32, loss=auto; trainer: fp32, compiled, loss=auto; huggingface: bf16" in said


def test_peers_may_be_measured_otherwise_than_ours():
    config = compose_config(
        "throughput", "precision=bf16", "compile=true", "loss=plain", "peers.precision=fp32", "peers.compile=false"
    )
    hows = {contender.name: contender.how for contender in make_contenders(config)}
    assert hows == dict.fromkeys(["bare", "metrics", "trainer"], "bf16, compiled, loss=plain") | dict.fromkeys(
        ["plain", "huggingface"], "fp32"
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["model=gpt_nano"], ["bare", "metrics", "trainer", "plain", "huggingface"]),
        (["model=llama_small"], ["bare", "metrics", "trainer"]),
        (["model=lstm_small"], ["bare", "metrics", "trainer", "plain"]),
        (["model=lstm_small", "variants=[plain,bare]"], ["plain", "bare"]),
    ],
)
def test_all_variants_that_have_a_model_of_the_shape_are_measured(changes, expected):
    assert [contender.name for contender in make_contenders(compose_config("throughput", *changes))] == expected


def test_the_tokenizer_of_bytes_has_as_many_ids_as_a_vocabulary_must_have(tmp_path):
    train_tokenizer.main(TokenizerConfig(vocab_size="bytes", out=str(tmp_path / "tokenizer")))
    assert Tokenizer.load(str(tmp_path / "tokenizer")).vocab_size == BYTE_VOCAB_SIZE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["model=gpt_nano", "context_length=257"], "context_length=257 exceeds model.context_length=256"),
        (["model=lstm_small", "variants=[bare,huggingface]"], "model=lstm_small; leave huggingface out"),
        (["model=llama_small", "variants=[bare,huggingface]"], "model=llama_small; leave huggingface out"),
        (["model=llama_small", "variants=[plain]"], "model=llama_small; leave plain out"),
        (["batch_size=8", "microbatch_size=3"], "microbatch_size=3 does not divide batch_size=8"),
        (["variants=[]"], "variants=.* leaves nothing to measure"),
        (["loss=liger"], "loss=liger needs"),
        (["vocab_size=260"], "vocab_size=260 is less than the 261 ids"),
        (["model.n_layers=2"], "give model= too"),
        (["out=conf/throughput.yaml"], "out=.* cannot be made a folder"),
        (["trace=conf/throughput.yaml"], "trace=.* cannot be made a folder"),
        (["recorded=README.md"], "recorded=README.md holds no recorded ratios"),
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
    setup = make_contenders(compose_config("throughput"))[0].setup
    gpu = torch.cuda.is_available()
    assert setup.model == replace(named_model("gpt2" if gpu else "gpt_demo"), vocab_size=setup.vocab_size)
    assert setup.model.name == ("gpt2" if gpu else "gpt_demo")
    assert (setup.vocab_size, setup.precision.name) == ((50257, "bf16") if gpu else (4096, "fp32"))


def check_run(*settings: str, out) -> dict:
    done = run_command(
        *("python", "-m", "benchmarks.throughput", *settings, f"out={out}", f"recorded={out}/recorded.json"),
        timeout_s=250,
    )
    assert done.returncode == 0, done.stderr
    assert "leaked" not in done.stderr
    written = json.loads((out / "throughput.json").read_text())
    for row in written["variants"]:
        for kind in ("turns_seconds", "turns_cpu_seconds"):
            assert [len(turn) for turn in row[kind]] == [2, 2]
            assert min(min(turn) for turn in row[kind]) > 0
        assert row["peak_memory_mib"] > 0
        assert row["first_step_seconds"] > 0
    waited = {row["variant"]: row["wait_seconds"] for row in written["variants"]}
    assert {variant for variant, seconds in waited.items() if seconds > 0} == {"trainer"}
    if "json=true" in settings:
        assert json.loads(done.stdout) == written
    else:
        assert all(f"\n{row['variant']}" in done.stdout for row in written["variants"])
        assert "\n".join(written["compared_with_recorded"]) in done.stdout
    return written


@pytest.mark.slow
@pytest.mark.dist
def test_all_variants_are_measured_in_one_run_and_shown_in_one_table(tmp_path):
    written = check_run(*TINY, "microbatch_size=2", "record=true", f"trace={tmp_path}/trace", out=tmp_path)
    assert [row["variant"] for row in written["variants"]] == ["bare", "metrics", "trainer", "plain", "huggingface"]
    assert written["setup"]["model"]["name"] == "gpt_nano"
    assert written["setup"]["model"]["block"] == Block.gpt2.name
    assert written["compared_with_recorded"] == [f"Nothing is recorded of {written['machine']}; record=true does."]
    recorded = json.loads((tmp_path / "recorded.json").read_text())[written["machine"]]
    assert {name: entry["ratio"] for name, entry in recorded.items()} == {
        name: round(ratio, 4) for name, ratio in written["ratios"].items()
    }
    for row in written["variants"]:
        with gzip.open(tmp_path / "trace" / f"{row['variant']}.json.gz") as file:
            events = {event.get("name") for event in json.load(file)["traceEvents"]}
        assert "aten::scaled_dot_product_attention" in events


@pytest.mark.slow
@pytest.mark.dist
def test_a_recurrent_model_is_measured_beside_pytorchs_as_json(tmp_path):
    sizes = ["model=lstm_small", "model.d_model=16", "vocab_size=300", "batch_size=4", "context_length=32"]
    written = check_run(*sizes, "rounds=2", "steps=2", "variants=[plain,trainer]", "json=true", out=tmp_path)
    assert [row["variant"] for row in written["variants"]] == ["plain", "trainer"]
    assert len(written["ratios"]) == 1


@pytest.mark.slow
@pytest.mark.dist
def test_a_variant_that_fails_ends_the_benchmark(tmp_path):
    (bare,) = make_contenders(compose_config("throughput", *TINY, "variants=[bare]"))
    longer = replace(bare.setup, context_length=bare.setup.model.context_length + 1)
    worker = worker_of(replace(bare, setup=longer), None, tmp_path / "files")
    with pytest.raises(RuntimeError, match="variant bare failed"):
        worker.ask()
    worker.close()


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_variants_run_in_bf16_and_compiled(tmp_path):
    written = check_run(*TINY, out=tmp_path)
    assert (written["setup"]["device"], written["setup"]["precision"]) == ("cuda", "bf16")
    assert written["setup"]["compile"]
