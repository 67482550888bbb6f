"""The contender of Hugging Face's transformers."""

from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from hindsight.config.model import GPTConfig


class HuggingFaceGPT2(nn.Module):
    """Hugging Face's GPT-2 with the sizes of our model, and its own loss, which shifts the targets itself.

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
            n_inner=config.d_hidden,
            layer_norm_epsilon=config.norm_eps,
            resid_pdrop=config.dropout,
            attn_pdrop=config.dropout,
            embd_pdrop=config.embedding_dropout,
            tie_word_embeddings=config.tied_head,
            use_cache=False,
            attn_implementation="sdpa",
        )
        self.model = GPT2LMHeadModel(shape)
        self.model.loss_type = "ForCausalLM"  # the default, named because transformers warns otherwise

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss of a batch: {"input_ids"} -> {"loss"}, mean nats per token."""
        return {"loss": self.model(input_ids=batch["input_ids"], labels=batch["input_ids"]).loss}
