"""Let a model write whose training text was reversed, character by character, before it was tokenized.

This file lies beside the weights of such a model, and needs torch, transformers, and regex, which comes with it.
"""

from hindsight.export.in_folder.backward_pipeline import BackwardTextGenerationPipeline
from hindsight.text.graphemes import reverse_text


class ReversedTextGenerationPipeline(BackwardTextGenerationPipeline):
    """Text -> text with what the model writes beside it; texts are reversed for the model, and back."""

    def as_tokenized(self, text: str) -> str:
        """Reverse a text by grapheme clusters; twice, it is the same text."""
        return reverse_text(text)
