"""Build a model from its config, and wrap it for Composer with its loss and metrics.

Shapes: B windows, T tokens, V token ids.
"""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from composer.models import ComposerModel
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torchmetrics import Metric

from gpt import GPT
from hindsight.config.model import GPTConfig, ModelConfig, RNNConfig
from hindsight.config.training import Loss
from hindsight.device import device_of_process
from hindsight.errors import InputError
from hindsight.evaluation.opened_run import OpenedRun
from hindsight.files import set_usual_mode
from hindsight.fused_cross_entropy import Scores, liger_cross_entropy, linear_cross_entropy
from hindsight.orders.both import vocab_size_for
from hindsight.runs import METRIC_NAMES
from hindsight.training.sharding import whole_weights
from loss_utils import TokenMetric, correct_predictions, mean_nats, sums, target_nats
from rnn import RNN


def build_model(config: ModelConfig, vocab_size: int, seed: int, activation_checkpointing: bool = False) -> GPT | RNN:
    """Build a GPT or an RNN with initial weights that depend on the config and the seed alone.

    Args:
        config: the model; its vocab_size, if set, must be at least the tokenizer's.
        vocab_size: number of token ids of the tokenizer.
        seed: seed of the initial weights; the global random state is left as it was.
        activation_checkpointing: whether to compute activations again in the backward pass.
    """
    if config.vocab_size is not None and config.vocab_size < vocab_size:
        raise InputError(
            f"model.vocab_size={config.vocab_size} is less than the tokenizer's {vocab_size}; leave it null."
        )
    vocab_size = config.vocab_size or vocab_size
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if isinstance(config, GPTConfig):
            return GPT(config, vocab_size, activation_checkpointing)
        if isinstance(config, RNNConfig):
            return RNN(config, vocab_size, activation_checkpointing)
    raise TypeError(f"{type(config).__name__} is neither GPTConfig nor RNNConfig.")


def save_weights(module: nn.Module, path: Path) -> None:
    """Write the weights of a GPT or an RNN as safetensors, which hold tensors and nothing that runs."""
    hidden = path.with_name(f".{path.name}.partial")
    save_model(module, str(hidden))
    set_usual_mode(hidden)  # safetensors writes for the owner alone
    hidden.replace(path)


def load_weights(module: nn.Module, path: Path) -> None:
    """Read weights that `save_weights` wrote; InputError if they are damaged, or those of another model."""
    try:
        load_model(module, path)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{path} does not hold the weights of this model ({error}); build the model these weights were saved from."
        ) from error


def load_trained(run: OpenedRun) -> GPT | RNN:
    """Build the model of a run with the weights of the chosen checkpoint, for inference; on a GPU if there is one."""
    config, tokenizer = run.config, run.tokenizer
    module = build_model(config.model, vocab_size_for(run.order, tokenizer.vocab_size), config.seed)
    run.weights.load(LanguageModel(module, tokenizer.bytes_per_token))
    return device_of_process().module_to_device(module).eval()


class LanguageModel(ComposerModel):
    """A GPT or an RNN with its loss and metrics.

    The forward pass ends in the loss and the sums of `loss_utils.sums`, not in logits: every metric comes from the one
    cross-entropy that training needs, and `compile_regions` compiles it with the head.

    Args:
        module: the model, inputs_BT -> logits_BTV.
        bytes_per_token: (V,) UTF-8 bytes of each token id.
        train_metrics: whether to take all the sums in training too, or only the loss.
        ways: names of the readings of order=both, of which each is evaluated by itself, too.
        is_bf16_on_cpu: whether to compute in bfloat16 by the autocast of a CPU; Composer has none.
        loss: how head and cross-entropy are computed.
    """

    def __init__(
        self,
        module: GPT | RNN,
        bytes_per_token: NDArray[np.int64],
        train_metrics: bool = True,
        ways: tuple[str, ...] = (),
        is_bf16_on_cpu: bool = False,
        loss: Loss = Loss.auto,
    ) -> None:
        super().__init__()
        self.module = module
        self.loss_kind = loss
        self.ways = ways
        self.train_metrics = train_metrics
        self.is_bf16_on_cpu = is_bf16_on_cpu
        vocab_size = module.head.weight.shape[0]
        bytes_V = torch.zeros(vocab_size, dtype=torch.int64)
        bytes_V[: len(bytes_per_token)] = torch.from_numpy(bytes_per_token)
        # No buffer: DDP would send it from rank 0 in every step.
        self.bytes_V = bytes_V
        self._compiled_score: Callable[..., dict[str, Tensor]] | None = None
        self._eval_rows = 0

    def compile_regions(self, backend: str = "inductor") -> None:
        """Compile each block of a GPT, and what is behind the last one, by themselves.

        The blocks are the same code, which is compiled once: training starts in a fraction of the time that a model
        compiled as a whole takes, and is as fast. Layers of a GRU or LSTM are kernels of PyTorch, which stay as they
        are. What was compiled for an earlier model of this process is forgotten, lest its variants count for this one.

        Args:
            backend: torch.compile's.
        """
        torch.compiler.reset()
        warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")  # precision=fp32 is float32
        for block in self.module.blocks if isinstance(self.module, GPT) else ():
            block.compile(backend=backend)
        self._compiled_score = torch.compile(self._score, backend=backend)

    @property
    def layers(self) -> nn.ModuleList:
        """The blocks of a GPT, or the layers of an RNN."""
        return self.module.blocks if isinstance(self.module, GPT) else self.module.layers

    def whole_module(self) -> GPT | RNN | None:
        """Give the GPT or RNN with all of its weights; all ranks call this together.

        Where the weights are divided among the ranks, it is a copy in rank 0's main memory, because its device may have
        no room for it, and None on the others.
        """
        if (weights := whole_weights(self.module)) is None:
            return self.module
        if not weights:
            return None
        with torch.device("meta"):
            copy = build_model(self.module.config, self.module.head.weight.shape[0], seed=0)
        copy.load_state_dict(weights, assign=True)
        if self.module.config.tied_head:
            copy.head.weight = copy.embedding.weight
        return copy

    def logits(self, batch: dict[str, Tensor]) -> Tensor:
        """Predict the targets of a batch, (B, T, V)."""
        return self.module(batch["input_ids"], batch.get("documents"))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Score a batch.

        Args:
            batch: {"input_ids", "targets"}, each (B, T) int64, and "documents" with document_mask=true.

        Returns:
            {"loss": mean nats of the targets, shape (); "sums": see `loss_utils.sums`, shape (4,)}; training without
            train_metrics leaves out the sums.
        """
        targets_BT = batch["targets"]
        with self._autocast(), self._stance(batch):
            hidden_BTD = self.module.hidden(batch["input_ids"], batch.get("documents"))
            return (self._compiled_score or self._score)(hidden_BTD, targets_BT, self._bytes_on(targets_BT.device))

    def _score(self, hidden_BTD: Tensor, targets_BT: Tensor, bytes_V: Tensor) -> dict[str, Tensor]:
        """Score hidden states: what `forward` returns."""
        targets_N = targets_BT.flatten()
        scores = self._head_and_loss(hidden_BTD, targets_N)
        outputs = {"loss": mean_nats(scores.total, targets_N)}
        if self.train_metrics or not self.training:
            outputs["sums"] = sums(scores.nats, scores.correct, targets_N, bytes_V)
        return outputs

    def _head_and_loss(self, hidden_BTD: Tensor, targets_N: Tensor) -> Scores:
        """Compute logits and cross-entropy in the way of `loss`.

        Liger's is for training, and gives the head's weight a gradient only where the hidden states need one, which
        they do not where all below is frozen; else chunks are taken.
        """
        if self.loss_kind is Loss.plain:
            logits_NV = self.module.logits(hidden_BTD).flatten(0, 1)
            nats_N = target_nats(logits_NV, targets_N)
            return Scores(nats_N.sum(), nats_N.detach(), correct_predictions(logits_NV.detach(), targets_N))
        is_liger = self.loss_kind is Loss.liger and self.training and hidden_BTD.requires_grad
        score = liger_cross_entropy if is_liger else linear_cross_entropy
        return score(hidden_BTD, self.module.head.weight, targets_N, self.module.logit_softcap)

    def loss(self, outputs: dict[str, Tensor], batch: Any) -> Tensor:
        """Mean nats of the targets, shape ()."""
        return outputs["loss"]

    def eval_forward(self, batch: dict[str, Tensor], outputs: dict[str, Tensor] | None = None) -> Tensor:
        """Sums of a batch, shape (4,)."""
        return (outputs or self(batch))["sums"]

    def get_metrics(self, is_train: bool) -> dict[str, Metric]:
        """Metrics of an evaluation; in training, `logging_composer.TrainMetrics` takes the sums as they come."""
        if is_train:
            return {}
        metrics = {name: TokenMetric(name) for name in METRIC_NAMES}
        for number, way in enumerate(self.ways):
            metrics |= {f"{way}/{name}": TokenMetric(name, number) for name in METRIC_NAMES}
        return {**metrics}

    def update_metric(self, batch: Any, outputs: Tensor, metric: Metric) -> None:
        """Add the sums of a batch to a metric; a batch of an evaluation is in one way."""
        way = metric.way if isinstance(metric, TokenMetric) else None
        metric.update(outputs if way is None else outputs * (batch["way"][0] == way))

    def _autocast(self) -> AbstractContextManager[Any]:
        """Turn on bfloat16 where this model has to; what is on outside stays elsewhere."""
        return torch.autocast("cpu", torch.bfloat16) if self.is_bf16_on_cpu else nullcontext()

    def _stance(self, batch: dict[str, Tensor]) -> AbstractContextManager[Any]:
        """Compute the last batch of an evaluation, if it is smaller, without compiling anything for it alone.

        Not so with document_mask=true: attention within documents would take the memory of all T x T weights.
        """
        if self._compiled_score is None or self.training or "documents" in batch:
            self._eval_rows = 0  # the next evaluation may have smaller batches
            return nullcontext()
        n_rows = len(batch["targets"])
        self._eval_rows = max(n_rows, self._eval_rows)
        return torch.compiler.set_stance("force_eager") if n_rows < self._eval_rows else nullcontext()

    def _bytes_on(self, device: torch.device) -> Tensor:
        if self.bytes_V.device != device:
            self.bytes_V = self.bytes_V.to(device, non_blocking=True)
        return self.bytes_V
