"""What is measured: the benchmark's configuration after all checks, with the device's defaults filled in."""

from dataclasses import dataclass

import torch
from omegaconf import OmegaConf

from hindsight.config.model import Block, GPTConfig, ModelConfig
from hindsight.config.schemas import CONF_DIR
from hindsight.config.throughput import BenchmarkConfig, Variant
from hindsight.errors import InputError


@dataclass(frozen=True)
class Setup:
    """Model, device, sizes and repetitions of a benchmark."""

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
    """Rounds that count; one more, before them, warms up."""
    steps: int
    """Steps of a turn that count; one more, before them, warms up."""
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
