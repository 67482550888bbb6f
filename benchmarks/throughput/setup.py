"""What is measured: the benchmark's configuration after all checks, with the device's defaults filled in."""

from dataclasses import dataclass, replace

import torch
from omegaconf import OmegaConf

from hindsight.config.model import Block, GPTConfig, ModelConfig, RNNConfig
from hindsight.config.run_names import model_name
from hindsight.config.schemas import CONF_DIR
from hindsight.config.throughput import PEERS, BenchmarkConfig, Variant
from hindsight.config.training import Loss, Precision
from hindsight.errors import InputError
from hindsight.fused_cross_entropy import require_liger
from hindsight.machine import require_cpp_compiler

BYTE_IDS = 256
"""Random tokens are drawn from so many ids, those of a tokenizer of bytes, whatever the model's number of ids."""
BYTE_VOCAB_SIZE = 261
"""Ids of that tokenizer, special tokens included."""


@dataclass(frozen=True)
class Setup:
    """Model, device, sizes and repetitions of a benchmark."""

    model: ModelConfig
    device: str
    """cpu or cuda."""
    precision: Precision
    """fp32, or bf16 by autocast."""
    vocab_size: int
    context_length: int
    batch_size: int
    microbatch_size: int
    loss: Loss
    """How our variants compute head and cross-entropy."""
    compile: bool
    threads: int
    rounds: int
    """Rounds that count; one more, before them, warms up."""
    steps: int
    """Steps of a turn that count; one more, before them, warms up."""
    seed: int

    @property
    def step_tokens(self) -> int:
        """Tokens in an optimizer step."""
        return self.batch_size * self.context_length

    @property
    def sizes(self) -> str:
        """Model and sizes of a step, such as "gpt_demo, V 4096, 8 x 256"."""
        parts = self.batch_size // self.microbatch_size
        accumulated = f" in {parts} parts" if parts > 1 else ""
        return (
            f"{model_name(self.model)}, V {self.vocab_size}, {self.batch_size} x {self.context_length} tokens"
            f"{accumulated}"
        )


@dataclass(frozen=True)
class Contender:
    """A variant, with what is measured of it."""

    name: str
    variant: Variant
    setup: Setup

    @property
    def how(self) -> str:
        """How its step is made, such as "fp32, compiled, loss=chunked"."""
        loss = "" if self.variant in PEERS else f", loss={self.setup.loss.name}"
        return f"{self.setup.precision.name}{', compiled' * self.setup.compile}{loss}"


def make_contenders(config: BenchmarkConfig) -> list[Contender]:
    """Fill in what depends on the device, and check the settings against each other."""
    gpu = torch.cuda.is_available()
    model = named_model("gpt2" if gpu else "gpt_demo") if type(config.model) is ModelConfig else config.model
    context_length = config.context_length or model.context_length
    if isinstance(model, GPTConfig) and context_length > model.context_length:
        raise InputError(
            f"context_length={context_length} exceeds model.context_length={model.context_length}; "
            "lower the first or raise the second."
        )
    variants = config.variants
    for variant in variants or []:
        if not has_model(variant, model):
            raise InputError(
                f"variants=[...,{variant.name}] has no model of the shape of model={model.name}; leave {variant.name} "
                "out, or choose a model with block=gpt2."
            )
    variants = variants or [variant for variant in Variant if has_model(variant, model)]
    batch_size = config.batch_size or (32 if gpu else 8)
    microbatch_size = config.microbatch_size or batch_size
    if batch_size % microbatch_size:
        raise InputError(f"microbatch_size={microbatch_size} does not divide batch_size={batch_size}.")
    vocab_size = config.vocab_size or model.vocab_size or (50257 if gpu else 4096)
    if vocab_size < BYTE_VOCAB_SIZE:
        raise InputError(f"vocab_size={vocab_size} is less than the {BYTE_VOCAB_SIZE} ids of a tokenizer of bytes.")
    require_liger(config.loss)
    setup = Setup(
        model=replace(model, vocab_size=vocab_size),
        device="cuda" if gpu else "cpu",
        precision=config.precision or (Precision.bf16 if gpu else Precision.fp32),
        vocab_size=vocab_size,
        context_length=context_length,
        batch_size=batch_size,
        microbatch_size=microbatch_size,
        loss=config.loss,
        compile=gpu if config.compile is None else config.compile,
        threads=config.threads,
        rounds=config.rounds,
        steps=config.steps,
        seed=config.seed,
    )
    peers = replace(
        setup,
        precision=config.peers.precision or setup.precision,
        compile=setup.compile if config.peers.compile is None else config.peers.compile,
    )
    if not gpu and (setup.compile or peers.compile):
        require_cpp_compiler()
    return [Contender(variant.name, variant, peers if variant in PEERS else setup) for variant in variants]


def has_model(variant: Variant, model: ModelConfig) -> bool:
    """Whether a variant can be built in the shape of a model."""
    if variant is Variant.huggingface or (variant is Variant.plain and not isinstance(model, RNNConfig)):
        return isinstance(model, GPTConfig) and model.block is Block.gpt2
    return True


def named_model(name: str) -> GPTConfig:
    """Read a GPT of conf/model/."""
    settings = OmegaConf.to_container(OmegaConf.load(CONF_DIR / "model" / f"{name}.yaml"))
    assert isinstance(settings, dict)
    return GPTConfig(**{str(key): value for key, value in settings.items() if key != "defaults"})
