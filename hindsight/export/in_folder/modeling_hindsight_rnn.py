"""GRU and LSTM language models for transformers 4 and 5, which have none: embedding, recurrent layers, head.

This file lies beside the weights of such a model, and needs nothing but torch and transformers:

    AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)

What it has in common with modeling_hindsight_gpt.py is in both: whoever trusts a model's code has one file to read.

Shapes: B rows, T tokens, D d_model, V vocab_size.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.utils.generic import ModelOutput


class HindsightRNNConfig(PretrainedConfig):
    """Sizes of a GRU or LSTM language model.

    Args:
        vocab_size: V.
        d_model: D, the width of the embedding and of every layer's state.
        n_layers: recurrent layers.
        cell: gru or lstm.
        final_norm: whether a LayerNorm stands between the last layer and the head.
        dropout: between the layers, in training.
        embedding_dropout: on the embedding, in training.
        max_position_embeddings: tokens in a window of training. The state may be carried further than that, which the
            model has not learned.
        tie_word_embeddings: whether the head's weight is the embedding's.
        kwargs: what every configuration has.
    """

    model_type = "hindsight_rnn"
    attribute_map: ClassVar[dict[str, str]] = {"hidden_size": "d_model", "num_hidden_layers": "n_layers"}

    def __init__(
        self,
        vocab_size: int = 256,
        d_model: int = 16,
        n_layers: int = 1,
        cell: str = "gru",
        final_norm: bool = False,
        dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        max_position_embeddings: int = 256,
        tie_word_embeddings: bool = False,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.d_model = d_model
        self.n_layers = n_layers
        self.cell = cell
        self.final_norm = final_norm
        self.dropout = dropout
        self.embedding_dropout = embedding_dropout
        self.max_position_embeddings = max_position_embeddings
        self.use_cache = kwargs.pop("use_cache", True)
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)


class RNNState:
    """What the layers have read so far; transformers carries it where other models have a cache of keys and values.

    Args:
        layers: for each layer its state, (1, B, D): h, and for an LSTM also c.
        n_read: tokens that were read, padding included.
    """

    is_compileable = False

    def __init__(self, layers: list[tuple[Tensor, ...]], n_read: int) -> None:
        self.layers = layers
        self.n_read = n_read

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens that were read."""
        return self.n_read

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Take the rows of the beams that beam search goes on with."""
        self.layers = [tuple(part.index_select(1, beam_idx.to(part.device)) for part in parts) for parts in self.layers]


@dataclass
class HindsightRNNOutput(ModelOutput):
    """What the model gives.

    Args:
        loss: mean nats, if there were labels.
        logits: (B, T, V).
        rnn_state: the state to go on from, with use_cache. Its name is none that transformers 4 or 5 renames.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    rnn_state: RNNState | None = None


class HindsightRNNForCausalLM(PreTrainedModel, GenerationMixin):
    """A GRU or LSTM that predicts token t + 1 from tokens 0..t."""

    config_class = HindsightRNNConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    _is_stateful = True  # transformers: no cache of keys and values, and no going back in what was read
    _tied_weights_keys: ClassVar[dict[str, str]] = {"head.weight": "embedding.weight"}

    def __init__(self, config: HindsightRNNConfig) -> None:
        super().__init__(config)
        layer = {"gru": nn.GRU, "lstm": nn.LSTM}[config.cell]
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.embedding_dropout = nn.Dropout(config.embedding_dropout)
        self.layers = nn.ModuleList(
            layer(config.d_model, config.d_model, batch_first=True) for _ in range(config.n_layers)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.d_model) if config.final_norm else None
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Leave the weights as PyTorch draws them."""

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """Say that `generate` is to make no cache: the model gives its state itself."""
        return False

    def get_input_embeddings(self) -> nn.Module:
        """The embedding."""
        return self.embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the embedding."""
        self.embedding = value

    def get_output_embeddings(self) -> nn.Module:
        """The head."""
        return self.head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the head."""
        self.head = new_embeddings

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rnn_state: RNNState | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> HindsightRNNOutput | tuple[Any, ...]:
        """Read tokens.

        Args:
            input_ids: (B, T) token ids.
            attention_mask: (B, T or more) 1 for tokens, 0 for padding, which leaves the state as it is.
            rnn_state: the state to go on from; None for the state at a text's beginning, zero.
            inputs_embeds: (B, T, D) in place of input_ids.
            labels: (B, T) ids to score, shifted here as in all of transformers; -100 for none.
            use_cache: whether to give the state; by default in inference.
            return_dict: whether to give an object (by default) or a tuple.
            logits_to_keep: how many last logits to compute; 0 for all.
            kwargs: what other models take, and this one needs not.
        """
        x_BTD = self.embedding_dropout(self.embedding(input_ids) if inputs_embeds is None else inputs_embeds)
        T = x_BTD.shape[1]
        mask_BT = None if attention_mask is None else attention_mask[:, -T:].bool()
        places = None if mask_BT is None or bool(mask_BT.all()) else _Places(mask_BT)
        after: list[tuple[Tensor, ...]] = []
        for i, layer in enumerate(self.layers):
            if i > 0:
                x_BTD = self.dropout(x_BTD)
            x_BTD, parts = _run(layer, x_BTD, None if rnn_state is None else rnn_state.layers[i], places)
            after.append(parts)
        x_BTD = x_BTD if self.norm is None else self.norm(x_BTD)
        logits_BTV = self.head(x_BTD[:, -logits_to_keep:] if logits_to_keep else x_BTD)
        loss = None
        if labels is not None:
            if logits_to_keep:
                raise ValueError(f"logits_to_keep={logits_to_keep}: labels need all logits; leave one of them out.")
            loss = F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        is_kept = (self.config.use_cache and not self.training) if use_cache is None else use_cache
        n_read = T if rnn_state is None else rnn_state.n_read + T
        output = HindsightRNNOutput(loss, logits_BTV, RNNState(after, n_read) if is_kept else None)
        return output if return_dict is None or return_dict else output.to_tuple()

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        past_key_values: RNNState | None = None,
        attention_mask: Tensor | None = None,
        cache: RNNState | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Give `forward` the tokens that were not read yet."""
        state = past_key_values if past_key_values is not None else cache
        unread = input_ids if state is None else input_ids[:, state.n_read :]
        return {
            "input_ids": unread,
            "attention_mask": attention_mask,
            "rnn_state": state,
            "use_cache": use_cache,
            "logits_to_keep": 1,
        }

    def _update_model_kwargs_for_generation(
        self, outputs: ModelOutput, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Carry the state under both names by which versions of transformers look for it, as in beam search."""
        model_kwargs = super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **kwargs)
        state = outputs.get("rnn_state")
        return model_kwargs if state is None else {**model_kwargs, "past_key_values": state, "cache": state}


class _Places:
    """Where the tokens of each row are among padding, before or behind it: they are read as if there were none."""

    def __init__(self, mask_BT: Tensor) -> None:
        self.lengths_B = mask_BT.sum(1).clamp(min=1).cpu()  # a row of padding alone: what it gives means nothing
        self.tokens_first_BT = mask_BT.int().argsort(dim=1, descending=True, stable=True)
        self.back_BT = self.tokens_first_BT.argsort(dim=1)

    def move(self, x_BTD: Tensor, places_BT: Tensor) -> Tensor:
        return x_BTD.gather(1, places_BT[:, :, None].expand_as(x_BTD))


def _run(
    layer: nn.Module, x_BTD: Tensor, state: tuple[Tensor, ...] | None, places: _Places | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run a layer; its outputs at each place, and its state behind the last token of each row."""
    before: Any = state[0] if state is not None and len(state) == 1 else state  # a GRU's is h alone
    if places is None:
        x_BTD, after = layer(x_BTD, before)
    else:
        first_BTD = places.move(x_BTD, places.tokens_first_BT)
        packed = pack_padded_sequence(first_BTD, places.lengths_B, batch_first=True, enforce_sorted=False)
        packed, after = layer(packed, before)
        first_BTD = pad_packed_sequence(packed, batch_first=True, total_length=x_BTD.shape[1])[0]
        x_BTD = places.move(first_BTD, places.back_BT)
    return x_BTD, after if isinstance(after, tuple) else (after,)
