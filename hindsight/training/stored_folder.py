"""The weights in a folder of Hugging Face: safetensors, or pytorch_model.bin, each in one file or in several.

A model of ours that transformers does not have was exported with our names; GPT-2 and Llama have those of hf_weights.
"""

import zipfile
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hindsight.config.model import Block, GPTConfig, ModelConfig
from hindsight.errors import InputError
from hindsight.files import read_json
from hindsight.hf_weights import EMBEDDING, HEAD, from_hugging_face, names_of

Load = Callable[[Path], dict[str, Tensor]]
MAX_INDEX_BYTES = 1 << 26
OUTER = {Block.gpt2: "transformer.", Block.llama: "model."}
"""What stands before all names but that of the head; files of a model without a head leave it out."""


def weights_in(folder: Path, config: ModelConfig, where: str) -> dict[str, Tensor]:
    """Read the weights of a model by our names, as float32 on the CPU.

    Args:
        folder: the folder.
        config: the model that they are for; what its config.json says was compared with it.
        where: how messages name the folder.

    Raises:
        InputError: weights are missing, damaged, or of another shape.
    """
    stored = _stored(folder, where)
    if not isinstance(config, GPTConfig) or config.own_model_type is not None:
        tied = {HEAD: stored[EMBEDDING]} if config.tied_head and EMBEDDING in stored else {}
        return {name: weight.float() for name, weight in (stored | tied).items()}
    prefix = OUTER[config.block]
    if not any(name.startswith(prefix) for name in stored):
        stored = {name if name.startswith("lm_head.") else prefix + name: weight for name, weight in stored.items()}
    wanted = names_of(config)
    missing = [name for names in wanted for name in names.theirs if name not in stored]
    if missing:
        advice = "; with model.tied_head=true there is none" if missing[0].startswith("lm_head.") else ""
        raise InputError(f"{where} has no {missing[0]} ({len(missing)} weights are missing){advice}.")
    if config.block is Block.gpt2 and not config.has_bias:
        _require_no_biases(stored, where)
    try:
        return {name: weight.float() for name, weight in from_hugging_face(stored, config).items()}
    except (RuntimeError, IndexError) as error:  # of torch.cat, for queries and keys that do not go together
        raise InputError(f"{where} has weights of another shape ({str(error).splitlines()[0]}).") from None


def _stored(folder: Path, where: str) -> dict[str, Tensor]:
    """Read all tensors of a folder, by Hugging Face's names."""
    for name, load in (("model.safetensors", load_file), ("pytorch_model.bin", _load_pickle)):
        try:
            if (folder / f"{name}.index.json").is_file():
                return _load_parts(folder, f"{name}.index.json", load)
            if (folder / name).is_file():
                return load(folder / name)
        except (
            OSError,
            ValueError,
            SafetensorError,
            RuntimeError,
            EOFError,
            UnpicklingError,
            zipfile.BadZipFile,
        ) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise InputError(f"{where}: {name} cannot be read ({reason}); copy the folder again.") from None
    raise InputError(f"{where} has neither model.safetensors nor pytorch_model.bin, in one file or with an index.")


def _load_parts(folder: Path, index: str, load: Load) -> dict[str, Tensor]:
    named = read_json(folder / index, MAX_INDEX_BYTES).get("weight_map")
    files = {str(file) for file in named.values()} if isinstance(named, dict) else {""}
    if not all(Path(file).name == file for file in files):
        raise ValueError(f"{index} names files that are not in the folder")
    return {name: weight for file in sorted(files) for name, weight in load(folder / file).items()}


def _load_pickle(path: Path) -> dict[str, Tensor]:
    """Read what torch.save wrote, by the unpickler that builds tensors and runs nothing."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or not all(isinstance(weight, Tensor) for weight in content.values()):
        raise ValueError("it holds something else than weights by name")
    return content


def _require_no_biases(stored: dict[str, Tensor], where: str) -> None:
    for name, weight in stored.items():
        if name.endswith((".c_attn.bias", ".c_proj.bias", ".c_fc.bias")) and weight.any():
            raise InputError(f"{where} has biases that are not 0 ({name}); leave model.bias=false out.")
