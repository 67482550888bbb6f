"""Let a model that reads from the end of a text to its beginning write what came before a text.

This file lies beside the weights of such a model, and needs nothing but torch and transformers:

    write = pipeline("backward-text-generation", model=FOLDER, trust_remote_code=True)
    write(" and they lived happily ever after.", max_new_tokens=40)

The model reads tokens, the last one first, and gives the one before; here they are turned, both ways.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Pipeline


class BackwardTextGenerationPipeline(Pipeline):
    """Text -> text with what the model writes before it; the arguments of `generate` may be given beside it."""

    model: Any
    tokenizer: Any
    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = True

    def as_tokenized(self, text: str) -> str:
        """Give a text as it was tokenized for training, or such a text as it is read: here they are the same."""
        return text

    def _sanitize_parameters(
        self, return_full_text: bool | None = None, **generate: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        shown = {} if return_full_text is None else {"return_full_text": return_full_text}
        return {}, generate, shown

    def preprocess(self, text: str) -> dict[str, Any]:
        """Give the start and the tokens of a text, in the order in which the model reads them."""
        ids = self._turned(
            self.tokenizer(self.as_tokenized(text), add_special_tokens=False, verbose=False)["input_ids"]
        )
        window = self._reading["context_length"]
        read_ids = ids if len(ids) < window else ids[-(window // 2) :]
        input_ids = torch.tensor([[self._start_id, *read_ids]], dtype=torch.long)
        return {"prompt": text, "input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}

    def _forward(self, model_inputs: dict[str, Any], **generate: Any) -> dict[str, Any]:
        input_ids, mask = model_inputs["input_ids"], model_inputs["attention_mask"]
        n_rows, n_inputs = input_ids.shape
        room = self._reading["context_length"] - n_inputs + 1  # the last token that is written is not read
        if "max_length" in generate:
            generate["max_new_tokens"] = max(generate.pop("max_length") - n_inputs, 1)
        asked = generate.get("max_new_tokens")
        generate["max_new_tokens"] = room if asked is None else min(asked, room)
        sequences = self.model.generate(input_ids, attention_mask=mask, **{"do_sample": True, **generate})
        written_ids = sequences[:, n_inputs:].unflatten(0, (n_rows, -1))  # several of a text: num_return_sequences
        return {"prompt": model_inputs["prompt"], "written_ids": written_ids}

    def postprocess(self, model_outputs: dict[str, Any], return_full_text: bool = True) -> list[dict[str, str]]:
        """Give the texts in reading order."""
        written: Tensor = model_outputs["written_ids"][0]
        prompt = model_outputs["prompt"] if return_full_text else ""
        texts = [self._text_of(ids) for ids in written.tolist()]
        return [{"generated_text": text + prompt if self._writes_before else prompt + text} for text in texts]

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save the model, the tokenizer, and the code of this pipeline, which transformers would leave behind."""
        super().save_pretrained(save_directory, **kwargs)
        code = sys.modules[type(self).__module__].__file__
        for path in Path(code or __file__).parent.glob("*.py"):
            if path.name != "__init__.py":
                shutil.copyfile(path, Path(save_directory, path.name))

    def _text_of(self, ids: list[int]) -> str:
        text = self.tokenizer.decode(self._turned(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return self.as_tokenized(text)

    def _turned(self, ids: list[int]) -> list[int]:
        return ids[::-1] if self._is_backward else ids

    @property
    def _is_backward(self) -> bool:
        return "backward" in self._reading["start_ids"]

    @property
    def _writes_before(self) -> bool:
        """Whether the text grows at its beginning: reversed text that is read backward grows at its end."""
        return self._is_backward != self._reading["reversed_text"]

    @property
    def _reading(self) -> dict[str, Any]:
        return self.model.config.hindsight

    @property
    def _start_id(self) -> int:
        starts = self._reading["start_ids"]
        return starts.get("backward", next(iter(starts.values())))
