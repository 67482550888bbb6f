"""Memory of a device by part, when a step needs most of it, by formula.

Weights, gradients and the two running means of AdamW, or the one of Muon, take 4 bytes a parameter each, also in mixed
precision.
Activations are what autograd keeps of gpt.py and rnn.py for the backward pass, counted tensor by tensor as
arXiv:2205.05198 does it (section 4), without T x T attention weights, which the kernels of PyTorch do not store (except
that of a CPU with dropout). tests/test_planned_memory.py compares the peak with the most that the tensors of a step
take at once. What torch.compile saves by fusing is not known beforehand: its peak is lower; and so is that of frozen
layers, of which activations count as if they were trained.

Letters: N tokens that are taken at once, D d_model, F numbers in the MLP's hidden layer, V token ids.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hindsight.chunk_rows import rows_of
from hindsight.config.model import Block, Cell, GPTConfig, ModelConfig, RNNConfig
from hindsight.config.training import Loss
from hindsight.planning.parameters import (
    ATTENTION,
    EMBEDDING,
    HEAD,
    MLP,
    RECURRENT,
    n_by_muon,
    parameters_by_part,
    qkv_width,
    trained_by_part,
)

FLOAT, HALF, MASK, ID = 4, 2, 1, 8
"""Bytes of a number in float32, in bfloat16 or float16, of a dropout mask, and of a token id."""
RECURRENT_BYTES = {Cell.gru: (32, 18), Cell.lstm: (83, 54)}
"""Times D that a recurrent layer keeps of a token, in float32 and in mixed precision: measured on a CPU with PyTorch
2.7. cuDNN keeps its own, which may differ."""


@dataclass(frozen=True)
class Memory:
    """Bytes of a device in a training step.

    Args:
        weights: the parameters.
        optimizer: the running means of AdamW and Muon, of what is trained.
        gradients: of the parameters that are trained.
        buckets: second copy of the gradients, by which several devices exchange them.
        copies: weights in half precision, in mixed precision.
        activations: what is kept for the backward pass.
        logits: of a microbatch, with their logarithms and gradients; or of a chunk, with what its loss keeps.
        first: what the backward pass of the last layer, which is the first, holds beside weights and optimizer.
        last: the same of the first layer.
        accumulates: whether there are several microbatches, so that gradients are there while the next is computed.
        update: what the update of a weight holds beside the gradients.
        gathered: whole weights, and gradients of a layer, where a device keeps a part of all.
    """

    weights: int
    optimizer: int
    gradients: int
    buckets: int
    copies: int
    activations: int
    logits: int
    first: int
    last: int
    accumulates: bool
    update: int
    gathered: int = 0

    @property
    def peak(self) -> int:
        """Most bytes that are held at once: by the loss, by the backward pass of a layer, or by the update.

        Gradients arise as activations go, so that a single microbatch never has all of both.
        """
        before = self.gradients if self.accumulates else 0
        by_loss = self.copies + self.activations + self.logits + before
        by_layer = max(self.first + before, self.gradients if self.accumulates else self.last)
        kept = self.weights + self.optimizer + self.buckets + self.gathered
        return kept + max(by_loss, by_layer, self.gradients + self.update)

    def parts(self) -> dict[str, int]:
        """Bytes by part; they need not be there at once."""
        return {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            **({"gradient_buckets": self.buckets} if self.buckets else {}),
            **({"gathered": self.gathered} if self.gathered else {}),
            **({"half_precision_copies": self.copies} if self.copies else {}),
            "activations": self.activations,
            "logits": self.logits,
        }


def memory_of(
    config: ModelConfig,
    vocab_size: int,
    windows: int,
    context_length: int,
    *,
    is_mixed: bool = False,
    is_checkpointed: bool = False,
    accumulates: bool = False,
    n_devices: int = 1,
    is_muon: bool = False,
    loss: Loss = Loss.auto,
    is_gpu: bool = False,
) -> Memory:
    """Estimate the memory of a training step on one device.

    Args:
        config: the model.
        vocab_size: number of token ids, unless the model says it.
        windows: those that are taken at once.
        context_length: tokens in a window.
        is_mixed: whether it computes in bfloat16 or float16.
        is_checkpointed: whether each layer's activations are computed again in the backward pass.
        accumulates: whether a step has several microbatches.
        n_devices: devices that exchange gradients.
        is_muon: whether Muon updates the matrices of the layers.
        loss: how head and cross-entropy are computed.
        is_gpu: whether chunks are those of a GPU.
    """
    parts, trained = parameters_by_part(config, vocab_size), trained_by_part(config, vocab_size)
    weights, gradients = FLOAT * sum(parts.values()), FLOAT * sum(trained.values())
    N, D, V = windows * context_length, config.d_model, config.vocab_size or vocab_size
    size = HALF if is_mixed else FLOAT
    layer, backward = _layer(config, is_mixed)
    kept = config.n_layers * (FLOAT * D if is_checkpointed else layer)
    ends = 2 * ID + (MASK if config.embedding_dropout else 0) * D
    if isinstance(config, GPTConfig):
        ends += _norm(config, is_mixed)
    else:
        assert isinstance(config, RNNConfig)
        ends += size * D + (FLOAT * D if config.final_norm else 0)
    head = EMBEDDING if config.tied_head else HEAD
    is_capped = isinstance(config, GPTConfig) and config.logit_softcap is not None
    in_layer = N * ((layer if is_checkpointed else 0) + backward)
    copies = HALF * (_in_layers(parts) + parts.get(head, 0)) if is_mixed else 0
    trained_head = FLOAT * trained[head]
    logits = (
        _all_logits(N, V, is_capped)
        if loss is Loss.plain
        else _chunk(config, N, V, trained_head, is_mixed, is_capped, is_gpu)
    )
    return Memory(
        weights=weights,
        optimizer=2 * gradients - (FLOAT * n_by_muon(config, vocab_size) if is_muon else 0),
        gradients=gradients,
        buckets=gradients if n_devices > 1 else 0,
        copies=copies,
        activations=N * (kept + ends),
        logits=logits,
        first=copies + N * kept + trained_head + in_layer,
        last=trained_head + _behind_first(config, trained) + N * (kept // config.n_layers) + in_layer,
        accumulates=accumulates,
        update=FLOAT * _muon_update(config) if is_muon else 0,
    )


def divided(memory: Memory, config: ModelConfig, vocab_size: int, n_devices: int) -> Memory:
    """Estimate the memory of one of the devices among which a model is divided.

    Each keeps a part of everything that belongs to weights. Whole are those outside the layers, of the layer that is
    computed and of the next one, and the gradients of one. By formula alone: no GPU was at hand.

    Args:
        memory: that of a device with the whole model.
        config: the model.
        vocab_size: number of token ids, unless the model says it.
        n_devices: devices.
    """
    parts = parameters_by_part(config, vocab_size)
    in_layers = FLOAT * _in_layers(parts)
    outside = FLOAT * sum(parts.values()) - in_layers
    before = _behind_first(config, trained_by_part(config, vocab_size))
    return replace(
        memory,
        weights=memory.weights // n_devices,
        optimizer=memory.optimizer // n_devices,
        gradients=memory.gradients // n_devices,
        buckets=0,
        last=memory.last - before + before // n_devices,
        gathered=outside + 3 * in_layers // config.n_layers,
    )


def _in_layers(parts: Mapping[str, int]) -> int:
    """Parameters in the layers, without norms."""
    return sum(parts.get(part, 0) for part in (ATTENTION, MLP, RECURRENT))


def _behind_first(config: ModelConfig, trained: Mapping[str, int]) -> int:
    """Bytes of the gradients of all layers but the first."""
    return FLOAT * (_in_layers(trained) * (config.n_layers - 1) // config.n_layers)


def _muon_update(config: ModelConfig) -> int:
    """Numbers that Muon holds while it updates the weight that takes most of them, at most.

    They are the update of the whole weight, and of one of its matrices two copies and two products with itself.
    """
    D = config.d_model
    if isinstance(config, RNNConfig):
        return (4 if config.cell is Cell.lstm else 3) * D**2 + 4 * D**2
    assert isinstance(config, GPTConfig)
    F = config.d_hidden
    return max(3 * F * D + 2 * min(F, D) ** 2, qkv_width(config) * D + 4 * D**2)


def _all_logits(N: int, V: int, is_capped: bool) -> int:
    """Bytes of the softmax's logarithms in float32, their gradient, and that of the logits; and the soft-cap's tanh."""
    return N * V * FLOAT * (4 if is_capped else 3)


def _chunk(
    config: ModelConfig, N: int, V: int, trained_head: int, is_mixed: bool, is_capped: bool, is_gpu: bool
) -> int:
    """Bytes of a chunk's logits and of the gradients that are kept for the backward pass, or of these twice.

    In mixed precision there are the logits in float32 too, and hidden states and their gradient in half precision; with
    a soft-cap its slope; the hidden states of a recurrent layer are put in order first.
    """
    rows, hidden = min(N, rows_of(N, V, "cuda" if is_gpu else "cpu", is_mixed)), N * config.d_model * FLOAT
    size = FLOAT + (HALF if is_mixed else 0) + (FLOAT if is_capped else 0)
    logits = rows * V * size + (hidden if is_mixed else 0)
    kept = hidden + trained_head
    return kept + max(logits, kept) + (hidden if isinstance(config, RNNConfig) else 0)


def _norm(config: GPTConfig, is_mixed: bool) -> int:
    """Bytes of a token that a norm keeps, and the linear layer behind it: its input, in float32, and its output.

    RMSNorm of PyTorch 2.7 keeps its input divided by the root of the mean square, too.
    """
    is_gpt2 = config.block is Block.gpt2
    inputs = FLOAT * config.d_model * (1 if is_gpt2 else 2)
    return inputs + (2 if is_gpt2 else 1) * FLOAT + (HALF if is_mixed else FLOAT) * config.d_model


def _layer(config: ModelConfig, is_mixed: bool) -> tuple[int, int]:
    """Bytes of a token: those that a layer keeps, and those of the gradients within it."""
    D, size = config.d_model, HALF if is_mixed else FLOAT
    if isinstance(config, RNNConfig):
        mask = MASK * D if config.dropout else 0
        return RECURRENT_BYTES[config.cell][is_mixed] * D + mask, 4 * size * D
    assert isinstance(config, GPTConfig)
    F, heads = config.d_hidden, FLOAT * config.n_heads
    hidden = 4 * F if config.is_gated else 2 * F  # before and behind the activation; the gate, its SiLU, and both
    attended = size * qkv_width(config)  # queries, keys and values
    if config.block is not Block.gpt2:
        kv_width = (qkv_width(config) - D) // 2
        is_shared = config.n_key_value_heads < config.n_heads
        # Rotated queries and keys beside what they were made of; or keys and values that were repeated.
        attended = size * (3 * D if is_shared else D + kv_width + qkv_width(config))
        if config.block is Block.modern:
            # QK-norm keeps its input, in float32, and the root of the mean square.
            of_norm = FLOAT * (D + kv_width) if is_mixed else size * qkv_width(config) if is_shared else 0
            attended += of_norm + FLOAT * (config.n_heads + config.n_key_value_heads)
    masks = 2 * MASK * D if config.dropout else 0
    kept = 2 * _norm(config, is_mixed) + attended + size * (D + hidden) + heads + masks
    return kept, size * 2 * F + FLOAT * 2 * D
