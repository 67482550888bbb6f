"""Measure training steps side by side in one run: tokens/s, peak memory, model FLOPs utilization (MFU).

Every variant has a process of its own, so that its peak memory is its own, and only one computes at a time. They take
turns (A B C D A B C D ...), so that whatever else the machine does hits all alike; what is compared are medians, and
ratios taken within a round. The first round, and the first step of every turn, warm up and do not count.

MFU is tokens/s times FLOPs per token over the FLOPs/s that the device could do at best. FLOPs per token: 6N + 12LHQT
for a transformer of L layers with H heads of Q numbers over T tokens (arXiv:2204.02311, appendix B), 6N for an RNN.
N counts the weights that a token is multiplied by: without embeddings, with the head. Like there, attention counts in
full, as if it were not causal, and activation checkpointing not at all. The best rate of a GPU is its datasheet's for
dense bfloat16; that of a CPU is measured here, in every round, on a matrix product in float32 with as many threads.
"""

import json
import logging
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from hindsight.command_line import CONF_DIR, check_arguments, run_script
from hindsight.config.direction import Direction
from hindsight.config.model import Block, GPTConfig, ModelConfig
from hindsight.config.optim import OptimConfig
from hindsight.config.throughput import BenchmarkConfig, Variant
from hindsight.errors import InputError

if __name__ == "__main__":
    check_arguments("throughput")  # before the imports below, which take seconds

import numpy as np
import torch
from composer import Trainer
from composer.core import Callback, State
from composer.loggers import Logger
from omegaconf import OmegaConf
from streaming import MDSWriter
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm
from transformers import GPT2Config, GPT2LMHeadModel

from hindsight.files import write_atomically
from hindsight.loading.mds_reader import WindowStream
from hindsight.loading.windows import Split
from hindsight.orders.direction import make_example
from hindsight.provenance import versions
from hindsight.shards.manifest import token_dtype
from hindsight.training.gradient import ClipGradient
from hindsight.training.optim import build_optimizer, build_scheduler
from language_model import LanguageModel, build_model
from load_text_streaming import TextStreamingDataset, build_loader
from logging_composer import MetricsFile, TrainMetrics, peak_memory_mib
from loss_utils import metric_values

BOS_ID = 0
WINDOWS_PER_BLOCK = 8
MATMUL_SIZE = 2048
GPU_FLOPS = {"H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Part of a GPU's name -> dense bfloat16 FLOP/s of NVIDIA's datasheets; the first that fits."""

log = logging.getLogger("hindsight")


@dataclass(frozen=True)
class Setup:
    """What is measured, after all checks, with the device's defaults filled in."""

    model: ModelConfig
    device: str
    """cpu or cuda."""
    precision: str
    """fp32, or bf16 by autocast."""
    vocab_size: int
    context_length: int
    batch_size: int
    microbatch_size: int
    compile: bool
    threads: int
    rounds: int
    """Without the one that warms up."""
    steps: int
    """In a turn, without the one that warms up."""
    seed: int

    @property
    def step_tokens(self) -> int:
        """Tokens in an optimizer step."""
        return self.batch_size * self.context_length


def make_setup(config: BenchmarkConfig) -> Setup:
    """Fill in what depends on the device, and check the settings against each other."""
    gpu = torch.cuda.is_available()
    model = named_model("gpt2" if gpu else "gpt_demo") if type(config.model) is ModelConfig else config.model
    context_length = config.context_length or model.context_length
    if isinstance(model, GPTConfig) and context_length > model.context_length:
        raise InputError(
            f"context_length={context_length} exceeds model.context_length={model.context_length}; "
            "lower the first or raise the second."
        )
    if Variant.huggingface in config.variants and not (isinstance(model, GPTConfig) and model.block is Block.gpt2):
        raise InputError(
            f"variants=[...,huggingface] has no model of the shape of model={model.name}; leave huggingface out, or "
            "choose a model with block=gpt2."
        )
    batch_size = config.batch_size or (32 if gpu else 8)
    microbatch_size = config.microbatch_size or batch_size
    if batch_size % microbatch_size:
        raise InputError(f"microbatch_size={microbatch_size} does not divide batch_size={batch_size}.")
    return Setup(
        model=model,
        device="cuda" if gpu else "cpu",
        precision="bf16" if gpu else "fp32",
        vocab_size=config.vocab_size or model.vocab_size or (50257 if gpu else 4096),
        context_length=context_length,
        batch_size=batch_size,
        microbatch_size=microbatch_size,
        compile=gpu if config.compile is None else config.compile,
        threads=config.threads,
        rounds=config.rounds,
        steps=config.steps,
        seed=config.seed,
    )


def named_model(name: str) -> GPTConfig:
    """Read a GPT of conf/model/."""
    settings = OmegaConf.to_container(OmegaConf.load(CONF_DIR / "model" / f"{name}.yaml"))
    assert isinstance(settings, dict)
    return GPTConfig(**{str(key): value for key, value in settings.items() if key != "defaults"})


# ---------------------------------------------------------------------------------------------------------- variants


class Loop(Protocol):
    """A variant, ready to train."""

    def take_turn(self) -> list[float]:
        """Make one step and then `steps` more; give the seconds of each of the latter."""
        ...


class Stopwatch:
    """Takes the time of steps; on a GPU without waiting for it before the end of a turn."""

    def __init__(self, device: str) -> None:
        self.gpu = device == "cuda"
        self.marks: list[Any] = []

    def mark(self) -> None:
        """Call at the end of every step."""
        if self.gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()  # pyright: ignore[reportCallIssue]
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Give the time between each two marks, and forget them."""
        marks, self.marks = self.marks, []
        pairs = list(pairwise(marks))
        if self.gpu:
            torch.cuda.synchronize()
            return [start.elapsed_time(end) / 1000 for start, end in pairs]
        return [end - start for start, end in pairs]


class PlainLoop:
    """Forward, loss, backward, clipping, optimizer, on batches that are on the device already.

    Args:
        setup: what is measured.
        model: {"input_ids", "targets"} -> {"loss"}, and "sums" if metrics are to be made of them.
    """

    def __init__(self, setup: Setup, model: nn.Module) -> None:
        self.setup = setup
        self.optim = OptimConfig()
        self.model = model.to(setup.device)
        self.optimizer = build_optimizer(self.model, self.optim)
        self.forward = torch.compile(self.model) if setup.compile else self.model
        self.watch = Stopwatch(setup.device)
        windows = random_windows(setup).astype(np.int64).reshape(-1, setup.batch_size, setup.context_length)
        pairs = [make_example(torch.from_numpy(window_BT), Direction.forward, BOS_ID) for window_BT in windows]
        self.batches = [(inputs_BT.to(setup.device), targets_BT.to(setup.device)) for inputs_BT, targets_BT in pairs]

    def take_turn(self) -> list[float]:
        """Go through all batches."""
        for inputs_BT, targets_BT in self.batches:
            self._step(inputs_BT, targets_BT)
            self.watch.mark()
        return self.watch.seconds()

    def _step(self, inputs_BT: Tensor, targets_BT: Tensor) -> None:
        sums = []
        size = self.setup.microbatch_size
        for inputs, targets in zip(inputs_BT.split(size), targets_BT.split(size), strict=True):
            with torch.autocast(self.setup.device, torch.bfloat16, enabled=self.setup.precision == "bf16"):
                outputs = self.forward({"input_ids": inputs, "targets": targets})
            (outputs["loss"] * (len(inputs) / len(inputs_BT))).backward()
            sums += [outputs["sums"]] if "sums" in outputs else []
        clip_grad_norm_(self.model.parameters(), self.optim.grad_clip or float("inf"))
        self.optimizer.step()
        self.optimizer.zero_grad()
        if sums:
            metric_values(torch.stack(sums).sum(dim=0))


class HuggingFaceGPT2(nn.Module):
    """Hugging Face's GPT-2 of the shape of ours, with its own loss, which shifts the targets itself.

    Args:
        config: our model.
        vocab_size: number of token ids.
    """

    def __init__(self, config: GPTConfig, vocab_size: int) -> None:
        super().__init__()
        shape = GPT2Config(
            vocab_size=vocab_size,
            n_positions=config.context_length,
            n_embd=config.d_model,
            n_layer=config.n_layers,
            n_head=config.n_heads,
            n_inner=round(config.mlp_ratio * config.d_model),
            layer_norm_epsilon=config.norm_eps,
            resid_pdrop=config.dropout,
            attn_pdrop=config.dropout,
            embd_pdrop=config.embedding_dropout,
            tie_word_embeddings=config.tied_head,
            use_cache=False,
            attn_implementation="sdpa",
        )
        self.model = GPT2LMHeadModel(shape)
        self.model.loss_type = "ForCausalLM"  # what it takes anyway, with a warning

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Score a batch."""
        return {"loss": self.model(input_ids=batch["input_ids"], labels=batch["input_ids"]).loss}


class TrainerLoop:
    """Our model in Composer's Trainer: shards, loader, accumulation, metrics, clipping, schedule, metrics.jsonl.

    Evaluation, checkpoints and samples are not in it: they come every so many steps, as one likes. A turn is an epoch.

    Args:
        setup: what is measured.
        folder: an empty folder for shards and metrics.
    """

    def __init__(self, setup: Setup, folder: Path) -> None:
        optim = OptimConfig()
        module = build_model(setup.model, setup.vocab_size, setup.seed)
        optimizer = build_optimizer(module, optim)
        split = write_shards(setup, folder / "shards")
        dataset = TextStreamingDataset(WindowStream(split), split, setup.batch_size, shuffle=True, seed=setup.seed)
        self.watch, gradient = Stopwatch(setup.device), ClipGradient(optim.grad_clip)
        self.trainer = Trainer(
            model=LanguageModel(module, bytes_per_token(setup)),
            train_dataloader=build_loader(dataset, Direction.forward, BOS_ID, num_workers=0, seed=setup.seed),
            optimizers=optimizer,
            schedulers=build_scheduler(optimizer, (setup.rounds + 1) * (setup.steps + 1), optim),
            step_schedulers_every_batch=True,
            precision={"fp32": "fp32", "bf16": "amp_bf16"}[setup.precision],
            device_train_microbatch_size=setup.microbatch_size,
            accumulate_train_batch_on_tokens=True,
            seed=setup.seed,
            callbacks=[gradient, TrainMetrics(gradient, interval=1), MarkSteps(self.watch)],
            loggers=[MetricsFile(folder / "metrics.jsonl")],
            progress_bar=False,
            compile_config={} if setup.compile else None,
            auto_log_hparams=False,
        )

    def take_turn(self) -> list[float]:
        """Train for an epoch."""
        self.trainer.fit(duration="1ep")
        return self.watch.seconds()


class MarkSteps(Callback):
    """Mark the end of every step on a stopwatch."""

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch

    def batch_end(self, state: State, logger: Logger) -> None:
        """Mark it."""
        self.watch.mark()


def random_windows(setup: Setup) -> np.ndarray:
    """Draw the tokens of a turn, (windows, context_length)."""
    rng = np.random.default_rng(setup.seed)
    shape = ((setup.steps + 1) * setup.batch_size, setup.context_length)
    return rng.integers(setup.vocab_size, size=shape).astype(token_dtype(setup.vocab_size))


def bytes_per_token(setup: Setup) -> np.ndarray:
    """Let every token stand for a byte."""
    return np.ones(setup.vocab_size, np.int64)


def write_shards(setup: Setup, folder: Path) -> Split:
    """Write the tokens of a turn as a shard."""
    tokens = random_windows(setup).ravel()
    block_length = WINDOWS_PER_BLOCK * setup.context_length
    blocks = np.resize(tokens, (-(-len(tokens) // block_length), block_length))  # the last is filled up
    columns = {"tokens": f"ndarray:{tokens.dtype}:{block_length}"}
    with MDSWriter(columns=columns, out=str(folder / "train"), size_limit=None) as writer:
        for block in blocks:
            writer.write({"tokens": block})
    return Split(str(folder), "train", len(tokens), block_length, len(blocks), setup.context_length, setup.batch_size)


def build_loop(variant: Variant, setup: Setup, folder: Path) -> Loop:
    """Build a variant."""
    torch.manual_seed(setup.seed)
    if variant is Variant.trainer:
        return TrainerLoop(setup, folder)
    if variant is Variant.huggingface:
        assert isinstance(setup.model, GPTConfig)
        return PlainLoop(setup, HuggingFaceGPT2(setup.model, setup.vocab_size))
    module = build_model(setup.model, setup.vocab_size, setup.seed)
    return PlainLoop(setup, LanguageModel(module, bytes_per_token(setup), variant is Variant.metrics))


# --------------------------------------------------------------------------------------------------------- measuring


class Worker:
    """A variant in a process of its own, which waits for its turns.

    Args:
        variant: what it runs.
        setup: what is measured.
        folder: a new folder for its files.
    """

    def __init__(self, variant: Variant, setup: Setup, folder: Path) -> None:
        self.variant = variant
        context = get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=work, args=(variant, setup, folder, other))
        self.process.start()
        other.close()

    def take_turn(self) -> tuple[list[float], float]:
        """Let it take a turn; give the seconds of its steps, and its peak memory so far in MiB."""
        try:
            self.pipe.send(True)
            return self.pipe.recv()
        except (EOFError, ConnectionError):
            raise RuntimeError(f"The variant {self.variant.name} failed; its own error stands above.") from None

    def close(self) -> None:
        """Let it end."""
        self.pipe.close()
        self.process.join()


def work(variant: Variant, setup: Setup, folder: Path, pipe: Connection) -> None:
    """Run a variant, turn by turn, until the other end of the pipe is closed."""
    torch.set_num_threads(setup.threads)
    folder.mkdir()
    loop = None
    while wants_turn(pipe):
        loop = loop or build_loop(variant, setup, folder)  # in its turn, so that no two compute at once
        seconds = loop.take_turn()
        peak_mib = peak_memory_mib()
        if setup.device == "cuda":
            torch.cuda.empty_cache()  # for the others
        pipe.send((seconds, peak_mib))


def wants_turn(pipe: Connection) -> bool:
    """Wait until the other end asks for a turn, or closes."""
    try:
        return pipe.recv()
    except EOFError:
        return False


@dataclass
class Measured:
    """The turns of a variant that count."""

    variant: Variant
    turns: list[list[float]]
    """Seconds of each step of each turn."""
    peak_mib: float


def measure(variants: Sequence[Variant], setup: Setup) -> tuple[list[Measured], float | None]:
    """Measure the variants by turns.

    Returns:
        What was measured of each, and the FLOP/s that the device could do at best; None for an unknown GPU.
    """
    measured = [Measured(variant, [], 0.0) for variant in variants]
    rates = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        workers = [Worker(variant, setup, Path(folder, str(i))) for i, variant in enumerate(variants)]
        for worker in workers:
            stack.callback(worker.close)
        for number in tqdm(range(setup.rounds + 1), desc="measuring", unit="round", disable=None):
            rates.append(best_flops(setup))
            for worker, result in zip(workers, measured, strict=True):
                seconds, result.peak_mib = worker.take_turn()
                result.turns += [seconds] if number else []
    known = [rate for rate in rates[1:] if rate is not None]
    return measured, statistics.median(known) if known else None


def best_flops(setup: Setup) -> float | None:
    """FLOP/s that the device could do at best: from its datasheet (GPU), or measured on a matrix product (CPU)."""
    if setup.device == "cuda":
        name = torch.cuda.get_device_name()
        return next((rate for part, rate in GPU_FLOPS.items() if part in name), None)
    torch.set_num_threads(setup.threads)
    a, b = torch.ones(2, MATMUL_SIZE, MATMUL_SIZE)
    began = time.perf_counter()
    torch.mm(a, b)
    return 2 * MATMUL_SIZE**3 / (time.perf_counter() - began)


def flops_per_token(config: ModelConfig, vocab_size: int, context_length: int) -> int:
    """FLOPs of forward and backward pass for a token, by the formula above."""
    with torch.device("meta"):
        module = build_model(config, vocab_size, seed=0)
    embeddings = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    embeddings.discard(id(module.head.weight))  # tied: the same weight, and a matrix product all the same
    n = sum(weight.numel() for weight in module.parameters() if id(weight) not in embeddings)
    attention = 12 * config.n_layers * config.d_model * context_length if isinstance(config, GPTConfig) else 0
    return 6 * n + attention


# ------------------------------------------------------------------------------------------------------------- output


def summarize(measured: Sequence[Measured], setup: Setup, best: float | None) -> list[dict[str, Any]]:
    """Make a row of the table for each variant; ratios are to the first, turn by turn."""
    flops = flops_per_token(setup.model, setup.vocab_size, setup.context_length)
    rows = []
    for one in measured:
        step_s = statistics.median(seconds for turn in one.turns for seconds in turn)
        turns = zip(one.turns, measured[0].turns, strict=True)
        ratios = [statistics.median(turn) / statistics.median(first) for turn, first in turns]
        rows.append(
            {
                "variant": one.variant.name,
                "tokens_per_second": setup.step_tokens / step_s,
                "step_seconds": step_s,
                "ratio": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
                "peak_memory_mib": one.peak_mib,
                "mfu": setup.step_tokens / step_s * flops / best if best else None,
                "turns_seconds": one.turns,
            }
        )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Write the rows for people."""
    lines = [
        f"{'variant':<12}{'tokens/s':>11}{'step ms':>10}{'time / ' + rows[0]['variant']:>15}{'(min to max)':>18}"
        f"{'peak MiB':>10}{'MFU %':>8}"
    ]
    for row in rows:
        spread = f"({row['ratio_min']:.3f} to {row['ratio_max']:.3f})"
        mfu = "?" if row["mfu"] is None else f"{100 * row['mfu']:.1f}"
        lines.append(
            f"{row['variant']:<12}{row['tokens_per_second']:>11,.0f}{1000 * row['step_seconds']:>10.1f}"
            f"{row['ratio']:>15.3f}{spread:>18}{row['peak_memory_mib']:>10,.0f}{mfu:>8}"
        )
    return "\n".join(lines)


def describe(setup: Setup, best: float | None) -> str:
    """Say what was measured, on what, and against which best rate."""
    gpu = setup.device == "cuda"
    device = torch.cuda.get_device_name() if gpu else f"CPU, {setup.threads} thread{'s' * (setup.threads > 1)}"
    rate = "an unknown rate" if best is None else f"{best / 1e12:,.3g} TFLOP/s"
    source = "datasheet, dense bf16" if gpu else f"measured: fp32 product of {MATMUL_SIZE} x {MATMUL_SIZE} matrices"
    memory = "allocated on the GPU" if gpu else "the whole process, libraries included"
    return (
        f"{setup.model.name}, vocabulary {setup.vocab_size}, batch {setup.batch_size} x {setup.context_length} tokens, "
        f"microbatch {setup.microbatch_size}, {setup.precision}{', compiled' * setup.compile}; {device}\n"
        f"{setup.rounds} rounds of {setup.steps} steps: medians, ratios turn by turn. Memory: {memory}.\n"
        f"MFU: of {rate} ({source}); "
        f"{flops_per_token(setup.model, setup.vocab_size, setup.context_length) / 1e6:,.1f} MFLOP a token "
        "(6N + 12LHQT).\n"
    )


def main(config: BenchmarkConfig) -> None:
    """Measure, and show the table."""
    setup = make_setup(config)
    if config.out is not None:
        try:
            Path(config.out).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"out={config.out} cannot be made a folder ({error.strerror}); choose another.") from None
    measured, best = measure(config.variants, setup)
    rows = summarize(measured, setup, best)
    log.info("%s\n%s", describe(setup, best), table(rows))
    if config.out is not None:
        path = Path(config.out, "throughput.json")
        settings = OmegaConf.to_container(OmegaConf.structured(setup), enum_to_str=True)
        full = {"setup": settings, "best_flops_per_second": best, "versions": versions(), "variants": rows}
        write_atomically(path, json.dumps(full, indent=2) + "\n")
        log.info("\nNumbers: %s", path)


if __name__ == "__main__":
    run_script("throughput", main)
